// Free TCP ports for the servers that tests start.

import { createServer } from 'node:net';

// Below the range from which Linux, macOS and Windows take the ports of outgoing connections. From inside
// it, a server that is down for a while can find its port taken by one of its own clients, even by one
// that, reconnecting, has connected to itself.
const firstPort = 20_000;
const lastPort = 30_000; // where the node ports of a Kubernetes on this machine begin

/** Into so many parts the ports are divided, one for each of vitest's workers: what one is given and does not listen on
 * yet looks free to the others. */
const parts = 8;
const portsEach = (lastPort - firstPort) / parts;
const firstOwnPort = firstPort + (Number(process.env.VITEST_POOL_ID ?? 0) % parts) * portsEach;

const taken = new Set<number>();

/** A port of 127.0.0.1 on which nothing listens, and which this worker is not given again. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = firstOwnPort + Math.floor(Math.random() * portsEach);
    if (taken.has(port) || !(await isFree(port))) continue;
    taken.add(port);
    return port;
  }
}

/** Whether nothing listens on this port of 127.0.0.1. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}
