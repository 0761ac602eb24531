// Settings: what `connect` takes, and what holds where it is not given.

import type { WebSocketConstructor } from './platform.ts';

/** What `connect` takes. All times are in milliseconds. */
export interface ConnectOptions {
  /** `wss://host/ws`, or `wss://host/ws/USER`. */
  readonly url: string;
  /** Gets a token. Called before the first connection, before the token expires, and after it was refused. */
  readonly token?: (() => Promise<string> | string) | undefined;
  /** A WebSocket class, where the global one will not do. */
  readonly WebSocket?: WebSocketConstructor | undefined;
  /** Closes the client. */
  readonly signal?: AbortSignal | undefined;
  /** The first try to reconnect comes at random within this time; each further one within twice as long. Default: 1000. */
  readonly backoffMs?: number;
  /** No try comes later than this. Default: 30000. */
  readonly maxBackoffMs?: number;
  /** How long a connection may take to be open, and `token()` to answer. Default: 10000. */
  readonly connectTimeoutMs?: number;
  /** How long a silent gateway that is asked whether it is there may take to answer. Default: 10000. */
  readonly pongTimeoutMs?: number;
  /** How long a gateway may take to answer a command before the connection is given up. Default: 30000. */
  readonly answerTimeoutMs?: number;
  /** After a connection was open for so long, tries are counted anew. Default: 5000. */
  readonly stableMs?: number;
  /** How many publishes and other calls may be unanswered, offline or not; one more is rejected. Default: 1000. */
  readonly maxQueued?: number;
  /** How many bytes they may have together. Default: 1048576. */
  readonly maxQueuedBytes?: number;
}

const defaults = {
  backoffMs: 1000,
  maxBackoffMs: 30_000,
  connectTimeoutMs: 10_000,
  pongTimeoutMs: 10_000,
  answerTimeoutMs: 30_000,
  stableMs: 5000,
  maxQueued: 1000,
  maxQueuedBytes: 1_048_576,
};

/** The options, with nothing left open. */
export type Settings = ConnectOptions & typeof defaults;

/** Fills in the defaults. */
export function settingsOf(options: ConnectOptions): Settings {
  return { ...defaults, ...options };
}

/** How long to wait before the next try. Full jitter: anything from nothing to what the attempt, which counts from 0,
 * allows; so that clients that were cut off together do not come back together. */
export function backoffMs(
  { backoffMs: firstMs, maxBackoffMs }: Pick<Settings, 'backoffMs' | 'maxBackoffMs'>,
  attempt: number,
  random: number,
): number {
  return random * Math.min(maxBackoffMs, firstMs * 2 ** attempt);
}
