import { afterAll, expect, test } from 'vitest';
import { churn } from '../test/churn.ts';
import { startGateway } from '../test/gateway.ts';
import { opcodes, RawPeer } from '../test/raw.ts';
import { startRedis } from '../test/redis.ts';
import { until } from '../test/until.ts';
import { type Json, TestClient } from '../test/websocket.ts';

const channels = JSON.stringify({
  namespaces: {
    room: { subscribe: 'anyone', publish: 'anyone' },
    hall: { subscribe: 'anyone', publish: 'anyone', presence: true },
  },
});
const redis = await startRedis();
const settings = { REDIS_URL: redis.url, CHANNELS: channels, MAX_MESSAGE_BYTES: '1000' };
const [one, two] = await Promise.all([startGateway(settings), startGateway(settings)]);
const bare = redis.client();

afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await redis.stop();
});

test('carries a plain message from one gateway to another through Redis', async () => {
  const ann = await TestClient.open(`${one.url}/ws/ann`);
  const bob = await TestClient.open(`${two.url}/ws/bob`);
  ann.send('hello');
  expect(await bob.text()).toBe('{"sender":"ann","text":"hello"}');
  expect(await ann.text()).toBe('{"sender":"ann","text":"hello"}');
  await Promise.all([ann.leave(), bob.leave()]);
});

test('answers a sync after everything that was published before it, however many ask', async () => {
  const [ann, bob] = [await TestClient.v1(`${one.url}/ws/ann`), await TestClient.v1(`${two.url}/ws/bob`)];
  await ann.call({ type: 'subscribe', channels: ['room:1', 'hall:1'] });
  for (let round = 0; round < 100; round += 1) {
    for (const command of [
      { type: 'publish', channel: 'room:1', data: round },
      { type: 'publish', channel: 'hall:1', data: round },
      { type: 'send', user: 'ann', data: round },
    ])
      expect(await bob.call(command)).toMatchObject({ type: 'ok' });
    ann.send({ type: 'sync', ref: 'other' });
    await ann.call({ type: 'sync' });
    const answer = ann.inbox.findIndex((text) => text.includes('"ref":"other"'));
    const before = ann.inbox.splice(0, answer + 1).map((text) => JSON.parse(text) as Json);
    expect(before.filter((it) => it.type === 'message').map(({ data }) => data)).toEqual([
      round,
      round,
      round,
    ]);
  }
  await Promise.all([ann.leave(), bob.leave()]);
});

test('sends a message to every connection of a user on whatever pod', async () => {
  const ann = await TestClient.v1(`${one.url}/ws/ann`);
  const bobs = await Promise.all([one, two, one].map((it) => TestClient.v1(`${it.url}/ws/bob`)));
  expect(await ann.call({ type: 'send', user: 'bob', data: 'hi' })).toMatchObject({ type: 'ok' });
  for (const bob of bobs) {
    expect(await bob.json()).toMatchObject({ type: 'message', direct: true, from: 'ann', data: 'hi' });
    expect(bob.inbox).toEqual([]);
  }
  await Promise.all([ann, ...bobs].map((client) => client.leave()));
});

test('brings what another program publishes to plain clients verbatim', async () => {
  const clients = await Promise.all([one, two].map((it) => TestClient.open(`${it.url}/ws`)));
  for (const text of [
    '{"sender":"x","text":"y"}',
    '{ "text" : "y" , "sender":"x", "more":[1] }',
    'no JSON',
    '',
    'Grüße 🌊',
  ]) {
    expect(await bare.publish('ws_broadcast', text)).toBe(2);
    for (const client of clients) expect(await client.text()).toBe(text);
  }
  await Promise.all(clients.map((client) => client.leave()));
});

test('gives another program what plain clients send, as exactly sender and text', async () => {
  const listener = redis.client();
  const heard: string[] = [];
  listener.on('message', (_channel, text) => heard.push(text));
  await listener.subscribe('ws_broadcast');
  const ann = await TestClient.open(`${one.url}/ws/ann`);
  for (const text of ['hello', '{"sender":"eve","text":"fake"}']) ann.send(text);
  await until(() => heard.length === 2, { what: 'two messages' });
  expect(heard).toEqual([
    '{"sender":"ann","text":"hello"}',
    JSON.stringify({ sender: 'ann', text: '{"sender":"eve","text":"fake"}' }),
  ]);
  listener.disconnect();
  await ann.leave();
});

