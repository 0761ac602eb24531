import fc from 'fast-check';
import { expect, test } from 'vitest';
import { json, name, wildText } from '../../test/arbitraries.ts';
import { isId } from '../platform/ids.ts';
import { isName } from '../protocol/names.ts';
import { decodeEnvelope, encodeEnvelope, type Header } from './envelope.ts';

const id = fc.string({ unit: fc.constantFrom(...'ABCXYZabcxyz019_-'), minLength: 1, maxLength: 64 });

const header: fc.Arbitrary<Header> = fc
  .tuple(
    fc.record({ id, timeMs: fc.maxSafeNat() }),
    fc.record(
      { sender: name, skip: id, presence: fc.constant(true as const), traceparent: fc.string() },
      { requiredKeys: [] },
    ),
    fc.oneof(
      fc.constant({}),
      fc.record({ offset: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), prev: id }),
    ),
  )
  .map(([needed, optional, durable]) => ({ ...needed, ...optional, ...durable }));

const payload = json.map((value) => JSON.stringify(value));

/** What every envelope that is decoded must hold to, as it is quoted without escaping later. */
function expectSound(bytes: Buffer): void {
  const envelope = decodeEnvelope(bytes);
  if (envelope === undefined) return;
  const { offset, prev, id: ownId, sender, timeMs, skip, presence, traceparent } = envelope.header;
  expect(isId(ownId)).toBe(true);
  expect(Number.isFinite(timeMs)).toBe(true);
  if (sender !== undefined) expect(isName(sender)).toBe(true);
  if (skip !== undefined) expect(isId(skip)).toBe(true);
  if (presence !== undefined) expect(presence).toBe(true);
  // Whoever quotes it checks it before.
  expect(['undefined', 'string']).toContain(typeof traceparent);
  expect(offset === undefined).toBe(prev === undefined);
  if (offset !== undefined) expect(Number.isSafeInteger(offset) && offset > 0).toBe(true);
  if (prev !== undefined) expect(isId(prev)).toBe(true);
  expect(typeof envelope.payload).toBe('string');
}

test('comes back as it was', () => {
  fc.assert(
    fc.property(header, payload, (its, text) => {
      expect(decodeEnvelope(encodeEnvelope(its, text))).toEqual({ header: its, payload: text });
    }),
  );
});

test('carries a payload with line ends, quotes and characters outside the first plane', () => {
  const its = { id: 'a', timeMs: 1 };
  const text = '{"a":"\\n",\n"b":"𝄞\u2028é"}\r\n';
  expect(decodeEnvelope(encodeEnvelope(its, text))).toEqual({ header: its, payload: text });
  expect(decodeEnvelope(encodeEnvelope(its, ''))).toEqual({ header: its, payload: '' });
});

test('has the shape that other programs may rely on', () => {
  const bytes = encodeEnvelope({ id: 'a1', sender: 'ann', timeMs: 1 }, '{"x":1}');
  expect(bytes.toString()).toBe('TG1 {"id":"a1","sender":"ann","timeMs":1}\n{"x":1}');
});

test('is decoded from any bytes without an exception, to nothing or to something sound', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => expectSound(Buffer.from(bytes))));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) =>
      expectSound(Buffer.concat([Buffer.from('TG1 {'), bytes])),
    ),
  );
  fc.assert(
    fc.property(fc.oneof(payload, wildText), payload, (text, rest) =>
      expectSound(Buffer.from(`TG1 ${text}\n${rest}`)),
    ),
  );
});

test('is decoded to nothing or to something sound where it was damaged', () => {
  fc.assert(
    fc.property(header, payload, fc.nat(), fc.integer({ min: 0, max: 255 }), (its, text, at, byte) => {
      const bytes = encodeEnvelope(its, text);
      bytes[at % bytes.length] = byte;
      expectSound(bytes);
      expectSound(bytes.subarray(0, at % bytes.length));
    }),
  );
});

test('is decoded to nothing or to something sound whatever the fields of its header are', () => {
  const fields = fc.record(
    {
      id: fc.oneof(id, json),
      sender: fc.oneof(name, json),
      timeMs: fc.oneof(fc.double(), json),
      skip: fc.oneof(id, json),
      presence: fc.oneof(fc.boolean(), json),
      offset: fc.oneof(fc.integer(), json),
      prev: fc.oneof(id, json),
      traceparent: fc.oneof(fc.string(), json),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fields, payload, (its, text) =>
      expectSound(Buffer.from(`TG1 ${JSON.stringify(its)}\n${text}`)),
    ),
  );
});

test.each([
  ['nothing', ''],
  ['less than its first word', 'TG'],
  ['another version', 'TG2 {"id":"a","timeMs":1}\n1'],
  ['no end of its header', 'TG1 {"id":"a","timeMs":1}'],
  ['a header that is no JSON', 'TG1 {"id":"a","timeMs":1\n1'],
  ['a header that is no object', 'TG1 null\n1'],
  ['a header that is a list', 'TG1 []\n1'],
  ['no id', 'TG1 {"timeMs":1}\n1'],
  ['an id that would have to be escaped', 'TG1 {"id":"a\\"","timeMs":1}\n1'],
  ['an id that is too long', `TG1 {"id":"${'a'.repeat(65)}","timeMs":1}\n1`],
  ['no time', 'TG1 {"id":"a"}\n1'],
  ['a time without end', 'TG1 {"id":"a","timeMs":1e999}\n1'],
  ['a sender that is no name', 'TG1 {"id":"a","timeMs":1,"sender":"a b"}\n1'],
  ['a sender that is a number', 'TG1 {"id":"a","timeMs":1,"sender":1}\n1'],
  ['somebody to skip who is nobody', 'TG1 {"id":"a","timeMs":1,"skip":""}\n1'],
  ['a presence that is denied', 'TG1 {"id":"a","timeMs":1,"presence":false}\n1'],
  ['a trace that is no text', 'TG1 {"id":"a","timeMs":1,"traceparent":1}\n1'],
  ['an offset without the id before it', 'TG1 {"id":"a","timeMs":1,"offset":1}\n1'],
  ['an id before it without an offset', 'TG1 {"id":"a","timeMs":1,"prev":"b"}\n1'],
  ['an offset that is no whole number', 'TG1 {"id":"a","timeMs":1,"offset":1.5,"prev":"b"}\n1'],
  ['an offset before the first', 'TG1 {"id":"a","timeMs":1,"offset":0,"prev":"b"}\n1'],
  ['a header that is too long', `TG1 {"id":"a","timeMs":1,"extra":"${'x'.repeat(5000)}"}\n1`],
  ['bytes that are no UTF-8 in its header', Buffer.from('TG1 {"id":"a","timeMs":1,"x":"\xff"}\n1', 'latin1')],
  ['bytes that are no UTF-8 in its payload', Buffer.from('TG1 {"id":"a","timeMs":1}\n"\xff"', 'latin1')],
])('is refused where it has %s', (_, bytes) => {
  expect(decodeEnvelope(Buffer.from(bytes))).toBeUndefined();
});

test('ignores fields of its header that it does not know', () => {
  const bytes = Buffer.from('TG1 {"id":"a","timeMs":1,"of a later version":[]}\n1');
  expect(decodeEnvelope(bytes)).toMatchObject({ header: { id: 'a', timeMs: 1 }, payload: '1' });
});
