// A proxy in front of Redis that can be aimed at another server, as an address that follows the master, and that can
// swallow one Pub/Sub message, which Redis itself never tells of.

import { connect, createServer, type Socket } from 'node:net';

const host = '127.0.0.1';

/** A running proxy. */
export interface RedisProxy {
  readonly port: number;
  /** Leads to another server from now on. Connections to the old one are cut. */
  aim(port: number): void;
  /** Lets the next Pub/Sub message in which the text occurs vanish. Resolves when it has. */
  swallow(text: string): Promise<void>;
  stop(): Promise<void>;
}

/** How a Pub/Sub message begins, in either version of the protocol. Replies that hold the same text do not. */
const MESSAGE = /^[*>]3\r\n\$[78]\r\ns?message\r\n/;

/** Starts a proxy on a free port. */
export async function startRedisProxy(target: number): Promise<RedisProxy> {
  let aimedAt = target;
  let swallowing: { text: string; done: () => void } | undefined;
  const sockets = new Set<Socket>();

  const isSwallowed = (frame: Buffer) => {
    if (swallowing === undefined || !MESSAGE.test(frame.toString('latin1', 0, 40))) return false;
    if (!frame.includes(swallowing.text)) return false;
    swallowing.done();
    swallowing = undefined;
    return true;
  };
  const server = createServer((client) => {
    const redis = connect(aimedAt, host);
    client.setNoDelay();
    redis.setNoDelay();
    for (const [from, to] of [
      [client, redis],
      [redis, client],
    ] as const) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        to.destroySoon();
      });
    }
    client.on('data', (bytes) => redis.write(bytes));
    let waiting: Buffer = Buffer.alloc(0);
    redis.on('data', (bytes: Buffer) => {
      waiting = waiting.length === 0 ? bytes : Buffer.concat([waiting, bytes]);
      for (let end = replyEnd(waiting, 0); end !== -1; end = replyEnd(waiting, 0)) {
        const frame = waiting.subarray(0, end);
        if (!isSwallowed(frame)) client.write(frame);
        waiting = waiting.subarray(end);
      }
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  const cut = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  return {
    port: address.port,
    aim(port) {
      aimedAt = port;
      cut();
    },
    swallow: (text) =>
      new Promise((resolve) => {
        swallowing = { text, done: resolve };
      }),
    async stop() {
      cut();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Where the reply that begins at an offset ends; -1 where it is not complete yet. */
export function replyEnd(bytes: Buffer, at: number): number {
  const line = bytes.indexOf('\r\n', at);
  if (line === -1) return -1;
  const count = Number(bytes.toString('latin1', at + 1, line));
  const next = line + 2;
  switch (String.fromCharCode(bytes[at] ?? 0)) {
    case '$':
    case '=':
    case '!': {
      if (count < 0) return next;
      return bytes.length < next + count + 2 ? -1 : next + count + 2;
    }
    case '*':
    case '>':
    case '~':
      return repliesEnd(bytes, next, count);
    case '%':
    case '|':
      return repliesEnd(bytes, next, 2 * count);
    default:
      return next;
  }
}

function repliesEnd(bytes: Buffer, from: number, count: number): number {
  let at = from;
  for (let left = count; left > 0 && at !== -1; left -= 1) at = replyEnd(bytes, at);
  return at;
}
