import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { startGateway, type TestGateway } from '../../test/gateway.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';

const CHANNELS = JSON.stringify({
  namespaces: {
    doc: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 1000, ageSeconds: 3600 } },
    long: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 10_000, ageSeconds: 3600 } },
    short: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 5, ageSeconds: 3600 } },
  },
});

/** Whoever is given history and does not read it may go on asking. */
const MAX_BACKLOG_BYTES = '16777216';

const redis = await startRedis();
const [memory, one, two] = await Promise.all([
  startGateway({ CHANNELS, MAX_BACKLOG_BYTES }),
  startGateway({ CHANNELS, REDIS_URL: redis.url }),
  startGateway({ CHANNELS, MAX_BACKLOG_BYTES, REDIS_URL: redis.url }),
]);

afterAll(async () => {
  await Promise.all([memory.stop(), one.stop(), two.stop()]);
  await redis.stop();
});

let next = 0;
const newChannel = (namespace = 'doc') => `${namespace}:${++next}`;
const isMessage = (it: Json) => it.type === 'message';

async function publish(client: TestClient, channel: string, count: number, from = 0): Promise<string[]> {
  const answers = await Promise.all(
    numbers(from, from + count).map((data) => client.call({ type: 'publish', channel, data })),
  );
  return answers.map((ok) => String(ok.position));
}

async function take(client: TestClient, count: number): Promise<unknown[]> {
  const messages: unknown[] = [];
  while (messages.length < count) messages.push((await client.json(isMessage)).data);
  return messages;
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => from + at);

