import { afterAll, expect, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { token, tokenSecret } from '../../test/tokens.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';

const channels = JSON.stringify({
  namespaces: {
    room: { subscribe: 'anyone', publish: 'anyone' },
    hall: { subscribe: 'anyone', publish: 'anyone', presence: true },
    doc: { subscribe: 'claim', publish: 'claim' },
    news: { subscribe: 'anyone', publish: 'api' },
    inner: { subscribe: 'api', publish: 'api' },
    small: { subscribe: 'anyone', publish: 'anyone', maxMessageBytes: 10 },
  },
});
const [gateway, strict] = await Promise.all([
  startLocalGateway({ CHANNELS: channels, MAX_CHANNELS_PER_CONNECTION: '5' }),
  startLocalGateway({ CHANNELS: channels, AUTH: 'jwt', JWT_SECRET: tokenSecret }),
]);
afterAll(() => Promise.all([gateway.stop(), strict.stop()]));

const withToken = (claims: Record<string, unknown>) =>
  TestClient.v1(`${strict.url}/ws?token=${token(claims)}`);

/** The frames that carry this ref. */
function answersTo(client: TestClient, ref: number | string): Json[] {
  return client.inbox.map((text) => JSON.parse(text) as Json).filter((it) => it.ref === ref);
}

test('welcomes a client with what it must know', async () => {
  const client = await TestClient.open(`${gateway.url}/ws/ann`, { protocols: ['tidegate.v1'] });
  const welcome = await client.json();
  expect(welcome).toEqual({
    type: 'welcome',
    connection: expect.stringMatching(/^[A-Za-z0-9_-]{16}$/),
    user: 'ann',
    pingIntervalMs: 25_000,
    maxMessageBytes: 65_536,
  });
  await client.leave();
  const ann = await TestClient.open(`${strict.url}/ws?token=${token({ sub: 'ann' })}`, {
    protocols: ['tidegate.v1'],
  });
  const { tokenExpiresInMs } = await ann.json();
  expect(tokenExpiresInMs).toBeGreaterThan(3_500_000);
  expect(tokenExpiresInMs).toBeLessThanOrEqual(3_600_000);
  await ann.leave();
});

test('answers every command exactly once, with its ref', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  await client.call({ type: 'subscribe', channels: ['hall:1', 'room:1', 'room:2'] });
  const commands: Json[] = [
    { type: 'subscribe', channel: 'room:3' },
    { type: 'subscribe', channels: ['room:4', { channel: 'hall:1' }] },
    { type: 'publish', channel: 'room:1', data: null },
    { type: 'publish', channel: 'room:9', data: 1 },
    { type: 'send', user: 'nobody', data: 1 },
    { type: 'presence', channel: 'hall:1' },
    { type: 'ping' },
    { type: 'unsubscribe', channel: 'room:1' },
    { type: 'unsubscribe', channels: ['room:2', 'hall:1'] },
    { type: 'unsubscribe', channel: 'room:1' },
    { type: 'refresh', token: 'x' },
    { type: 'subscribe', channel: 'inner:1' },
    { type: 'nonsense' },
  ];
  for (const [ref, command] of commands.entries()) client.send({ ...command, ref });
  client.send({ type: 'ping', ref: 'last' });
  await until(() => commands.every((_, ref) => answersTo(client, ref).length > 0), { what: 'all answers' });
  await client.json((it) => it.ref === 'last');
  const kinds = commands.map((_, ref) => answersTo(client, ref).map((it) => it.code ?? it.type));
  expect(kinds).toEqual([
    ['ok'],
    ['ok'],
    ['ok'],
    ['ok'],
    ['ok'],
    ['ok'],
    ['ok'],
    ['ok'],
    ['ok'],
    ['not_subscribed'],
    ['token_refused'],
    ['forbidden'],
    ['unknown_type'],
  ]);
  await client.leave();
});

