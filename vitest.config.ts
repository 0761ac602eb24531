// How vitest finds and runs the tests.

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: [
      'src/**/*.test.ts',
      'test/**/*.test.ts',
      'drill/**/*.test.ts',
      'hostile/**/*.test.ts',
      'simulate/**/*.test.ts',
      'monitoring/**/*.test.ts',
      'loadtest/**/*.test.ts',
      'capacity/**/*.test.ts',
    ],
    // Processes, not threads: the tests start servers, send signals and count sockets of their own.
    pool: 'forks',
    // More would starve the Redis servers that each file starts, and turn timings into noise.
    maxWorkers: 2,
    // Several times what test/until.ts waits: time-outs are for what hangs, not for a machine that is five times as slow.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000 } },
    reporters: ['default'],
    // A rejection that nobody handles is a bug in the gateway, also when every test passes.
    dangerouslyIgnoreUnhandledErrors: false,
  },
});
