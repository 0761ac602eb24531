// The probe: whether messages really cross the bus. Neither PING nor PUBSUB NUMSUB tells: both are answered by a
// Redis whose messages no longer reach this gateway.

import type { BusState } from './bus.ts';

/** What a probe needs of the lane it watches. */
export interface ProbeOptions {
  readonly topic: string;
  publish(topic: string, bytes: Buffer): Promise<unknown>;
  subscribe(topic: string): Promise<void> | undefined;
  /** A probe came back after so many seconds. */
  onReturn(seconds: number): void;
  /** Redis takes probes, but they do not come back: the subscription must be made anew. */
  onDeaf(): void;
  /** Redis has not taken a probe for so long. */
  onSilence(silentMs: number): void;
}

const INTERVAL_MS = 500;

/** A probe that has not come back after this is missed. Longer than a long garbage collection or a slow script. */
const MISSED_AFTER_MS = 1500;

/** Deaf for longer than this although the subscription was made anew: the pod is not fit for new connections. */
const DEAF_AFTER_MS = 5000;

/** Sends a probe through the bus at every interval and judges by what comes back. */
export class Probe {
  state: BusState = 'starting';
  reason = 'no probe has come back yet';
  /** Resolves when the first probe comes back. */
  readonly firstReturn: Promise<void>;
  #topic: string;
  readonly #options: ProbeOptions;
  readonly #resolveFirst: () => void;
  #timer: NodeJS.Timeout | undefined;
  #sequence = 0;
  /** The probe under way: its number, when it was sent, and when Redis took it (0: not yet). */
  #sent = { sequence: 0, atMs: 0, takenAtMs: 0, returned: true };
  #heardAtMs = 0;
  #takenAtMs = 0;
  #renewedAtMs = 0;

  constructor(options: ProbeOptions) {
    this.#options = options;
    this.#topic = options.topic;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.firstReturn = promise;
    this.#resolveFirst = resolve;
  }

  get topic(): string {
    return this.#topic;
  }

  start(): void {
    this.#heardAtMs = performance.now();
    this.#takenAtMs = this.#heardAtMs;
    this.#options.subscribe(this.#topic)?.then(() => this.#send());
    this.#timer = setInterval(() => this.#tick(), INTERVAL_MS);
    this.#timer.unref();
  }

  /** Goes on under another topic: the slot of the old one has moved to another node. */
  moveTo(topic: string): void {
    this.#topic = topic;
    this.#options.subscribe(topic);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#resolveFirst();
  }

  /** Takes the message if it is a probe. */
  hear(topic: string, bytes: Buffer): boolean {
    if (topic !== this.#topic) return false;
    const nowMs = performance.now();
    if (bytes.toString() === String(this.#sent.sequence) && !this.#sent.returned) {
      this.#sent.returned = true;
      this.#options.onReturn((nowMs - this.#sent.atMs) / 1000);
    }
    this.#heardAtMs = nowMs;
    this.state = 'up';
    this.reason = '';
    this.#resolveFirst();
    return true;
  }

  #tick(): void {
    const { returned, takenAtMs } = this.#sent;
    const nowMs = performance.now();
    if (!returned && takenAtMs > 0 && nowMs - takenAtMs > MISSED_AFTER_MS) {
      // A renewal needs a moment before it can be judged.
      if (nowMs - this.#renewedAtMs > MISSED_AFTER_MS) {
        this.#renewedAtMs = nowMs;
        this.#options.onDeaf();
      }
      if (this.state !== 'starting' && nowMs - this.#heardAtMs > DEAF_AFTER_MS) {
        this.state = 'deaf';
        this.reason = 'Redis takes messages, but they do not come back to this pod';
      }
    }
    if (returned || takenAtMs === 0 || nowMs - takenAtMs > MISSED_AFTER_MS) this.#send();
  }

  #send(): void {
    const sent = { sequence: ++this.#sequence, atMs: performance.now(), takenAtMs: 0, returned: false };
    this.#sent = sent;
    this.#options.publish(this.#topic, Buffer.from(String(sent.sequence))).then(
      () => {
        sent.takenAtMs = performance.now();
        this.#takenAtMs = sent.takenAtMs;
      },
      (error: unknown) => {
        if (this.state !== 'starting') this.state = 'down';
        this.reason = `Redis does not answer: ${error instanceof Error ? error.message : String(error)}`;
        this.#options.onSilence(performance.now() - this.#takenAtMs);
      },
    );
  }
}