test('answers without a ref where there was none, and with a ref of whatever kind it was', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  client.send({ type: 'ping' });
  expect(await client.text()).toBe('{"type":"ok"}');
  for (const ref of [0, -1, '', 'x'.repeat(64), 'ü"\\', Number.MAX_SAFE_INTEGER]) {
    client.send({ type: 'ping', ref });
    expect(await client.json()).toEqual({ type: 'ok', ref });
  }
  await client.leave();
});

test('carries any JSON value from one to another as it was', async () => {
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  const bob = await TestClient.v1(`${gateway.url}/ws/bob`);
  expect(await bob.call({ type: 'subscribe', channel: 'room:1' })).toMatchObject({
    type: 'ok',
    channel: 'room:1',
  });
  for (const data of [null, 0, -1.5, '', '"', 'Grüße 🌊\u2028\u0000', [], {}, { a: [{ b: null }] }, true]) {
    const { id } = await ann.call({ type: 'publish', channel: 'room:1', data });
    expect(await bob.json()).toEqual({ type: 'message', channel: 'room:1', id, from: 'ann', data });
  }
  await Promise.all([ann.leave(), bob.leave()]);
});

test('gives a publisher its own message too, unless it asked for no echo', async () => {
  const anns = [
    await TestClient.v1(`${gateway.url}/ws/ann`),
    await TestClient.v1(`${gateway.url}/ws/ann`),
  ] as const;
  for (const ann of anns) await ann.call({ type: 'subscribe', channel: 'room:1' });
  await anns[0].call({ type: 'publish', channel: 'room:1', data: 'all' });
  await anns[0].call({ type: 'publish', channel: 'room:1', data: 'others', echo: false });
  await anns[0].call({ type: 'publish', channel: 'room:1', data: 'all again', echo: true });
  for (const data of ['all', 'all again']) expect(await anns[0].json()).toMatchObject({ data });
  // The same user's other connection did not ask.
  for (const data of ['all', 'others', 'all again']) expect(await anns[1].json()).toMatchObject({ data });
  expect([anns[0].inbox, anns[1].inbox]).toEqual([[], []]);
  await Promise.all(anns.map((ann) => ann.leave()));
});

test('refuses to leave the sender out of a raw channel, which cannot know it', async () => {
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  const refused = await ann.call({ type: 'publish', channel: 'ws_broadcast', data: 1, echo: false });
  expect(refused).toMatchObject({ type: 'error', code: 'raw_channel', retryable: false });
  await ann.leave();
});

test('subscribes to many channels at once, with a result for each', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  const answer = await client.call({
    type: 'subscribe',
    channels: ['room:1', 'inner:1', { channel: 'room:2' }, 'nowhere:1', 'room:1'],
  });
  expect(answer).toMatchObject({
    type: 'ok',
    channels: [
      { channel: 'room:1' },
      { channel: 'inner:1', error: { code: 'forbidden', retryable: false } },
      { channel: 'room:2' },
      { channel: 'nowhere:1', error: { code: 'forbidden' } },
      { channel: 'room:1' },
    ],
  });
  for (const channel of ['room:1', 'room:2']) {
    await client.call({ type: 'publish', channel, data: channel });
    expect(await client.json()).toMatchObject({ type: 'message', channel, data: channel });
  }
  expect(client.inbox).toEqual([]);
  await client.leave();
});

test('leaves all channels of an unsubscribe that it is in, and tells of those it is not in', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  await client.call({ type: 'subscribe', channels: ['room:1', 'room:2'] });
  const answer = await client.call({ type: 'unsubscribe', channels: ['room:1', 'room:7', 'room:2'] });
  expect(answer).toMatchObject({ type: 'error', code: 'not_subscribed' });
  for (const channel of ['room:1', 'room:2']) await client.call({ type: 'publish', channel, data: 1 });
  await client.call({ type: 'ping' });
  expect(client.inbox).toEqual([]);
  await client.leave();
});

