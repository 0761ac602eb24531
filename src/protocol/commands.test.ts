import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { json, name, wildText } from '../../test/arbitraries.ts';
import { type Command, decodeCommand, MAX_CHANNELS_PER_COMMAND, type Undecodable } from './commands.ts';
import { errorKinds, TidegateError } from './errors.ts';
import { isName } from './names.ts';

const ref = fc.oneof(fc.maxSafeInteger(), fc.string({ maxLength: 64 }));
const position = fc.string({ minLength: 1, maxLength: 64 });
const withRef = { ref: fc.option(ref, { nil: undefined }) };
const traceparent = fc.option(fc.string({ minLength: 1, maxLength: 128 }), { nil: undefined });
const validCommand = fc.oneof(
  fc.record({
    type: fc.constant('subscribe'),
    ...withRef,
    channel: name,
    after: fc.option(position, { nil: undefined }),
  }),
  fc.record({
    type: fc.constant('subscribe'),
    ...withRef,
    channels: fc.array(fc.oneof(name, fc.record({ channel: name, after: position })), {
      minLength: 1,
      maxLength: 20,
    }),
  }),
  fc.record({ type: fc.constant('unsubscribe'), ...withRef, channel: name }),
  fc.record({
    type: fc.constant('unsubscribe'),
    ...withRef,
    channels: fc.array(name, { minLength: 1, maxLength: 20 }),
  }),
  fc.record({
    type: fc.constant('publish'),
    ...withRef,
    channel: name,
    data: json,
    key: fc.option(fc.string({ minLength: 1, maxLength: 128 }), { nil: undefined }),
    echo: fc.option(fc.boolean(), { nil: undefined }),
    traceparent,
  }),
  fc.record({ type: fc.constant('send'), ...withRef, user: name, data: json, traceparent }),
  fc.record({ type: fc.constant('presence'), ...withRef, channel: name }),
  fc.record({
    type: fc.constant('refresh'),
    ...withRef,
    token: fc.string({ minLength: 1, maxLength: 2000 }),
  }),
  fc.record({ type: fc.constant('ping'), ...withRef }),
);

/** Values that look like a command here and there, and like nothing elsewhere. */
const almostCommand = fc.dictionary(
  fc.constantFrom(
    'type',
    'ref',
    'channel',
    'channels',
    'user',
    'data',
    'key',
    'echo',
    'token',
    'after',
    'traceparent',
    '__proto__',
    'constructor',
  ),
  fc.oneof(
    fc.jsonValue(),
    fc.constantFrom('subscribe', 'unsubscribe', 'publish', 'send', 'presence', 'refresh', 'ping', 'toString'),
    name,
    wildText,
    fc.array(fc.oneof(name, fc.jsonValue()), { maxLength: 5 }),
    fc.double(),
  ),
);

/** Holds for whatever comes out of the decoder. */
function expectTotal(result: Command | Undecodable): void {
  if (result.ref !== undefined) {
    expect(typeof result.ref === 'string' ? result.ref.length <= 64 : Number.isSafeInteger(result.ref)).toBe(
      true,
    );
  }
  switch (result.type) {
    case 'undecodable':
      expect(result.error).toBeInstanceOf(TidegateError);
      expect(['malformed', 'unknown_type', 'bad_name']).toContain(result.error.code);
      expect(result.error.retryable).toBe(false);
      expect(errorKinds[result.error.code].status).toBe(400);
      return;
    case 'subscribe':
      expect(result.items.length).toBeGreaterThan(0);
      expect(result.items.every((item) => isName(item.channel))).toBe(true);
      return;
    case 'unsubscribe':
      expect(result.channels.length).toBeGreaterThan(0);
      expect(result.channels.every(isName)).toBe(true);
      return;
    case 'publish':
      expect(isName(result.channel)).toBe(true);
      expect(typeof result.echo).toBe('boolean');
      expect(result.traceparent?.length ?? 1).toBeLessThanOrEqual(128);
      JSON.parse(result.payload);
      return;
    case 'send':
      expect(result.traceparent?.length ?? 1).toBeLessThanOrEqual(128);
      expect(isName(result.user)).toBe(true);
      JSON.parse(result.payload);
      return;
    case 'presence':
      expect(isName(result.channel)).toBe(true);
      return;
    case 'refresh':
      expect(result.token.length).toBeGreaterThan(0);
      return;
    case 'ping':
    case 'sync':
    case 'stay':
      return;
    default:
      expect.unreachable(`a command of the type ${JSON.stringify(result satisfies never)}`);
  }
}