describe.each<[string, () => TestGateway, () => TestGateway]>([
  ['memory', () => memory, () => memory],
  ['redis', () => one, () => two],
])('a durable channel on the %s bus', (_, here, there) => {
  test('tells the publisher the position, and subscribers the same', async () => {
    const channel = newChannel();
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const bob = await TestClient.v1(`${there().url}/ws/bob`);
    expect(await bob.call({ type: 'subscribe', channel })).toMatchObject({
      type: 'ok',
      channel,
      position: '0-0',
    });
    const [position] = await publish(ann, channel, 1);
    expect(await bob.json(isMessage)).toMatchObject({ channel, position, from: 'ann', data: 0 });
  });

  test('gives a client that comes back what it missed, and then goes on live', async () => {
    const channel = newChannel();
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const positions = await publish(ann, channel, 500);
    const bob = await TestClient.v1(`${there().url}/ws/bob`);
    const ok = await bob.call({ type: 'subscribe', channel, after: positions[9] });
    expect(ok).toMatchObject({ recovered: true, position: positions[499] });
    await publish(ann, channel, 10, 500);
    expect(await take(bob, 500)).toEqual(numbers(10, 510));
  });

  test('misses and doubles nothing while messages go on being published', async () => {
    const channel = newChannel();
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const [first] = await publish(ann, channel, 1);
    const publishing = publish(ann, channel, 600, 1);
    const readers = await Promise.all(numbers(0, 20).map((at) => TestClient.v1(`${there().url}/ws/r${at}`)));
    await Promise.all(
      readers.map(async (reader, at) => {
        await until(() => reader.ws.readyState === 1, { what: 'open' });
        const ok = await reader.call({ type: 'subscribe', channel, after: first });
        expect(ok).toMatchObject({ recovered: true });
        expect(await take(reader, 600), `reader ${at}`).toEqual(numbers(1, 601));
      }),
    );
    await publishing;
  });

  test('says why it cannot recover: trimmed, or a branch that never was', async () => {
    const channel = newChannel('short');
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const positions = await publish(ann, channel, 10);
    const last = positions[9];
    expect(await ann.call({ type: 'subscribe', channel, after: positions[1] })).toMatchObject({
      recovered: false,
      reason: 'trimmed',
      position: last,
    });
    const bob = await TestClient.v1(`${there().url}/ws/bob`);
    expect(await bob.call({ type: 'subscribe', channel, after: '8-AAAAAAAAAAAAAAAA' })).toMatchObject({
      recovered: false,
      reason: 'forked',
    });
    const eve = await TestClient.v1(`${there().url}/ws/eve`);
    expect(await eve.call({ type: 'subscribe', channel, after: '99-AAAAAAAAAAAAAAAA' })).toMatchObject({
      recovered: false,
      reason: 'forked',
    });
    const fay = await TestClient.v1(`${there().url}/ws/fay`);
    expect(
      await fay.call({ type: 'subscribe', channel: newChannel(), after: '9-AAAAAAAAAAAAAAAA' }),
    ).toMatchObject({ recovered: false });
  });

  test('lands a repeated publish once, and refuses a reused key', async () => {
    const channel = newChannel();
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const first = await ann.call({ type: 'publish', channel, data: 1, key: 'k' });
    expect(await ann.call({ type: 'publish', channel, data: 1, key: 'k' })).toMatchObject({
      position: first.position,
      repeated: true,
    });
    expect(await ann.call({ type: 'publish', channel, data: 2, key: 'k' })).toMatchObject({
      type: 'error',
      code: 'key_reused',
    });
    const bob = await TestClient.v1(`${here().url}/ws/bob`);
    expect(await bob.call({ type: 'publish', channel, data: 1, key: 'k' })).not.toMatchObject({
      repeated: true,
    });
  });

  test('gives who left before it was in, and comes again, what it asks for the second time', async () => {
    const channel = newChannel();
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const positions = await publish(ann, channel, 300);
    const bob = await TestClient.v1(`${there().url}/ws/bob`);
    bob.send({ type: 'subscribe', ref: 1, channel });
    bob.send({ type: 'unsubscribe', ref: 2, channel });
    const ok = await bob.call({ type: 'subscribe', channel, after: positions[9] });
    expect(ok).toMatchObject({ recovered: true, position: positions[299] });
    await publish(ann, channel, 10, 300);
    expect(await take(bob, 300)).toEqual(numbers(10, 310));
  });

  test('gives who leaves halfway through its history, and comes again, only what it asks for again', async () => {
    const channel = newChannel('long');
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    // More than the kernel takes for somebody who does not read, and a page is less than may wait for him.
    const data = 'x'.repeat(6000);
    const [first] = await publish(ann, channel, 1);
    for (let at = 2; at <= 2500; at += 1) ann.send({ type: 'publish', ref: at, channel, data });
    await ann.json((it) => it.ref === 2500);
    const bob = await TestClient.v1(`${there().url}/ws/bob`);
    bob.ws.pause();
    bob.send({ type: 'subscribe', channel, after: first });
    await until(() => there().metric('tidegate_congested_connections'), {
      what: 'the history to be held up',
    });
    bob.send({ type: 'unsubscribe', channel });
    bob.send({ type: 'subscribe', channel, after: first });
    bob.ws.resume();
    const offsets = () =>
      bob.inbox
        .map((text) => JSON.parse(text) as Json)
        .filter(isMessage)
        .map(({ position }) => Number.parseInt(String(position), 10));
    await until(() => bob.inbox.some((text) => text.includes('"position":"2500-')), {
      what: 'all of it',
      timeoutMs: 20_000,
    });
    await ann.call({ type: 'publish', channel, data });
    await until(() => offsets().includes(2501), { what: 'what comes live', timeoutMs: 20_000 });
    const all = offsets();
    const again = all.lastIndexOf(2);
    expect(again).toBeGreaterThan(0);
    expect(all.slice(0, again)).toEqual(numbers(2, 2 + again));
    expect(all.slice(again)).toEqual(numbers(2, 2502));
  });

  test('answers a subscribe to many channels once, each with its own outcome', async () => {
    const [a, b] = [newChannel(), newChannel()];
    const ann = await TestClient.v1(`${here().url}/ws/ann`);
    const positions = await publish(ann, a, 3);
    const bob = await TestClient.v1(`${there().url}/ws/bob`);
    const ok = await bob.call({
      type: 'subscribe',
      channels: [{ channel: a, after: positions[0] }, b, 'nope:1'],
    });
    expect(ok.channels).toMatchObject([
      { channel: a, recovered: true, position: positions[2] },
      { channel: b, position: '0-0' },
      { channel: 'nope:1', error: { code: 'forbidden' } },
    ]);
    expect(await take(bob, 2)).toEqual([1, 2]);
  });
});

test('repairs a last message that was lost on the way, without any client doing anything', async () => {
  const channel = newChannel();
  const ann = await TestClient.v1(`${one.url}/ws/ann`);
  const bob = await TestClient.v1(`${two.url}/ws/bob`);
  await bob.call({ type: 'subscribe', channel });
  const [position] = await publish(ann, channel, 1);
  await take(bob, 1);
  // Another program appends and does not publish, which looks just like a loss.
  const client = redis.client();
  const id = 'lostlostlostlost';
  const prev = String(position).slice(2);
  const entry = `TG1 {"offset":2,"prev":"${prev}","id":"${id}","timeMs":${Date.now()}}\n"lost"`;
  await client
    .multi()
    .xadd(`tg:{c:${channel}}:stream`, `2-${Date.now()}`, 'i', id, 'm', entry)
    .hset(`tg:{c:${channel}}:head`, 'offset', 2, 'id', id)
    .exec();
  expect(await take(bob, 1)).toEqual(['lost']);
});