test('closes nobody over a foreign message that is not UTF-8 or too large, and counts it', async () => {
  const clients = await Promise.all([one, two].map((it) => TestClient.open(`${it.url}/ws`)));
  await bare.publish('ws_broadcast', Buffer.from([0x7b, 0xff, 0xfe]));
  await bare.publish('ws_broadcast', Buffer.from([0xed, 0xa0, 0x80])); // half of a surrogate pair
  await bare.publish('ws_broadcast', 'x'.repeat(1_000_000));
  await bare.publish('ws_broadcast', 'fine');
  for (const client of clients) expect(await client.text()).toBe('fine');
  for (const gateway of [one, two]) {
    expect(await gateway.metric('tidegate_bus_dropped_total', { reason: 'not_utf8' })).toBe(2);
    expect(await gateway.metric('tidegate_bus_dropped_total', { reason: 'too_large' })).toBe(1);
  }
  await Promise.all(clients.map((client) => client.leave()));
});

test('drops and counts what no gateway published on a channel that is not raw', async () => {
  const client = await TestClient.v1(`${one.url}/ws/ann`);
  await client.call({ type: 'subscribe', channel: 'room:1' });
  const [topic] = (await bare.pubsub('CHANNELS', '*room:1*')) as string[];
  for (const bytes of [
    '{"sender":"x","text":"y"}',
    'TG1 ',
    'TG1 {}\n1',
    'TG1 {"id":"a\\"b","timeMs":1}\n1',
    Buffer.from([0xff]),
  ]) {
    expect(await bare.publish(String(topic), bytes)).toBe(1);
  }
  await client.call({ type: 'publish', channel: 'room:1', data: 'real' });
  expect(await client.json()).toMatchObject({ type: 'message', data: 'real' });
  expect(client.inbox).toEqual([]);
  expect(await one.metric('tidegate_bus_dropped_total', { reason: 'foreign' })).toBe(5);
  await client.leave();
});

test('tells a gap for what a gateway publishes to which the channel is not durable', async () => {
  const durable = { subscribe: 'anyone', publish: 'anyone', durable: { messages: 10, ageSeconds: 60 } };
  const other = await startGateway({
    ...settings,
    CHANNELS: JSON.stringify({ namespaces: { room: durable } }),
  });
  const [ann, bob] = [await TestClient.v1(`${other.url}/ws/ann`), await TestClient.v1(`${one.url}/ws/bob`)];
  for (const client of [ann, bob]) await client.call({ type: 'subscribe', channel: 'room:kinds' });
  const { position } = await ann.call({ type: 'publish', channel: 'room:kinds', data: 'kept' });
  expect(await bob.json()).toMatchObject({ type: 'message', data: 'kept' });
  expect(await ann.json()).toMatchObject({ type: 'message', position, data: 'kept' });
  await bob.call({ type: 'publish', channel: 'room:kinds', data: 'not kept' });
  expect(await ann.json()).toEqual({ type: 'gap', channel: 'room:kinds', reason: 'bus', position });
  expect(await other.metric('tidegate_bus_dropped_total', { reason: 'kind' })).toBe(1);
  await Promise.all([ann.leave(), bob.leave()]);
  await other.stop();
});

test('marks what is on a raw channel as foreign for v1 clients', async () => {
  const client = await TestClient.v1(`${one.url}/ws/ann`);
  await client.call({ type: 'subscribe', channel: 'ws_broadcast' });
  await bare.publish('ws_broadcast', 'not "JSON"');
  expect(await client.text()).toBe(
    '{"type":"message","channel":"ws_broadcast","foreign":true,"data":"not \\"JSON\\""}',
  );
  await client.leave();
});

test('welcomes before all else, though commands come with the handshake', async () => {
  for (let round = 0; round < 10; round += 1) {
    const peer = await RawPeer.upgrade(one.ports.ws, `/ws/early${round}`, {
      'Sec-WebSocket-Protocol': 'tidegate.v1',
    });
    peer.send(opcodes.text, '{"type":"ping","ref":1}');
    peer.send(opcodes.text, `{"type":"send","user":"early${round}","data":"to myself","ref":2}`);
    await until(() => peer.texts.length === 4, { what: 'a welcome, two answers and a message' });
    const frames = peer.texts.map((text) => JSON.parse(text) as Json);
    expect(frames[0]).toMatchObject({ type: 'welcome' });
    expect(frames.filter((it) => it.direct)).toMatchObject([{ data: 'to myself' }]);
    peer.socket.destroy();
  }
});

test('gives each subscriber just what is published while it is subscribed, on two pods under churn', async () => {
  const { faults, checked } = await churn({
    publisherUrl: one.url,
    subscriberUrls: Array.from({ length: 12 }, (_, n) => (n % 2 ? one.url : two.url)),
    channel: 'room:churn',
    rounds: 10,
  });
  expect(faults).toEqual([]);
  expect(checked).toBeGreaterThan(12 * 10);
});

