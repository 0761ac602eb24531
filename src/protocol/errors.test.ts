import { describe, expect, it } from 'vitest';
import { asTidegateError, type ErrorCode, type ErrorKind, errorKinds, TidegateError } from './errors.ts';

const table = Object.entries(errorKinds) as [ErrorCode, ErrorKind][];

describe('the error table', () => {
  it.each(table)(
    'has a status for %s that fits whether to try again, and says what it means',
    (code, { status, retryable, help }) => {
      expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
      expect(help).toMatch(/[.-]$/);
      // What is the caller's fault is not mended by repeating it.
      expect(retryable).toBe([409, 429, 500, 503].includes(status));
    },
  );
});

describe('TidegateError', () => {
  it('says what the table says unless it is told more', () => {
    const error = new TidegateError('bus_unavailable');
    expect(error).toMatchObject({ code: 'bus_unavailable', retryable: true, retryAfterMs: undefined });
    expect(error.message).toBe(errorKinds.bus_unavailable.help);
    expect(new TidegateError('forbidden', 'You may not.').message).toBe('You may not.');
  });
});

describe('asTidegateError', () => {
  it('keeps an error that has a code, and makes anything else internal without telling what it was', () => {
    const known = new TidegateError('forbidden');
    expect(asTidegateError(known)).toBe(known);
    for (const thrown of [new Error('secret'), 'secret', undefined, { code: 'forbidden' }]) {
      const error = asTidegateError(thrown);
      expect(error.code).toBe('internal');
      expect(error.message).not.toContain('secret');
      expect(error.cause).toBe(thrown);
    }
  });
});
