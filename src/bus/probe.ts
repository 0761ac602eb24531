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
  /** Redis takes probes, but so many in a row did not come back. */
  onDeaf(missed: number): void;
  /** Redis did not take a probe. */
  onRefusal(): void;
  /** Redis has said nothing about probes for {@link STALLED_AFTER_MS}, neither yes nor no. */
  onStall(): void;
}

const INTERVAL_MS = 500;

/** A probe that has not come back after this is missed. Longer than a long garbage collection or a slow script. */
const MISSED_AFTER_MS = 1500;

/** Deaf for longer than this although the subscription was made anew: the pod is not fit for new connections. */
const DEAF_AFTER_MS = 5000;

/** A connection on which nothing was answered for so long is made anew: a line that was cut without a word would be
 * waited on for minutes. */
const STALLED_AFTER_MS = 2500;

interface Sent {
  readonly text: string;
  readonly atMs: number;
  /** When Redis took it. */
  takenAtMs: number | undefined;
  /** It came back, or never will: nobody waits for it. */
  over: boolean;
}

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
  #sent: Sent = { text: '', atMs: 0, takenAtMs: undefined, over: true };
  #tickedAtMs = 0;
  /** Since when Redis has not said anything about probes. */
  #silentSinceMs = 0;
  /** Since when probes were taken and none came back. */
  #deafSinceMs: number | undefined;
  #missed = 0;

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
    this.#tickedAtMs = performance.now();
    this.#silentSinceMs = this.#tickedAtMs;
    this.#timer = setInterval(() => this.#tick(), INTERVAL_MS).unref();
    this.moveTo(this.#topic);
  }

  /** Goes on under another topic: the slot of the old one has moved to another node. */
  moveTo(topic: string): void {
    this.#topic = topic;
    this.#sent.over = true;
    this.#options.subscribe(topic)?.then(() => this.again());
  }

  /** Sends another probe at once, because what was sent before cannot come back, or need not be waited for. */
  again(): void {
    if (this.#timer === undefined) return;
    // A new connection is to be judged by itself.
    this.#silentSinceMs = performance.now();
    this.#send();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#resolveFirst();
  }

  /** Takes the message if it is a probe. */
  hear(topic: string, bytes: Buffer): boolean {
    if (topic !== this.#topic) return false;
    if (bytes.toString() === this.#sent.text && !this.#sent.over) {
      this.#sent.over = true;
      this.#options.onReturn((performance.now() - this.#sent.atMs) / 1000);
    }
    this.#deafSinceMs = undefined;
    this.#missed = 0;
    this.state = 'up';
    this.reason = '';
    this.#resolveFirst();
    return true;
  }

  #tick(): void {
    const nowMs = performance.now();
    const lateMs = nowMs - this.#tickedAtMs - INTERVAL_MS;
    this.#tickedAtMs = nowMs;
    // This process was held up: what has come meanwhile has not been read yet, so nothing is known of Redis.
    if (lateMs > INTERVAL_MS) {
      this.#silentSinceMs += lateMs;
      if (this.#deafSinceMs !== undefined) this.#deafSinceMs += lateMs;
      return;
    }
    const { over, takenAtMs } = this.#sent;
    if (over) {
      this.#send();
    } else if (takenAtMs === undefined) {
      if (nowMs - this.#silentSinceMs <= STALLED_AFTER_MS) return;
      this.#silentSinceMs = nowMs;
      this.#options.onStall();
    } else if (nowMs - takenAtMs > MISSED_AFTER_MS) {
      // The next one is sent a tick later, when what this sets in motion has had its effect.
      this.#sent.over = true;
      this.#miss(nowMs, takenAtMs);
    }
  }

  #miss(nowMs: number, takenAtMs: number): void {
    this.#deafSinceMs ??= takenAtMs;
    this.reason = 'Redis takes messages, but they do not come back to this pod';
    if (this.state !== 'starting' && nowMs - this.#deafSinceMs > DEAF_AFTER_MS) this.state = 'deaf';
    this.#options.onDeaf(++this.#missed);
  }

  #send(): void {
    const sent: Sent = {
      text: String(++this.#sequence),
      atMs: performance.now(),
      takenAtMs: undefined,
      over: false,
    };
    this.#sent = sent;
    this.#options.publish(this.#topic, Buffer.from(sent.text)).then(
      () => {
        sent.takenAtMs = performance.now();
        this.#silentSinceMs = sent.takenAtMs;
      },
      (error: unknown) => {
        // Of one that was given up meanwhile nobody wants to know.
        if (sent !== this.#sent || sent.over) return;
        sent.over = true;
        if (this.state !== 'starting') this.state = 'down';
        this.reason = `Redis does not take messages: ${error instanceof Error ? error.message : String(error)}`;
        this.#deafSinceMs = undefined;
        this.#missed = 0;
        this.#options.onRefusal();
      },
    );
  }
}
