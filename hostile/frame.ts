// Frames made by hand, right or wrong in every bit that a frame has.

import { randomBytes } from 'node:crypto';

/** What a client's frame is made of. */
export interface FrameParts {
  readonly opcode: number;
  readonly payload?: Buffer | string;
  readonly final?: boolean;
  /** The three reserved bits, as a number from 0 to 7. */
  readonly reserved?: number;
  /** Without: it is not masked, which no client may do. */
  readonly mask?: Buffer | undefined;
  /** The length that it claims, where that is not the payload's. */
  readonly length?: bigint | number;
  /** How the length is written: 7, 16 or 64 bits. Unset: as short as possible. */
  readonly lengthBits?: 7 | 16 | 64;
}

/** A frame as a client sends it, masked at random unless it is told otherwise. */
export function frame({
  opcode,
  payload = '',
  final = true,
  reserved = 0,
  length,
  lengthBits,
  ...rest
}: FrameParts): Buffer {
  const bytes = Buffer.from(payload);
  const mask = 'mask' in rest ? rest.mask : randomBytes(4);
  const claimed = BigInt(length ?? bytes.length);
  const bits = lengthBits ?? (claimed < 126n ? 7 : claimed < 65_536n ? 16 : 64);
  const header = Buffer.alloc(bits === 7 ? 2 : bits === 16 ? 4 : 10);
  header[0] = (final ? 0x80 : 0) | (reserved << 4) | opcode;
  header[1] = (mask === undefined ? 0 : 0x80) | (bits === 7 ? Number(claimed) : bits === 16 ? 126 : 127);
  if (bits === 16) header.writeUInt16BE(Number(claimed), 2);
  if (bits === 64) header.writeBigUInt64BE(claimed, 2);
  if (mask === undefined) return Buffer.concat([header, bytes]);
  const masked = Buffer.from(bytes.map((byte, at) => byte ^ (mask[at % 4] ?? 0)));
  return Buffer.concat([header, mask, masked]);
}

/** A message in fragments of so many bytes, each a frame. */
export function fragments(opcode: number, payload: Buffer | string, bytesEach: number): Buffer[] {
  const bytes = Buffer.from(payload);
  const frames: Buffer[] = [];
  for (let at = 0; at === 0 || at < bytes.length; at += bytesEach) {
    const end = at + bytesEach;
    const piece = bytes.subarray(at, end);
    frames.push(frame({ opcode: at === 0 ? opcode : 0, payload: piece, final: end >= bytes.length }));
  }
  return frames;
}
