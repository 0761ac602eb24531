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
    // Three times what test/until.ts waits. Time-outs are to end what hangs, on a machine that is five times as slow too.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 60_000 } },
    reporters: ['default'],
    // A rejection that nobody handles is a bug in the gateway, also when every test passes.
    dangerouslyIgnoreUnhandledErrors: false,
  },
});
