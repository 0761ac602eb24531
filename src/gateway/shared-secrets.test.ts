import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SharedSecrets } from './shared-secrets.ts';

const one = 'one secret that is long enough for HS256';
const two = 'two secrets that are long enough for HS256';

const textsOf = (secrets: SharedSecrets) => secrets.keys.map((key) => key.export().toString());

describe('SharedSecrets', () => {
  it('takes a line as it is, with whatever is in it', () => {
    for (const text of [one, ' # "quoted", \\n and — spaced — \t$(x) ', 'a,b;c=d']) {
      expect(textsOf(new SharedSecrets(text))).toEqual([text]);
    }
  });

  it('takes each line for a secret, the first one first, and the whole after them', () => {
    expect(textsOf(new SharedSecrets(`${one}\n${two}`))).toEqual([one, two, `${one}\n${two}`]);
    expect([one, `${one}\n${two}`].map((text) => new SharedSecrets(text).size)).toEqual([1, 2]);
    expect(textsOf(new SharedSecrets(`${one}\r\n\r\n${two}\n`)).slice(0, 2)).toEqual([one, two]);
  });

  it('goes on taking a secret of several lines, and none that could be guessed for a part of it', () => {
    const wrapped = `${'Zm9v'.repeat(16)}\nYQ==`;
    expect(textsOf(new SharedSecrets(wrapped))).toEqual(['Zm9v'.repeat(16), wrapped]);
    const pem = `-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----`;
    expect(textsOf(new SharedSecrets(pem))).toEqual([pem]);
  });

  it('warns of a secret that is short, and says which of several lines is none, without showing it', () => {
    expect(new SharedSecrets('hunter2').warnings).toEqual([
      'JWT_SECRET is shorter than 32 bytes: whoever holds a token can try to guess it',
    ]);
    expect(new SharedSecrets(`${one}\nhunter2\n\n${two}`).warnings).toEqual([
      'JWT_SECRET: line 2 of several is shorter than 32 bytes and is no secret of its own',
    ]);
    expect(new SharedSecrets(`${one}\n${two}`).warnings).toEqual([]);
  });

  it('keeps what it has where there is nothing to take', () => {
    const secrets = new SharedSecrets(one);
    for (const text of ['', ' \n\t\n']) expect(() => secrets.replace(text)).toThrow('it holds no secret');
    expect(textsOf(secrets)).toEqual([one]);
  });

  it('never accepts a short line by itself, nor nothing at all', () => {
    const lines = fc.array(fc.oneof(fc.string({ maxLength: 40 }), fc.constantFrom('', '\r', '-----')), {
      minLength: 1,
    });
    fc.assert(
      fc.property(lines, (parts) => {
        const text = parts.join('\n');
        fc.pre(text.trim() !== '');
        const texts = textsOf(new SharedSecrets(text));
        expect(texts.at(-1)).toBe(text);
        for (const own of texts.slice(0, -1)) expect(Buffer.byteLength(own)).toBeGreaterThanOrEqual(32);
      }),
    );
  });
});
