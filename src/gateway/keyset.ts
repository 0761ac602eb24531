// A key set: the public keys that check tokens, fetched from a URL and kept (RFC 7517).

import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';
import type { Report } from '../platform/logs.ts';
import { TokenRefused } from './authenticate.ts';
import { TokenBucket } from './rates.ts';

/** When keys are fetched. */
export interface KeySetTimes {
  /** Keys are fetched again when they are older than this. */
  readonly maxAgeMs: number;
  /** A fetch that takes longer has failed. */
  readonly timeoutMs: number;
  /** So many fetches may follow each other at once, and then this many a second: tokens with made-up key ids
   * must not become requests. */
  readonly burst: number;
  readonly perSecond: number;
}

const TIMES: KeySetTimes = { maxAgeMs: 600_000, timeoutMs: 5000, burst: 5, perSecond: 0.1 };

/** Finds the key of a token. While the keys cannot be fetched, those of the last time go on working. */
export class KeySet {
  readonly #url: URL;
  readonly #report: Report;
  readonly #times: KeySetTimes;
  readonly #fetches: TokenBucket;
  #keys: JWTVerifyGetKey | undefined;
  #fetchedAtMs = 0;
  #fetching: Promise<void> | undefined;
  /** Why the last fetch failed; undefined where it did not. */
  #failure: unknown;

  constructor(url: URL, report: Report, times: Partial<KeySetTimes> = {}) {
    this.#url = url;
    this.#report = report;
    this.#times = { ...TIMES, ...times };
    this.#fetches = new TokenBucket(this.#times.perSecond, this.#times.burst, performance.now());
  }

  /** The key for a token's header.
   * @throws {TokenRefused} that is retryable, where the keys cannot be fetched.
   * @throws {errors.JOSEError} where there is no such key, or none of a kind that is supported. */
  readonly keyFor: JWTVerifyGetKey = async (header, token) => {
    if (this.#keys === undefined || performance.now() - this.#fetchedAtMs > this.#times.maxAgeMs) {
      const fetching = this.#fetch();
      // As long as there are keys, nobody waits again for what failed the last time.
      if (this.#keys === undefined || this.#failure === undefined) await fetching;
    }
    const keys = this.#keysOrThrow();
    try {
      return await keys(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      // It may be a new one.
      await this.#fetch();
      if (this.#failure !== undefined) throw this.#unavailable();
      const fetched = this.#keysOrThrow();
      if (fetched === keys) throw error;
      return fetched(header, token);
    }
  };

  #keysOrThrow(): JWTVerifyGetKey {
    if (this.#keys === undefined) throw this.#unavailable();
    return this.#keys;
  }

  #unavailable(): TokenRefused {
    return new TokenRefused('the keys cannot be fetched now', { cause: this.#failure, retryable: true });
  }

  /** Fetches the keys unless that was done too often lately. Never rejects. */
  #fetch(): Promise<void> {
    if (this.#fetching !== undefined) return this.#fetching;
    if (this.#fetches.take(1, performance.now()) > 0) return Promise.resolve();
    this.#fetching = this.#download()
      .then((keys) => {
        this.#keys = keys;
        this.#fetchedAtMs = performance.now();
        this.#failure = undefined;
      })
      .catch((error: unknown) => {
        this.#failure = error;
        this.#report('authenticate.keys', error);
      })
      .finally(() => {
        this.#fetching = undefined;
      });
    return this.#fetching;
  }

  async #download(): Promise<JWTVerifyGetKey> {
    const response = await fetch(this.#url, {
      headers: { accept: 'application/jwk-set+json, application/json' },
      redirect: 'error',
      signal: AbortSignal.timeout(this.#times.timeoutMs),
    });
    if (!response.ok) throw new Error(`JWKS_URL answered with status ${response.status}`);
    return createLocalJWKSet((await response.json()) as JSONWebKeySet);
  }
}