test('denies what nothing allows', async () => {
  const ann = await withToken({ sub: 'ann' });
  const denied: Json[] = [
    { type: 'subscribe', channel: 'doc:1' },
    { type: 'publish', channel: 'doc:1', data: 1 },
    { type: 'publish', channel: 'news:1', data: 1 },
    { type: 'subscribe', channel: 'inner:1' },
    { type: 'presence', channel: 'inner:1' },
    { type: 'subscribe', channel: 'unknown:1' },
    { type: 'publish', channel: 'unknown:1', data: 1 },
    { type: 'subscribe', channel: 'tg:control' },
    { type: 'send', user: 'bob', data: 1 },
  ];
  for (const command of denied) {
    expect(await ann.call(command), JSON.stringify(command)).toMatchObject({
      type: 'error',
      code: 'forbidden',
      retryable: false,
    });
  }
  await ann.leave();
});

test('allows what the claims of a token name, and not a channel more', async () => {
  const claims = { channels: { subscribe: ['doc:1', 'doc:team/*'], publish: ['doc:1'] }, send: ['bob'] };
  const ann = await withToken({ sub: 'ann', ...claims });
  for (const channel of ['doc:1', 'doc:team/x']) {
    expect(await ann.call({ type: 'subscribe', channel })).toMatchObject({ type: 'ok' });
  }
  for (const channel of ['doc:2', 'doc:team', 'doc:11']) {
    expect(await ann.call({ type: 'subscribe', channel })).toMatchObject({ code: 'forbidden' });
  }
  expect(await ann.call({ type: 'publish', channel: 'doc:1', data: 1 })).toMatchObject({ type: 'ok' });
  expect(await ann.call({ type: 'publish', channel: 'doc:team/x', data: 1 })).toMatchObject({
    code: 'forbidden',
  });
  expect(await ann.call({ type: 'send', user: 'bob', data: 1 })).toMatchObject({ type: 'ok' });
  expect(await ann.call({ type: 'send', user: 'bobby', data: 1 })).toMatchObject({ code: 'forbidden' });
  await ann.leave();
});

test('holds so many channels on a connection and no more, however they are asked for', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  const names = Array.from({ length: 8 }, (_, n) => `room:cap${n}`);
  const { channels: results } = await client.call({ type: 'subscribe', channels: names });
  const codes = (results as { error?: { code: string } }[]).map((it) => it.error?.code);
  expect(codes).toEqual([...Array(5).fill(undefined), ...Array(3).fill('too_many_channels')]);
  // One that it has is no other one, and one that it leaves makes room.
  expect(await client.call({ type: 'subscribe', channel: 'room:cap0' })).toMatchObject({ type: 'ok' });
  expect(await client.call({ type: 'subscribe', channel: 'room:cap7' })).toMatchObject({
    code: 'too_many_channels',
  });
  await client.call({ type: 'unsubscribe', channel: 'room:cap0' });
  expect(await client.call({ type: 'subscribe', channel: 'room:cap7' })).toMatchObject({ type: 'ok' });
  await client.leave();
});

test('refuses a payload that is larger than the namespace allows', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  expect(await client.call({ type: 'publish', channel: 'small:1', data: '12345678' })).toMatchObject({
    type: 'ok',
  });
  const refused = await client.call({ type: 'publish', channel: 'small:1', data: '123456789' });
  expect(refused).toMatchObject({ code: 'too_large', retryable: false });
  // Bytes count, not characters.
  expect(await client.call({ type: 'publish', channel: 'small:1', data: 'ääääa' })).toMatchObject({
    code: 'too_large',
  });
  await client.leave();
});

test('says who is in a channel that keeps presence, and only there', async () => {
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  const bob = await TestClient.v1(`${gateway.url}/ws/bob`);
  await bob.call({ type: 'subscribe', channel: 'hall:who' });
  await until(async () => (await ann.call({ type: 'presence', channel: 'hall:who' })).total === 1, {
    what: 'bob to be present',
  });
  expect(await ann.call({ type: 'presence', channel: 'hall:who' })).toMatchObject({
    channel: 'hall:who',
    members: ['bob'],
    total: 1,
  });
  expect(await ann.call({ type: 'presence', channel: 'room:who' })).toMatchObject({ code: 'no_presence' });
  await Promise.all([ann.leave(), bob.leave()]);
});

