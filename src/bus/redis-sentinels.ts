// Sentinels: what they say when the master has become another one. ioredis can watch them too, but does so once for
// each connection to Redis, and writes to standard error whenever a Sentinel does not answer.

import type { RedisConnection } from './redis-connection.ts';

const CHANNEL = '+switch-master';

/** Listens to all Sentinels of an address. */
export class RedisSentinels {
  readonly #connections: readonly RedisConnection[];
  /** What was said last: `name old-host old-port new-host new-port`. Every Sentinel says it. */
  #last = '';

  /** `onSwitch` is called once for each failover of the master that Sentinel knows by this name. */
  constructor(connections: readonly RedisConnection[], name: string, onSwitch: () => void) {
    this.#connections = connections;
    for (const connection of connections) {
      connection.redis.on('ready', () => {
        connection.call('subscribe', [CHANNEL]).catch(() => connection.renew());
      });
      connection.redis.on('message', (_, text) => {
        if (text === this.#last || !text.startsWith(`${name} `)) return;
        this.#last = text;
        onSwitch();
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
