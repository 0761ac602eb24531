// Counting: publishers that number what they publish to durable channels, and subscribers that see whether every
// number arrives, once and in order.

import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Client, Message } from '../src/client/client.ts';
import { token } from '../test/tokens.ts';
import { eventually } from './cluster.ts';
import type { Release } from './release.ts';
import { say } from './settings.ts';
import { allOpen } from './talk.ts';
import { clock, Witness } from './witness.ts';

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

/** A connection that was there, and ended without having been moved from. */
export interface Lost {
  readonly client: string;
  /** When, after how long, and with which reason. */
  readonly how: string;
}

/** Load on durable channels that knows what must arrive. */
export class Counting {
  readonly #witness: Witness;
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
  /** Connections that were lost. No message is lost by that. */
  readonly lost: Lost[] = [];
  readonly moves: Moved[] = [];

  private constructor(witness: Witness) {
    this.#witness = witness;
  }

  /** Begins. Resolves when everybody is subscribed and something has arrived everywhere. */
  static async start(
    release: Release,
    { subscribers, channels, everyMs }: CountingOptions,
  ): Promise<Counting> {
    const counting = new Counting(await Witness.start(release));
    // Read once: whoever has to move soon does not wait for the API server.
    const [secret = ''] = (await release.secret('jwt-secret')).split('\n');
    const names = Array.from({ length: channels }, (_, at) => `doc:${randomUUID()}:${at}`);
    const entering = Array.from({ length: subscribers }, (_, at) => {
      const name = `subscriber-${at}`;
      const client = counting.#add(name, release, secret);
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
      const publisher = counting.#add(`publisher-of-${channel}`, release, secret);
      counting.#publishing.push(counting.#publish(publisher, channel, everyMs));
    }
    await allOpen(...counting.#clients);
    await eventually('messages everywhere', 60, () => counting.#isHeard(10));
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
    await eventually('every publish to be answered', 60, () => {
      if (this.#unanswered.size === 0) return true;
      throw new Error([...this.#unanswered].map(([channel, at]) => `${at} on ${channel}`).join(', '));
    });
    await Promise.all(this.#publishing);
    const least = Math.min(...this.#published.values());
    await eventually('the last messages', 60, () => this.#isHeard(least)).catch(() => {
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

  /** Expects that no connection was lost. Of one that was it is told what is known of the pods, of which those are gone
   * that it was to. */
  expectNoneLost(): void {
    if (this.lost.length === 0) return;
    const lost = this.lost.map(({ client, how }) => `${client}: ${how}`);
    const users = this.lost.map(({ client }) => client);
    throw new Error(`connections were lost\n${[...lost, this.#witness.tell(users)].join('\n')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isResting = true;
    this.#witness.stop();
    await Promise.all(this.#clients.map((client) => client.close()));
    await Promise.allSettled(this.#publishing);
  }

  #add(name: string, release: Release, secret: string): Client {
    const client = release.client(name, { token: () => token({ sub: name }, secret) });
    const fault = (text: string) => this.faults.push(`${name}: ${text}`);
    // Whoever loses a connection may have missed messages to themselves, which nobody keeps.
    client.on('gap', ({ channel, reason }) => channel && fault(`gap on ${channel}: ${reason}`));
    // Where Redis is slow to answer a client asks again, and misses nothing over it.
    client.on('error', (error) => error.retryable || fault(String(error)));
    client.on('move', () => this.moves.push({ client: name, atMs: performance.now() }));
    let openedAtMs: number | undefined;
    client.on('state', ({ state, reason }) => {
      if (state === 'open') openedAtMs = performance.now();
      if (state !== 'reconnecting') return;
      const why = `${reason?.code} ${reason?.reason}`.trim();
      // Who had none has lost none, and tries again.
      if (openedAtMs === undefined) return say('counting', `${name} is not connected yet: ${why}`);
      const seconds = (from: number) => `${((performance.now() - from) / 1000).toFixed(1)} s`;
      const moved = this.moves.findLast((it) => it.client === name);
      const since = moved === undefined ? '' : `, ${seconds(moved.atMs)} after it had moved`;
      this.lost.push({
        client: name,
        how: `${why} at ${clock()}, connected for ${seconds(openedAtMs)}${since}`,
      });
      openedAtMs = undefined;
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
