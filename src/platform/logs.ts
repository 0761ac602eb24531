// Logs: JSON lines on standard output, and the one reporter of background failures.

import pino, { type Logger } from 'pino';

export type Log = Logger;

/** How much unwritten log may wait for a reader that has stalled; what comes on top is dropped. */
const MAX_UNWRITTEN_BYTES = 8 * 1_048_576;

/** A log that never blocks the event loop: a stalled reader of standard output must not stop deliveries. */
export function createLog(level: string, pod: string): { log: Log; flush(): void } {
  const destination = pino.destination({ dest: 1, sync: false, maxLength: MAX_UNWRITTEN_BYTES });
  const log = pino({ level, base: { pod }, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return {
    log,
    flush() {
      try {
        destination.flushSync();
      } catch {
        // Standard output is gone, and there is nobody left to tell.
      }
    },
  };
}

/** Takes failures that have no caller to go to, with the name of the stage they happened in. */
export type Report = (stage: string, error: unknown) => void;