test('keeps the order of each channel, whoever publishes and wherever', async () => {
  const publishers = await Promise.all(
    [one, two].map((it, n) => TestClient.v1(`${it.url}/ws/publisher${n}`)),
  );
  const listeners = await Promise.all([one, two].map((it, n) => TestClient.v1(`${it.url}/ws/listener${n}`)));
  const channel = 'room:order';
  for (const listener of listeners) await listener.call({ type: 'subscribe', channel });
  for (let n = 0; n < 200; n += 1) {
    for (const publisher of publishers) publisher.send({ type: 'publish', channel, data: n });
  }
  await until(() => listeners.every((it) => it.inbox.length === 400), { what: 'all messages' });
  const [seen = [], other] = listeners.map((it) => it.inbox.map((text) => JSON.parse(text) as Json));
  // The same for both, and each publisher's own in the order in which they were sent.
  expect(other).toEqual(seen);
  for (const n of [0, 1]) {
    const own = seen.filter((it) => it.from === `publisher${n}`).map((it) => it.data);
    expect(own).toEqual(Array.from({ length: 200 }, (_, at) => at));
  }
  await Promise.all([...publishers, ...listeners].map((client) => client.leave()));
});

test('ends up subscribed or not as the last command says, however fast they come', async () => {
  const client = await TestClient.v1(`${one.url}/ws/flick`);
  const names = Array.from({ length: 20 }, (_, n) => `hall:flick${n}`);
  // Even ones end with a subscribe, odd ones with an unsubscribe; none has been subscribed before.
  for (const [n, channel] of names.entries()) {
    const types = ['subscribe', 'unsubscribe', 'subscribe', ...(n % 2 ? ['unsubscribe'] : [])];
    for (const [at, type] of types.entries()) client.send({ type, channel, ref: `${channel}.${at}` });
  }
  await client.json((it) => it.ref === 'hall:flick18.2' && it.type === 'ok');
  await client.json((it) => it.ref === 'hall:flick19.3' && it.type === 'ok');
  await client.call({ type: 'ping' });
  client.inbox.length = 0;
  for (const channel of names) await client.call({ type: 'publish', channel, data: channel });
  const even = names.filter((_, n) => n % 2 === 0);
  await until(() => client.inbox.length >= even.length, { what: 'a message on each that is subscribed' });
  expect(client.inbox.map((text) => (JSON.parse(text) as Json).data).sort()).toEqual(even.sort());
  // Each counts once: after one leave nobody is left.
  for (const channel of even) {
    const count = async () => (await client.call({ type: 'presence', channel })).total;
    await until(async () => (await count()) === 1, { what: 'presence' });
    expect(await client.call({ type: 'unsubscribe', channel })).toMatchObject({ type: 'ok' });
    await until(async () => (await count()) === 0, { what: 'no presence' });
  }
  await client.leave();
});

test('lets go of every subscription and member once nobody is left', async () => {
  const clients = await Promise.all(
    Array.from({ length: 30 }, (_, n) => TestClient.v1(`${(n % 2 ? one : two).url}/ws/leaver${n % 7}`)),
  );
  await Promise.all(
    clients.map((it, n) => it.call({ type: 'subscribe', channels: [`hall:${n % 5}`, `room:l${n}`] })),
  );
  for (const [n, client] of clients.entries()) {
    if (n % 3 === 0) client.ws.close();
    else client.ws.terminate();
  }
  for (const gateway of [one, two]) {
    await until(async () => (await gateway.metric('tidegate_connections')) === 0, { what: 'all to be gone' });
    expect(await gateway.metric('tidegate_users')).toBe(0);
    expect(await gateway.metric('tidegate_channels')).toBe(0);
    expect(await gateway.metric('tidegate_presence_members')).toBe(0);
    await until(async () => (await gateway.metric('tidegate_bus_subscriptions')) === 1, {
      what: 'all but the plain channel to be let go',
    });
  }
  await until(
    async () => {
      const topics = (await bare.pubsub('CHANNELS', '*')) as string[];
      return topics.every((topic) => topic === 'ws_broadcast' || /^tg:(control$|\{probe)/.test(topic));
    },
    { what: 'Redis to have no other subscription' },
  );
});

test('delivers again after its subscriptions were killed, and tells of the gap', async () => {
  const client = await TestClient.v1(`${one.url}/ws/ann`);
  await client.call({ type: 'subscribe', channel: 'room:kill' });
  const reconnects = await one.metric('tidegate_bus_reconnects_total');
  await bare.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
  expect(await client.json((it) => it.type === 'gap' && it.channel === 'room:kill')).toMatchObject({
    reason: 'bus',
  });
  expect(await client.json((it) => it.type === 'gap' && it.direct === true)).toMatchObject({ reason: 'bus' });
  await client.call({ type: 'publish', channel: 'room:kill', data: 'back' });
  expect(await client.json((it) => it.type === 'message')).toMatchObject({ data: 'back' });
  expect(await one.metric('tidegate_bus_reconnects_total')).toBe(reconnects + 1);
  expect((await fetch(`${one.adminUrl}/readyz`)).status).toBe(200);
  await client.leave();
});
