// A TCP load balancer for tests: takes turns between servers or picks at random, and passes over those that do not
// accept.

import { createServer, connect as openSocket, type Socket } from 'node:net';

const host = '127.0.0.1';

export type Balancer = {
  readonly port: number;
  /** From now on new connections go to these ports of 127.0.0.1, in turn. Open ones stay where they are. */
  use(...targets: number[]): void;
  /** From now on each new connection goes to any of them, as a balancer does that many instances make up. */
  pickAtRandom(): void;
  /** Cuts everything and stops listening. */
  stop(): Promise<void>;
};

/**
 * Starts a load balancer on a free port.
 *
 * @example
 * const balancer = await startBalancer(one.ports.ws, two.ports.ws);
 * balancer.use(two.ports.ws); // the first is not ready any more
 */
export async function startBalancer(...targets: number[]): Promise<Balancer> {
  const sockets = new Set<Socket>();
  let turn = 0;
  let random = false;
  const server = createServer((client) => {
    sockets.add(client);
    client.once('close', () => sockets.delete(client));
    client.on('error', () => {});
    lead(client, targets.length);
  });

  /** Connects a client to the server whose turn it is, or to the next that accepts. */
  function lead(client: Socket, tries: number): void {
    const target = targets[(random ? Math.floor(Math.random() * targets.length) : turn++) % targets.length];
    if (target === undefined || tries === 0) {
      client.resetAndDestroy();
      return;
    }
    const upstream = openSocket(target, host);
    upstream.once('error', () => lead(client, tries - 1));
    upstream.once('connect', () => {
      upstream.removeAllListeners('error');
      join(client, upstream);
      join(upstream, client);
    });
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the balancer has no port');
  return {
    port: address.port,
    use(...others) {
      targets.splice(0, targets.length, ...others);
    },
    pickAtRandom() {
      random = true;
    },
    async stop() {
      for (const socket of sockets) socket.resetAndDestroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

function join(from: Socket, to: Socket): void {
  from.on('error', () => to.resetAndDestroy());
  from.pipe(to);
  from.on('close', () => to.destroySoon());
}
