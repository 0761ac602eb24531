// Recovery: how a connection comes into a durable channel. History first, page by page, then live, with nothing
// missed or doubled at the seam.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Metrics } from '../platform/metrics.ts';
import { TidegateError } from '../protocol/errors.ts';
import type { GapReason } from '../protocol/messages.ts';
import type { Position } from '../protocol/positions.ts';
import { MAX_LINKS } from '../protocol/traceparent.ts';
import { judge, type Place, placeOf, type Verdict } from './chain.ts';
import type { Connection } from './connection.ts';
import { type Fanout, Run } from './fanout.ts';
import type { Follower, Stretch } from './follower.ts';
import type { History } from './history.ts';
import type { Entering, Group } from './hub.ts';
import type { Traces } from './traces.ts';

/** Whether a client got back what it missed, and why not. */
export type Recovered =
  | { readonly recovered: true }
  | { readonly recovered: false; readonly reason: 'trimmed' | 'forked' | 'unknown' | 'limit' };

/** More than this is not brought up to date: such a client should load its state anew from the application. */
const MAX_MESSAGES = 10_000;
const MAX_BYTES = 16 * 1_048_576;

/** How long to wait before a log that could not be read is read again. */
const RETRY_MS = 250;

/** How much history is handed out in one turn of the event loop, to all who come back together: live messages and
 * everybody else get their turn in between. */
const BYTES_PER_TURN = 4 * 1_048_576;
const STEPS_PER_TURN = 200;

/** An entry that has been decided and not begun: say `ok`, then call `start`. */
export interface Entrance {
  /** The position the client is at once it has been told `ok`: its own if it recovers, else the channel's. */
  readonly position: Position | undefined;
  /** Undefined where the client had no position, or the channel is not durable. */
  readonly outcome: Recovered | undefined;
  start(): void;
}

/** A connection on its way into a durable channel. */
export interface Arrival {
  readonly entering: Entering;
  readonly follower: Follower;
  /** It is on this way still. */
  isEntering(): boolean;
  /** Lets it hear what comes from then on. */
  admit(): void;
}

/** What one connection has been given of the history. */
interface Given {
  bytes: number;
  messages: number;
  /** Of the messages that are sampled, some at least. */
  traceparents: readonly string[];
}

const NOTHING_GIVEN: Readonly<Given> = { bytes: 0, messages: 0, traceparents: [] };

/** Lets connections into durable channels. */
export class Recovery {
  readonly #history: History;
  readonly #fanout: Fanout;
  readonly #metrics: Metrics;
  readonly #traces: Traces | undefined;
  readonly #runs = new WeakMap<Stretch, Run>();
  #turn = { bytes: 0, steps: 0 };
  #queue: (() => void)[] = [];

  constructor(history: History, fanout: Fanout, metrics: Metrics, traces?: Traces) {
    this.#history = history;
    this.#fanout = fanout;
    this.#metrics = metrics;
    this.#traces = traces;
  }

  /** Decides what a connection that is arriving gets. `place` is where the client says it is.
   * @throws {TidegateError} `bus_unavailable` where the log cannot be read. */
  async decide(arrival: Arrival, place: Place | undefined): Promise<() => Entrance> {
    const { follower } = arrival;
    const { group } = arrival.entering;
    const startedAtMs = performance.now();
    const verdict = place === undefined ? undefined : await this.#judge(follower, place);
    // What follows is called when `ok` is about to be said, and speaks of that moment.
    return () => {
      const entrance = this.#entrance(arrival, verdict);
      const { outcome } = entrance;
      if (outcome !== undefined)
        this.#metrics.recoveries.inc({ outcome: outcome.recovered ? 'recovered' : outcome.reason });
      if (outcome?.recovered === false)
        this.#traces?.recovered(group, { startedAtMs, outcome: outcome.reason, ...NOTHING_GIVEN });
      return entrance;
    };
  }

