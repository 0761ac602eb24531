// Random numbers from a seed, so that a trial, an attack or a simulation can be had again.

/** A stream of random numbers. Two with the same seed are the same. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 to 1, without 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 to below `count`. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  /** A whole number from `min` to `max`, both included. */
  integer(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  /** Whether something happens that happens so often, from 0 to 1. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** @throws {RangeError} where there is nothing to pick from. */
  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError('there is nothing to pick from');
    return item;
  }

  /** Another stream, so that what one part chooses does not depend on how often another one asks. */
  fork(): Random {
    return new Random(this.below(2 ** 32));
  }

  /** How many of `count` happen that each happen with `chance`. */
  binomial(count: number, chance: number): number {
    if (count <= 0 || chance <= 0) return 0;
    if (chance >= 1) return count;
    if (count < 20) {
      let happened = 0;
      for (let n = 0; n < count; n += 1) if (this.next() < chance) happened += 1;
      return happened;
    }
    const mean = count * chance;
    if (mean < 20) return Math.min(count, this.poisson(mean));
    const drawn = mean + Math.sqrt(mean * (1 - chance)) * this.#normal();
    return Math.min(count, Math.max(0, Math.round(drawn)));
  }

  /** How many things happen of which `mean` happen on average. */
  poisson(mean: number): number {
    if (mean <= 0) return 0;
    if (mean > 30) return Math.max(0, Math.round(mean + Math.sqrt(mean) * this.#normal()));
    const limit = Math.exp(-mean);
    let happened = 0;
    for (let product = this.next(); product > limit; product *= this.next()) happened += 1;
    return happened;
  }

  #normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next());
  }
}
