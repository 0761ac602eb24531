// Backoff: how long to wait before the next try.

/** Waits for the first try up to `baseMs`, twice as long for each further one, and never longer than `capMs`. */
export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
}

/** Full jitter: anything from nothing to what the attempt allows, so that clients that were cut off together do
 * not come back together. `attempt` counts from 0; `random` is at least 0 and less than 1. */
export function backoffMs({ baseMs, capMs }: Backoff, attempt: number, random: number): number {
  return random * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}
