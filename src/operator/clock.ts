// The clock: notices that the time of day was set, by an administrator or because the machine slept. What is remembered
// with times of before would then wait for hours, or not at all.

/** Clocks that are kept right by NTP are off by less. */
const SET_MS = 5000;

/** Compares the time of day with a clock that cannot be set. */
export class Clock {
  readonly #dayMs: () => number;
  readonly #steadyMs: () => number;
  #offsetMs: number;

  /** `steadyMs` counts milliseconds and cannot be set. */
  constructor(dayMs: () => number = Date.now, steadyMs: () => number = () => performance.now()) {
    this.#dayMs = dayMs;
    this.#steadyMs = steadyMs;
    this.#offsetMs = dayMs() - steadyMs();
  }

  /** Whether it was set since this was asked last. */
  wasSet(): boolean {
    const before = this.#offsetMs;
    this.#offsetMs = this.#dayMs() - this.#steadyMs();
    return Math.abs(this.#offsetMs - before) > SET_MS;
  }
}
