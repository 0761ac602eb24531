import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { name, wildText } from '../../test/arbitraries.ts';
import { isName, namespaceOf } from './names.ts';

describe('isName', () => {
  it('takes 1 to 128 of the documented characters', () => {
    for (const name of ['a', 'ann@example.com', 'doc:42', 'room/7~b', 'A-Z.0_9', 'x'.repeat(128)])
      expect(isName(name), name).toBe(true);
  });

  it('takes nothing else', () => {
    for (const value of [
      '',
      'x'.repeat(129),
      'a b',
      'a\n',
      '\na',
      'a*',
      '{a}',
      'a?',
      'a%',
      'ä',
      'a"',
      'a\\',
      undefined,
      null,
      1,
      ['a'],
    ]) {
      expect(isName(value), JSON.stringify(value)).toBe(false);
    }
  });

  it('takes only what can be quoted in JSON and put into a log line without escaping', () => {
    fc.assert(
      fc.property(fc.oneof(name, wildText), (text) => {
        if (isName(text)) expect(JSON.stringify(text)).toBe(`"${text}"`);
      }),
    );
  });
});

describe('namespaceOf', () => {
  it('is the part before the first colon, or all of it', () => {
    expect(namespaceOf('doc:42')).toBe('doc');
    expect(namespaceOf('doc:42:7')).toBe('doc');
    expect(namespaceOf('ws_broadcast')).toBe('ws_broadcast');
    expect(namespaceOf(':x')).toBe('');
  });
});
