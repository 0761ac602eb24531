import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { json, name, wildText } from '../../test/arbitraries.ts';
import { newId } from '../platform/ids.ts';
import { TidegateError } from './errors.ts';
import { encodeMessage, encodeServerMessage, errorBody } from './messages.ts';

const optional = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined });

describe('encodeMessage', () => {
  it('gives JSON that says what went in, without parsing the payload', () => {
    const message = fc.record({
      channel: optional(name),
      id: optional(fc.constant(undefined).map(newId)),
      from: optional(name),
      foreign: fc.boolean(),
      data: json,
    });
    fc.assert(
      fc.property(message, ({ channel, id, from, foreign, data }) => {
        const payload = JSON.stringify(data);
        const text = encodeMessage({ ...(channel !== undefined && { channel }), id, from, foreign, payload });
        const expected = {
          type: 'message',
          ...(channel === undefined ? { direct: true } : { channel }),
          ...(id !== undefined && { id }),
          ...(from !== undefined && { from }),
          ...(foreign && { foreign: true }),
          data: JSON.parse(payload),
        };
        expect(JSON.parse(text)).toEqual(expected);
        expect(Object.keys(JSON.parse(text))).toEqual(Object.keys(expected));
      }),
      { numRuns: 500 },
    );
  });

  it('puts the payload in as it came, to the byte', () => {
    const payload = '{ "b" : 1.0 ,"a":12345678901234567890}';
    expect(encodeMessage({ channel: 'room:1', id: 'x', from: 'ann', payload })).toBe(
      `{"type":"message","channel":"room:1","id":"x","from":"ann","data":${payload}}`,
    );
  });
});

describe('encodeServerMessage', () => {
  it('gives JSON on one line whatever users and refs hold', () => {
    fc.assert(
      fc.property(wildText, wildText, (ref, message) => {
        const text = encodeServerMessage({
          type: 'error',
          ref,
          code: 'malformed',
          message,
          retryable: false,
        });
        expect(text).not.toMatch(/[\n\r]/);
        expect(JSON.parse(text)).toEqual({
          type: 'error',
          ref,
          code: 'malformed',
          message,
          retryable: false,
        });
      }),
    );
  });
});

describe('errorBody', () => {
  it('tells the code, the message and whether and when to try again, and nothing of the cause', () => {
    const error = new TidegateError('bus_unavailable', undefined, {
      cause: new Error('redis://user:secret@host'),
      retryAfterMs: 1000,
    });
    expect(errorBody(error)).toEqual({
      code: 'bus_unavailable',
      message: expect.any(String),
      retryable: true,
      retryAfterMs: 1000,
    });
    expect(JSON.stringify(errorBody(error))).not.toContain('secret');
    expect(errorBody(new TidegateError('forbidden'))).not.toHaveProperty('retryAfterMs');
  });
});
