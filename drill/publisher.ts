// A publisher of the drill: publishes all the time, every message with a key, and sends again what was not answered.

import { parsePosition } from '../src/protocol/positions.ts';
import type { Random } from '../test/random.ts';
import type { Publication } from './checker.ts';
import { DrillConnection, type Frame } from './connection.ts';

export interface PublisherOptions {
  readonly name: string;
  readonly channel: string;
  readonly random: Random;
  /** Time between two messages, on average. */
  readonly everyMs: number;
  /** Characters of padding in each message. */
  readonly padding: number;
  gateways(): readonly string[];
}

/** More than this is not under way at once. */
const MAX_UNANSWERED = 16;

/** A retryable error is tried again after the time it names, but no later than this, so that trials stay short. */
const MAX_RETRY_MS = 200;

/** A gateway that says nothing for so long is left. Longer than it tries by itself. */
const SILENT_MS = 8000;
const LOOK_EVERY_MS = 500;

export class Publisher {
  /** Everything it ever wanted to publish, in order. */
  readonly publications: Publication[] = [];
  /** Answers that a publisher who retries with a key should never get. */
  readonly refusals: string[] = [];
  readonly #options: PublisherOptions;
  readonly #connection: DrillConnection;
  readonly #unanswered = new Map<string, { publication: Publication; sentAtMs: number }>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #watch: NodeJS.Timeout;
  #publishing = false;
  #next = 0;

  constructor(options: PublisherOptions, home?: string) {
    this.#options = options;
    const { name, random, gateways } = options;
    this.#connection = new DrillConnection(
      {
        user: name,
        random,
        gateways,
        welcome: () => this.#resend(),
        frame: (frame) => this.#take(frame),
        lost: () => {},
      },
      home,
    );
    this.#watch = setInterval(() => this.#leaveSilence(), LOOK_EVERY_MS);
  }

  get unanswered(): number {
    return this.#unanswered.size;
  }

  get acknowledged(): number {
    return this.publications.length - this.#unanswered.size;
  }

  /** The key of the next message. */
  get nextKey(): string {
    return `${this.#options.name}-${this.#next + 1}`;
  }

  /** Publishes from now on, until `rest`. */
  start(): void {
    if (this.#publishing) return;
    this.#publishing = true;
    this.#tick();
  }

  /** Publishes nothing new. */
  rest(): void {
    this.#publishing = false;
  }

  /** Publishes one message now. */
  publish(): Publication {
    const key = this.nextKey;
    this.#next += 1;
    const payload = JSON.stringify({ key, pad: 'x'.repeat(this.#options.padding) });
    const publication: Publication = { key, payload, sentAtMs: performance.now(), acknowledged: undefined };
    this.publications.push(publication);
    this.#unanswered.set(key, { publication, sentAtMs: publication.sentAtMs });
    this.#send(publication);
    return publication;
  }

  async stop(): Promise<void> {
    this.rest();
    clearInterval(this.#watch);
    for (const timer of this.#timers) clearTimeout(timer);
    await this.#connection.stop();
  }

  #tick(): void {
    if (!this.#publishing) return;
    if (this.#unanswered.size < MAX_UNANSWERED) this.publish();
    const { random, everyMs } = this.#options;
    this.#after(everyMs * (0.5 + random.next()), () => this.#tick());
  }

  #send({ key, payload }: Publication): void {
    const { channel } = this.#options;
    this.#connection.send({ type: 'publish', ref: key, channel, key, data: JSON.parse(payload) as unknown });
  }

  #resend(): void {
    const nowMs = performance.now();
    for (const unanswered of this.#unanswered.values()) {
      unanswered.sentAtMs = nowMs;
      this.#send(unanswered.publication);
    }
  }

  #take(frame: Frame): void {
    const unanswered = this.#unanswered.get(String(frame.ref));
    if (unanswered === undefined) return;
    const { publication } = unanswered;
    const { key } = publication;
    if (frame.type === 'ok') {
      publication.acknowledged = parsePosition(String(frame.position));
      if (publication.acknowledged === undefined) this.refusals.push(`${key}: ok without a position`);
      this.#unanswered.delete(key);
    } else if (frame.retryable === true) {
      this.#after(Math.min(Number(frame.retryAfterMs ?? MAX_RETRY_MS), MAX_RETRY_MS), () => {
        if (!this.#unanswered.has(key)) return;
        unanswered.sentAtMs = performance.now();
        this.#send(publication);
      });
    } else {
      this.refusals.push(`${key}: ${String(frame.code)}`);
      this.#unanswered.delete(key);
    }
  }

  #leaveSilence(): void {
    const beforeMs = performance.now() - SILENT_MS;
    const isSilent = [...this.#unanswered.values()].some(({ sentAtMs }) => sentAtMs < beforeMs);
    if (isSilent) this.#connection.move();
  }

  #after(delayMs: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      run();
    }, delayMs);
    this.#timers.add(timer);
  }
}
