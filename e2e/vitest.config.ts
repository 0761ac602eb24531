// How vitest finds and runs the scenarios.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['e2e/*.test.ts'],
    pool: 'forks',
    // Most of a scenario's time is spent waiting, so more run side by side than there are cores.
    maxWorkers: 4,
    testTimeout: 300_000,
    hookTimeout: 300_000,
    reporters: ['verbose'],
    // Lines of progress are for the terminal as they are.
    disableConsoleIntercept: true,
  },
});
