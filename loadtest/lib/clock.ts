// The clock: the time of day in milliseconds with fractions. `Date.now()` has whole milliseconds only, which would be
// a tenth of what is measured.

import exec from 'k6/execution';

/** The wall clock is looked at anew so often, as it may be set right meanwhile. */
const RECALIBRATE_MS = 60_000;

let offsetMs = 0;
let calibratedAtMs = Number.NEGATIVE_INFINITY;

/** Milliseconds since 1970, comparable with `event.timestamp` of the same process. */
export function nowMs(): number {
  const sinceStartMs = exec.instance.currentTestRunDuration;
  if (sinceStartMs - calibratedAtMs > RECALIBRATE_MS) {
    // At the moment when Date.now() turns, it is exact.
    const before = Date.now();
    let now = before;
    while (now === before) now = Date.now();
    offsetMs = now - exec.instance.currentTestRunDuration;
    calibratedAtMs = sinceStartMs;
  }
  return offsetMs + exec.instance.currentTestRunDuration;
}
