// The schedule: when everybody connects, publishes and gives up. All virtual users of a run share it.

import { number, size } from './settings.ts';
import { checkTarget } from './setup.ts';

/** The times of a run, in milliseconds since 1970. */
export interface Times {
  readonly startAtMs: number;
  readonly publishAtMs: number;
  /** Half of the time of publishing is over. */
  readonly middleAtMs: number;
  readonly endAtMs: number;
  /** What has not come by then is lost. */
  readonly giveUpAtMs: number;
}

/** What the schedule is made from. */
export interface Durations {
  readonly connectSeconds: number;
  readonly seconds: number;
}

const SETTLE_SECONDS = 2;
const PATIENCE_SECONDS = number('PATIENCE_SECONDS', { ci: 15, full: 30 });
const CLOSE_SECONDS = 5;

/** How long a run may take altogether, in seconds. */
export function longestSeconds({ connectSeconds, seconds }: Durations): number {
  return connectSeconds + SETTLE_SECONDS + seconds + PATIENCE_SECONDS + CLOSE_SECONDS;
}

/** Checks that the gateway lets the test use these channels, and makes the schedule: a script's `setup`. */
export async function start(
  { connectSeconds, seconds }: Durations,
  channels: readonly string[],
): Promise<Times> {
  await checkTarget(channels);
  const startAtMs = Date.now();
  const publishAtMs = startAtMs + (connectSeconds + SETTLE_SECONDS) * 1000;
  const endAtMs = publishAtMs + seconds * 1000;
  console.log(
    `${size}: connecting for ${connectSeconds} s, publishing for ${seconds} s, until ${new Date(endAtMs).toISOString()}`,
  );
  return {
    startAtMs,
    publishAtMs,
    middleAtMs: publishAtMs + seconds * 500,
    endAtMs,
    giveUpAtMs: endAtMs + PATIENCE_SECONDS * 1000,
  };
}

/** The statistics that every summary shows. */
export const summaryTrendStats = ['avg', 'min', 'med', 'p(90)', 'p(99)', 'max'];
