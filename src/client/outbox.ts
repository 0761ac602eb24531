// The outbox: what the application has asked of the gateway and was not answered yet, in order. It outlives connections.

import { type Backoff, backoffMs } from './backoff.ts';
import { ClientError } from './errors.ts';
import type { Answer, Frame, Link } from './link.ts';
import type { Cancel, Platform } from './platform.ts';

/** How many commands are on their way at once: less than what makes a gateway close a connection that is over its
 * rate, since so many may be over it before the first answer says so. */
const WINDOW = 16;

/** How often a command is tried that is answered with a retryable error, not counting those over the rate. */
const MAX_ATTEMPTS = 8;

/** Once a gateway has said that the rate is exceeded, commands leave one at a time. The time between two is doubled
 * when it says so again, and shrinks with each that passes, until it is too short to matter. */
const FIRST_PACE_MS = 10;
const LAST_PACE_MS = 1;
const PACE_SHRINK = 0.95;

/** A command to send. */
export interface Sending {
  /** JSON text, without `ref`. */
  readonly command: string;
  /** Doing it twice does no harm, so it is asked again where the answer was lost. */
  readonly repeatable: boolean;
  /** Not while there are two connections: the gateway would leave out only one of them. */
  readonly alone: boolean;
}

/** What is kept in the outbox. */
interface Entry extends Sending {
  readonly bytes: number;
  readonly resolve: (answer: Frame) => void;
  readonly reject: (error: ClientError) => void;
  attempts: number;
  onItsWay: boolean;
  /** How fast it was sent. */
  paceMs: number;
}

/** What the outbox is made with. */
export interface OutboxOptions {
  readonly maxQueued: number;
  readonly maxQueuedBytes: number;
  readonly backoff: Backoff;
  readonly platform: Platform;
}

/** Sends commands in order, and those again that got no answer. */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #entries = new Set<Entry>();
  #bytes = 0;
  #onTheirWay = 0;
  #link: Link | undefined;
  #overlapping = false;
  #paceMs = 0;
  #cancelPause: Cancel | undefined;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** Sends a command as soon as that is possible, and resolves with its `ok`.
   * @throws {ClientError} what the gateway says, `queue_full`, `too_large`, `unanswered` or `closed`. */
  add(sending: Sending): Promise<Frame> {
    const { maxQueued, maxQueuedBytes } = this.#options;
    const bytes = byteLength(sending.command);
    return new Promise((resolve, reject) => {
      if (this.#entries.size >= maxQueued || this.#bytes + bytes > maxQueuedBytes) {
        const waiting = `${this.#entries.size} commands of ${this.#bytes} bytes are unanswered`;
        reject(new ClientError('queue_full', `${waiting}; wait for some of them.`, { retryable: true }));
        return;
      }
      this.#entries.add({ ...sending, bytes, resolve, reject, attempts: 0, onItsWay: false, paceMs: 0 });
      this.#bytes += bytes;
      this.#pump();
    });
  }

  /** From now on commands leave by this link, or wait where there is none. `overlapping`: there is another one still. */
  use(link: Link | undefined, overlapping: boolean): void {
    this.#link = link;
    this.#overlapping = overlapping;
    this.#pump();
  }

  /** Rejects everything that waits. */
  close(error: ClientError): void {
    this.#link = undefined;
    this.#cancelPause?.();
    for (const entry of [...this.#entries]) this.#settle(entry).reject(error);
  }

  #pump(): void {
    const link = this.#link;
    if (link === undefined || this.#cancelPause !== undefined) return;
    for (const entry of this.#entries) {
      if (this.#onTheirWay >= WINDOW) return;
      if (entry.onItsWay || (entry.alone && this.#overlapping)) continue;
      if (entry.bytes + REF_BYTES > link.maxMessageBytes) {
        // The gateway would close the connection.
        const limit = `more than the ${link.maxMessageBytes} that the gateway takes`;
        this.#settle(entry).reject(new ClientError('too_large', `The command has ${entry.bytes} bytes, ${limit}.`));
        continue;
      }
      entry.onItsWay = true;
      entry.paceMs = this.#paceMs;
      this.#onTheirWay += 1;
      link.request(entry.command, (answer) => this.#answered(entry, answer));
      if (this.#paceMs > 0) return this.#pause(this.#paceMs);
    }
  }

  #answered(entry: Entry, answer: Answer): void {
    if (!this.#entries.has(entry)) return;
    entry.onItsWay = false;
    this.#onTheirWay -= 1;
    if (answer?.type === 'ok') {
      this.#paceMs = this.#paceMs > LAST_PACE_MS ? this.#paceMs * PACE_SHRINK : 0;
      this.#settle(entry).resolve(answer);
    } else if (answer !== undefined) {
      this.#failed(entry, errorOf(answer));
    } else if (!entry.repeatable) {
      const message = 'The connection was lost before the answer: it may or may not have arrived.';
      this.#settle(entry).reject(new ClientError('unanswered', message, { retryable: true }));
    }
    this.#pump();
  }

  #failed(entry: Entry, error: ClientError): void {
    const { backoff, platform } = this.#options;
    const isOverRate = error.code === 'rate_limited';
    // What was over the rate was not done, so it may always be asked again.
    if (!isOverRate && !(error.retryable && entry.repeatable && ++entry.attempts < MAX_ATTEMPTS)) {
      this.#settle(entry).reject(error);
      return;
    }
    const atLeastMs = error.retryAfterMs ?? 0;
    // Those that left before the pace was last slowed down say nothing about it.
    if (isOverRate && entry.paceMs >= this.#paceMs) {
      this.#paceMs = Math.min(backoff.capMs, Math.max(FIRST_PACE_MS, atLeastMs, entry.paceMs * 2));
    }
    const waitMs = isOverRate ? this.#paceMs : backoffMs(backoff, entry.attempts, platform.random());
    this.#pause(Math.max(atLeastMs, waitMs));
  }

  #pause(ms: number): void {
    this.#cancelPause?.();
    this.#cancelPause = this.#options.platform.after(ms, () => {
      this.#cancelPause = undefined;
      this.#pump();
    });
  }

  #settle(entry: Entry): Entry {
    this.#entries.delete(entry);
    this.#bytes -= entry.bytes;
    if (entry.onItsWay) this.#onTheirWay -= 1;
    return entry;
  }
}

/** What `"ref":…,` adds to a command, with room to spare. */
const REF_BYTES = 32;

/** How many bytes a text has as UTF-8. */
export function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** The error that an answer tells of. */
export function errorOf({ code, message, retryable, retryAfterMs }: Frame, channel?: string): ClientError {
  return new ClientError(code as ClientError['code'], String(message), {
    retryable: retryable === true,
    retryAfterMs: typeof retryAfterMs === 'number' ? retryAfterMs : undefined,
    channel,
  });
}
