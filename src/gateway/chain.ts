// The chain: what follows from what in a durable channel. Pure: no clock, no bus.

import { decodeEnvelope } from '../bus/envelope.ts';
import { type Position, parsePlainId, parsePosition, tagOf } from '../protocol/positions.ts';
import type { Outgoing } from './fanout.ts';

/** A message of a durable channel, and the id of the one before it. */
export interface Entry extends Position {
  readonly prev: string;
  readonly message: Outgoing;
}

/** A place somebody says he has reached. A plain client knows only a part of the id. */
export interface Place {
  readonly offset: number;
  matches(id: string): boolean;
}

/** What a stretch of the log says about a place in it.
 * - `continues`: confirmed, and these come next, if any. `at` is the place with its whole id;
 * - `trimmed`: what came next is gone; these are the oldest that are left;
 * - `forked`: the place is on a branch that was lost;
 * - `unknown`: nothing is known of the channel at all. */
export type Verdict =
  | { kind: 'continues'; at: Position; entries: readonly Entry[] }
  | { kind: 'trimmed'; entries: readonly Entry[] }
  | { kind: 'forked' }
  | { kind: 'unknown' };

/** Entries of the log as they can be used; one that no gateway wrote is left out, and the chain shows the hole. */
export function readEntries(stored: readonly Buffer[]): Entry[] {
  return stored.map(readEntry).filter((entry) => entry !== undefined);
}

/** One entry, or undefined for bytes that are none. */
export function readEntry(bytes: Buffer): Entry | undefined {
  const envelope = decodeEnvelope(bytes);
  if (envelope === undefined) return undefined;
  const { offset, prev, id, sender, timeMs, skip, traceparent } = envelope.header;
  if (offset === undefined || prev === undefined) return undefined;
  const position = { offset, id };
  return {
    offset,
    id,
    prev,
    message: {
      kind: 'message',
      id,
      position,
      from: sender,
      foreign: false,
      payload: envelope.payload,
      timeMs,
      skip,
      traceparent,
    },
  };
}

/** Judges a place by the entries from its offset on and by the head of the same moment. A place counts only if the
 * entry itself, its successor's `prev` or the head confirms its id, so a lost tail can never pass for continuity. */
export function judge(place: Place, entries: readonly Entry[], head: Position | undefined): Verdict {
  if (head === undefined) {
    return place.offset === 0 && place.matches('0')
      ? { kind: 'continues', at: { offset: 0, id: '0' }, entries: [] }
      : { kind: 'unknown' };
  }
  if (place.offset > head.offset) return { kind: 'forked' };
  if (place.offset === head.offset) return confirmed(place, head.id, []);
  const [first, ...rest] = entries;
  if (first === undefined || first.offset > place.offset + 1) return { kind: 'trimmed', entries };
  return first.offset === place.offset
    ? confirmed(place, first.id, rest)
    : confirmed(place, first.prev, entries);
}

function confirmed(place: Place, id: string, entries: readonly Entry[]): Verdict {
  return place.matches(id)
    ? { kind: 'continues', at: { offset: place.offset, id }, entries }
    : { kind: 'forked' };
}

/** A position as a place. */
export function placeOf({ offset, id }: Position): Place {
  return { offset, matches: (other) => other === id };
}

/** What a v1 client says of its position. */
export function placeOfText(text: string): Place {
  const position = parsePosition(text);
  return position === undefined ? NOWHERE : placeOf(position);
}

/** What a plain client says was the last `id` it had. */
export function placeOfPlainId(text: string): Place {
  const id = parsePlainId(text);
  return id === undefined ? NOWHERE : { offset: id.offset, matches: (other) => tagOf(other) === id.tag };
}

/** What is no position of ours: beyond every head, and on no branch. */
const NOWHERE: Place = { offset: Number.MAX_SAFE_INTEGER, matches: () => false };
