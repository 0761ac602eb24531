// Bystanders: two clients that exchange numbered messages all the time, and keep account of everything else they see.

import { type Json, TestClient } from '../test/websocket.ts';

/** How long the first waits between two messages: a client at work, and no load. */
const PACE_MS = 10;

/** Takes turns between a channel that is durable and one that is not. */
const channelNames = ['room:bystanders', 'log:bystanders'] as const;

/** One publishes, the other one hears it; only then comes the next message. */
export class Bystanders {
  readonly #speaker: TestClient;
  readonly #listener: TestClient;
  #next = 0;
  #acknowledged = false;
  #heard = false;
  #leaving = false;
  /** Whatever was not the next message: empty, where nobody has noticed anything. */
  readonly disturbances: string[] = [];

  private constructor(speaker: TestClient, listener: TestClient) {
    this.#speaker = speaker;
    this.#listener = listener;
    speaker.ws.on('message', (data) => this.#answered(data.toString()));
    listener.ws.on('message', (data) => this.#hear(data.toString()));
    for (const { ws } of [speaker, listener]) {
      ws.on('close', (code) => {
        if (!this.#leaving) this.disturbances.push(`closed with ${code}`);
      });
    }
  }

  /** Connects both, subscribes the listener, and begins. */
  static async open(url: string, query: (user: string) => string): Promise<Bystanders> {
    const speaker = await TestClient.v1(`${url}/ws/speaker${query('speaker')}`);
    const listener = await TestClient.v1(`${url}/ws/listener${query('listener')}`);
    const answer = await listener.call({ type: 'subscribe', channels: [...channelNames] });
    if (answer.type !== 'ok') throw new Error(`the listener was refused: ${JSON.stringify(answer)}`);
    const bystanders = new Bystanders(speaker, listener);
    bystanders.#speak();
    return bystanders;
  }

  /** Messages that were exchanged so far. */
  get count(): number {
    return this.#next;
  }

  async leave(): Promise<void> {
    this.#leaving = true;
    await Promise.all([this.#speaker.leave(), this.#listener.leave()]);
  }

  #speak(): void {
    if (this.#leaving) return;
    this.#acknowledged = false;
    this.#heard = false;
    const channel = channelNames[this.#next % channelNames.length];
    this.#speaker.send({ type: 'publish', ref: this.#next, channel: channel ?? '', data: this.#next });
  }

  #answered(text: string): void {
    const message = JSON.parse(text) as Json;
    if (message.type === 'ok' && message.ref === this.#next) this.#acknowledged = true;
    else this.disturbances.push(`the speaker got ${text}`);
    this.#goOn();
  }

  #hear(text: string): void {
    const message = JSON.parse(text) as Json;
    if (message.type === 'message' && message.data === this.#next) this.#heard = true;
    else this.disturbances.push(`the listener got ${text} instead of ${this.#next}`);
    this.#goOn();
  }

  #goOn(): void {
    if (!this.#acknowledged || !this.#heard || this.disturbances.length > 0) return;
    this.#next += 1;
    setTimeout(() => this.#speak(), PACE_MS);
  }
}
