// A subscriber of the drill: hears one channel, comes back with its position, and keeps everything it sees.

import { type Position, parsePosition } from '../src/protocol/positions.ts';
import type { Random } from '../test/random.ts';
import type { Sight, Witness } from './checker.ts';
import { DrillConnection, type Frame } from './connection.ts';

export interface SubscriberOptions {
  readonly name: string;
  readonly channel: string;
  readonly random: Random;
  gateways(): readonly string[];
}

/** A subscribe that is refused is tried again after this. */
const RETRY_MS = 100;

/** A subscribe that is not answered for so long: the gateway is left. */
const SILENT_MS = 8000;

/** The longest wait after a goodbye, so that trials stay short. */
const MAX_GOODBYE_MS = 300;

/** Does with its position just what docs/protocol.md says: `message` and `gap` advance it; `ok.position` is adopted
 * only where it had none, or `recovered` is false. */
export class Subscriber implements Witness {
  readonly name: string;
  readonly sights: Sight[] = [];
  /** What a gateway should never say to it. */
  readonly refusals: string[] = [];
  /** It is subscribed on its present connection. */
  isSubscribed = false;
  readonly #options: SubscriberOptions;
  readonly #connection: DrillConnection;
  #after: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #wandering: NodeJS.Timeout | undefined;
  #ref = 0;

  constructor(options: SubscriberOptions, home?: string) {
    this.#options = options;
    this.name = options.name;
    this.#connection = new DrillConnection(
      {
        user: options.name,
        random: options.random,
        gateways: options.gateways,
        welcome: () => this.#subscribe(),
        frame: (frame) => this.#take(frame),
        lost: () => {
          this.isSubscribed = false;
          clearTimeout(this.#timer);
        },
      },
      home,
    );
  }

  /** Stops reading, until `resume`. */
  pause(): void {
    this.#connection.pause();
  }

  resume(): void {
    this.#connection.resume();
  }

  /** Goes from gateway to gateway from now on, each time as soon as it is subscribed and a little more. */
  wander(minMs: number, maxMs: number): void {
    const { random } = this.#options;
    this.#wandering = setTimeout(
      () => {
        if (this.isSubscribed) this.#connection.move();
        this.wander(minMs, maxMs);
      },
      random.integer(minMs, maxMs),
    );
  }

  async stop(): Promise<void> {
    clearTimeout(this.#wandering);
    clearTimeout(this.#timer);
    await this.#connection.stop();
  }

  #subscribe(): void {
    const after = this.#after === undefined ? {} : { after: this.#after };
    this.#connection.send({ type: 'subscribe', ref: ++this.#ref, channel: this.#options.channel, ...after });
    this.#later(SILENT_MS, () => this.#connection.move());
  }

  #take(frame: Frame): void {
    const atMs = performance.now();
    switch (frame.type) {
      case 'message': {
        const position = this.#advance(frame.position);
        if (position === undefined) return void this.refusals.push(`no position: ${JSON.stringify(frame)}`);
        const key = String((frame.data as { key?: unknown } | null)?.key);
        this.sights.push({ kind: 'message', atMs, position, key, payload: JSON.stringify(frame.data) });
        break;
      }
      case 'gap':
        if (frame.direct === true) break;
        this.sights.push({
          kind: 'gap',
          atMs,
          reason: String(frame.reason),
          position: this.#advance(frame.position),
        });
        break;
      case 'ok':
        if (frame.ref === this.#ref) this.#enter(frame, atMs);
        break;
      case 'error':
        if (frame.retryable !== true) this.refusals.push(`refused: ${JSON.stringify(frame)}`);
        this.#later(RETRY_MS, () => this.#subscribe());
        break;
      case 'goodbye':
        this.#later(Math.min(Number(frame.reconnectAfterMs), MAX_GOODBYE_MS), () => this.#connection.move());
        break;
    }
  }

  #enter({ recovered, reason, position }: Frame, atMs: number): void {
    clearTimeout(this.#timer);
    this.isSubscribed = true;
    if (this.#after !== undefined && recovered === true) return;
    const at = this.#advance(position);
    if (at === undefined) return void this.refusals.push('subscribed without a position');
    if (recovered === false) this.sights.push({ kind: 'gap', atMs, reason: String(reason), position: at });
    else this.sights.push({ kind: 'joined', atMs, position: at });
  }

  #advance(text: unknown): Position | undefined {
    const position = typeof text === 'string' ? parsePosition(text) : undefined;
    if (position !== undefined) this.#after = text as string;
    return position;
  }

  #later(delayMs: number, run: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(run, delayMs);
  }
}