test('tells of a fork, and goes on with the new branch from the last message both have', async () => {
  const channel = newChannel();
  const ann = await TestClient.v1(`${one.url}/ws/ann`);
  const bob = await TestClient.v1(`${two.url}/ws/bob`);
  await bob.call({ type: 'subscribe', channel });
  const positions = await publish(ann, channel, 5);
  await take(bob, 5);
  // As after a failover to a replica that lacked the last two.
  const client = redis.client();
  const entries = await client.xrange(`tg:{c:${channel}}:stream`, '4', '+');
  await client.xdel(`tg:{c:${channel}}:stream`, ...entries.map(([id]) => id));
  await client.xsetid(`tg:{c:${channel}}:stream`, '3-9999999999999');
  const [, third] = /^\d+-(.*)$/.exec(positions[2] ?? '') ?? [];
  await client.hset(`tg:{c:${channel}}:head`, 'offset', 3, 'id', third ?? '');
  const [fourth] = await publish(ann, channel, 1, 100);
  expect(await bob.json((it) => it.type !== 'ok')).toMatchObject({
    type: 'gap',
    channel,
    reason: 'forked',
    position: positions[2],
  });
  expect(await bob.json(isMessage)).toMatchObject({ position: fourth, data: 100 });
});

test('tells of a flush as a fork, and delivers what comes after it', async () => {
  const channel = newChannel();
  const ann = await TestClient.v1(`${one.url}/ws/ann`);
  const bob = await TestClient.v1(`${two.url}/ws/bob`);
  await bob.call({ type: 'subscribe', channel });
  await publish(ann, channel, 5);
  await take(bob, 5);
  await redis.client().del(`tg:{c:${channel}}:stream`, `tg:{c:${channel}}:head`);
  const [first] = await publish(ann, channel, 1, 100);
  expect(await bob.json((it) => it.type === 'gap')).toMatchObject({ channel, reason: 'forked' });
  expect(await bob.json(isMessage)).toMatchObject({ position: first, data: 100 });
});

describe('the plain protocol on a durable default channel', async () => {
  const plain = await startGateway({
    REDIS_URL: redis.url,
    PLAIN_CHANNEL: 'plain:all',
    CHANNELS: JSON.stringify({
      namespaces: {
        plain: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 5, ageSeconds: 3600 } },
      },
    }),
  });
  afterAll(() => plain.stop());
  const idOf = (text: string) => Number((JSON.parse(text) as Json).id);

  test('numbers messages, and gives back what came after the last id', async () => {
    const ann = await TestClient.open(`${plain.url}/ws/ann`);
    await until(() => plain.metric('tidegate_channels'), { what: 'the channel to be entered' });
    ann.send('one');
    ann.send('two');
    ann.send('three');
    const texts = [await ann.text(), await ann.text(), await ann.text()];
    expect(JSON.parse(texts[0] ?? '')).toEqual({
      sender: 'ann',
      text: 'one',
      id: expect.any(Number) as number,
    });
    const [first, second, third] = texts.map(idOf);
    expect(Number.isSafeInteger(first) && first !== undefined && second !== undefined && first < second).toBe(
      true,
    );
    const bob = await TestClient.open(`${plain.url}/ws/bob?lastEventId=${first}`);
    expect([idOf(await bob.text()), idOf(await bob.text())]).toEqual([second, third]);
    ann.send('four');
    expect(JSON.parse(await bob.text())).toMatchObject({ text: 'four' });
  });

  test('says reset first to an id that is too old, or from a branch that was lost', async () => {
    const ann = await TestClient.v1(`${plain.url}/ws/ann`);
    const positions = await publish(ann, 'plain:all', 10);
    const offset = Number(positions[9]?.split('-')[0]);
    for (const lastEventId of [1 * 65_536, offset * 65_536 + 1, (offset + 5) * 65_536, 'nonsense']) {
      const bob = await TestClient.open(`${plain.url}/ws/bob?lastEventId=${lastEventId}`);
      expect(await bob.text()).toBe('{"type":"reset"}');
    }
  });

  test('says reset to those who are connected when the channel forks', async () => {
    const ann = await TestClient.v1(`${plain.url}/ws/ann`);
    const bob = await TestClient.open(`${plain.url}/ws/bob`);
    const [position] = await publish(ann, 'plain:all', 1);
    await until(() => bob.inbox.some((text) => idOf(text) >= Number(position?.split('-')[0]) * 65_536), {
      what: 'the message',
    });
    bob.inbox.length = 0;
    await redis.client().del('tg:{c:plain:all}:stream', 'tg:{c:plain:all}:head');
    await publish(ann, 'plain:all', 1, 7);
    expect(await bob.text()).toBe('{"type":"reset"}');
    expect(JSON.parse(await bob.text())).toMatchObject({ data: 7 });
  });
});

