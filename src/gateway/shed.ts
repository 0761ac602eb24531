// Shedding: asking some connections to move to another pod, paced, while this one stays. The operator sets a ceiling;
// what is above it is asked, and moving clients that arrive while it is reached are turned away by the listener.

import type { Metrics } from '../platform/metrics.ts';
import { closes } from '../protocol/close.ts';
import { type Ceiling, ceilingDefaults, type Terms } from './ceiling.ts';
import type { Connection } from './connection.ts';
import type { Fanout } from './fanout.ts';
import type { Sessions } from './session.ts';

/** One timer for all, and only while there is something to do. */
const STEP_MS = 200;

/** A client that is asked looks for another pod for so long; then it stays, and is left alone for a while. */
const GIVE_UP_MS = 15_000;
const ASK_AGAIN_MS = 60_000;

/** A try that a client has begun before it gives up may end so much later: until then it may still leave, unless it says
 * that it stays. */
const LAST_TRY_MS = 15_000;

/** A client that cannot move is closed so long after its goodbye. */
const LEAVE_MS = 5000;

/** Clients that are asked in one step come to their next pod within this time, not all at once. */
const MAX_HINT_MS = 1000;

/** What became of those who were asked: since the start, but for `outstanding`. */
export interface ShedCounts {
  readonly asked: number;
  /** They left by themselves, for another pod or for good. */
  readonly moved: number;
  /** They found no other pod in time. */
  readonly stayed: number;
  /** The gateway closed them: they cannot move, or something else came between. */
  readonly closed: number;
  /** Nothing is known yet. */
  readonly outstanding: number;
}

/** A ceiling as it stands now. */
export interface StandingCeiling {
  readonly connections: number;
  readonly expiresInMs: number;
}

type Result = 'moved' | 'stayed' | 'closed';

/** What is needed of the sessions: all that have not ended. */
type Open = Pick<Sessions, 'size' | 'close' | typeof Symbol.iterator>;

