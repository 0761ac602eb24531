// Bans and disconnects: what an application orders about a user, carried to every pod.

import { type Bus, CONTROL_TOPIC } from '../bus/bus.ts';
import type { Report } from '../platform/logs.ts';
import { isName } from '../protocol/names.ts';

/** Stands for the code that the close table has for it. */
const DEFAULT_CODE = 0;

/** How long to wait before bans that could not be learned are asked for again. */
const RETRY_MS = 250;

/** An order to every pod. Times are ms since 1970. */
export interface Disconnect {
  readonly user: string;
  /** From 4000 to 4999, or 0: the usual one. */
  readonly code: number;
  readonly reason: string;
  /** Absent: the user may come back at once. */
  readonly bannedUntilMs?: number;
}

/** Knows who is banned, and gives and takes orders to disconnect. Bans are kept on the bus and copied to every
 * pod, so that an upgrade need not ask for them and they hold while the bus is away. */
export class Bans {
  readonly #bus: Bus;
  readonly #report: Report;
  readonly #disconnect: (order: Disconnect) => void;
  #until = new Map<string, number>();
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `disconnect` closes the user's connections on this pod. */
  constructor(bus: Bus, report: Report, disconnect: (order: Disconnect) => void) {
    this.#bus = bus;
    this.#report = report;
    this.#disconnect = disconnect;
  }

  /** Hears orders from now on, and learns those that were given before. */
  async start(): Promise<void> {
    await this.#bus.subscribe(CONTROL_TOPIC);
    await this.reload();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
  }

  /** How many bans are remembered: for leak tests. */
  get size(): number {
    return this.#until.size;
  }

  isBanned(user: string): boolean {
    const untilMs = this.#until.get(user);
    if (untilMs === undefined) return false;
    if (untilMs > Date.now()) return true;
    this.#until.delete(user);
    return false;
  }

  /** Orders every pod to close the user's connections, and remembers the ban first, where there is one.
   * @throws {TidegateError} `bus_unavailable`: nothing may have happened; call again. */
  async order(order: Disconnect): Promise<void> {
    if (order.bannedUntilMs !== undefined) await this.#bus.store.ban(order.user, order.bannedUntilMs);
    await this.#bus.publish(CONTROL_TOPIC, Buffer.from(JSON.stringify(order)));
  }

  /** Takes an order from the bus. Total: what is none does nothing. */
  receive(bytes: Buffer): void {
    let order: unknown;
    try {
      order = JSON.parse(bytes.toString());
    } catch {
      return;
    }
    if (!isDisconnect(order)) return;
    if (order.bannedUntilMs !== undefined) this.#remember(order.user, order.bannedUntilMs);
    this.#disconnect(order);
  }

  /** Learns all bans anew, after orders may have been missed, and carries them out. Those that the bus has lost,
   * as a Redis that keeps nothing on disk does, hold here until they end. Goes on trying where it cannot: a bus that
   * brings messages again need not take questions yet. */
  async reload(): Promise<void> {
    const isRepeat = this.#retry !== undefined;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    try {
      for (const [user, untilMs] of await this.#bus.store.bans()) {
        const isNew = !this.#until.has(user);
        this.#remember(user, untilMs);
        if (isNew && this.isBanned(user)) this.#disconnect({ user, code: DEFAULT_CODE, reason: '' });
      }
    } catch (error) {
      // Told once, however long it lasts.
      if (!isRepeat) this.#report('bans.reload', error);
      if (!this.#stopped) this.#retry = setTimeout(() => void this.reload(), RETRY_MS).unref();
    }
  }

  /** Lets go of bans that have ended, two for each new one, so that the work is never in one piece. */
  #remember(user: string, untilMs: number): void {
    this.#until.set(user, untilMs);
    let looked = 0;
    for (const [other, otherUntilMs] of this.#until) {
      if (++looked > 2) break;
      this.#until.delete(other);
      if (otherUntilMs > Date.now()) this.#until.set(other, otherUntilMs);
    }
  }
}

function isDisconnect(value: unknown): value is Disconnect {
  if (typeof value !== 'object' || value === null) return false;
  const { user, code, reason, bannedUntilMs } = value as Record<string, unknown>;
  return (
    isName(user) &&
    (code === DEFAULT_CODE || (Number.isInteger(code) && Number(code) >= 4000 && Number(code) <= 4999)) &&
    typeof reason === 'string' &&
    (bannedUntilMs === undefined || typeof bannedUntilMs === 'number')
  );
}
