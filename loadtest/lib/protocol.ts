// The protocol: what the scripts put into messages, and how to read it back. Any data gives a stamp or undefined.

/** What every message of a load test carries. */
export interface Stamp {
  /** Who published it: one series of numbers. */
  readonly by: string;
  /** Counts from 1 for each publisher. */
  readonly seq: number;
  /** When, by the clock of its runner. */
  readonly atMs: number;
  /** The process whose clock that is. */
  readonly runner: string;
  /** On the last one of a publisher, which is no message itself: `seq` is how many there were. */
  readonly end?: true;
  readonly pad?: string;
}

/** The stamp in a message's data, or undefined where the message is somebody else's. */
export function stampOf(data: unknown): Stamp | undefined {
  // On a raw channel the payload arrives as its text.
  const value = typeof data === 'string' ? parse(data) : data;
  if (typeof value !== 'object' || value === null) return undefined;
  const { by, seq, atMs, runner } = value as Partial<Stamp>;
  const isStamp =
    typeof by === 'string' &&
    typeof seq === 'number' &&
    typeof atMs === 'number' &&
    typeof runner === 'string';
  return isStamp ? (value as Stamp) : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Fills a message up to about the size that is wanted. */
export function padding(bytes: number): string {
  const STAMP_BYTES = 110;
  return 'x'.repeat(Math.max(0, bytes - STAMP_BYTES));
}
