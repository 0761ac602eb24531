// Expiries: when each connection's token runs out. One wheel of seconds, no timer for each.

import type { Connection } from './connection.ts';

const TICK_MS = 1000;

/** Closes connections whose token has run out: a wheel of seconds. */
export class Expiries {
  readonly #bySecond = new Map<number, Set<Connection>>();
  readonly #expire: (connection: Connection) => void;
  readonly #timer: NodeJS.Timeout;

  constructor(expire: (connection: Connection) => void) {
    this.#expire = expire;
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  get size(): number {
    let size = 0;
    for (const connections of this.#bySecond.values()) size += connections.size;
    return size;
  }

  add(connection: Connection): void {
    if (connection.expiresAtMs === undefined) return;
    const second = secondOf(connection.expiresAtMs);
    const connections = this.#bySecond.get(second) ?? new Set();
    this.#bySecond.set(second, connections.add(connection));
  }

  /** Call it before `expiresAtMs` is changed. */
  remove(connection: Connection): void {
    if (connection.expiresAtMs === undefined) return;
    const second = secondOf(connection.expiresAtMs);
    const connections = this.#bySecond.get(second);
    connections?.delete(connection);
    if (connections?.size === 0) this.#bySecond.delete(second);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const now = Date.now() / TICK_MS;
    for (const [second, connections] of this.#bySecond) {
      if (second > now) continue;
      this.#bySecond.delete(second);
      for (const connection of connections) this.#expire(connection);
    }
  }
}

function secondOf(timeMs: number): number {
  return Math.ceil(timeMs / TICK_MS);
}
