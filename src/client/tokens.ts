// Tokens: gets them from the application, keeps the one that holds, and says when it is time for the next.

import { type Backoff, backoffMs } from './backoff.ts';
import { ClientError } from './errors.ts';
import type { Cancel, Platform } from './platform.ts';

/** A token that no gateway has accepted yet is used again for so long. */
const UNPROVEN_MS = 60_000;

/** A token is renewed after this share of its time, plus up to the other at random: clients that came together do
 * not ask together. */
const RENEW_SHARE = 0.7;
const RENEW_JITTER_SHARE = 0.15;

/** What tokens are got with. */
export interface TokensOptions {
  readonly fetch: () => Promise<string> | string;
  readonly timeoutMs: number;
  readonly backoff: Backoff;
  readonly platform: Platform;
  /** It is time to renew the token. */
  readonly renew: () => void;
}

/** The token of the moment. */
export class Tokens {
  readonly #options: TokensOptions;
  #token: string | undefined;
  #freshUntilMs = 0;
  #attempt = 0;
  #cancelRenewal: Cancel = () => {};

  constructor(options: TokensOptions) {
    this.#options = options;
  }

  /** The token that holds, or a new one. @throws {ClientError} `token` where the application has none in time. */
  async current(): Promise<string> {
    const { now } = this.#options.platform;
    return this.#token !== undefined && now() < this.#freshUntilMs ? this.#token : this.next();
  }

  /** A new token. @throws {ClientError} `token` */
  async next(): Promise<string> {
    const { fetch, timeoutMs, platform } = this.#options;
    let cancel: Cancel = () => {};
    const timeout = new Promise<never>((_, reject) => {
      cancel = platform.after(timeoutMs, () => reject(new Error(`it took longer than ${timeoutMs} ms`)));
    });
    try {
      this.#token = await Promise.race([fetch(), timeout]);
    } catch (cause) {
      throw new ClientError('token', `token() failed: ${cause}`, { retryable: true, cause });
    } finally {
      cancel();
    }
    this.#freshUntilMs = platform.now() + UNPROVEN_MS;
    return this.#token;
  }

  /** A gateway has accepted the token, for so long. */
  accepted(expiresInMs: number | undefined): void {
    const { platform, renew } = this.#options;
    this.#attempt = 0;
    this.#cancelRenewal();
    const freshMs = (expiresInMs ?? Infinity) * (RENEW_SHARE + RENEW_JITTER_SHARE * platform.random());
    this.#freshUntilMs = platform.now() + freshMs;
    if (expiresInMs !== undefined) this.#cancelRenewal = platform.after(freshMs, renew);
  }

  /** The token is of no use any more: the next one is a new one. */
  refused(): void {
    this.#token = undefined;
  }

  /** A renewal has failed: it is tried again a little later, until the gateway closes the connection. */
  renewLater(): void {
    const { platform, backoff, renew } = this.#options;
    this.#cancelRenewal();
    this.#cancelRenewal = platform.after(backoffMs(backoff, this.#attempt++, platform.random()), renew);
  }

  /** No connection, no renewals. */
  stop(): void {
    this.#cancelRenewal();
  }
}
