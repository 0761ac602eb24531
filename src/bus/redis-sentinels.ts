// Sentinels: what they say when the master has become another one. ioredis can watch them too, but does so once for
// each connection to Redis, and writes to standard error whenever a Sentinel does not answer.

import type { RedisConnection } from './redis-connection.ts';

const CHANNEL = '+switch-master';

/** Listens to all Sentinels of an address. */
export class RedisSentinels {
  readonly #connections: readonly RedisConnection[];

  /** `onSwitch` is told where the master that Sentinel knows by this name is now: by each Sentinel, as soon as that
   * one would answer so. */
  constructor(
    connections: readonly RedisConnection[],
    name: string,
    onSwitch: (host: string, port: number) => void,
  ) {
    this.#connections = connections;
    for (const connection of connections) {
      connection.redis.on('ready', () => {
        connection.call('subscribe', [CHANNEL]).catch(() => connection.renew());
      });
      connection.redis.on('message', (_, text) => {
        const [what, , , host, port] = text.split(' ');
        if (what === name && host !== undefined) onSwitch(host, Number(port));
      });
    }
  }

  open(): void {
    for (const connection of this.#connections) connection.open();
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}
