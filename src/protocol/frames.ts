// Frames: WebSocket frames (RFC 6455) as the gateway writes them, once for all who get the same bytes.

import { constants, deflateRawSync } from 'node:zlib';

/** An empty ping (FIN, opcode 9), written as it is to every connection. */
export const PING_FRAME = Buffer.from([0x89, 0]);

/** Payloads below this are sent uncompressed even where compression was agreed, as ws does by default. */
export const COMPRESS_MIN_BYTES = 1024;

const TEXT = 0x81; // FIN and opcode 1
const COMPRESSED = 0x40; // RSV1, RFC 7692 6
const FLUSH_TAIL_BYTES = 4; // 00 00 ff ff, which RFC 7692 7.2.1 leaves out

/** A text frame, unmasked as a server's must be. */
export function textFrame(payload: string): Buffer {
  const length = Buffer.byteLength(payload);
  const frame = Buffer.allocUnsafe(headerBytes(length) + length);
  frame.write(payload, writeHeader(frame, TEXT, length), 'utf8');
  return frame;
}

/** A text frame for a connection that agreed on permessage-deflate with `server_no_context_takeover`: compressed
 * once, whoever gets it. Short ones, and those that would grow, are left uncompressed. */
export function compressedTextFrame(payload: string): Buffer {
  if (payload.length < COMPRESS_MIN_BYTES) return textFrame(payload);
  const deflated = deflateRawSync(payload, { finishFlush: constants.Z_SYNC_FLUSH });
  const body = deflated.subarray(0, deflated.length - FLUSH_TAIL_BYTES);
  if (body.length >= Buffer.byteLength(payload)) return textFrame(payload);
  const frame = Buffer.allocUnsafe(headerBytes(body.length) + body.length);
  body.copy(frame, writeHeader(frame, TEXT | COMPRESSED, body.length));
  return frame;
}

function headerBytes(length: number): number {
  if (length < 126) return 2;
  return length < 65_536 ? 4 : 10;
}

/** Writes the header and returns where the payload begins. */
function writeHeader(frame: Buffer, firstByte: number, length: number): number {
  frame[0] = firstByte;
  if (length < 126) {
    frame[1] = length;
    return 2;
  }
  if (length < 65_536) {
    frame[1] = 126;
    return frame.writeUInt16BE(length, 2);
  }
  frame[1] = 127;
  return frame.writeBigUInt64BE(BigInt(length), 2);
}
