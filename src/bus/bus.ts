// The bus: the contract. What carries messages between gateways, and the little state that they share.
// memory.ts and redis.ts fulfil it; bus.test.ts holds each of them to it.

import type { Log } from './log.ts';

/**
 * Hears what the bus has to say. The bus
 * - MUST call `message` for every payload that was published to a topic after its `subscribe` resolved, in the
 *   order the bus took them, also for those this gateway published itself;
 * - MUST call `interrupted` with every topic on which messages may have been missed, once they arrive again;
 * - MUST NOT call either after `stop` resolved.
 */
export interface BusListener {
  message(topic: string, bytes: Buffer): void;
  interrupted(topics: readonly string[]): void;
}

/** How the bus is. `deaf`: it takes what is published, yet nothing comes back, so this gateway must not be sent
 * new connections. `down`: it does not answer at all, which is no reason to turn anyone away. */
export type BusState = 'starting' | 'up' | 'deaf' | 'down';

/** Carries bytes by topic between all gateways that share it. */
export interface Bus {
  readonly kind: 'memory' | 'redis';

  /** Why the bus is as it is, for people. */
  readonly health: { readonly state: BusState; readonly reason?: string };

  /** What the gateways share beside messages. */
  readonly store: Store;

  /** What makes channels durable. */
  readonly log: Log;

  /** Connects, and resolves as soon as the first probe has come back through the bus. Keeps trying until then:
   * MUST NOT reject because the bus is not there yet. */
  start(listener: BusListener): Promise<void>;

  /** Resolves when the bus has taken the bytes.
   * @throws {TidegateError} `bus_unavailable` or `overloaded`, both retryable. MUST NOT wait without bound. */
  publish(topic: string, bytes: Buffer): Promise<void>;

  /** Resolves when messages on the topic will arrive; returns nothing if they do so already. A bus that is down
   * MUST remember the wish and fulfil it when it is back. */
  subscribe(topic: string): Promise<void> | undefined;

  /** Takes the wish back. MUST NOT fail. */
  unsubscribe(topic: string): void;

  /** Resolves when `message` was called for everything that the bus had taken before, on topics that this gateway is
   * subscribed to: nothing of before is still on its way, and what was missed has been told by `interrupted`.
   * @throws {TidegateError} `bus_unavailable`, retryable. MUST NOT wait without bound. */
  catchUp(topics: readonly string[]): Promise<void>;

  /** Topics that any gateway is subscribed to and that begin with the prefix, at most `limit`. */
  topics(prefix: string, limit: number): Promise<string[]>;

  /** Lets go of everything. MUST be safe to call twice. */
  stop(): Promise<void>;
}

/** Who is in a channel. */
export interface Members {
  /** Users, in no order, at most as many as were asked for. */
  readonly users: string[];
  readonly total: number;
}

/** The little state that gateways share. Every method may reject with `bus_unavailable`. */
export interface Store {
  /** Says that the user is in the channel on this pod until `ttlMs` have passed. Repeat it to stay. Returns
   * those who were not in the channel on any pod before. */
  join(channel: string, users: readonly string[], ttlMs: number): Promise<string[]>;

  /** Says that the user left the channel on this pod. Returns whether that was the last pod. */
  leave(channel: string, user: string): Promise<boolean>;

  members(channel: string, limit: number): Promise<Members>;

  /** Forgets members whose time is over, as of a pod that was killed, and returns them: to one caller only. */
  expire(channel: string): Promise<string[]>;

  /** Bans a user until a time (ms since 1970). */
  ban(user: string, untilMs: number): Promise<void>;

  /** Every ban that has not ended, by user. */
  bans(): Promise<Map<string, number>>;

  /** Claims an idempotency key for a payload, given by its hash. `new`: go on, and call `settle`. Otherwise
   * what became of the first call. */
  claim(key: string, hash: string, ttlMs: number): Promise<Claim>;

  /** Keeps the answer of a claimed key, or gives the key back where the call failed (undefined). */
  settle(key: string, hash: string, answer: string | undefined, ttlMs: number): Promise<void>;
}

/** What a key stands for: nothing yet, so that it is the caller's (`new`); a call that is over, and its answer; a call that
 * has not ended; or another payload. */
export type Claim =
  | { kind: 'new' }
  | { kind: 'done'; answer: string }
  | { kind: 'in_progress' }
  | { kind: 'reused' };

/** Every topic of Tidegate's own begins so; raw channels may not. */
export const TOPIC_PREFIX = 'tg:';

/** Topic that every gateway hears: disconnects and bans. */
export const CONTROL_TOPIC = 'tg:control';

/** Topic of an enveloped channel. The braces make the name alone decide the Cluster slot, so that a channel's
 * keys and its topic can share one. */
export function channelTopic(channel: string): string {
  return `tg:{c:${channel}}`;
}

/** Topic of the messages to one user. */
export function userTopic(user: string): string {
  return `tg:{u:${user}}`;
}
