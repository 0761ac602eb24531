// A subscriber: one connection to Redis that holds subscriptions, and keeps what was wished for true.

import type { Redis } from 'ioredis';
import { TOPIC_PREFIX } from './bus.ts';

/** What a subscriber has to tell. `moved`: the node says that some topic belongs to another one now. */
export interface SubscriberEvents {
  message(topic: string, bytes: Buffer): void;
  interrupted(topics: readonly string[]): void;
  moved(): void;
  reconnected(): void;
}

interface Wish {
  /** Redis has confirmed it on the present connection. */
  active: boolean;
  /** It was active before, so messages may have been missed while it was not. */
  lapsed: boolean;
  readonly waiters: (() => void)[];
}

/** Names in one SUBSCRIBE: large enough to be quick for 20,000 users, small enough not to hold up Redis. */
const CHUNK = 500;

/** How long to wait for the owner to find out where a slot has gone. */
const RETRY_MS = 200;

/** Holds the subscriptions of one connection. Wishes made in one turn of the event loop go out together; after a
 * reconnect all are made again, and those that had been active before are reported as interrupted. */
export class RedisSubscriber {
  readonly #redis: Redis;
  readonly #sharded: boolean;
  readonly #events: SubscriberEvents;
  readonly #wishes = new Map<string, Wish>();
  readonly #joining = new Set<string>();
  readonly #leaving = new Map<string, Wish>();
  #scheduled = false;
  #wasReady = false;

  /** `sharded`: topics of Tidegate's own use sharded Pub/Sub (Cluster); raw ones never do, as other programs
   * publish there with PUBLISH. */
  constructor(redis: Redis, sharded: boolean, events: SubscriberEvents) {
    this.#redis = redis;
    this.#sharded = sharded;
    this.#events = events;
    const onMessage = (topic: Buffer, bytes: Buffer) => events.message(topic.toString('latin1'), bytes);
    redis.on('messageBuffer', onMessage);
    redis.on('smessageBuffer', onMessage);
    redis.on('ready', () => this.#renew());
    redis.on('moved', () => events.moved());
    // Errors of a connection are followed by its close, which is what is acted on.
    redis.on('error', () => {});
  }

  get topics(): IterableIterator<string> {
    return this.#wishes.keys();
  }

  get size(): number {
    return this.#wishes.size;
  }

  get ready(): boolean {
    return this.#redis.status === 'ready';
  }

  connect(): void {
    this.#redis.connect().catch(() => {});
  }

  /** Cuts the connection, so that a new one is made: for one that looks alive and delivers nothing. */
  reconnect(): void {
    this.#redis.disconnect(true);
  }

  subscribe(topic: string): Promise<void> | undefined {
    let wish = this.#wishes.get(topic) ?? this.#leaving.get(topic);
    if (wish === undefined) {
      wish = { active: false, lapsed: false, waiters: [] };
      this.#joining.add(topic);
      this.#schedule();
    }
    this.#leaving.delete(topic);
    this.#wishes.set(topic, wish);
    if (wish.active) return undefined;
    const { waiters } = wish;
    return new Promise((resolve) => waiters.push(resolve));
  }

  unsubscribe(topic: string): void {
    const wish = this.#wishes.get(topic);
    if (wish === undefined) return;
    this.#wishes.delete(topic);
    if (this.#joining.delete(topic)) return;
    this.#leaving.set(topic, wish);
    this.#schedule();
  }

  stop(): void {
    this.#redis.disconnect();
    this.#wishes.clear();
    this.#joining.clear();
    this.#leaving.clear();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#redis.status === 'ready') this.#send();
    });
  }

  /** A new connection knows nothing: everything is wished for again. */
  #renew(): void {
    this.#leaving.clear();
    for (const [topic, wish] of this.#wishes) {
      wish.lapsed ||= wish.active;
      wish.active = false;
      this.#joining.add(topic);
    }
    if (this.#wasReady) this.#events.reconnected();
    this.#wasReady = true;
    this.#send();
  }

  #send(): void {
    const leaving = new Set(this.#leaving.keys());
    this.#leaving.clear();
    for (const [sharded, topics] of this.#take(leaving)) {
      const leave = sharded ? this.#redis.sunsubscribe(...topics) : this.#redis.unsubscribe(...topics);
      // A connection that is lost has no subscriptions either.
      leave.catch(() => {});
    }
    for (const [sharded, topics] of this.#take(this.#joining)) {
      const join = sharded ? this.#redis.ssubscribe(...topics) : this.#redis.subscribe(...topics);
      const wishes = topics.map((topic) => this.#wishes.get(topic));
      join.then(
        () => this.#activate(topics, wishes),
        () => this.#retry(topics),
      );
    }
  }

  /** Empties the set into chunks that one command can name; a sharded command's topics must share a slot, so on
   * a Cluster each goes alone. */
  *#take(set: Set<string>): Generator<[sharded: boolean, topics: string[]]> {
    const classic: string[] = [];
    for (const topic of set) {
      if (this.#sharded && topic.startsWith(TOPIC_PREFIX)) yield [true, [topic]];
      else classic.push(topic);
    }
    set.clear();
    for (let at = 0; at < classic.length; at += CHUNK) yield [false, classic.slice(at, at + CHUNK)];
  }

  /** A topic that was left and wished for again meanwhile has another wish, with a command of its own under way. */
  #activate(topics: readonly string[], wishes: readonly (Wish | undefined)[]): void {
    const interrupted: string[] = [];
    for (const [index, topic] of topics.entries()) {
      const wish = wishes[index];
      if (wish === undefined || wish.active) continue;
      wish.active = true;
      if (wish.lapsed && this.#wishes.get(topic) === wish) interrupted.push(topic);
      wish.lapsed = false;
      for (const resolve of wish.waiters.splice(0)) resolve();
    }
    if (interrupted.length > 0) this.#events.interrupted(interrupted);
  }

  /** The command failed. If the connection was lost, `#renew` will do it again; if the slot moved, the owner
   * gives the topic to another subscriber; otherwise nothing else would, so the connection is made anew. */
  #retry(topics: readonly string[]): void {
    const wanted = topics.filter((topic) => this.#wishes.get(topic)?.active === false);
    if (wanted.length === 0 || this.#redis.status !== 'ready') return;
    if (!this.#sharded) return this.reconnect();
    for (const topic of wanted) this.#joining.add(topic);
    this.#events.moved();
    setTimeout(() => this.#schedule(), RETRY_MS).unref();
  }

  /** Gives a topic up so that another subscriber can take it. Returns those who wait for it. */
  release(topic: string): { waiters: (() => void)[]; lapsed: boolean } {
    const wish = this.#wishes.get(topic);
    this.unsubscribe(topic);
    return { waiters: wish?.waiters ?? [], lapsed: wish !== undefined && (wish.active || wish.lapsed) };
  }

  /** Takes a topic over from another subscriber. */
  adopt(topic: string, { waiters, lapsed }: { waiters: (() => void)[]; lapsed: boolean }): void {
    this.#wishes.set(topic, { active: false, lapsed, waiters });
    this.#joining.add(topic);
    this.#schedule();
  }
}