test('closes a plain client that cannot be given what it missed, which would otherwise never hear the channel', async () => {
  const own = await startRedis();
  const gateway = await startGateway({
    REDIS_URL: own.url,
    PLAIN_CHANNEL: 'plain:all',
    CHANNELS: JSON.stringify({
      namespaces: {
        plain: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 9, ageSeconds: 3600 } },
      },
    }),
  });
  onTestFinished(async () => {
    await gateway.stop();
    await own.stop();
  });
  const ann = await TestClient.open(`${gateway.url}/ws/ann`);
  // So much that the gateway does not remember the first of them.
  for (let at = 0; at < 3; at += 1) ann.send('x'.repeat(40_000));
  const { id } = JSON.parse(await ann.text()) as Json;
  await ann.text();
  await ann.text();
  await own.kill();
  const bob = await TestClient.open(`${gateway.url}/ws/bob?lastEventId=${id}`);
  expect(JSON.parse(await bob.text())).toMatchObject({ type: 'error', code: 'bus_unavailable' });
  expect(await bob.close()).toMatchObject({ code: 1013 });
  // Who has missed nothing is let in, and goes on when Redis is back.
  const cat = await TestClient.open(`${gateway.url}/ws/cat`);
  await own.restart();
  await until(
    () => {
      ann.send('back');
      return cat.inbox.some((text) => text.includes('"back"'));
    },
    { what: 'messages to come again' },
  );
});

test('reads a durable channel over HTTP, page by page', async () => {
  const keys = join(await mkdtemp(join(tmpdir(), 'tidegate-')), 'keys');
  await writeFile(keys, 'secret\n');
  const gateway = await startGateway({ CHANNELS, REDIS_URL: redis.url, API_KEYS_FILE: keys });
  const get = async (path: string) =>
    (
      await fetch(`${gateway.apiUrl}${path}`, { headers: { authorization: 'Bearer secret' } })
    ).json() as Promise<Json>;
  const channel = newChannel();
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  const positions = await publish(ann, channel, 25);
  const seen: unknown[] = [];
  let after = '';
  for (let more = true; more; ) {
    const page = await get(`/v1/channels/${channel}/messages?limit=10${after}`);
    seen.push(...(page.messages as Json[]).map((it) => it.data));
    after = `&after=${String(page.position)}`;
    more = page.more === true;
  }
  expect(seen).toEqual(numbers(0, 25));
  expect(await get(`/v1/channels/${channel}/messages?after=${positions[23]}`)).toMatchObject({
    messages: [{ position: positions[24], from: 'ann', data: 24 }],
    recovered: true,
    more: false,
  });
  expect(await get(`/v1/channels/${channel}/messages?after=24-AAAAAAAAAAAAAAAA`)).toMatchObject({
    recovered: false,
    reason: 'forked',
  });
  expect(await get(`/v1/channels/ws_broadcast/messages`)).toMatchObject({ code: 'not_durable' });
  await gateway.stop();
});

test('waits for replicas where the namespace asks for it, and says whether they have the message', async () => {
  const replica = await startRedis({ args: ['--replicaof', '127.0.0.1', String(redis.port)] });
  const gateway = await startGateway({
    REDIS_URL: redis.url,
    CHANNELS: JSON.stringify({
      namespaces: {
        safe: {
          subscribe: 'anyone',
          publish: 'anyone',
          durable: { messages: 10, ageSeconds: 60, replicas: 1, timeoutMs: 300 },
        },
      },
    }),
  });
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  await until(async () => (await ann.call({ type: 'publish', channel: 'safe:1', data: 1 })).replicated, {
    what: 'the replica to have it',
  });
  await replica.stop();
  expect(await ann.call({ type: 'publish', channel: 'safe:1', data: 2 })).toMatchObject({
    type: 'ok',
    replicated: false,
  });
  await gateway.stop();
});
