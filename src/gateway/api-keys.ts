// API keys: who may use the HTTP API.

import { createHash, timingSafeEqual } from 'node:crypto';

/** The keys of a file, one a line. Lines that begin with `#` are comments. */
export class ApiKeys {
  #digests: readonly Buffer[] = [];

  /** @throws {Error} where there is no key. */
  constructor(text: string) {
    this.replace(text);
  }

  /** How many there are. */
  get size(): number {
    return this.#digests.length;
  }

  /** Takes these keys instead: one that is not among them is refused from now on.
   * @throws {Error} where there is no key; those of before then stay. */
  replace(text: string): void {
    const keys = text
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'));
    if (keys.length === 0) throw new Error('it holds no key: write one a line');
    this.#digests = keys.map(digestOf);
  }

  /** Compares digests, all of them and in constant time, so that nothing is learnt from how long it takes. */
  has(key: string): boolean {
    const given = digestOf(key);
    let known = false;
    for (const digest of this.#digests) known = timingSafeEqual(digest, given) || known;
    return known;
  }
}

function digestOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
