import fc from 'fast-check';
import { expect, test } from 'vitest';
import { wildText } from '../../test/arbitraries.ts';
import { formatTraceparent, isSampled, parseTraceparent } from './traceparent.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';

const hex = (length: number) =>
  fc
    .string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: length, maxLength: length })
    .filter((text) => !/^0+$/.test(text));

test('comes back as it was', () => {
  fc.assert(
    fc.property(fc.record({ traceId: hex(32), spanId: hex(16), sampled: fc.boolean() }), (context) => {
      const text = formatTraceparent(context);
      expect(parseTraceparent(text)).toEqual(context);
      expect(isSampled(text)).toBe(context.sampled);
    }),
  );
});

test.each([
  [`00-${traceId}-${spanId}-01`, true],
  [`00-${traceId}-${spanId}-00`, false],
  [`00-${traceId}-${spanId}-03`, true],
  [`00-${traceId}-${spanId}-02`, false],
  [`00-${traceId}-${spanId}-fe`, false],
  [`01-${traceId}-${spanId}-01`, true],
  [`01-${traceId}-${spanId}-01-of-a-later-version`, true],
])('takes %s as the standard does', (text, sampled) => {
  expect(parseTraceparent(text)).toEqual({ traceId, spanId, sampled });
});

test.each([
  ['nothing', undefined],
  ['a number', 1],
  ['a list', [`00-${traceId}-${spanId}-01`]],
  ['no text', ''],
  ['a version that is forbidden', `ff-${traceId}-${spanId}-01`],
  ['more than its version has', `00-${traceId}-${spanId}-01-more`],
  ['a trace of zeros', `00-${'0'.repeat(32)}-${spanId}-01`],
  ['a span of zeros', `00-${traceId}-${'0'.repeat(16)}-01`],
  ['capital letters', `00-${traceId.toUpperCase()}-${spanId}-01`],
  ['digits that are none', `00-${'g'.repeat(32)}-${spanId}-01`],
  ['a quote in it', `00-${traceId}-${spanId}-0"`],
  ['no end', `01-${traceId}-${spanId}-01-${'x'.repeat(100_000)}`],
])('refuses %s', (_, value) => {
  expect(parseTraceparent(value)).toBeUndefined();
});

test('takes any value without an exception, and what it takes needs no escaping', () => {
  fc.assert(
    fc.property(
      fc.oneof(wildText, fc.anything(), fc.stringMatching(/^0[01]-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3].?/)),
      (value) => {
        const context = parseTraceparent(value);
        if (context !== undefined)
          expect(formatTraceparent(context)).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
      },
    ),
  );
});

test('only what a gateway wrote as sampled is', () => {
  expect(isSampled(undefined)).toBe(false);
  expect(isSampled('')).toBe(false);
  expect(isSampled('1')).toBe(false);
});