  #entrance(arrival: Arrival, verdict: Verdict | undefined): Entrance {
    const { follower, admit } = arrival;
    const last = follower.last ?? { offset: 0, id: '0' };
    const live = { position: last, start: admit };
    if (verdict === undefined) return { ...live, outcome: undefined };
    if (verdict.kind !== 'continues') return { ...live, outcome: { recovered: false, reason: verdict.kind } };
    if (last.offset - verdict.at.offset > MAX_MESSAGES)
      return { ...live, outcome: { recovered: false, reason: 'limit' } };
    return {
      position: last,
      outcome: { recovered: true },
      start: () => void this.#catchUp(arrival, verdict.at),
    };
  }

  async #judge(follower: Follower, place: Place): Promise<Verdict> {
    await follower.settled();
    // A client may have heard more elsewhere than this pod has: look again before it is called a fork.
    if (place.offset > (follower.last?.offset ?? 0)) await follower.repair();
    if (follower.isBehind) throw new TidegateError('bus_unavailable', undefined, { retryAfterMs: 1000 });
    const { last } = follower;
    const known = follower.since(place);
    if (known !== undefined || last === undefined) return known ?? { kind: 'unknown' };
    const { entries } = await this.#history.from(follower.channel, place.offset, last);
    return judge(place, entries, last);
  }

  /** Hands out history until the connection has what the pod has delivered, and in that same moment lets it in. */
  async #catchUp({ entering, follower, isEntering, admit }: Arrival, from: Position): Promise<void> {
    const { connection, group } = entering;
    let at = from;
    const startedAtMs = performance.now();
    const given = { ...NOTHING_GIVEN };
    const end = (gap?: GapReason) => {
      if (gap !== undefined) this.#fanout.tellGap(connection, group, gap, follower.last);
      admit();
      this.#traces?.recovered(group, { startedAtMs, outcome: gap ?? 'recovered', ...given });
    };
    for (;;) {
      await this.#myTurn();
      if (connection.congested) await drained(connection);
      if (!isEntering()) return;
      const { last } = follower;
      if (last === undefined) return end('trimmed');
      let verdict = follower.since(placeOf(at));
      if (verdict === undefined) {
        try {
          const { entries } = await this.#history.from(follower.channel, at.offset + 1, last);
          verdict = judge(placeOf(at), entries, last);
        } catch {
          // The bus went away halfway. Nothing live can overtake while it is, so this can wait for it.
          await sleep(RETRY_MS, undefined, { ref: false });
          continue;
        }
        if (!isEntering()) return;
      }
      if (verdict.kind !== 'continues') return end(verdict.kind === 'trimmed' ? 'trimmed' : 'forked');
      // The pod may have gone on meanwhile, or back: only what it has delivered itself is history.
      const now = follower.last ?? last;
      const due = verdict.entries.filter((entry) => entry.offset <= now.offset);
      const reached = due.at(-1) ?? at;
      this.#send(connection, group, follower.stretch(at, due), given);
      at = { offset: reached.offset, id: reached.id };
      if (at.offset === now.offset) {
        return at.id === now.id ? end() : end('forked');
      }
      if (given.bytes > MAX_BYTES) return end('limit');
    }
  }

  #send(connection: Connection, group: Group, stretch: Stretch, given: Given): void {
    if (stretch.entries.length === 0) return;
    let run = this.#runs.get(stretch);
    if (run === undefined) {
      run = new Run(
        group.channel,
        stretch.entries.map((entry) => entry.message),
      );
      this.#runs.set(stretch, run);
    }
    const bytes = this.#fanout.sendRun(connection, group, run);
    this.#turn.bytes += bytes;
    given.bytes += bytes;
    given.messages += run.messages.length;
    if (this.#traces !== undefined)
      given.traceparents = [...given.traceparents, ...run.sampled].slice(0, MAX_LINKS);
  }

  /** Waits for a place in a turn of the event loop. */
  async #myTurn(): Promise<void> {
    if (this.#queue.length === 0 && this.#turn.steps < STEPS_PER_TURN && this.#turn.bytes < BYTES_PER_TURN) {
      if (this.#turn.steps++ === 0) setImmediate(() => this.#nextTurn());
      return;
    }
    await new Promise<void>((resolve) => this.#queue.push(resolve));
  }

  #nextTurn(): void {
    this.#turn = { bytes: 0, steps: Math.min(STEPS_PER_TURN, this.#queue.length) };
    if (this.#turn.steps === 0) return;
    for (const resolve of this.#queue.splice(0, STEPS_PER_TURN)) resolve();
    setImmediate(() => this.#nextTurn());
  }
}

/** Resolves when the connection has taken what waits for it, or is gone. */
function drained({ socket }: Connection): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed || !socket.writableNeedDrain) return resolve();
    const done = () => {
      socket.off('drain', done);
      socket.off('close', done);
      resolve();
    };
    socket.on('drain', done);
    socket.on('close', done);
  });
}
