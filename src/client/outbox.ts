// The outbox: what the application has asked of the gateway and was not answered yet, in order. It outlives connections.

import { ClientError, errorOf } from './errors.ts';
import type { Answer, Frame, Link } from './link.ts';
import type { Platform } from './platform.ts';
import { backoffMs, type Settings } from './settings.ts';
import { Timer } from './timer.ts';

/** How many commands are on their way at once: fewer than what makes a gateway close a connection that is over its
 * rate, since so many may be over it before the first answer says so. */
const WINDOW = 16;

/** How often a command is tried that is answered with a retryable error, not counting those over the rate. */
const MAX_ATTEMPTS = 8;

/** Once a gateway has said that the rate is exceeded, commands leave one at a time. The time between two is doubled
 * when it says so again, and shrinks with each that passes, until it is too short to matter. */
const FIRST_PACE_MS = 10;
const LAST_PACE_MS = 1;
const PACE_SHRINK = 0.95;

/** What `"ref":…,` adds to a command, with room to spare. */
const REF_BYTES = 32;

/** A command to send. Doing it twice does no harm, so it is sent again where the answer was lost. */
export interface Sending {
  /** JSON text, without `ref`. */
  readonly command: string;
  /** Not while there are two connections: the gateway would leave out only one of them. */
  readonly alone?: boolean;
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

/** Sends commands in order, and those again that got no answer. */
export class Outbox {
  readonly #settings: Settings;
  readonly #platform: Platform;
  readonly #pause: Timer;
  readonly #entries = new Set<Entry>();
  #bytes = 0;
  #onTheirWay = 0;
  #link: Link | undefined;
  #overlapping = false;
  #paceMs = 0;

  constructor(settings: Settings, platform: Platform) {
    this.#settings = settings;
    this.#platform = platform;
    this.#pause = new Timer(platform);
  }

  /** Sends a command as soon as that is possible, and resolves with its `ok`.
   * @throws {ClientError} what the gateway says, `queue_full`, `too_large` or `closed`. */
  add(sending: Sending): Promise<Frame> {
    const { maxQueued, maxQueuedBytes } = this.#settings;
    const bytes = new TextEncoder().encode(sending.command).length;
    return new Promise((resolve, reject) => {
      if (this.#entries.size >= maxQueued || this.#bytes + bytes > maxQueuedBytes) {
        const message = `${this.#entries.size} commands (${this.#bytes} bytes) are unanswered.`;
        return reject(new ClientError('queue_full', message, { retryable: true }));
      }
      this.#entries.add({ ...sending, bytes, resolve, reject, attempts: 0, onItsWay: false, paceMs: 0 });
      this.#bytes += bytes;
      this.#pump();
    });
  }

  /** From now on commands leave by this link. `overlapping`: there is another one still, or already. */
  use(link: Link | undefined, overlapping: boolean): void {
    this.#link = link;
    this.#overlapping = overlapping;
    this.#pump();
  }

  /** This link is gone. Where it was the one that is used, commands wait for the next. */
  left(link: Link): void {
    this.use(this.#link === link ? undefined : this.#link, false);
  }

  /** Rejects everything that waits. */
  close(error: ClientError): void {
    this.#link = undefined;
    this.#pause.clear();
    for (const entry of this.#entries) this.#settle(entry).reject(error);
  }

  #pump(): void {
    const link = this.#link;
    if (link === undefined || this.#pause.isSet) return;
    for (const entry of this.#entries) {
      if (this.#onTheirWay >= WINDOW) return;
      if (entry.onItsWay || (entry.alone && this.#overlapping)) continue;
      if (entry.bytes + REF_BYTES > link.maxMessageBytes) {
        // The gateway would close the connection.
        const message = `${entry.bytes} bytes: the gateway takes ${link.maxMessageBytes}.`;
        this.#settle(entry).reject(new ClientError('too_large', message));
        continue;
      }
      entry.onItsWay = true;
      entry.paceMs = this.#paceMs;
      this.#onTheirWay += 1;
      link.request(entry.command, (answer) => this.#answered(entry, answer));
      if (this.#paceMs > 0) {
        this.#pumpAfter(this.#paceMs);
        return;
      }
    }
  }

  #pumpAfter(ms: number): void {
    this.#pause.set(ms, () => this.#pump());
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
    }
    this.#pump();
  }

  #failed(entry: Entry, error: ClientError): void {
    const { retryAfterMs = 0 } = error;
    let waitMs = backoffMs(this.#settings, entry.attempts, this.#platform.random());
    if (error.code === 'rate_limited') {
      // It was not done, so it may always be sent again. Those that left before the pace was last slowed down say
      // nothing about it.
      if (entry.paceMs >= this.#paceMs)
        this.#paceMs = Math.max(FIRST_PACE_MS, retryAfterMs, entry.paceMs * 2);
      waitMs = this.#paceMs;
    } else if (!error.retryable || ++entry.attempts === MAX_ATTEMPTS) {
      this.#settle(entry).reject(error);
      return;
    }
    this.#pumpAfter(Math.max(retryAfterMs, waitMs));
  }

  #settle(entry: Entry): Entry {
    this.#entries.delete(entry);
    this.#bytes -= entry.bytes;
    if (entry.onItsWay) this.#onTheirWay -= 1;
    return entry;
  }
}