describe('decodeCommand', () => {
  it('gives a command or an error with a stable code for any text', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), wildText), (text) => expectTotal(decodeCommand(text))));
  });

  it('gives a command or an error with a stable code for any JSON', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.jsonValue().map((it) => JSON.stringify(it)),
        ),
        (text) => expectTotal(decodeCommand(text)),
      ),
    );
  });

  it('gives a command or an error with a stable code for objects that resemble commands', () => {
    fc.assert(
      fc.property(almostCommand, (value) => expectTotal(decodeCommand(JSON.stringify(value)))),
      { numRuns: 1000 },
    );
  });

  it('gives a command or an error with a stable code for commands that were damaged on their way', () => {
    const damage = fc.record({
      at: fc.nat(),
      remove: fc.nat({ max: 5 }),
      insert: fc.oneof(
        fc.string({ maxLength: 5 }),
        fc.constantFrom('"', '{', '}', '[', ']', ',', ':', '\\', '\\u', '\ud800', '1e999', 'null'),
      ),
    });
    fc.assert(
      fc.property(validCommand, fc.array(damage, { minLength: 1, maxLength: 4 }), (command, damages) => {
        let text = JSON.stringify(command);
        for (const { at, remove, insert } of damages) {
          const start = at % (text.length + 1);
          text = text.slice(0, start) + insert + text.slice(start + remove);
        }
        expectTotal(decodeCommand(text));
      }),
      { numRuns: 1000 },
    );
  });

  it('gives a command or an error with a stable code where a field has a value of another kind', () => {
    const field = fc.constantFrom(
      'type',
      'ref',
      'channel',
      'channels',
      'user',
      'data',
      'key',
      'echo',
      'token',
      'after',
    );
    fc.assert(
      fc.property(validCommand, field, fc.jsonValue(), (command, key, value) =>
        expectTotal(decodeCommand(JSON.stringify({ ...command, [key]: value }))),
      ),
      { numRuns: 1000 },
    );
  });

  it('takes every valid command for what it is, with its ref', () => {
    fc.assert(
      fc.property(validCommand, (command) => {
        const decoded = decodeCommand(JSON.stringify(command));
        expectTotal(decoded);
        expect(decoded.type).toBe(command.type);
        // JSON knows no minus zero.
        expect(decoded.ref).toBe(command.ref === 0 ? 0 : command.ref);
      }),
      { numRuns: 500 },
    );
  });

  it('keeps what is published as the JSON that it was', () => {
    fc.assert(
      fc.property(name, json, (channel, value) => {
        const decoded = decodeCommand(JSON.stringify({ type: 'publish', channel, data: value }));
        if (decoded.type !== 'publish') return expect.unreachable(decoded.type);
        expect(decoded.payload).toBe(JSON.stringify(value));
      }),
    );
  });

  it('answers with the ref wherever one can be read', () => {
    fc.assert(
      fc.property(
        ref,
        fc.constantFrom('subscribe', 'publish', 'send', 'presence', 'refresh', 'fly'),
        (id, type) => {
          const decoded = decodeCommand(JSON.stringify({ type, ref: id }));
          expect(decoded.type).toBe('undecodable');
          expect(decoded.ref).toBe(id === 0 ? 0 : id);
        },
      ),
    );
  });

  it('refuses a ref that is neither an integer nor a short string, and does not echo it', () => {
    for (const text of [
      '1.5',
      '1e300',
      '9007199254740993',
      'true',
      'null',
      '{}',
      '[1]',
      `"${'r'.repeat(65)}"`,
    ]) {
      const decoded = decodeCommand(`{"type":"ping","ref":${text}}`);
      expect(decoded, text).toMatchObject({ type: 'undecodable', error: { code: 'malformed' } });
      expect(decoded.ref).toBeUndefined();
    }
    expect(decodeCommand(`{"type":"ping","ref":"${'r'.repeat(64)}"}`)).toEqual({
      type: 'ping',
      ref: 'r'.repeat(64),
    });
    expect(decodeCommand('{"type":"ping","ref":9007199254740991}')).toEqual({
      type: 'ping',
      ref: Number.MAX_SAFE_INTEGER,
    });
  });

  it('answers a text that is no object with an error', () => {
    for (const text of [
      '',
      ' ',
      'ping',
      '1',
      'null',
      'true',
      '"ping"',
      '[]',
      '[{"type":"ping"}]',
      '{"type":"ping"}{}',
      '{type:"ping"}',
    ]) {
      expect(decodeCommand(text), text).toMatchObject({ type: 'undecodable', error: { code: 'malformed' } });
    }
  });

  it('knows no command but those of the protocol', () => {
    for (const type of [
      'Subscribe',
      'toString',
      '__proto__',
      'constructor',
      '',
      1,
      null,
      undefined,
      ['ping'],
      { type: 'ping' },
    ]) {
      expect(decodeCommand(JSON.stringify({ type })), String(type)).toMatchObject({
        error: { code: 'unknown_type' },
      });
    }
  });

  it('takes no field from a prototype', () => {
    for (const text of [
      '{"__proto__":{"type":"ping"}}',
      '{"type":"subscribe","__proto__":{"channel":"room:1"}}',
      '{"type":"subscribe","channels":[{"__proto__":{"channel":"room:1"}}]}',
    ]) {
      expect(decodeCommand(text), text).toMatchObject({ type: 'undecodable' });
    }
    expect(({} as Record<string, unknown>).type).toBeUndefined();
  });

  it('carries keys that would poison a prototype as the data that they are', () => {
    const text = '{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}';
    expect(decodeCommand(`{"type":"publish","channel":"room:1","data":${text}}`)).toMatchObject({
      payload: text,
    });
    expect(({} as Record<string, unknown>).admin).toBeUndefined();
  });

  it('does not fall over values that are nested as deeply as a frame has room for', () => {
    const depth = 500_000; // a megabyte
    const nested = `${'['.repeat(depth)}${']'.repeat(depth)}`;
    for (const fields of [`"data":${nested}`, `"channel":${nested}`, `"ref":${nested}`]) {
      expectTotal(decodeCommand(`{"type":"publish","channel":"room:1",${fields}}`));
    }
  });

  it('carries data with any number, which JSON rounds to what a double holds', () => {
    const decoded = decodeCommand(
      '{"type":"publish","channel":"room:1","data":[1e999,-1e999,1e-999,12345678901234567890]}',
    );
    expect(decoded).toMatchObject({ payload: '[null,null,0,12345678901234567000]' });
  });

  it('escapes halves of surrogate pairs, so that payloads are always valid UTF-8', () => {
    const decoded = decodeCommand('{"type":"publish","channel":"room:1","data":"\\ud800"}');
    expect(decoded).toMatchObject({ payload: '"\\ud800"' });
  });

  it('tells a missing value from null', () => {
    expect(decodeCommand('{"type":"publish","channel":"room:1"}')).toMatchObject({
      error: { code: 'malformed' },
    });
    expect(decodeCommand('{"type":"publish","channel":"room:1","data":null}')).toMatchObject({
      payload: 'null',
    });
  });

  it('takes one channel or many, by name or with a position', () => {
    expect(decodeCommand('{"type":"subscribe","channel":"a","after":"1-x"}')).toEqual({
      type: 'subscribe',
      items: [{ channel: 'a', after: '1-x' }],
      many: false,
    });
    expect(
      decodeCommand('{"type":"subscribe","channels":["a",{"channel":"b"},{"channel":"c","after":"1-x"}]}'),
    ).toEqual({
      type: 'subscribe',
      items: [{ channel: 'a' }, { channel: 'b' }, { channel: 'c', after: '1-x' }],
      many: true,
    });
  });

  it('takes at most a thousand channels at once, and at least one', () => {
    const many = (length: number) =>
      JSON.stringify({ type: 'subscribe', channels: Array.from({ length }, (_, at) => `room:${at}`) });
    expect(decodeCommand(many(MAX_CHANNELS_PER_COMMAND))).toMatchObject({ type: 'subscribe' });
    expect(decodeCommand(many(MAX_CHANNELS_PER_COMMAND + 1))).toMatchObject({ error: { code: 'malformed' } });
    expect(decodeCommand(many(0))).toMatchObject({ error: { code: 'malformed' } });
    expect(decodeCommand(JSON.stringify({ type: 'unsubscribe', channels: [] }))).toMatchObject({
      error: { code: 'malformed' },
    });
  });

  it('refuses names that a Redis pattern, key or log line could misread', () => {
    for (const channel of [
      '',
      'a b',
      'a*',
      'a{b}',
      'a\nb',
      'ä',
      'a\u0000',
      'x'.repeat(129),
      7,
      null,
      ['a'],
      {},
    ]) {
      expect(decodeCommand(JSON.stringify({ type: 'subscribe', channel })), String(channel)).toMatchObject({
        error: { code: 'bad_name' },
      });
      expect(decodeCommand(JSON.stringify({ type: 'subscribe', channels: [{ channel }] }))).toMatchObject({
        error: { code: 'bad_name' },
      });
    }
  });
});
