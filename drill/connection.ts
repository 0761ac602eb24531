// A connection of the drill's clients: tidegate.v1 to some gateway, made anew for ever, as a client should.

import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import type { Random } from '../test/random.ts';

/** A frame of the gateway, parsed. */
export type Frame = Record<string, unknown> & { type?: string };

export interface ConnectionOptions {
  readonly user: string;
  readonly random: Random;
  /** URLs of the gateways that are there; some may be gone already. */
  gateways(): readonly string[];
  /** It is open and the gateway has said welcome. */
  welcome(): void;
  frame(frame: Frame): void;
  /** It is lost. Another one is being made. */
  lost(): void;
}

/** Clients come back after a random time up to this. */
const MAX_BACKOFF_MS = 250;

/** A connection that does not come about for so long is given up. Longer than a gateway waits for its bus. */
const CONNECT_TIMEOUT_MS = 8000;

/** Keeps one connection up until it is stopped, each time to whatever gateway it picks. */
export class DrillConnection {
  readonly #options: ConnectionOptions;
  /** Stays with this gateway as long as it is there. */
  #home: string | undefined;
  #ws: WebSocket | undefined;
  #stopped = false;
  readonly #ended: Promise<void>;

  constructor(options: ConnectionOptions, home?: string) {
    this.#options = options;
    this.#home = home;
    this.#ended = this.#run();
  }

  send(frame: Frame): void {
    if (this.#ws?.readyState === WebSocket.OPEN) this.#ws.send(JSON.stringify(frame));
  }

  /** Leaves the present gateway without a word, for the one that is named or any. */
  move(home?: string): void {
    this.#home = home;
    this.#ws?.terminate();
  }

  /** Stops reading: what is sent waits in the kernel, and then at the gateway. */
  pause(): void {
    this.#ws?.pause();
  }

  resume(): void {
    this.#ws?.resume();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#ws?.terminate();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { random, gateways } = this.#options;
    while (!this.#stopped) {
      const urls = gateways();
      if (urls.length > 0) {
        const home = this.#home !== undefined && urls.includes(this.#home) ? this.#home : random.pick(urls);
        await this.#live(home);
      }
      if (!this.#stopped) await sleep(random.integer(0, MAX_BACKOFF_MS));
    }
  }

  /** One connection, from its beginning to its end. */
  #live(url: string): Promise<void> {
    const { user, welcome, frame, lost } = this.#options;
    const ws = new WebSocket(`${url}/ws/${user}`, ['tidegate.v1']);
    this.#ws = ws;
    const late = setTimeout(() => ws.terminate(), CONNECT_TIMEOUT_MS);
    return new Promise((resolve) => {
      ws.on('error', () => {}); // whoever closes says no more than that it is lost
      ws.on('close', () => {
        clearTimeout(late);
        if (!this.#stopped) lost();
        resolve();
      });
      ws.on('message', (data) => {
        if (this.#stopped) return;
        const message = JSON.parse(data.toString()) as Frame;
        if (message.type !== 'welcome') return frame(message);
        clearTimeout(late);
        welcome();
      });
    });
  }
}
