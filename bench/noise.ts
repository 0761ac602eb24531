// Noise: how much of the machine others used while something was measured.

import { machineCpuSeconds, ownCpuSeconds } from './process.ts';
import { sleep } from './wait.ts';

/** More than this many cores used by others, and a measurement counts as disturbed. */
export const DISTURBED_CORES = 0.15;

/** Starts watching. The function it returns gives the cores that others have used since. */
export function watchOthers(): () => number {
  const own = ownCpuSeconds();
  const machine = machineCpuSeconds();
  const startedAt = performance.now();
  return () => {
    const seconds = (performance.now() - startedAt) / 1000;
    return (machineCpuSeconds() - machine - (ownCpuSeconds() - own)) / seconds;
  };
}

const QUIET_CORES = 0.05;
const QUIET_WINDOW_MS = 1500;

/** Waits until others use next to nothing, but not longer than this. */
export async function untilQuiet(limitSeconds: number): Promise<void> {
  const deadline = performance.now() + limitSeconds * 1000;
  while (performance.now() < deadline) {
    const othersSinceNow = watchOthers();
    await sleep(QUIET_WINDOW_MS);
    if (othersSinceNow() < QUIET_CORES) return;
  }
}
