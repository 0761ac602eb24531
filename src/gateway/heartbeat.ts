// Heartbeats: one timing wheel pings every connection in turn and cuts those that do not answer.

import { PING_FRAME, textFrame } from '../protocol/frames.ts';
import { PLAIN_PING } from '../protocol/plain.ts';
import type { Connection } from './connection.ts';

/** How finely the interval is divided, so that not all are pinged at once. */
const SLOTS = 64;

const PLAIN_PING_FRAME = textFrame(PLAIN_PING);

/** A wheel with two hands: one pings a slot, the other follows at the pong time-out and cuts whoever has sent
 * nothing in between. A frozen peer is gone after one interval and one time-out at the most. */
export class Heartbeat {
  readonly #slots: Set<Connection>[] = Array.from({ length: SLOTS }, () => new Set());
  readonly #slotOf = new WeakMap<Connection, Set<Connection>>();
  readonly #lagSlots: number;
  readonly #cut: (connection: Connection) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #startMs = performance.now();
  readonly #slotMs: number;
  #ticks = 0;
  #nextSlot = 0;

  /** `cut` ends a connection without a closing handshake, as nothing would come back. */
  constructor(intervalMs: number, pongTimeoutMs: number, cut: (connection: Connection) => void) {
    this.#cut = cut;
    this.#slotMs = intervalMs / SLOTS;
    this.#lagSlots = Math.max(1, Math.min(SLOTS - 1, Math.ceil((pongTimeoutMs / intervalMs) * SLOTS)));
    // Not in the timer itself: after a stall (a frozen pod, a long collection) timers run before the pongs that have
    // come meanwhile are read, and everybody would be cut.
    this.#timer = setInterval(() => setImmediate(() => this.#turn()), this.#slotMs).unref();
  }

  /** How many connections the wheel holds: for leak tests. */
  get size(): number {
    return this.#slots.reduce((sum, slot) => sum + slot.size, 0);
  }

  add(connection: Connection): void {
    const slot = this.#slots[this.#nextSlot++ % SLOTS] ?? new Set();
    slot.add(connection);
    this.#slotOf.set(connection, slot);
  }

  remove(connection: Connection): void {
    this.#slotOf.get(connection)?.delete(connection);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Turns as far as the time says, so that a late timer does not stretch the interval; but never two pings for
   * one slot at once. */
  #turn(): void {
    const due = Math.floor((performance.now() - this.#startMs) / this.#slotMs);
    this.#ticks = Math.max(this.#ticks, due - SLOTS + 1);
    for (; this.#ticks < due; this.#ticks += 1) {
      for (const connection of this.#slots[(this.#ticks - this.#lagSlots + SLOTS) % SLOTS] ?? []) this.#check(connection);
      for (const connection of this.#slots[this.#ticks % SLOTS] ?? []) this.#ping(connection);
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
