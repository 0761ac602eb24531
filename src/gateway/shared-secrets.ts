// Shared secrets: what signs tokens on both sides, the newest and those that are still accepted.

import { createSecretKey, type KeyObject } from 'node:crypto';

/** What signs with SHA-256 should be no easier to guess than its output (RFC 7518 3.2). */
const MIN_BYTES = 32;

/** The secrets of a text. One line is one secret, as it is. Of several lines each is a secret, the newest first; and so
 * is the whole, because a secret of several lines, such as base64 that was wrapped, is one. Because of those a line
 * that is easy to guess is none: it may be the end of such a secret, or the frame of a PEM. */
export class SharedSecrets {
  #keys: readonly KeyObject[] = [];
  #warnings: readonly string[] = [];

  /** @throws {Error} where there is none. */
  constructor(text: string) {
    this.replace(text);
  }

  /** Those that are accepted, the newest first. */
  get keys(): readonly KeyObject[] {
    return this.#keys;
  }

  /** How many there are, for people: the whole of several lines does not count. */
  get size(): number {
    return Math.max(1, this.#keys.length - 1);
  }

  /** What is unwise or surprising about them. Names no secret. */
  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /** Takes these secrets instead: a token that none of them signs is refused from now on.
   * @throws {Error} where there is none; those of before then stay. */
  replace(text: string): void {
    if (text.trim() === '') throw new Error('it holds no secret: write one a line');
    const lines = text.split(/\r?\n/);
    if (lines.length === 1) {
      this.#keys = [keyOf(text)];
      this.#warnings = isShort(text)
        ? [`JWT_SECRET is shorter than ${MIN_BYTES} bytes: whoever holds a token can try to guess it`]
        : [];
      return;
    }
    const own = lines.filter((line) => !isShort(line) && !line.startsWith('-----'));
    this.#keys = [...own, text].map(keyOf);
    this.#warnings = lines.flatMap((line, at) =>
      line !== '' && isShort(line)
        ? [
            `JWT_SECRET: line ${at + 1} of several is shorter than ${MIN_BYTES} bytes and is no secret of its own`,
          ]
        : [],
    );
  }
}

function isShort(secret: string): boolean {
  return Buffer.byteLength(secret) < MIN_BYTES;
}

function keyOf(secret: string): KeyObject {
  return createSecretKey(Buffer.from(secret));
}