/** Keeps the ceiling, and sheds what is above it. */
export class Shedder {
  readonly #sessions: Open;
  readonly #fanout: Pick<Fanout, 'send'>;
  readonly #metrics: Metrics;
  readonly #counts = { asked: 0, moved: 0, stayed: 0, closed: 0 };
  /** Who was asked and has not left yet, and until when that is waited for; the earliest first. */
  readonly #outstanding = new Map<Connection, number>();
  #ceiling: Ceiling | undefined;
  #expiresAtMs = 0;
  /** How many may be asked now; grows with time. */
  #allowance = 0;
  #steppedAtMs = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(sessions: Open, fanout: Pick<Fanout, 'send'>, metrics: Metrics) {
    this.#sessions = sessions;
    this.#fanout = fanout;
    this.#metrics = metrics;
    metrics.ceiling.read = () => this.ceiling?.connections ?? Infinity;
    metrics.shedOutstanding.read = () => this.#outstanding.size;
  }

  /** The ceiling that stands; undefined once it has expired. */
  get ceiling(): StandingCeiling | undefined {
    const expiresInMs = Math.ceil(this.#expiresAtMs - performance.now());
    if (this.#ceiling === undefined || expiresInMs <= 0) return undefined;
    return { connections: this.#ceiling.connections, expiresInMs };
  }

  get counts(): ShedCounts {
    return { ...this.#counts, outstanding: this.#outstanding.size };
  }

  /** How many connections could be asked now, on the terms of the ceiling or else of the defaults. */
  countMovable(): number {
    const terms = this.ceiling === undefined ? ceilingDefaults : (this.#ceiling ?? ceilingDefaults);
    let movable = 0;
    for (const connection of this.#sessions) if (mayBeAsked(connection, terms)) movable += 1;
    return movable;
  }

  /** How many connections have clients that cannot move, and would have to be closed. */
  countImmovable(): number {
    let immovable = 0;
    for (const connection of this.#sessions) if (!connection.moves) immovable += 1;
    return immovable;
  }

  /** Puts a ceiling in the place of the last one. */
  set(ceiling: Ceiling): void {
    this.#ceiling = ceiling;
    this.#expiresAtMs = performance.now() + ceiling.expiresAfterMs;
    if (this.#timer !== undefined) return;
    this.#steppedAtMs = performance.now();
    this.#timer = setInterval(() => this.#step(), STEP_MS).unref();
  }

  /** Takes the ceiling away. Who was asked already may still move. */
  lift(): void {
    this.#ceiling = undefined;
  }

  /** Nobody is asked any more, and nobody is waited for. */
  stop(): void {
    this.lift();
    this.#outstanding.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #step(): void {
    const nowMs = performance.now();
    const elapsedMs = nowMs - this.#steppedAtMs;
    this.#steppedAtMs = nowMs;
    this.#settle(nowMs);
    if (this.ceiling === undefined || this.#ceiling === undefined) {
      if (this.#outstanding.size === 0) this.stop();
      return;
    }
    const { connections, shedPerSecond, order } = this.#ceiling;
    // After a stall the rate is not made up for.
    const most = Math.max(1, (shedPerSecond * STEP_MS) / 1000);
    this.#allowance = Math.min(most, this.#allowance + (shedPerSecond * elapsedMs) / 1000);
    // Those who were asked are still here, so this never asks more than there are above the ceiling.
    const tooMany = this.#sessions.size - connections - this.#outstanding.size;
    const count = Math.min(Math.floor(this.#allowance), tooMany);
    if (count <= 0) return;
    const candidates = movable(this.#sessions, this.#ceiling);
    const chosen = order === 'oldest' ? [...candidates.take(count)] : sample(candidates, count);
    for (const connection of chosen) this.#ask(connection, nowMs);
  }

  #ask(connection: Connection, nowMs: number): void {
    connection.askedAtMs = nowMs;
    connection.stays = false;
    this.#allowance -= 1;
    this.#counts.asked += 1;
    this.#metrics.shed.inc({ result: 'asked' });
    const reconnectAfterMs = Math.round(Math.random() * MAX_HINT_MS);
    const goodbye = { type: 'goodbye', code: closes.shed.code, reconnectAfterMs } as const;
    if (connection.moves) {
      this.#outstanding.set(connection, nowMs + GIVE_UP_MS + LAST_TRY_MS);
      this.#fanout.send(connection, { ...goodbye, move: true, giveUpAfterMs: GIVE_UP_MS });
      return;
    }
    this.#outstanding.set(connection, nowMs + LEAVE_MS);
    if (connection.protocol === 'v1') this.#fanout.send(connection, { ...goodbye, closeAfterMs: LEAVE_MS });
    else this.#close(connection, reconnectAfterMs);
  }

  #close(connection: Connection, reconnectAfterMs: number): void {
    const reason = `${closes.shed.reason}; reconnect after ${reconnectAfterMs} ms`;
    this.#sessions.close(connection, closes.shed, reason);
  }

  /** Looks what has become of those who were asked. One that is being closed still counts as a connection, so it is
   * outstanding until it is gone. */
  #settle(nowMs: number): void {
    for (const [connection, untilMs] of this.#outstanding) {
      if (connection.hasEnded)
        this.#became(connection, connection.closedWith === undefined ? 'moved' : 'closed');
      else if ((nowMs < untilMs && !connection.stays) || !connection.isOpen) continue;
      else if (connection.moves) this.#became(connection, 'stayed');
      else this.#close(connection, Math.round(Math.random() * MAX_HINT_MS));
    }
  }

  #became(connection: Connection, result: Result): void {
    this.#outstanding.delete(connection);
    this.#counts[result] += 1;
    this.#metrics.shed.inc({ result });
  }
}

/** Who may be asked, in the order in which they came. */
function* movable(connections: Iterable<Connection>, terms: Terms): Generator<Connection, undefined> {
  for (const connection of connections) if (mayBeAsked(connection, terms)) yield connection;
}

function mayBeAsked(connection: Connection, { minAgeSeconds, plain }: Terms): boolean {
  return (
    (connection.moves || plain) &&
    connection.isOpen &&
    performance.now() - connection.openedAtMs >= minAgeSeconds * 1000 &&
    (connection.askedAtMs === undefined || performance.now() - connection.askedAtMs >= ASK_AGAIN_MS)
  );
}

/** So many of them at random, each as likely as any other, in one pass. */
function sample<T>(items: Iterable<T>, count: number): T[] {
  const chosen: T[] = [];
  let seen = 0;
  for (const item of items) {
    seen += 1;
    if (chosen.length < count) {
      chosen.push(item);
      continue;
    }
    const at = Math.floor(Math.random() * seen);
    if (at < count) chosen[at] = item;
  }
  return chosen;
}
