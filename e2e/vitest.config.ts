// How vitest finds and runs the scenarios.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['e2e/*.test.ts'],
    pool: 'forks',
    // Most of a scenario's time is spent waiting, so more run side by side than there are cores.
    maxWorkers: 4,
    // More than what a scenario waits for takes one after the other, on a machine that is as slow as a time-out may bear.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    reporters: ['verbose'],
    // Lines of progress are for the terminal as they are.
    disableConsoleIntercept: true,
  },
});
