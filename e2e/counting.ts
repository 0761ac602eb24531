// Counting: publishers that number what they publish to durable channels, and subscribers that see whether every
// number arrives, once and in order.

import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Client, Message } from '../src/client/client.ts';
import { until } from '../test/until.ts';
import type { Release } from './release.ts';
import { allOpen } from './talk.ts';

export interface CountingOptions {
  readonly subscribers: number;
  /** Each has a publisher, and is subscribed to by every subscriber. */
  readonly channels: number;
  /** Time between two messages on one channel. */
  readonly everyMs: number;
}

/** When a client moved from one connection to another, as it was asked to. */
export interface Moved {
  readonly client: string;
  readonly atMs: number;
}

/** Load on durable channels that knows what must arrive. */
export class Counting {
  readonly #clients: Client[] = [];
  /** Of each subscriber, and of each of its channels: the numbers it got. */
  readonly #heard = new Map<string, Map<string, number[]>>();
  /** Of each channel: how many messages have been acknowledged. All of them have, in order. */
  readonly #published = new Map<string, number>();
  /** Of each channel: the message that is being published. */
  readonly #unanswered = new Map<string, number>();
  readonly #publishing: Promise<void>[] = [];
  #isResting = false;
  /** Whatever clients were told that must not happen: gaps and errors. */
  readonly faults: string[] = [];
  /** Connections that were lost, with the reason. No message is lost by that. */
  readonly lost: string[] = [];
  readonly moves: Moved[] = [];

  /** Begins. Resolves when everybody is subscribed and something has arrived everywhere. */
  static async start(
    release: Release,
    { subscribers, channels, everyMs }: CountingOptions,
  ): Promise<Counting> {
    const counting = new Counting();
    const names = Array.from({ length: channels }, (_, at) => `doc:${randomUUID()}:${at}`);
    const entering = Array.from({ length: subscribers }, (_, at) => {
      const name = `subscriber-${at}`;
      const client = counting.#add(name, release);
      const heard = new Map<string, number[]>(names.map((channel) => [channel, []]));
      counting.#heard.set(name, heard);
      return names.map(
        (channel) =>
          client.channel<number>(channel).subscribe((message: Message<number>) => {
            heard.get(channel)?.push(message.data);
          }).ready,
      );
    });
    await Promise.all(entering.flat());
    for (const channel of names) {
      const publisher = counting.#add(`publisher-of-${channel}`, release);
      counting.#publishing.push(counting.#publish(publisher, channel, everyMs));
    }
    await allOpen(...counting.#clients);
    await until(() => counting.#isHeard(10), { what: 'messages everywhere' });
    return counting;
  }

  /** How many messages have been published. */
  get published(): number {
    return [...this.#published.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Stops publishing, waits until everything has arrived, and expects that it did once, in order and without a word
   * of gaps. */
  async expectEverything(): Promise<void> {
    this.#isResting = true;
    await until(
      () => {
        if (this.#unanswered.size === 0) return true;
        throw new Error([...this.#unanswered].map(([channel, at]) => `${at} on ${channel}`).join(', '));
      },
      { what: 'every publish to be answered' },
    );
    await Promise.all(this.#publishing);
    const least = Math.min(...this.#published.values());
    await until(() => this.#isHeard(least), { what: 'the last messages' }).catch(() => {
      // What is missing is told below, by number.
    });
    for (const [name, channels] of this.#heard) {
      for (const [channel, heard] of channels) {
        const wanted = Array.from({ length: this.#published.get(channel) ?? 0 }, (_, at) => at + 1);
        expect(heard, `what ${name} heard on ${channel}`).toEqual(wanted);
      }
    }
    expect(this.faults).toEqual([]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isResting = true;
    await Promise.all(this.#clients.map((client) => client.close()));
    await Promise.allSettled(this.#publishing);
  }

  #add(name: string, release: Release): Client {
    const client = release.client(name);
    const fault = (text: string) => this.faults.push(`${name}: ${text}`);
    // Whoever loses a connection may have missed messages to themselves, which nobody keeps.
    client.on('gap', ({ channel, reason }) => channel && fault(`gap on ${channel}: ${reason}`));
    // Where Redis is slow to answer a client asks again, and misses nothing over it.
    client.on('error', (error) => error.retryable || fault(String(error)));
    client.on('move', () => this.moves.push({ client: name, atMs: performance.now() }));
    client.on('state', ({ state, reason }) => {
      if (state === 'reconnecting') this.lost.push(`${name}: ${reason?.code} ${reason?.reason}`);
    });
    this.#clients.push(client);
    return client;
  }

  async #publish(client: Client, channel: string, everyMs: number): Promise<void> {
    for (let number = 1; !this.#isResting; number += 1) {
      try {
        this.#unanswered.set(channel, number);
        await client.channel(channel).publish(number);
      } catch (error) {
        if (!this.#isResting) this.faults.push(`publishing ${number} to ${channel}: ${error}`);
        return;
      } finally {
        this.#unanswered.delete(channel);
      }
      this.#published.set(channel, number);
      await delay(everyMs);
    }
  }

  #isHeard(number: number): boolean {
    return [...this.#heard.values()].every((channels) =>
      [...channels.values()].every((heard) => heard.length >= number),
    );
  }
}
