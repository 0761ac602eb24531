// Heartbeats: one timing wheel pings every connection in turn and cuts those that do not answer.

import { PING_FRAME, textFrame } from '../protocol/frames.ts';
import { PLAIN_PING } from '../protocol/plain.ts';
import type { Connection } from './connection.ts';

/** How finely the interval is divided, so that not all are pinged at once. */
const SLOTS = 64;

const PLAIN_PING_FRAME = textFrame(PLAIN_PING);

/** A wheel that pings one slot after another, and cuts whoever has sent nothing within the time-out. A frozen peer is
 * gone after one interval and one time-out at the most. */
export class Heartbeat {
  readonly #slots: Set<Connection>[] = Array.from({ length: SLOTS }, () => new Set());
  readonly #slotOf = new WeakMap<Connection, Set<Connection>>();
  readonly #pongTimeoutMs: number;
  readonly #cut: (connection: Connection) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #startMs = performance.now();
  readonly #slotMs: number;
  /** Slots that were pinged and have not been checked, the earliest first. */
  readonly #pinged: { slot: Set<Connection>; atMs: number }[] = [];
  #ticks = 0;
  #added = 0;

  /** `cut` ends a connection without a closing handshake, as nothing would come back. */
  constructor(intervalMs: number, pongTimeoutMs: number, cut: (connection: Connection) => void) {
    this.#cut = cut;
    this.#slotMs = intervalMs / SLOTS;
    // A slot is checked before its next ping.
    this.#pongTimeoutMs = Math.min(pongTimeoutMs, intervalMs - this.#slotMs);
    // Not in the timer itself: after a stall (a frozen pod, a long collection) timers run before the pongs that have
    // come meanwhile are read.
    this.#timer = setInterval(() => setImmediate(() => this.#turn()), this.#slotMs).unref();
  }

  /** How many connections the wheel holds: for leak tests. */
  get size(): number {
    return this.#slots.reduce((sum, slot) => sum + slot.size, 0);
  }

  /** Its first ping comes half an interval to one interval from now: it has just shown that it is there, and those who
   * come together need not be pinged together for ever. */
  add(connection: Connection): void {
    const sooner = this.#added++ % (SLOTS / 2);
    const slot = this.#slots[(this.#ticks + SLOTS - 1 - sooner) % SLOTS] ?? new Set();
    slot.add(connection);
    this.#slotOf.set(connection, slot);
  }

  remove(connection: Connection): void {
    this.#slotOf.get(connection)?.delete(connection);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Turns as far as the time says, so that a late timer does not stretch the interval. But the time-out of a ping
   * begins when it is really sent: after a stall it would otherwise be over before any pong could come. */
  #turn(): void {
    const nowMs = performance.now();
    for (
      let [first] = this.#pinged;
      first && nowMs - first.atMs >= this.#pongTimeoutMs;
      [first] = this.#pinged
    ) {
      this.#pinged.shift();
      for (const connection of first.slot) this.#check(connection);
    }
    const due = Math.floor((nowMs - this.#startMs) / this.#slotMs);
    this.#ticks = Math.max(this.#ticks, due - SLOTS);
    for (; this.#ticks < due; this.#ticks += 1) {
      const slot = this.#slots[this.#ticks % SLOTS];
      if (slot === undefined || this.#pinged.some((it) => it.slot === slot)) continue;
      this.#pinged.push({ slot, atMs: nowMs });
      for (const connection of slot) this.#ping(connection);
    }
  }

  #ping(connection: Connection): void {
    connection.heard = false;
    if (!connection.isOpen) return;
    connection.socket.write(PING_FRAME);
    if (connection.protocol === 'plain' && connection.toldOfGaps) connection.socket.write(PLAIN_PING_FRAME);
  }

  #check(connection: Connection): void {
    if (!connection.heard) this.#cut(connection);
  }
}
