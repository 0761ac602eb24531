// Rates: token buckets, for what one connection sends and for upgrades from one address.

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

/** How many addresses are remembered. Past this the oldest is forgotten: an attacker with that many addresses is
 * not stopped by a limit for each. */
const MAX_ADDRESSES = 100_000;

/** A token bucket for each address that has come lately. */
export class AddressRates {
  readonly #ratePerSecond: number;
  readonly #burst: number;
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(ratePerSecond: number, burst: number) {
    this.#ratePerSecond = ratePerSecond;
    this.#burst = burst;
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** Takes one token of the address's bucket: 0, or how many milliseconds until there is one. */
  take(address: string, nowMs: number): number {
    if (this.#ratePerSecond === 0) return 0;
    let bucket = this.#buckets.get(address);
    if (bucket === undefined) {
      this.#forget(nowMs);
      bucket = new TokenBucket(this.#ratePerSecond, this.#burst, nowMs);
      this.#buckets.set(address, bucket);
    }
    return bucket.take(1, nowMs);
  }

  /** Lets go of buckets that are full again, two for each new one, so that the work is never in one piece. */
  #forget(nowMs: number): void {
    let looked = 0;
    for (const [address, bucket] of this.#buckets) {
      if (++looked > 2) break;
      this.#buckets.delete(address);
      if (!bucket.isFull(nowMs) && this.#buckets.size < MAX_ADDRESSES) this.#buckets.set(address, bucket);
    }
  }
}
