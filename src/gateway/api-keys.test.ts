import { describe, expect, it } from 'vitest';
import { ApiKeys } from './api-keys.ts';

describe('ApiKeys', () => {
  it('knows the keys of its lines, and neither comments nor parts', () => {
    const keys = new ApiKeys('# a comment\n\nkey-one\r\n  key/two+=  \n#key-three\n');
    expect(keys.size).toBe(2);
    for (const key of ['key-one', 'key/two+=']) expect(keys.has(key)).toBe(true);
    for (const key of ['', 'key', 'key-one ', '# a comment', 'key-three', '#key-three'])
      expect(keys.has(key)).toBe(false);
  });

  it('forgets at once what is not among the new ones', () => {
    const keys = new ApiKeys('old\nboth');
    keys.replace('both\nnew');
    expect(['old', 'both', 'new'].map((key) => keys.has(key))).toEqual([false, true, true]);
  });

  it('keeps those it has where there are none to take', () => {
    const keys = new ApiKeys('key');
    for (const text of ['', '\n', '# key\n']) expect(() => keys.replace(text)).toThrow('it holds no key');
    expect(keys.has('key')).toBe(true);
  });
});
