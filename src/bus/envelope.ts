// The envelope: how a message looks on the bus, `TG1 {header}\n` and then the payload as it will reach clients.

import { isUtf8 } from 'node:buffer';
import { isId } from '../platform/ids.ts';
import { isName } from '../protocol/names.ts';

/** What travels with a payload. */
export interface Header {
  /** On a durable channel: the message's number, and the id of the one before it. */
  readonly offset?: number;
  readonly prev?: string;
  readonly id: string;
  /** The user who published it; absent where an application did through the HTTP API. */
  readonly sender?: string;
  /** When the publishing gateway took it, in milliseconds since 1970 by that gateway's clock. */
  readonly timeMs: number;
  /** The connection that must not get it, because it asked so with `"echo":false`. */
  readonly skip?: string;
  /** A presence event rather than a message. */
  readonly presence?: true;
  /** The trace of the message: what a gateway wrote, and unread until it is needed. */
  readonly traceparent?: string;
}

/** A message on the bus. `payload` is JSON text, validated where it entered. */
export interface Envelope {
  readonly header: Header;
  readonly payload: string;
}

const MAGIC = 'TG1 ';
const MAGIC_BYTES = Buffer.from(MAGIC);
const NEWLINE = 0x0a;

/** A header is a few fields; anything longer was not written by a gateway. */
const MAX_HEADER_BYTES = 4096;

/** The message as it crosses the bus. `payload` must be valid JSON text: it is not looked at. */
export function encodeEnvelope(header: Header, payload: string): Buffer {
  return Buffer.from(`${MAGIC}${JSON.stringify(header)}\n${payload}`);
}

/** Total: bytes that no gateway wrote give undefined. */
export function decodeEnvelope(bytes: Buffer): Envelope | undefined {
  if (bytes.length < MAGIC.length || bytes.compare(MAGIC_BYTES, 0, MAGIC.length, 0, MAGIC.length) !== 0)
    return undefined;
  const end = bytes.indexOf(NEWLINE, MAGIC.length);
  if (end === -1 || end > MAX_HEADER_BYTES || !isUtf8(bytes)) return undefined;
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString('utf8', MAGIC.length, end));
  } catch {
    return undefined;
  }
  return isHeader(header) ? { header, payload: bytes.toString('utf8', end + 1) } : undefined;
}

/** Ids and names are later quoted without escaping, so they are checked here, once a pod. */
function isHeader(value: unknown): value is Header {
  if (typeof value !== 'object' || value === null) return false;
  const { offset, prev, id, sender, timeMs, skip, presence, traceparent } = value as Record<string, unknown>;
  return (
    isId(id) &&
    (offset === undefined
      ? prev === undefined
      : Number.isSafeInteger(offset) && Number(offset) > 0 && isId(prev)) &&
    (sender === undefined || isName(sender)) &&
    Number.isFinite(timeMs) &&
    (skip === undefined || isId(skip)) &&
    (presence === undefined || presence === true) &&
    (traceparent === undefined || typeof traceparent === 'string')
  );
}
