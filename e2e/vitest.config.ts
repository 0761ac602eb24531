// How vitest finds and runs the scenarios.

import { defineConfig } from 'vitest/config';

/** What changes the cluster for everybody: one after the other, when the others are done. */
const ALONE = [
  'install',
  'operator-kind',
  'operator-foreign',
  'operator-recording',
  'operator-apiserver',
].map((name) => `e2e/${name}.test.ts`);

const shared = {
  pool: 'forks',
  // More than the longest wait for a condition, which says what it waited for.
  testTimeout: 1_500_000,
  hookTimeout: 1_500_000,
} as const;

export default defineConfig({
  test: {
    reporters: ['verbose'],
    // Lines of progress are for the terminal as they are.
    disableConsoleIntercept: true,
    projects: [
      {
        test: {
          ...shared,
          name: 'beside others',
          include: ['e2e/*.test.ts'],
          exclude: ALONE,
          // Most of a scenario's time is spent waiting, so more run side by side than there are cores.
          maxWorkers: 4,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: { ...shared, name: 'alone', include: ALONE, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
