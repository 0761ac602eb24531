// A receiver: one connection that hears a channel, or what is sent to its user, and accounts for every message.

import type { Message } from '../../src/client/events.ts';
import { type Connection, connect, opened, receivedAtMs } from './connect.ts';
import { Ledger } from './ledger.ts';
import {
  deliveryLatency,
  gapsTold,
  messagesDisordered,
  messagesDoubled,
  messagesLost,
  messagesReceived,
  receiversClosed,
  receiversComplete,
  receiversLate,
} from './metrics.ts';
import { stampOf } from './protocol.ts';
import { runner } from './settings.ts';

const findings = {
  received: () => messagesReceived.add(1),
  doubled: () => messagesDoubled.add(1),
  disordered: () => messagesDisordered.add(1),
  lost: (messages: number) => messagesLost.add(messages),
};

/** What a receiver hears. */
export interface ReceiverOptions {
  readonly user: string;
  /** Absent: what is sent to the user. */
  readonly channel?: string;
  /** Publishers whose messages it gets from the first on, if it is subscribed when they begin. */
  readonly expect?: readonly string[];
  /** When they begin, in milliseconds since 1970. */
  readonly publishAtMs: number;
  /** How many publishers there are whose end it waits for. 0: it leaves before, so nobody can say what it missed last. */
  readonly publishers: number;
}

export class Receiver {
  readonly connection: Connection;
  /** Resolves when it is subscribed; rejects where the gateway refuses. */
  readonly ready: Promise<void>;
  /** Resolves when all publishers have ended and nothing of them is to come. */
  readonly done: Promise<void>;
  readonly #options: ReceiverOptions;
  readonly #ledger = new Ledger(findings);
  #isDone = () => {};

  constructor(options: ReceiverOptions) {
    this.#options = options;
    this.done = new Promise((resolve) => {
      this.#isDone = resolve;
    });
    this.connection = connect(options.user);
    const { client } = this.connection;
    client.on('gap', ({ channel }) => {
      // A cut always leaves one in what is sent to the user, which a receiver of a channel does not look at.
      if (channel !== options.channel) return;
      gapsTold.add(1);
      this.#ledger.excuse();
    });
    client.on('error', (error) => console.warn(`${options.user}: ${error.message}`));
    if (options.channel === undefined) {
      client.on('direct', (message) => this.#enter(message));
      this.ready = opened(this.connection);
    } else {
      const subscription = client.channel(options.channel).subscribe((message) => this.#enter(message));
      this.ready = subscription.ready;
    }
    this.ready.then(() => this.#expect()).catch(() => {}); // a refusal is told as an error
  }

  /** Ends it, and enters what is missing. */
  close(): Promise<void> {
    const { publishers } = this.#options;
    const ended = this.#ledger.close(publishers);
    if (publishers > 0) {
      receiversClosed.add(1);
      receiversComplete.add(ended && this.connection.client.state === 'open');
    }
    return this.connection.client.close();
  }

  /** Who came too late to get the first messages is no proof of a loss, and follows from where it came. */
  #expect(): void {
    const { expect = [], publishAtMs } = this.#options;
    if (expect.length > 0 && Date.now() >= publishAtMs) receiversLate.add(1);
    else for (const by of expect) this.#ledger.expect(by);
  }

  #enter({ data }: Message): void {
    const stamp = stampOf(data);
    if (stamp === undefined) return;
    if (this.#ledger.enter(stamp) && stamp.runner === runner) {
      deliveryLatency.add(receivedAtMs() - stamp.atMs);
    }
    if (stamp.end && this.#ledger.isComplete(this.#options.publishers)) this.#isDone();
  }
}
