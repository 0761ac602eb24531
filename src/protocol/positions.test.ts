import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { wildText } from '../../test/arbitraries.ts';
import { newId } from '../platform/ids.ts';
import { formatPosition, GENESIS, parsePlainId, parsePosition, plainId, tagOf } from './positions.ts';

const idCharacters = 'ABCXYZabcxyz0189-_';
const id = fc.string({ unit: fc.constantFrom(...idCharacters), minLength: 1, maxLength: 64 });
const offset = fc.maxSafeNat();
/** As many messages as the plain protocol has numbers for. */
const plainOffset = fc.integer({ min: 0, max: 2 ** 37 - 1 });

describe('parsePosition', () => {
  it('reads what formatPosition wrote', () => {
    fc.assert(
      fc.property(offset, id, (at, name) => {
        expect(parsePosition(formatPosition({ offset: at, id: name }))).toEqual({ offset: at, id: name });
      }),
    );
    expect(parsePosition(formatPosition(GENESIS))).toEqual(GENESIS);
    expect(parsePosition('1045-9f3a2c')).toEqual({ offset: 1045, id: '9f3a2c' });
  });

  it('gives nothing for what is no position, and never throws', () => {
    for (const text of [
      '',
      '-',
      '1',
      '1-',
      '-x',
      '-1-x',
      '1.5-x',
      '1e3-x',
      ' 1-x',
      '1-x ',
      '1-ä',
      `1-${'x'.repeat(65)}`,
      '9007199254740992-x',
      'NaN-x',
    ]) {
      expect(parsePosition(text), text).toBeUndefined();
    }
    const near = fc
      .array(fc.constantFrom('-', '0', '1', '9', 'x', '_', '.', ' ', '٣'), { maxLength: 8 })
      .map((it) => it.join(''));
    fc.assert(
      fc.property(fc.oneof(wildText, near), (text) => {
        const position = parsePosition(text);
        if (position !== undefined) expect(parsePosition(formatPosition(position))).toEqual(position);
      }),
      { numRuns: 500 },
    );
  });
});

describe('plainId', () => {
  it('is a number that JSON carries exactly, and tells the offset and the tag', () => {
    fc.assert(
      fc.property(plainOffset, id, (at, name) => {
        const number = plainId({ offset: at, id: name });
        expect(Number.isSafeInteger(number)).toBe(true);
        expect(parsePlainId(String(number))).toEqual({ offset: at, tag: tagOf(name) });
      }),
    );
  });

  it('grows with the offset, whatever the ids are', () => {
    fc.assert(
      fc.property(plainOffset, id, id, (at, one, other) => {
        expect(plainId({ offset: at + 1, id: other })).toBeGreaterThan(plainId({ offset: at, id: one }));
      }),
    );
  });

  it('differs between two branches of a channel, but for one case in many thousand', () => {
    const ids = new Set(Array.from({ length: 1000 }, () => plainId({ offset: 7, id: newId() })));
    // Of a thousand in 65,536 some eight fall together.
    expect(ids.size).toBeGreaterThan(950);
  });
});

describe('parsePlainId', () => {
  it('gives nothing for what is no such number, and never throws', () => {
    for (const text of ['', '-1', '1.5', '1e3', '0x10', ' 1', '9007199254740992', '99999999999999999', '٣']) {
      expect(parsePlainId(text), text).toBeUndefined();
    }
    fc.assert(
      fc.property(wildText, (text) => {
        const parsed = parsePlainId(text);
        if (parsed !== undefined) expect(text).toMatch(/^\d+$/);
      }),
    );
  });
});
