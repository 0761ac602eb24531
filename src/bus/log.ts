// The log: the contract of what makes a channel durable. memory-log.ts and redis-log.ts fulfil it.

import type { Position } from '../protocol/positions.ts';

/** What a durable channel keeps, and for how long. */
export interface Retention {
  readonly messages: number;
  readonly ageMs: number;
}

/** The head outlives the messages by this, so that who was away for long is told that he missed something, and what. */
export const HEAD_OUTLIVES_MS = 7 * 86_400_000;

/** A message to append. */
export interface Append {
  /** Where it is published. What is kept, and keys, are kept by its topic. */
  readonly topic: string;
  /** Made by the gateway: random numbers of Redis's scripts repeat after a restart. */
  readonly id: string;
  readonly sender: string | undefined;
  readonly timeMs: number;
  /** Id of the connection that must not get it live. */
  readonly skip: string | undefined;
  readonly traceparent: string | undefined;
  /** JSON text. */
  readonly payload: string;
  /** Makes a retry safe, with the payload, for the sender and topic. */
  readonly key: string;
  /** How long the key is remembered. */
  readonly keyTtlMs: number;
  /** Undefined: nothing is kept but the key, and the message is only published. */
  readonly retention: Retention | undefined;
  /** Wait until so many replicas have it. */
  readonly replicas: { readonly count: number; readonly timeoutMs: number } | undefined;
}

/** What became of an append. */
export interface Appended {
  readonly id: string;
  /** Undefined where nothing is kept. */
  readonly position: Position | undefined;
  /** The key was known, with the same payload: this is what became of the first. */
  readonly repeated: boolean;
  /** Whether as many replicas as were asked for have it; undefined where none were. */
  readonly replicated: boolean | undefined;
}

/** A stretch of a channel: its entries as they went over the bus, oldest first, and its head at that moment. */
export interface Slice {
  readonly entries: Buffer[];
  /** The last message of the channel. Undefined where nothing is known of it. */
  readonly head: Position | undefined;
}

/** Keeps messages in order. Each entry is an envelope that names its offset and the id before it. An append
 * - MUST be atomic: key, next offset, entry, head and publish all happen, in this order, or none does;
 * - MUST give every entry the offset after the head's, and the head's id as `prev`;
 * - MUST go to a master, and a read MUST see every append that was acknowledged there. */
export interface Log {
  /** @throws {TidegateError} `key_reused`; `bus_unavailable` where it may or may not have happened. */
  append(message: Append): Promise<Appended>;

  /** Entries from an offset on, at most `limit` of them.
   * @throws {TidegateError} `bus_unavailable`. */
  read(channel: string, fromOffset: number, limit: number): Promise<Slice>;

  /** The heads of channels, in their order; undefined where a channel has none.
   * @throws {TidegateError} `bus_unavailable`. */
  heads(channels: readonly string[]): Promise<(Position | undefined)[]>;

  /** What makes this log less durable than its users may think, for people. Empty where nothing does. */
  warnings(): Promise<string[]>;
}
