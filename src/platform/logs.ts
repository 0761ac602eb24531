// Logs: JSON lines on standard output, and the one reporter of background failures.

import pino, { type Logger } from 'pino';

/** What the parts write their log lines to. */
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

/** A trace, under the names that OpenTelemetry has for it in logs. */
export interface TraceFields {
  readonly trace_id?: string;
  readonly span_id?: string;
}

const traces = new WeakMap<object, TraceFields>();

/** Says in which trace an error was thrown, for whoever logs it. */
export function nameTrace(error: unknown, { traceId, spanId }: { traceId: string; spanId: string }): void {
  if (typeof error === 'object' && error !== null) traces.set(error, { trace_id: traceId, span_id: spanId });
}

/** The trace an error was thrown in, or nothing. */
export function traceFieldsOf(error: unknown): TraceFields {
  return (typeof error === 'object' && error !== null && traces.get(error)) || {};
}

/** Takes failures that have no caller to go to, with the name of the stage they happened in. */
export type Report = (stage: string, error: unknown) => void;
