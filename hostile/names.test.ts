import { afterAll, expect } from 'vitest';
import { startRedis } from '../test/redis.ts';
import { until } from '../test/until.ts';
import { type Json, TestClient } from '../test/websocket.ts';
import { MIB } from './memory.ts';
import { openStage } from './stage.ts';

const redis = await startRedis();
const { gateway, attack } = await openStage('names', {
  REDIS_URL: redis.url,
  MAX_MESSAGE_BYTES: String(2 * MIB),
});
// After the stage's own, as hooks after tests run backwards.
const admin = redis.client();
afterAll(() => redis.stop());
await admin.set('someone:else', 'untouched');

/** What nobody may call a channel or a user. */
const forbidden: readonly unknown[] = [
  'room:*',
  'room:?',
  'room:[a-z]',
  'room:\\*',
  'room:{other}',
  '{c:room:1}',
  'tg:{c:room:1}',
  'room:1\r\nFLUSHALL\r\n',
  'room:1\n*1\r\n$8\r\nFLUSHALL\r\n',
  'room:\0',
  'room:\u001b[2J',
  'room:\u2028',
  'room:ä',
  'rооm:1', // two Cyrillic о
  'room: 1',
  'room:1 ',
  'room:"',
  'room:1;',
  'room:$(reboot)',
  'room:%00',
  '',
  'x'.repeat(129),
  ['room:1'],
  { channel: 'room:*' },
  7,
  null,
  true,
];

/** Allowed characters, of what has no namespace here. */
const strange = [
  'tg:control',
  'tg:bans',
  'tg:k:1',
  '__proto__',
  'constructor:1',
  'hasOwnProperty',
  'ROOM:1',
  '__keyspace@0__:x',
  '../room:1',
  '/room:1',
  ':room:1',
];

async function inRedis(): Promise<{ keys: string[]; topics: string[]; patterns: number }> {
  const [keys, topics, patterns] = await Promise.all([
    admin.keys('*'),
    admin.call('PUBSUB', 'CHANNELS'),
    admin.call('PUBSUB', 'NUMPAT'),
  ]);
  return { keys: keys.sort(), topics: (topics as string[]).sort(), patterns: Number(patterns) };
}

attack(
  {
    does: 'globs, line ends, Redis commands and keys of ours as names, in every command',
    answer: '`bad_name`, or `forbidden` where it is a name; nothing new in Redis',
  },
  async () => {
    const client = await TestClient.v1(`${gateway.url}/ws/mallory`);
    await until(async () => (await inRedis()).topics.includes('tg:{u:mallory}'), {
      what: 'the user’s topic',
    });
    const before = await inRedis();
    const commands = (name: unknown): Json[] => [
      { type: 'subscribe', channel: name },
      { type: 'subscribe', channels: ['room:1', name] },
      { type: 'unsubscribe', channel: name },
      { type: 'publish', channel: name, data: 1 },
      { type: 'presence', channel: name },
    ];
    for (const name of forbidden) {
      for (const command of [...commands(name), { type: 'send', user: name, data: 1 }]) {
        const answer = await client.call(command);
        expect(answer, JSON.stringify(command)).toMatchObject({ type: 'error' });
        expect(answer.code, JSON.stringify(command)).toBeOneOf(['bad_name', 'malformed']);
        // A good command between, or ten bad ones would end it.
        expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
      }
    }
    for (const name of strange) {
      for (const command of [{ type: 'subscribe' }, { type: 'publish', data: 1 }, { type: 'presence' }]) {
        expect(await client.call({ ...command, channel: name }), name).toMatchObject({ code: 'forbidden' });
      }
    }
    const after = await inRedis();
    expect(after.topics).toEqual(before.topics);
    expect(after.patterns).toBe(0);
    expect(after.keys.filter((key) => !key.startsWith('tg:{c:log:bystanders}'))).toEqual(
      before.keys.filter((key) => !key.startsWith('tg:{c:log:bystanders}')),
    );
    await client.leave();
  },
);

attack(
  { does: 'names of a million bytes', answer: '`bad_name`, without the name in it', boundMib: 256 },
  async () => {
    const client = await TestClient.v1(`${gateway.url}/ws/mallory`);
    for (const letter of ['x', '*', '\n', '\u0000', '🌊']) {
      const channel = `room:${letter.repeat(MIB / Buffer.byteLength(letter) / 6)}`;
      for (const command of [{ type: 'subscribe' }, { type: 'publish', data: 1 }, { type: 'presence' }]) {
        const answer = await client.call({ ...command, channel });
        expect(answer).toMatchObject({ code: 'bad_name' });
        expect(JSON.stringify(answer).length).toBeLessThan(500);
        expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
      }
    }
    await client.leave();
  },
);

attack(
  {
    does: 'Redis commands as keys of publishes, positions and data',
    answer: 'taken as the text they are, or `malformed`',
  },
  async () => {
    const client = await TestClient.v1(`${gateway.url}/ws/mallory`);
    const listener = await TestClient.v1(`${gateway.url}/ws/listener2`);
    expect(await listener.call({ type: 'subscribe', channel: 'log:keys' })).toMatchObject({ type: 'ok' });
    const texts = [
      '\r\nFLUSHALL\r\n',
      '*',
      '}:{',
      '\0',
      '"; redis.call("FLUSHALL") --',
      '{c:someone:else}',
      'TG1 {}\n{}',
    ];
    for (const [at, text] of texts.entries()) {
      const published = await client.call({ type: 'publish', channel: 'log:keys', key: text, data: text });
      expect(published).toMatchObject({ type: 'ok' });
      const again = await client.call({ type: 'publish', channel: 'log:keys', key: text, data: text });
      expect(again, `key ${at}`).toMatchObject({ type: 'ok', position: published.position });
      expect(await listener.json()).toMatchObject({ data: text, position: published.position });
    }
    for (const after of [
      '0-*',
      '-1-x',
      '1-\r\nDEL someone:else',
      `${'9'.repeat(400)}-x`,
      '+',
      '$',
      '>',
      '1e3-a',
    ])
      expect((await client.call({ type: 'subscribe', channel: 'log:keys', after })).type).toBeOneOf([
        'ok',
        'error',
      ]);
    expect(await admin.get('someone:else')).toBe('untouched');
    const keys = (await admin.keys('*')).filter((key) => key !== 'someone:else');
    for (const key of keys) expect(key).toMatch(/^tg:(\{c:log:(keys|bystanders)\}:|\{p:|bans$)/);
    await Promise.all([client.leave(), listener.leave()]);
  },
);

attack(
  {
    does: 'another program that publishes what is no message of ours to our topics, up to 8 MB',
    answer: 'dropped, and counted as `foreign`',
    boundMib: 256,
  },
  async () => {
    const garbage = [
      '',
      'hello',
      'TG1 ',
      'TG1 {}\n',
      'TG1 {"id":1}\n{}',
      'TG1 {"id":"x","time":"y","sender":["a"]}\n{"a":1}',
      `TG1 ${'['.repeat(100_000)}\n1`,
      Buffer.from([0xff, 0xfe, 0x00]),
      Buffer.alloc(8_000_000, 0x61),
    ];
    const topics = ['tg:{c:room:bystanders}', 'tg:{c:log:bystanders}', 'tg:{u:listener}', 'tg:control'];
    for (const topic of topics) for (const payload of garbage) await admin.publish(topic, payload);
  },
);
