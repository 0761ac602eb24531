// A subscriber: one connection to Redis that holds subscriptions, and keeps what was wished for true.

import type { Redis } from 'ioredis';
import { TOPIC_PREFIX } from './bus.ts';
import { type RedisConnection, reasonOf } from './redis-connection.ts';

/** What a subscriber has to tell. */
export interface SubscriberEvents {
  message(topic: string, bytes: Buffer): void;
  interrupted(topics: readonly string[]): void;
  /** The node says that some topics belong to another one now. */
  moved(): void;
  /** Redis does not allow a subscription. It is tried again and again; the same reason is told once. */
  refused(error: unknown): void;
  reconnected(): void;
}

/** What becomes of a topic that goes from one subscriber to another. */
export interface Inheritance {
  readonly waiters: (() => void)[];
  readonly lapsed: boolean;
}

interface Wish {
  /** Redis has confirmed it on the present connection. */
  active: boolean;
  /** It was active before, so messages may have been missed while it was not. */
  lapsed: boolean;
  /** It was refused, perhaps for another's sake, and is therefore asked for alone. */
  alone: boolean;
  readonly waiters: (() => void)[];
}

/** Names in one SUBSCRIBE: large enough to be quick for 20,000 users, small enough not to hold up Redis. */
const CHUNK = 500;

/** How long to wait before a topic that was refused is tried again: permissions may change, and slots do settle. */
const RETRY_MS = 500;

/** Holds the subscriptions of one connection. Wishes made in one turn of the event loop go out together; after a
 * reconnect all are made again, and those that had been active before are reported as interrupted. */
export class RedisSubscriber {
  /** Why Redis refused a subscription last, for people. Undefined once it has taken one again. */
  failure: string | undefined;
  readonly #connection: RedisConnection;
  readonly #sharded: boolean;
  readonly #events: SubscriberEvents;
  readonly #wishes = new Map<string, Wish>();
  /** To be subscribed at the end of this turn of the event loop. */
  readonly #joining = new Set<string>();
  /** To be subscribed, unless another subscriber takes them, a little later. */
  readonly #joiningLater = new Set<string>();
  readonly #leaving = new Map<string, Wish>();
  #scheduled = false;
  #finding: NodeJS.Immediate | undefined;
  #retrying: NodeJS.Timeout | undefined;
  #wasReady = false;
  /** The last refusal that was told. */
  #told = '';

