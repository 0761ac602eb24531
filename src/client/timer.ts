// A timer: one thing that is to be done later.

import type { Platform } from './platform.ts';

/** Does one thing after a while. Setting it again puts the new thing in the old one's place. */
export class Timer {
  readonly #platform: Platform;
  #cancel: (() => void) | undefined;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  get isSet(): boolean {
    return this.#cancel !== undefined;
  }

  set(ms: number, action: () => void): void {
    this.clear();
    this.#cancel = this.#platform.after(ms, () => {
      this.#cancel = undefined;
      action();
    });
  }

  clear(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