test('counts a connection present once, however often it comes and goes in one go', async () => {
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  const total = async () => (await ann.call({ type: 'presence', channel: 'hall:flicker' })).total;
  const types = [
    'subscribe',
    'unsubscribe',
    'subscribe',
    'subscribe',
    'unsubscribe',
    'unsubscribe',
    'subscribe',
  ];
  for (const [ref, type] of types.entries()) ann.send({ type, channel: 'hall:flicker', ref });
  await until(() => answersTo(ann, 6).length === 1, { what: 'the last answer' });
  await until(async () => (await total()) === 1, { what: 'ann to be present' });
  expect(await ann.call({ type: 'unsubscribe', channel: 'hall:flicker' })).toMatchObject({ type: 'ok' });
  await until(async () => (await total()) === 0, { what: 'ann to be absent' });
  await ann.leave();
});

test('takes a new token of the same user, and leaves what it no longer allows', async () => {
  const ann = await withToken({ sub: 'ann', channels: { subscribe: ['doc:*'] } });
  await ann.call({ type: 'subscribe', channels: ['doc:1', 'doc:2', 'room:1'] });
  const answer = await ann.call({
    type: 'refresh',
    token: token({ sub: 'ann', channels: { subscribe: ['doc:2'] } }),
  });
  expect(answer).toMatchObject({ type: 'ok', left: ['doc:1'] });
  expect(answer.tokenExpiresInMs).toBeGreaterThan(3_500_000);
  expect(await ann.call({ type: 'unsubscribe', channel: 'doc:1' })).toMatchObject({ code: 'not_subscribed' });
  expect(await ann.call({ type: 'unsubscribe', channels: ['doc:2', 'room:1'] })).toMatchObject({
    type: 'ok',
  });
  await ann.leave();
});

test('keeps the old token where the new one is refused', async () => {
  const ann = await withToken({ sub: 'ann', channels: { subscribe: ['doc:*'] } });
  for (const bad of [
    'x',
    token({ sub: 'bob' }),
    token({ sub: 'ann', exp: 1 }),
    token({}),
    `${token({ sub: 'ann' })}x`,
  ]) {
    expect(await ann.call({ type: 'refresh', token: bad })).toMatchObject({
      code: 'token_refused',
      retryable: false,
    });
  }
  expect(await ann.call({ type: 'subscribe', channel: 'doc:1' })).toMatchObject({ type: 'ok' });
  await ann.leave();
});

test('gives what is on a raw channel to v1 clients as text, and marks it as foreign', async () => {
  const v1 = await TestClient.v1(`${gateway.url}/ws/ann`);
  const plain = await TestClient.open(`${gateway.url}/ws/bob`);
  await v1.call({ type: 'subscribe', channel: 'ws_broadcast' });
  plain.send('hello');
  expect(await v1.text()).toBe(
    `{"type":"message","channel":"ws_broadcast","foreign":true,"data":${JSON.stringify('{"sender":"bob","text":"hello"}')}}`,
  );
  // The other way round a string is its own text, and all else is JSON.
  for (const [data, text] of [
    ['any text', 'any text'],
    [{ sender: 'x', text: 'y' }, '{"sender":"x","text":"y"}'],
    [5, '5'],
  ]) {
    expect(await v1.call({ type: 'publish', channel: 'ws_broadcast', data })).toEqual({
      type: 'ok',
      ref: expect.any(String),
    });
    await until(() => plain.inbox.includes(String(text)), { what: `the plain client to get ${text}` });
    expect(await v1.json()).toMatchObject({ foreign: true, data: text });
  }
  await Promise.all([v1.leave(), plain.leave()]);
});
