import { inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readFrames } from '../../test/raw.ts';
import { COMPRESS_MIN_BYTES, compressedTextFrame, PING_FRAME, textFrame } from './frames.ts';

const TEXT = 0x81;
const COMPRESSED_TEXT = 0xc1;

/** What a client makes of a frame. */
function read(frame: Buffer): { firstByte: number; text: string } {
  const frames = readFrames(frame);
  expect(frames).toHaveLength(1);
  const [{ firstByte, payload } = { firstByte: 0, payload: Buffer.alloc(0) }] = frames;
  if (firstByte !== COMPRESSED_TEXT) return { firstByte, text: payload.toString() };
  const deflated = Buffer.concat([payload, Buffer.from([0, 0, 0xff, 0xff])]);
  return { firstByte, text: inflateRawSync(deflated, { finishFlush: 2 }).toString() };
}

test('frames a text of any length with the shortest header', () => {
  for (const [length, header] of [
    [0, 2],
    [125, 2],
    [126, 4],
    [65_535, 4],
    [65_536, 10],
    [100_000, 10],
  ] as const) {
    const text = 'x'.repeat(length);
    const frame = textFrame(text);
    expect(frame).toHaveLength(header + length);
    expect(read(frame)).toEqual({ firstByte: TEXT, text });
  }
});

test('counts bytes, not characters', () => {
  for (const text of ['ä'.repeat(63), '🌊'.repeat(32), '€'.repeat(30_000)]) {
    expect(read(textFrame(text))).toEqual({ firstByte: TEXT, text });
  }
});

test('carries any text through either frame', () => {
  const unit = fc.oneof(fc.constantFrom('grapheme', 'binary'), fc.constant('grapheme')) as fc.Arbitrary<
    'grapheme' | 'binary'
  >;
  fc.assert(
    fc.property(
      unit.chain((kind) => fc.string({ unit: kind, maxLength: 200 })),
      fc.integer({ min: 1, max: 40 }),
      (part, times) => {
        const text = part.repeat(times);
        expect(read(textFrame(text)).text).toBe(text);
        expect(read(compressedTextFrame(text)).text).toBe(text);
      },
    ),
    { numRuns: 100 },
  );
});

test('compresses what is long enough and gains by it, and nothing else', () => {
  const long = '{"some":"json"}'.repeat(500);
  const frame = compressedTextFrame(long);
  expect(read(frame)).toEqual({ firstByte: COMPRESSED_TEXT, text: long });
  expect(frame.length).toBeLessThan(long.length / 10);
  const short = 'x'.repeat(COMPRESS_MIN_BYTES - 1);
  expect(read(compressedTextFrame(short))).toEqual({ firstByte: TEXT, text: short });
  const random = Array.from({ length: 2000 }, () => String.fromCharCode(32 + Math.random() * 95)).join('');
  const incompressible = Buffer.from(random).toString('base64').slice(0, COMPRESS_MIN_BYTES);
  expect(compressedTextFrame(incompressible).length).toBeLessThanOrEqual(textFrame(incompressible).length);
});

test('pings with an empty frame', () => {
  expect(readFrames(PING_FRAME)).toEqual([{ firstByte: 0x89, payload: Buffer.alloc(0) }]);
});
