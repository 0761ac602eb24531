// Waiting for a condition: what tests do instead of sleeping.

import { setTimeout as delay } from 'node:timers/promises';

const defaultTimeoutMs = 60_000;
const defaultPollIntervalMs = 10;

/** What is left of `T` once it is known to be truthy. */
export type Truthy<T> = Exclude<T, false | 0 | 0n | '' | null | undefined>;

export type UntilOptions = {
  /** What is waited for, as it completes "waited 10000 ms for …". */
  what: string;
  /** How long to wait. Default 60 s: it is to end a test that hangs, and says nothing of how fast anything is. */
  timeoutMs?: number;
  /** How long to wait between two looks. Default 10 ms; longer where a look costs more. */
  pollIntervalMs?: number;
};

/**
 * Resolves with the condition's first truthy value. A condition that throws counts as not yet true; its
 * last error is the cause of the timeout's. A call that hangs (a stopped server) still times out.
 *
 * @example
 * const members = await until(() => hub.members('room:1').length === 2, { what: 'both members' });
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  { what, timeoutMs = defaultTimeoutMs, pollIntervalMs = defaultPollIntervalMs }: UntilOptions,
): Promise<Truthy<T>> {
  const deadline = performance.now() + timeoutMs;
  const pending = Symbol('pending');
  let last = 'it was never answered';
  let cause: unknown;
  for (;;) {
    try {
      const value = await settleBy(deadline, condition, pending);
      if (value === pending) break;
      if (value) return value as Truthy<T>;
      last = `the last value was ${String(value)}`;
      cause = undefined;
    } catch (error) {
      last = `the last try failed: ${error instanceof Error ? error.message : String(error)}`;
      cause = error;
    }
    // Not after the delay, which may have been longer than it was asked to be: each is followed by a look.
    if (performance.now() >= deadline) break;
    await delay(pollIntervalMs);
  }
  throw new Error(`waited ${timeoutMs} ms for ${what}; ${last}`, { cause });
}

async function settleBy<T, P>(deadline: number, condition: () => T | Promise<T>, pending: P): Promise<T | P> {
  const stop = new AbortController();
  const timeout = delay(Math.max(1, deadline - performance.now()), pending, { signal: stop.signal });
  timeout.catch(() => {}); // aborted below, which is how it ends when the condition answers
  try {
    return await Promise.race([condition(), timeout]);
  } finally {
    stop.abort();
  }
}
