// A connection: one line to Redis that is kept up until it is closed, and can say why it is down.

import type { Socket } from 'node:net';
import type { Redis } from 'ioredis';

/** Of a command, its key among them, but without its name. */
export type Arguments = (string | number | Buffer)[];

/** Sends commands to the server that has their key, whatever form Redis has. */
export interface RedisCommands {
  call(command: string, args: Arguments): Promise<unknown>;
  /** The same, for answers that are bytes rather than text. */
  callBuffer(command: string, args: Arguments): Promise<unknown>;
}

/** How long to wait before a connection that ioredis has given up is opened again. */
const REOPEN_MS = 200;

/** Wraps a connection of ioredis. It reconnects by itself; {@link RedisConnector} sets up how. */
export class RedisConnection implements RedisCommands {
  readonly redis: Redis;
  #failure = 'not connected yet';
  #closed = false;
  #corked = false;
  #reopening: NodeJS.Timeout | undefined;

  constructor(redis: Redis) {
    this.redis = redis;
    redis.on('error', (error) => {
      this.#failure = reasonOf(error);
      // ioredis has lost count of the answers, and gives them to the wrong commands.
      if (this.#failure.startsWith('Command queue state error')) this.renew();
    });
    redis.on('ready', () => {
      this.#failure = 'the connection was closed';
    });
    // Cut while Sentinel is still being asked for the master, as a failover may do, ioredis gives up for good.
    redis.on('end', () => {
      if (!this.#closed) this.#reopening = setTimeout(() => this.open(), REOPEN_MS).unref();
    });
  }

  get ready(): boolean {
    return this.redis.status === 'ready';
  }

  /** Why it is down, for people. Undefined while it is up. */
  get failure(): string | undefined {
    return this.ready ? undefined : this.#failure;
  }

  /** Whether it leads to this address. */
  isAt(host: string, port: number): boolean {
    // Absent until the first connection is made.
    const stream: Socket | undefined = this.redis.stream;
    return stream?.remoteAddress === host && stream.remotePort === port;
  }

  open(): void {
    this.redis.connect().catch(() => {});
  }

  /** Cuts the connection, so that a new one is made: for one that looks alive and is not, or leads astray. */
  renew(): void {
    // Not while it is being looked up where to connect: ioredis would give up.
    if (this.ready || this.redis.status === 'connect') this.redis.disconnect(true);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#reopening);
    this.redis.disconnect();
  }

  /** Sends a command, in one write with all others of this turn of the event loop. Rejects at once where the
   * connection is down. */
  call(command: string, args: Arguments): Promise<unknown> {
    if (!this.ready) return Promise.reject(new Error(this.#failure));
    this.#cork();
    return this.redis.call(command, args);
  }

  callBuffer(command: string, args: Arguments): Promise<unknown> {
    if (!this.ready) return Promise.reject(new Error(this.#failure));
    this.#cork();
    return this.redis.callBuffer(command, args);
  }

  /** A write costs more than the command in it. */
  #cork(): void {
    if (this.#corked) return;
    const { stream } = this.redis;
    stream.cork();
    this.#corked = true;
    setImmediate(() => {
      this.#corked = false;
      stream.uncork();
    });
  }
}

/** What an error says, for people. One that stands for several, as for all addresses of a name, says nothing itself. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors.at(-1));
  return error instanceof Error ? error.message : String(error);
}