  /** `sharded`: topics of Tidegate's own use sharded Pub/Sub (Cluster); raw ones never do, as other programs
   * publish there with PUBLISH. */
  constructor(connection: RedisConnection, sharded: boolean, events: SubscriberEvents) {
    this.#connection = connection;
    this.#sharded = sharded;
    this.#events = events;
    const { redis } = connection;
    const onMessage = (topic: Buffer, bytes: Buffer) => events.message(topic.toString('latin1'), bytes);
    redis.on('messageBuffer', onMessage);
    redis.on('smessageBuffer', onMessage);
    redis.on('ready', () => this.#renew());
    redis.on('close', () => this.#lose());
    // Comes once for each topic; they are looked at together.
    redis.on('moved', () => {
      this.#finding ??= setImmediate(() => this.#findLost());
    });
  }

  get topics(): IterableIterator<string> {
    return this.#wishes.keys();
  }

  has(topic: string): boolean {
    return this.#wishes.has(topic);
  }

  /** Redis has confirmed the topic on the present connection. */
  isActive(topic: string): boolean {
    return this.#wishes.get(topic)?.active ?? false;
  }

  subscribe(topic: string): Promise<void> | undefined {
    let wish = this.#wishes.get(topic) ?? this.#leaving.get(topic);
    if (wish === undefined) {
      wish = { active: false, lapsed: false, alone: false, waiters: [] };
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
    if (this.#joining.delete(topic) || this.#joiningLater.delete(topic) || !this.#connection.ready) return;
    this.#leaving.set(topic, wish);
    this.#schedule();
  }

  /** Gives a topic up so that another subscriber can take it. */
  release(topic: string): Inheritance {
    const wish = this.#wishes.get(topic);
    this.unsubscribe(topic);
    return { waiters: wish?.waiters ?? [], lapsed: wish !== undefined && (wish.active || wish.lapsed) };
  }

  /** Takes a topic over from another subscriber. */
  adopt(topic: string, { waiters, lapsed }: Inheritance): void {
    this.#wishes.set(topic, { active: false, lapsed, alone: false, waiters });
    this.#joining.add(topic);
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#retrying);
    this.#wishes.clear();
    this.#joining.clear();
    this.#joiningLater.clear();
    this.#leaving.clear();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#connection.ready) this.#send();
    });
  }

  /** Without a connection there are no subscriptions: everything has to be wished for again. */
  #lose(): void {
    this.#leaving.clear();
    this.#joiningLater.clear();
    for (const [topic, wish] of this.#wishes) {
      lapse(wish);
      this.#joining.add(topic);
    }
  }

  #renew(): void {
    keepListening(this.#connection.redis);
    if (this.#wasReady) this.#events.reconnected();
    this.#wasReady = true;
    this.#send();
  }

  #send(): void {
    const leaving = new Set(this.#leaving.keys());
    this.#leaving.clear();
    for (const [sharded, topics] of this.#take(leaving)) {
      // Refused, it was a lost connection or a lost slot, and neither has subscriptions.
      this.#connection.call(sharded ? 'sunsubscribe' : 'unsubscribe', topics).catch(() => {});
    }
    for (const [sharded, topics] of this.#take(this.#joining)) {
      const wishes = topics.map((topic) => this.#wishes.get(topic));
      this.#connection.call(sharded ? 'ssubscribe' : 'subscribe', topics).then(
        () => this.#activate(topics, wishes),
        (error) => this.#refuse(topics, wishes, error),
      );
    }
  }

  /** Empties the set into chunks that one command can name; a sharded command's topics must share a slot, so on
   * a Cluster each goes alone. */
  *#take(set: Set<string>): Generator<[sharded: boolean, topics: string[]]> {
    const classic: string[] = [];
    for (const topic of set) {
      const sharded = this.#sharded && topic.startsWith(TOPIC_PREFIX);
      if (sharded || this.#wishes.get(topic)?.alone) yield [sharded, [topic]];
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
      wish.alone = false;
      if (wish.lapsed && this.#wishes.get(topic) === wish) interrupted.push(topic);
      wish.lapsed = false;
      for (const resolve of wish.waiters.splice(0)) resolve();
    }
    if (this.#joiningLater.size === 0) this.failure = undefined;
    if (interrupted.length > 0) this.#events.interrupted(interrupted);
  }

  /** The command failed. If the connection was lost, `#renew` will do it again. Otherwise Redis was too slow, or does
   * not allow it, or the slot has moved, and then the owner gives the topic to another subscriber. */
  #refuse(topics: readonly string[], wishes: readonly (Wish | undefined)[], error: unknown): void {
    if (!this.#connection.ready) return;
    const isReply = error instanceof Error && error.name === 'ReplyError';
    for (const [index, topic] of topics.entries()) {
      const wish = wishes[index];
      if (wish === undefined || wish.active || this.#wishes.get(topic) !== wish) continue;
      wish.alone = isReply;
      this.#joinLater(topic);
    }
    this.failure = reasonOf(error);
    if (this.failure.startsWith('MOVED ')) {
      this.#events.moved();
    } else if (isReply && this.failure !== this.#told) {
      this.#told = this.failure;
      this.#events.refused(error);
    }
  }

  /** A slot has moved away, and the node has dropped its topics by itself. Which ones, only the list that ioredis
   * keeps of all tells. They may come back to this very node. */
  #findLost(): void {
    this.#finding = undefined;
    const subscriptions = this.#connection.redis.condition?.subscriber;
    const held = new Set(subscriptions ? subscriptions.channels('ssubscribe') : []);
    for (const [topic, wish] of this.#wishes) {
      if (!wish.active || !topic.startsWith(TOPIC_PREFIX) || held.has(topic)) continue;
      lapse(wish);
      this.#joinLater(topic);
    }
    this.#events.moved();
  }

  #joinLater(topic: string): void {
    this.#joiningLater.add(topic);
    this.#retrying ??= setTimeout(() => {
      this.#retrying = undefined;
      for (const late of this.#joiningLater) this.#joining.add(late);
      this.#joiningLater.clear();
      this.#schedule();
    }, RETRY_MS).unref();
  }
}

function lapse(wish: Wish): void {
  wish.lapsed ||= wish.active;
  wish.active = false;
}

/** Sees to it that ioredis goes on listening until the connection ends. It counts classic and sharded subscriptions
 * in one variable, and when either kind comes to nothing it drops the messages of the other. */
function keepListening({ condition }: Redis): void {
  if (condition === null) return;
  let subscriber = condition.subscriber;
  Object.defineProperty(condition, 'subscriber', {
    get: () => subscriber,
    set(value: typeof subscriber) {
      subscriber ||= value;
    },
  });
}
