// Rates: token buckets, for what one connection sends and for upgrades from one address.

import { peerOf } from '../platform/addresses.ts';

/** Holds up to `burst` tokens and gains `ratePerSecond`. A rate of 0 never limits. */
export class TokenBucket {
  readonly #ratePerMs: number;
  readonly #burst: number;
  #tokens: number;
  #atMs: number;

  constructor(ratePerSecond: number, burst: number, nowMs: number) {
    this.#ratePerMs = ratePerSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#atMs = nowMs;
  }

  /** Takes tokens if there are enough and returns 0; else takes none and returns how many milliseconds it will
   * be until there are. An amount above the burst counts as the burst, or it could never be taken. */
  take(amount: number, nowMs: number): number {
    if (this.#ratePerMs === 0) return 0;
    this.#tokens = Math.min(this.#burst, this.#tokens + (nowMs - this.#atMs) * this.#ratePerMs);
    this.#atMs = nowMs;
    const wanted = Math.min(amount, this.#burst);
    if (wanted <= this.#tokens) {
      this.#tokens -= wanted;
      return 0;
    }
    return Math.ceil((wanted - this.#tokens) / this.#ratePerMs);
  }

  /** Whether it holds all that it can hold, so that a new one would be the same. */
  isFull(nowMs: number): boolean {
    return this.#tokens + (nowMs - this.#atMs) * this.#ratePerMs >= this.#burst;
  }
}

/** How many addresses are remembered. Past this others are forgotten: an attacker with that many addresses is not
 * stopped by a limit for each. */
const MAX_ADDRESSES = 100_000;

/** A token bucket for each address that has come lately, and for each /64 of IPv6. */
export class AddressRates {
  readonly #ratePerSecond: number;
  readonly #burst: number;
  readonly #buckets = new Map<string, TokenBucket>();
  /** Goes round and round. A new iteration each time would walk over all that was deleted at the front before. */
  #cursor = this.#buckets.entries();

  constructor(ratePerSecond: number, burst: number) {
    this.#ratePerSecond = ratePerSecond;
    this.#burst = burst;
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** Takes one token of the bucket of whom the address counts as: 0, or how many milliseconds until there is one. */
  take(address: string, nowMs: number): number {
    if (this.#ratePerSecond === 0) return 0;
    const peer = peerOf(address);
    let bucket = this.#buckets.get(peer);
    if (bucket === undefined) {
      this.#forget(nowMs);
      bucket = new TokenBucket(this.#ratePerSecond, this.#burst, nowMs);
      this.#buckets.set(peer, bucket);
    }
    return bucket.take(1, nowMs);
  }

  /** Looks at two buckets for each new one, so that the work is never in one piece, and lets go of those that are
   * full again, or of any where there are too many. */
  #forget(nowMs: number): void {
    for (let looked = 0; looked < 2; looked += 1) {
      let next = this.#cursor.next();
      if (next.done) {
        this.#cursor = this.#buckets.entries();
        next = this.#cursor.next();
      }
      if (next.done) return;
      const [peer, bucket] = next.value;
      if (bucket.isFull(nowMs) || this.#buckets.size >= MAX_ADDRESSES) this.#buckets.delete(peer);
    }
  }
}
