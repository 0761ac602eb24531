import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { wildText } from '../../test/arbitraries.ts';
import { encodePlain, PLAIN_PING, PLAIN_PONG, plainHeartbeat } from './plain.ts';

describe('plainHeartbeat', () => {
  it('knows the two heartbeats, with white space or without', () => {
    expect(plainHeartbeat(PLAIN_PING)).toBe('ping');
    expect(plainHeartbeat('{"type": "ping"}')).toBe('ping');
    expect(plainHeartbeat(' {\n"type" :\t"pong" }\n')).toBe('pong');
    expect(plainHeartbeat(PLAIN_PONG)).toBe('pong');
  });

  it('takes nothing else for one', () => {
    for (const text of [
      '',
      'ping',
      '"ping"',
      '{"type":"PING"}',
      '{"type":"ping","x":1}',
      '[{"type":"ping"}]',
      '{"type":"ping"}{"type":"ping"}',
      '{"type":"p ing"}',
      '{"ty pe":"ping"}',
      '{"type":"ping"}\u00a0',
      `{"type":"ping"}${' '.repeat(30)}`,
    ]) {
      expect(plainHeartbeat(text), text).toBeUndefined();
    }
  });

  it('answers for any text, and calls only what is JSON of exactly that shape a heartbeat', () => {
    const near = fc
      .array(
        fc.constantFrom(
          '{',
          '}',
          '"',
          'type',
          '"type"',
          ':',
          'ping',
          '"ping"',
          '"pong"',
          ' ',
          '\n',
          '\u00a0',
          ',',
        ),
        { maxLength: 9 },
      )
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(wildText, near), (text) => {
        const heartbeat = plainHeartbeat(text);
        if (heartbeat !== undefined) expect(JSON.parse(text)).toEqual({ type: heartbeat });
      }),
      { numRuns: 2000 },
    );
  });
});

describe('encodePlain', () => {
  it('gives exactly the sender and the text', () => {
    fc.assert(
      fc.property(wildText, (text) => {
        expect(JSON.parse(encodePlain('ann', text))).toEqual({ sender: 'ann', text });
      }),
    );
    expect(encodePlain('ann', 'hi')).toBe('{"sender":"ann","text":"hi"}');
  });
});
