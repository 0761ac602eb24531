import { describe, expect, test } from 'vitest';
import type { KindName } from './kinds.ts';
import { runTrial } from './trial.ts';

/** Every kind once, and twice where two forms of it differ much. `npm run drill` runs a hundred of each. */
const trials: [kind: KindName, seed: number][] = [
  ['restart', 1],
  ['restart', 2],
  ['failover', 1],
  ['failover', 2],
  ['partition', 2],
  ['silence', 1],
  ['kill', 1],
  ['roll', 1],
  ['move', 1],
  ['flush', 2],
  ['slow', 1],
];

describe.concurrent('under constant publishing', () => {
  test.each(trials)('nothing is lost silently at a %s (seed %i)', async (kind, seed) => {
    const { verdict, failures, acknowledged } = await runTrial(kind, seed);
    const { lost, doubled, disordered, altered, findings } = verdict;
    expect({ failures, findings }).toEqual({ failures: [], findings: [] });
    expect({ lost, doubled, disordered, altered }).toEqual({
      lost: 0,
      doubled: 0,
      disordered: 0,
      altered: 0,
    });
    expect(acknowledged).toBeGreaterThan(0);
  });
});
