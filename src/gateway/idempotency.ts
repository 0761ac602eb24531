// Idempotency: a call of the HTTP API that comes again with its Idempotency-Key is done once and answered the same.

import { createHash } from 'node:crypto';
import type { Store } from '../bus/bus.ts';
import type { Report } from '../platform/logs.ts';
import { TidegateError } from '../protocol/errors.ts';

/** A retried call is recognised for a day; one that died halfway frees its key after a minute. */
const KEY_TTL_MS = 86_400_000;
const KEY_PENDING_MS = 60_000;
const IN_PROGRESS_RETRY_MS = 1000;

/** A call with a key. */
export interface KeyedCall {
  /** Whose key it is, and for what: others may use the same. */
  readonly scope: string;
  readonly key: string;
  /** What is asked for: the same key with another body is a mistake. */
  readonly body: string;
}

/** Remembers the answers of calls, for all pods. */
export class Idempotency {
  readonly #store: Store;
  readonly #report: Report;

  constructor(store: Store, report: Report) {
    this.#store = store;
    this.#report = report;
  }

  /** The answer of `run`, or the first one again. What fails frees the key.
   * @throws {TidegateError} `key_reused`, `key_in_progress`, `bus_unavailable`, and what `run` throws. */
  async once(
    call: KeyedCall,
    run: () => Promise<unknown>,
  ): Promise<{ readonly answer: unknown; readonly repeated: boolean }> {
    const key = digest(`${call.scope}\n${call.key}`);
    const hash = digest(call.body);
    const claim = await this.#store.claim(key, hash, KEY_PENDING_MS);
    switch (claim.kind) {
      case 'reused':
        throw new TidegateError('key_reused');
      case 'in_progress':
        throw new TidegateError('key_in_progress', undefined, { retryAfterMs: IN_PROGRESS_RETRY_MS });
      case 'done':
        return { answer: JSON.parse(claim.answer), repeated: true };
      case 'new': {
        let answer: unknown;
        try {
          answer = await run();
        } catch (error) {
          await this.#settle(key, hash, undefined, 0);
          throw error;
        }
        await this.#settle(key, hash, JSON.stringify(answer), KEY_TTL_MS);
        return { answer, repeated: false };
      }
    }
  }

  /** That this fails is no reason to fail the call: it is done, and an error would only make the caller do it again. */
  async #settle(key: string, hash: string, answer: string | undefined, ttlMs: number): Promise<void> {
    await this.#store.settle(key, hash, answer, ttlMs).catch((error) => this.#report('api.settle', error));
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}
