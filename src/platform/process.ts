// The process: the log that it writes, the signals that it is sent, and the code with which it ends.

import { hostname } from 'node:os';
import { ConfigError, faultsOf } from './config.ts';
import { createLog, type Log } from './logs.ts';

/** What runs until it is told to stop. */
export interface Running {
  stop(): Promise<void>;
}

/** The log of this process. What still waits at its end is written. */
export function processLog(config: {
  readonly LOG_LEVEL: string;
  readonly POD_NAME: string | undefined;
}): Log {
  const { log, flush } = createLog(config.LOG_LEVEL, config.POD_NAME ?? hostname());
  process.on('exit', flush);
  return log;
}

/** Starts it, and resolves when it runs. SIGTERM and SIGINT stop it and end the process; a second one ends it at once,
 * and so does what is thrown and nobody expected. @throws what the start throws. */
export async function runUntilSignal<T extends Running>(
  program: string,
  log: Log,
  start: () => Promise<T>,
): Promise<T> {
  let running: T | undefined;
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals) => {
    if (stopping) {
      log.warn({ signal }, 'second signal: leaving at once');
      process.exit(1);
    }
    stopping = true;
    log.info({ signal }, 'stopping');
    // Before it runs there is nothing to stop.
    Promise.resolve(running?.stop()).then(
      () => process.exit(0),
      (error) => fail(program, error),
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'uncaught exception');
    process.exit(1);
  });
  running = await start();
  return running;
}

/** Says on standard error what is wrong, and ends the process: with 2 where it is the configuration, else with 1. */
export function fail(program: string, error: unknown): never {
  const lines = faultsOf(error).map((fault) => `${program}: ${fault}\n`);
  const isConfig = error instanceof ConfigError;
  if (isConfig) lines.push(`${program}: see --help for every setting\n`);
  process.stderr.write(lines.join(''));
  process.exit(isConfig ? 2 : 1);
}
