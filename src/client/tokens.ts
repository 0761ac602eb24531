// Tokens: gets them from the application, keeps the one that holds, and says when it is time for the next.

import { ClientError } from './errors.ts';
import type { Platform } from './platform.ts';
import { backoffMs, type Settings } from './settings.ts';
import { Timer } from './timer.ts';

/** A token that no gateway has accepted yet is used again for so long. */
const UNPROVEN_MS = 60_000;

/** A token is renewed after this share of its time, and up to the other later, at random: clients that came together
 * do not ask together. */
const RENEW_SHARE = 0.7;
const RENEW_JITTER_SHARE = 0.15;

/** The token of the moment. */
export class Tokens {
  readonly #fetch: () => Promise<string> | string;
  readonly #settings: Settings;
  readonly #platform: Platform;
  readonly #renew: () => void;
  readonly #renewal: Timer;
  #token: string | undefined;
  #freshUntilMs = 0;
  #attempt = 0;

  /** `renew` is called when a token is needed before the one in use expires. */
  constructor(
    fetch: () => Promise<string> | string,
    settings: Settings,
    platform: Platform,
    renew: () => void,
  ) {
    this.#fetch = fetch;
    this.#settings = settings;
    this.#platform = platform;
    this.#renew = renew;
    this.#renewal = new Timer(platform);
  }

  /** The token that holds, or a new one. @throws {ClientError} `token` where the application gives none in time. */
  async current(): Promise<string> {
    const isFresh = this.#token !== undefined && this.#platform.now() < this.#freshUntilMs;
    return isFresh ? (this.#token ?? '') : this.next();
  }

  /** A new token. @throws {ClientError} `token` */
  async next(): Promise<string> {
    const timer = new Timer(this.#platform);
    try {
      this.#token = await new Promise<string>((resolve, reject) => {
        timer.set(this.#settings.connectTimeoutMs, () => reject('it takes too long'));
        Promise.resolve(this.#fetch()).then(resolve, reject);
      });
    } catch (cause) {
      throw new ClientError('token', `token() failed: ${cause}`, { retryable: true, cause });
    } finally {
      timer.clear();
    }
    this.#freshUntilMs = this.#platform.now() + UNPROVEN_MS;
    return this.#token;
  }

  /** A gateway has accepted the token, for so long. */
  accepted(expiresInMs: number = Infinity): void {
    const freshMs = expiresInMs * (RENEW_SHARE + RENEW_JITTER_SHARE * this.#platform.random());
    this.#attempt = 0;
    this.#freshUntilMs = this.#platform.now() + freshMs;
    if (freshMs < Infinity) this.#renewal.set(freshMs, this.#renew);
  }

  /** The token is of no use any more: the next one is a new one. */
  refused(): void {
    this.#token = undefined;
  }

  /** A renewal has failed: it is tried again a little later, until the gateway closes the connection. */
  renewLater(): void {
    this.#renewal.set(backoffMs(this.#settings, this.#attempt++, this.#platform.random()), this.#renew);
  }

  /** No connection, no renewals. */
  stop(): void {
    this.#renewal.clear();
  }
}
