import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { startGateway, type TestGateway } from '../../test/gateway.ts';
import { exchange } from '../../test/raw.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';
import { MemoryBus } from '../bus/memory.ts';
import { createMetrics } from '../platform/metrics.ts';
import { type ErrorCode, errorKinds } from '../protocol/errors.ts';
import { Api } from './api.ts';
import { ApiKeys } from './api-keys.ts';
import { Bans } from './bans.ts';
import { readChannels } from './channels.ts';
import { Presence } from './presence.ts';
import { Publisher } from './publish.ts';

const key = 'key-of-the-tests-0123456789';
const otherKey = 'another/key+with=marks';
const folder = mkdtempSync(join(tmpdir(), 'tidegate-api-'));
const keysFile = join(folder, 'keys');
writeFileSync(keysFile, `# comment-0123456789\n\n${key}\r\n  ${otherKey}  \n#${key}-old\n`);

const policy = `{send: api, namespaces: {
  room: {subscribe: anyone, publish: anyone, presence: true},
  plain: {subscribe: anyone, publish: anyone},
  news: {subscribe: anyone, publish: api, maxMessageBytes: 1000},
  log: {subscribe: anyone, publish: api, durable: {messages: 100, ageSeconds: 3600}},
  ws_broadcast: {subscribe: anyone, publish: anyone, raw: true}}}`;
const env = { API_KEYS_FILE: keysFile, CHANNELS: policy };

const redis = await startRedis();
const [memory, one, firstTwo] = await Promise.all([
  startGateway(env),
  startGateway({ ...env, REDIS_URL: redis.url }),
  startGateway({ ...env, REDIS_URL: redis.url }),
]);
let two = firstTwo;

const clients: TestClient[] = [];
async function v1(gateway: TestGateway, user: string, ...channels: string[]): Promise<TestClient> {
  const client = await TestClient.v1(`${gateway.url}/ws/${user}`);
  clients.push(client);
  for (const channel of channels)
    expect(await client.call({ type: 'subscribe', channel })).toMatchObject({ type: 'ok' });
  return client;
}

beforeEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.leave()));
});
afterAll(async () => {
  await Promise.all([memory, one, two].map((gateway) => gateway.stop()));
  await redis.stop();
  rmSync(folder, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Json;
}

async function call(
  gateway: { apiUrl: string },
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(gateway.apiUrl + path, {
    method,
    headers: {
      authorization: `Bearer ${key}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: text === '' ? {} : (JSON.parse(text) as Json),
  };
}

const post = (gateway: { apiUrl: string }, path: string, body?: unknown, headers?: Record<string, string>) =>
  call(gateway, 'POST', path, body, headers);
const get = (gateway: { apiUrl: string }, path: string) => call(gateway, 'GET', path);

/** The answer is a problem of this code, in every respect. */
function expectProblem(answer: Answer, code: ErrorCode): void {
  expect(answer.body).toMatchObject({ code });
  const { status, retryable } = errorKinds[code];
  expect(answer.status).toBe(status);
  expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json\b/);
  expect(answer.body).toEqual({
    type: `urn:tidegate:error:${code}`,
    title: expect.any(String),
    status,
    code,
    retryable,
  });
}

describe.each([
  ['memory', memory],
  ['Redis', one],
])('the API on the %s bus', (_bus, gateway) => {
  it('publishes to a channel, as nobody', async () => {
    const ann = await v1(gateway, 'ann', 'room:1');
    for (const data of [{ x: [1, null, 'ä\u2028'] }, 'text', 0, false, null, '']) {
      const { status, body } = await post(gateway, '/v1/publish', { channel: 'room:1', data });
      expect(status).toBe(200);
      expect(await ann.json()).toEqual({ type: 'message', channel: 'room:1', id: body.id, data });
    }
  });

  it('publishes to raw channels nothing but the value, a string as its own text', async () => {
    const ann = await TestClient.open(`${gateway.url}/ws/ann`);
    clients.push(ann);
    expect(
      (await post(gateway, '/v1/publish', { channel: 'ws_broadcast', data: { sender: 'x', text: 'y' } }))
        .body,
    ).toEqual({});
    expect(await ann.text()).toBe('{"sender":"x","text":"y"}');
    expect((await post(gateway, '/v1/publish', { channel: 'ws_broadcast', data: 'say "hi"' })).body).toEqual(
      {},
    );
    expect(await ann.text()).toBe('say "hi"');
  });

  it('publishes many, each with a result of its own', async () => {
    const ann = await v1(gateway, 'ann', 'room:1', 'news:1');
    const { status, body } = await post(gateway, '/v1/publish/many', {
      messages: [
        { channel: 'room:1', data: 1 },
        { channel: 'nowhere:1', data: 2 },
        { channel: 'news:1', data: 'x'.repeat(1001) },
        { channel: 'ws_broadcast', data: 'raw' },
        { channel: 'news:1', data: 3 },
      ],
    });
    expect(status).toBe(200);
    const error = (code: ErrorCode) => ({
      error: expect.objectContaining({
        code,
        status: errorKinds[code].status,
        retryable: false,
        type: `urn:tidegate:error:${code}`,
      }),
    });
    const id = expect.stringMatching(/^[\w-]{16}$/);
    expect(body).toEqual({ results: [{ id }, error('forbidden'), error('too_large'), {}, { id }] });
    expect([await ann.json(), await ann.json()].map(({ data }) => data)).toEqual([1, 3]);
  });

  it('sends to every connection of a user', async () => {
    const all = [await v1(gateway, 'ann'), await v1(gateway, 'ann'), await v1(gateway, 'team%2Fann')];
    const { status, body } = await post(gateway, '/v1/users/ann/messages', { data: 'hi' });
    expect(status).toBe(200);
    for (const ann of all.slice(0, 2))
      expect(await ann.json()).toEqual({ type: 'message', direct: true, id: body.id, data: 'hi' });
    expect((await post(gateway, '/v1/users/team%2Fann/messages', { data: 'there' })).status).toBe(200);
    expect(await all[2]?.json()).toMatchObject({ data: 'there' });
    // Nobody need be there.
    expect((await post(gateway, '/v1/users/nobody/messages', { data: 1 })).status).toBe(200);
  });

  it('disconnects a user, with 4403 or the code and reason that it is given', async () => {
    const usual = await v1(gateway, 'ann');
    expect((await post(gateway, '/v1/users/ann/disconnect')).body).toEqual({});
    expect(await usual.close()).toEqual({ code: 4403, reason: 'disconnected by the application' });

    for (const [body, ended] of [
      [{}, { code: 4403, reason: 'disconnected by the application' }],
      [null, { code: 4403, reason: 'disconnected by the application' }],
      [
        { code: 4999, reason: 'paid until yesterday' },
        { code: 4999, reason: 'paid until yesterday' },
      ],
      [{ reason: 'ü'.repeat(100) }, { code: 4403, reason: 'ü'.repeat(61) }],
    ]) {
      const client = await v1(gateway, 'ann');
      const other = await v1(gateway, 'bob');
      expect((await post(gateway, '/v1/users/ann/disconnect', body)).status).toBe(200);
      expect(await client.close()).toEqual(ended);
      expect(await other.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
    }
  });

  it('bans a user until the ban ends', async () => {
    const ann = await v1(gateway, 'ann');
    const before = Date.now();
    const { body } = await post(gateway, '/v1/users/ann/disconnect', { banSeconds: 600, code: 4100 });
    expect(Date.parse(String(body.bannedUntil))).toBeGreaterThanOrEqual(before + 600_000);
    expect(await ann.close()).toMatchObject({ code: 4100 });
    const back = await TestClient.open(`${gateway.url}/ws/ann`);
    expect(await back.close()).toMatchObject({ code: 4403 });
    await (await v1(gateway, 'ann-marie')).leave();
    // The last ban counts.
    const { bannedUntil } = (await post(gateway, '/v1/users/ann/disconnect', { banSeconds: 1 })).body;
    await until(() => Date.now() > Date.parse(String(bannedUntil)), { what: 'the end of the ban' });
    await v1(gateway, 'ann');
  });

  it('lists channels with the members of those that keep presence, and no more than it is asked for', async () => {
    await v1(gateway, 'ann', 'room:list-a', 'room:list-b', 'plain:list');
    await v1(gateway, 'ann', 'room:list-a');
    await v1(gateway, 'bob', 'room:list-a');
    await until(async () => (await get(gateway, '/v1/channels/room:list-a/presence')).body.total === 2, {
      what: 'both members',
    });
    const { body } = await get(gateway, '/v1/channels');
    expect(body.truncated).toBe(false);
    expect(body.channels).toEqual(
      expect.arrayContaining([
        { channel: 'room:list-a', members: 2 },
        { channel: 'room:list-b', members: 1 },
        { channel: 'plain:list' },
      ]),
    );
    expect((await get(gateway, '/v1/channels?prefix=room:list-b')).body).toEqual({
      channels: [{ channel: 'room:list-b', members: 1 }],
      truncated: false,
    });
    expect((await get(gateway, '/v1/channels?prefix=room%3Alist&limit=1')).body).toMatchObject({
      channels: [{}],
      truncated: true,
    });
    expect((await get(gateway, '/v1/channels?prefix=none')).body).toEqual({ channels: [], truncated: false });
    for (const pattern of ['room:list-?', '*', 'room:list-[ab]'])
      expectProblem(await get(gateway, `/v1/channels?prefix=${encodeURIComponent(pattern)}`), 'bad_name');
  });

  it('tells who is in a channel', async () => {
    await v1(gateway, 'ann', 'room:who/1');
    await v1(gateway, 'bob', 'room:who/1');
    await until(async () => (await get(gateway, '/v1/channels/room%3Awho%2F1/presence')).body.total === 2, {
      what: 'both members',
    });
    const { body } = await get(gateway, '/v1/channels/room%3Awho%2F1/presence');
    expect(body).toEqual({
      channel: 'room:who/1',
      members: expect.arrayContaining(['ann', 'bob']),
      total: 2,
    });
    expect((await get(gateway, '/v1/channels/room:empty/presence')).body).toEqual({
      channel: 'room:empty',
      members: [],
      total: 0,
    });
  });

  it('reads a durable channel page by page', async () => {
    const channel = `log:${Math.random()}`;
    for (const data of [1, 2, 3])
      expect((await post(gateway, '/v1/publish', { channel, data })).body).toMatchObject({
        position: expect.any(String),
      });
    const first = await get(gateway, `/v1/channels/${channel}/messages?limit=2`);
    expect(first.body).toMatchObject({ messages: [{ data: 1 }, { data: 2 }], recovered: true, more: true });
    const second = await get(gateway, `/v1/channels/${channel}/messages?after=${first.body.position}`);
    expect(second.body).toMatchObject({ messages: [{ data: 3 }], recovered: true, more: false });
    expectProblem(await get(gateway, `/v1/channels/${channel}/messages?after=7`), 'malformed');
    expectProblem(await get(gateway, '/v1/channels/room:1/messages'), 'not_durable');
  });

  describe('with an Idempotency-Key', () => {
    const idempotent = (idempotencyKey: string) => ({ 'idempotency-key': idempotencyKey });
    const fresh = () => `key ${Math.random()}`;

    it.each([
      ['/v1/publish', { channel: 'room:once', data: 1 }],
      [
        '/v1/publish/many',
        {
          messages: [
            { channel: 'room:once', data: 1 },
            { channel: 'nowhere:1', data: 2 },
          ],
        },
      ],
      ['/v1/users/once/messages', { data: 1 }],
    ])('answers a call of %s that is repeated as it did at first, and does nothing', async (path, body) => {
      const once = await v1(gateway, 'once', 'room:once');
      const headers = idempotent(fresh());
      const first = await post(gateway, path, body, headers);
      expect(first.status).toBe(200);
      expect(first.headers.get('idempotent-replayed')).toBeNull();
      const second = await post(gateway, path, body, headers);
      expect(second.status).toBe(200);
      expect(second.body).toEqual(first.body);
      expect(second.headers.get('idempotent-replayed')).toBe('true');
      expect((await post(gateway, '/v1/publish', { channel: 'room:once', data: 'last' })).status).toBe(200);
      expect(await once.json()).toMatchObject({ data: 1 });
      expect(await once.json()).toMatchObject({ data: 'last' });
    });

    it('refuses the same key for another body', async () => {
      const headers = idempotent(fresh());
      expect((await post(gateway, '/v1/publish', { channel: 'room:1', data: 1 }, headers)).status).toBe(200);
      expectProblem(
        await post(gateway, '/v1/publish', { channel: 'room:1', data: 2 }, headers),
        'key_reused',
      );
      expectProblem(
        await post(gateway, '/v1/publish', { channel: 'room:2', data: 1 }, headers),
        'key_reused',
      );
    });

    it('keeps the keys of different routes, users and API keys apart', async () => {
      const headers = idempotent(fresh());
      const ids = [
        await post(gateway, '/v1/users/ann/messages', { data: 1 }, headers),
        await post(gateway, '/v1/users/bob/messages', { data: 1 }, headers),
        await post(
          gateway,
          '/v1/users/bob/messages',
          { data: 1 },
          { ...headers, authorization: `Bearer ${otherKey}` },
        ),
      ].map(({ body }) => body.id);
      expect(new Set(ids).size).toBe(3);
    });

    it('frees the key of a call that failed', async () => {
      const headers = idempotent(fresh());
      const body = { channel: 'nowhere:1', data: 1 };
      expectProblem(await post(gateway, '/v1/publish', body, headers), 'forbidden');
      expectProblem(await post(gateway, '/v1/publish', body, headers), 'forbidden');
      const large = { channel: 'news:1', data: 'x'.repeat(1001) };
      expectProblem(await post(gateway, '/v1/publish', large, headers), 'too_large');
      expect((await post(gateway, '/v1/publish', { channel: 'news:1', data: 'x' }, headers)).status).toBe(
        200,
      );
    });

    it('publishes once however many calls come at once', async () => {
      const once = await v1(gateway, 'once', 'room:race');
      const headers = idempotent(fresh());
      const answers = await Promise.all(
        Array.from({ length: 20 }, () =>
          post(gateway, '/v1/publish', { channel: 'room:race', data: 1 }, headers),
        ),
      );
      const done = answers.filter(({ status }) => status === 200);
      expect(new Set(done.map(({ body }) => body.id)).size).toBe(1);
      for (const answer of answers.filter(({ status }) => status !== 200))
        expectProblem(answer, 'key_in_progress');
      expect((await post(gateway, '/v1/publish', { channel: 'room:race', data: 'last' })).status).toBe(200);
      expect(await once.json()).toMatchObject({ data: 1 });
      expect(await once.json()).toMatchObject({ data: 'last' });
    });

    it('refuses a key that is empty or too long', async () => {
      for (const bad of ['', 'x'.repeat(129)]) {
        const answer = await post(gateway, '/v1/publish', { channel: 'room:1', data: 1 }, idempotent(bad));
        expectProblem(answer, 'malformed');
      }
    });
  });
});

const routes: [method: string, path: string, body?: unknown][] = [
  ['POST', '/v1/publish', { channel: 'room:1', data: 1 }],
  ['POST', '/v1/publish/many', { messages: [{ channel: 'room:1', data: 1 }] }],
  ['POST', '/v1/users/ann/messages', { data: 1 }],
  ['POST', '/v1/users/ann/disconnect', {}],
  ['GET', '/v1/channels'],
  ['GET', '/v1/channels/room:1/presence'],
  ['GET', '/v1/channels/log:1/messages'],
];

describe('the keys of the API', () => {
  it.each(routes)('are needed for %s %s', async (method, path, body) => {
    for (const authorization of [
      '',
      'Bearer',
      'Bearer ',
      'Bearer wrong',
      `Basic ${key}`,
      key,
      `Bearer ${key}x`,
      `Bearer ${key.slice(0, -1)}`,
      `Bearer ${key} x`,
    ]) {
      const answer = await call(memory, method, path, body, { authorization });
      expectProblem(answer, 'unauthorized');
      expect(answer.headers.get('www-authenticate')).toBe('Bearer');
    }
    expectProblem(
      await call(memory, method, `${path}?key=${key}&token=${key}`, body, { authorization: '' }),
      'unauthorized',
    );
    for (const authorization of [`Bearer ${key}`, `bearer   ${otherKey}`]) {
      expect((await call(memory, method, path, body, { authorization })).status).toBe(200);
    }
  });

  it('are not those lines of the file that are comments', async () => {
    for (const comment of [
      '# comment-0123456789',
      'comment-0123456789',
      `#${key}-old`,
      `${key}-old`,
      '#',
      '',
    ]) {
      expectProblem(
        await call(memory, 'GET', '/v1/channels', undefined, { authorization: `Bearer ${comment}` }),
        'unauthorized',
      );
    }
  });

  it('are looked at before the body is', async () => {
    const answer = await post(memory, '/v1/publish', '{"channel":', { authorization: 'Bearer wrong' });
    expectProblem(answer, 'unauthorized');
  });

  it('count only where the first Authorization header holds one', async () => {
    const response = await exchange(
      memory.ports.api,
      `GET /v1/channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer wrong\r\nAuthorization: Bearer ${key}\r\n\r\n`,
    );
    expect(response).toMatch(/^HTTP\/1\.1 401 /);
  });

  it('open the API: without a file of them it stays closed', async () => {
    const closed = await startGateway();
    expect(closed.ports.api).toBeUndefined();
    await closed.stop();
  });
});

describe('a request that is not as documented', () => {
  it.each<[string, string, string, unknown, ErrorCode]>([
    ['no channel', 'POST', '/v1/publish', { data: 1 }, 'malformed'],
    ['no data', 'POST', '/v1/publish', { channel: 'room:1' }, 'malformed'],
    ['an unknown field', 'POST', '/v1/publish', { channel: 'room:1', data: 1, user: 'ann' }, 'malformed'],
    [
      'a field of a prototype',
      'POST',
      '/v1/publish',
      '{"channel":"room:1","data":1,"__proto__":{"x":1}}',
      'malformed',
    ],
    [
      'data with a field of a prototype',
      'POST',
      '/v1/publish',
      '{"channel":"room:1","data":{"__proto__":{"x":1}}}',
      'malformed',
    ],
    ['a channel that is a number', 'POST', '/v1/publish', { channel: 7, data: 1 }, 'malformed'],
    ['a channel that is a list', 'POST', '/v1/publish', { channel: ['room:1'], data: 1 }, 'malformed'],
    ['a channel that is null', 'POST', '/v1/publish', { channel: null, data: 1 }, 'malformed'],
    ['a body that is a list', 'POST', '/v1/publish', [{ channel: 'room:1', data: 1 }], 'malformed'],
    ['a body that is a text', 'POST', '/v1/publish', '"room:1"', 'malformed'],
    ['a body that is no JSON', 'POST', '/v1/publish', '{"channel":"room:1","data":', 'malformed'],
    ['two bodies', 'POST', '/v1/publish', '{"channel":"room:1","data":1}{}', 'malformed'],
    ['an empty body', 'POST', '/v1/publish', '', 'malformed'],
    ['no body', 'POST', '/v1/publish', undefined, 'malformed'],
    ['a bad name', 'POST', '/v1/publish', { channel: 'room *', data: 1 }, 'bad_name'],
    ['a name with a line’s end', 'POST', '/v1/publish', { channel: 'room:1\n', data: 1 }, 'bad_name'],
    ['a name that is too long', 'POST', '/v1/publish', { channel: 'x'.repeat(129), data: 1 }, 'bad_name'],
    [
      'a namespace that does not exist',
      'POST',
      '/v1/publish',
      { channel: 'nowhere:1', data: 1 },
      'forbidden',
    ],
    [
      'a payload over the namespace’s limit',
      'POST',
      '/v1/publish',
      { channel: 'news:1', data: 'x'.repeat(1001) },
      'too_large',
    ],
    [
      'a payload over the gateway’s limit',
      'POST',
      '/v1/publish',
      { channel: 'room:1', data: 'x'.repeat(65_536) },
      'too_large',
    ],
    [
      'a body over any limit',
      'POST',
      '/v1/publish',
      { channel: 'room:1', data: 'x'.repeat(500_000) },
      'too_large',
    ],
    ['no messages', 'POST', '/v1/publish/many', { messages: [] }, 'malformed'],
    [
      'too many messages',
      'POST',
      '/v1/publish/many',
      { messages: Array(1001).fill({ channel: 'room:1', data: 1 }) },
      'malformed',
    ],
    [
      'messages that are an object',
      'POST',
      '/v1/publish/many',
      { messages: { 0: { channel: 'room:1', data: 1 } } },
      'malformed',
    ],
    [
      'one message of many with an unknown field',
      'POST',
      '/v1/publish/many',
      { messages: [{ channel: 'room:1', data: 1, x: 1 }] },
      'malformed',
    ],
    [
      'one message of many with a bad name',
      'POST',
      '/v1/publish/many',
      {
        messages: [
          { channel: 'room:1', data: 1 },
          { channel: '', data: 1 },
        ],
      },
      'bad_name',
    ],
    ['a user that is no name', 'POST', '/v1/users/a%20b/messages', { data: 1 }, 'bad_name'],
    ['a user with a percent sign', 'POST', '/v1/users/a%25b/messages', { data: 1 }, 'bad_name'],
    ['a user that is too long', 'POST', `/v1/users/${'x'.repeat(129)}/messages`, { data: 1 }, 'bad_name'],
    ['a path that cannot be decoded', 'POST', '/v1/users/%ZZ/messages', { data: 1 }, 'malformed'],
    ['a path of bytes that are no text', 'POST', '/v1/users/%ff/messages', { data: 1 }, 'malformed'],
    ['no data for a user', 'POST', '/v1/users/ann/messages', {}, 'malformed'],
    [
      'a sender, which the API does not take',
      'POST',
      '/v1/users/ann/messages',
      { data: 1, from: 'bob' },
      'malformed',
    ],
    ['a code that is a text', 'POST', '/v1/users/ann/disconnect', { code: '4403' }, 'malformed'],
    ['a code of the protocol itself', 'POST', '/v1/users/ann/disconnect', { code: 1000 }, 'malformed'],
    ['a code that is no code', 'POST', '/v1/users/ann/disconnect', { code: 4000.5 }, 'malformed'],
    [
      'a reason that is too long',
      'POST',
      '/v1/users/ann/disconnect',
      { reason: 'x'.repeat(101) },
      'malformed',
    ],
    ['a ban that is a text', 'POST', '/v1/users/ann/disconnect', { banSeconds: '60' }, 'malformed'],
    ['a ban of less than nothing', 'POST', '/v1/users/ann/disconnect', { banSeconds: -1 }, 'malformed'],
    ['a ban that is true', 'POST', '/v1/users/ann/disconnect', { banSeconds: true }, 'malformed'],
    ['a ban for ever', 'POST', '/v1/users/ann/disconnect', { banSeconds: 1e12 }, 'malformed'],
    ['an unknown order', 'POST', '/v1/users/ann/disconnect', { ban: true }, 'malformed'],
    ['an unknown parameter', 'GET', '/v1/channels?limits=1', undefined, 'malformed'],
    ['a limit that is no number', 'GET', '/v1/channels?limit=1e3', undefined, 'malformed'],
    ['two limits', 'GET', '/v1/channels?limit=1&limit=2', undefined, 'malformed'],
    ['presence where none is kept', 'GET', '/v1/channels/plain:1/presence', undefined, 'no_presence'],
    [
      'presence of a namespace that does not exist',
      'GET',
      '/v1/channels/nowhere:1/presence',
      undefined,
      'forbidden',
    ],
    ['presence of a bad name', 'GET', '/v1/channels/room%7B/presence', undefined, 'bad_name'],
    ['a path that does not exist', 'GET', '/v1/nothing', undefined, 'not_found'],
    ['a name that is not encoded', 'GET', '/v1/channels/room:a/b/presence', undefined, 'not_found'],
    ['a method that does not exist here', 'GET', '/v1/publish', undefined, 'not_found'],
    ['another method', 'DELETE', '/v1/users/ann/messages', undefined, 'not_found'],
    ['the root', 'GET', '/', undefined, 'not_found'],
  ])('is answered with a problem: %s', async (_what, method, path, body, code) => {
    expectProblem(await call(memory, method, path, body), code);
    if (method === 'POST')
      expectProblem(await call(memory, method, path, body, { 'idempotency-key': 'k' }), code);
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'application/octet-stream', 'nonsense', ''])(
    'is answered with a problem: the content type "%s"',
    async (type) => {
      const answer = await post(memory, '/v1/publish', '{"channel":"room:1","data":1}', {
        'content-type': type,
      });
      expectProblem(answer, 'malformed');
    },
  );

  it('may write its content type with a character set', async () => {
    const answer = await post(
      memory,
      '/v1/publish',
      { channel: 'room:1', data: 1 },
      { 'content-type': 'application/json; charset=utf-8' },
    );
    expect(answer.status).toBe(200);
  });

  it('is not smuggled past by what proxies read in two ways', async () => {
    const head = `POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\n`;
    const body = '{"channel":"room:1","data":1}';
    for (const lengths of [
      `Content-Length: ${body.length}\r\nTransfer-Encoding: chunked\r\n`,
      `Content-Length: ${body.length}\r\nContent-Length: 0\r\n`,
      `Content-Length: +${body.length}\r\n`,
      'Transfer-Encoding: xchunked\r\n',
    ]) {
      const response = await exchange(memory.ports.api, `${head}${lengths}\r\n${body}`);
      expect(response, lengths).toMatch(/^HTTP\/1\.1 400 /);
      expect(response).not.toContain('HTTP/1.1 200');
    }
  });

  it('does not fall over data that is nested as deeply as a body has room for', async () => {
    const depth = 60_000;
    const body = `{"channel":"room:deep","data":${'['.repeat(depth)}${']'.repeat(depth)}}`;
    for (const headers of [{}, { 'idempotency-key': 'deep' }]) {
      expectProblem(await post(memory, '/v1/publish', body, headers), 'too_large');
    }
    const less = `{"channel":"room:deep","data":${'['.repeat(20_000)}${']'.repeat(20_000)}}`;
    expect([200, 400]).toContain(
      (await post(memory, '/v1/publish', less, { 'idempotency-key': 'less' })).status,
    );
  });

  it('is never told what failed inside, and leaves no secret in the log', () => {
    expect(memory.output()).not.toContain(key);
    expect(memory.output()).not.toContain(otherKey);
    expect(memory.log.filter(({ level = 0 }) => level >= 50)).toEqual([]);
  });
});

describe('names in paths', () => {
  it.each(['a/b', 'a:b@c', '~.-_', 'x'.repeat(128), '/'.repeat(128)])('may be any: %s', async (user) => {
    const ann = await v1(memory, encodeURIComponent(user));
    expect(
      (await post(memory, `/v1/users/${encodeURIComponent(user)}/messages`, { data: user })).status,
    ).toBe(200);
    expect(await ann.json()).toMatchObject({ direct: true, data: user });
  });
});

describe('the OpenAPI document', async () => {
  const response = await fetch(`${memory.apiUrl}/v1/openapi.json`);
  const document = (await response.json()) as {
    openapi: string;
    info: Json;
    paths: Record<string, Record<string, Operation>>;
    components: { securitySchemes: Json };
    security: Json[];
  };
  interface Operation {
    summary?: string;
    parameters?: { name: string; in: string; required?: boolean; schema?: Json }[];
    requestBody?: { content: Json; required?: boolean };
    responses: Record<string, { description?: string; content?: Json }>;
  }
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

  it('is served to anyone as OpenAPI 3.1', () => {
    expect(response.headers.get('content-type')).toMatch(/^application\/json/);
    expect(document).toMatchObject({
      openapi: '3.1.0',
      info: { title: expect.any(String), version: expect.any(String) },
    });
    expect(document.components.securitySchemes).toMatchObject({ key: { type: 'http', scheme: 'bearer' } });
    expect(document.security).toEqual([{ key: [] }]);
  });

  it('lists every route', () => {
    expect(operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).sort()).toEqual(
      [
        'POST /v1/publish',
        'POST /v1/publish/many',
        'POST /v1/users/{user}/messages',
        'POST /v1/users/{user}/disconnect',
        'GET /v1/channels',
        'GET /v1/channels/{channel}/presence',
        'GET /v1/channels/{channel}/messages',
      ].sort(),
    );
  });

  it('says of every route what it takes and gives', () => {
    for (const { path, method, operation } of operations) {
      const at = `${method} ${path}`;
      expect(operation.summary, at).toBeTruthy();
      const inPath = (operation.parameters ?? []).filter((it) => it.in === 'path');
      expect(inPath.map(({ name }) => `{${name}}`).sort(), at).toEqual(
        [...path.matchAll(/\{\w+\}/g)].map(([it]) => it).sort(),
      );
      for (const parameter of operation.parameters ?? []) {
        expect(['path', 'query', 'header']).toContain(parameter.in);
        expect(parameter.schema, `${at} ${parameter.name}`).toBeTypeOf('object');
      }
      for (const { required } of inPath) expect(required).toBe(true);
      expect(operation.requestBody !== undefined, at).toBe(method === 'post');
      if (operation.requestBody)
        expect(Object.keys(operation.requestBody.content)).toEqual(['application/json']);
      expect(Object.keys(operation.responses).sort(), at).toEqual(['200', 'default']);
      for (const answer of Object.values(operation.responses))
        expect(answer.description).toBeTypeOf('string');
    }
    expect(JSON.stringify(document)).not.toContain('$ref');
  });
});

describe('two pods', () => {
  it('both close a user’s connections, whichever was asked', async () => {
    const all = [await v1(one, 'ann'), await v1(two, 'ann'), await v1(two, 'ann')];
    expect((await post(one, '/v1/users/ann/disconnect', { code: 4321, reason: 'moved out' })).status).toBe(
      200,
    );
    for (const client of all) expect(await client.close()).toEqual({ code: 4321, reason: 'moved out' });
  });

  it('both keep a banned user out, also after a restart', async () => {
    const [ann, bob] = [await v1(two, 'banned'), await v1(two, 'bob')];
    expect((await post(one, '/v1/users/banned/disconnect', { banSeconds: 600 })).status).toBe(200);
    expect(await ann.close()).toMatchObject({ code: 4403 });
    const tryAt = async (gateway: TestGateway) => (await TestClient.open(`${gateway.url}/ws/banned`)).close();
    expect(await tryAt(one)).toMatchObject({ code: 4403 });
    expect(await tryAt(two)).toMatchObject({ code: 4403 });
    await bob.leave();
    await two.stop('SIGKILL');
    two = await startGateway({ ...env, REDIS_URL: redis.url });
    expect(await tryAt(two)).toMatchObject({ code: 4403 });
    await v1(two, 'bob');
  });

  it('both let a banned user in again when the ban ends', async () => {
    const { body } = await post(one, '/v1/users/forgiven/disconnect', { banSeconds: 1 });
    await until(() => Date.now() > Date.parse(String(body.bannedUntil)), { what: 'the end of the ban' });
    await Promise.all([v1(one, 'forgiven'), v1(two, 'forgiven')]);
  });

  it('hold a ban that Redis has forgotten', async () => {
    const own = await startRedis();
    const gateway = await startGateway({ ...env, REDIS_URL: own.url });
    expect((await post(gateway, '/v1/users/banned/disconnect', { banSeconds: 600 })).status).toBe(200);
    await own.restart();
    const isBack = () => gateway.log.some(({ msg }) => msg?.startsWith('the bus was interrupted'));
    await until(isBack, { what: 'the gateway to be back' });
    // Answered after the question for the bans, which is on the same line.
    await until(async () => (await get(gateway, '/v1/channels')).status === 200, {
      what: 'an answer of Redis',
    });
    const banned = await TestClient.open(`${gateway.url}/ws/banned`);
    expect(await banned.close()).toMatchObject({ code: 4403 });
    await gateway.stop();
    await own.stop();
  });

  it('share idempotency keys', async () => {
    const headers = { 'idempotency-key': `shared ${Math.random()}` };
    const first = await post(one, '/v1/publish', { channel: 'room:1', data: 1 }, headers);
    const second = await post(two, '/v1/publish', { channel: 'room:1', data: 1 }, headers);
    expect(second.body).toEqual(first.body);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
  });

  it('list the channels and members of both', async () => {
    await v1(one, 'ann', 'room:both');
    await v1(two, 'bob', 'room:both', 'plain:only-two');
    await until(async () => (await get(one, '/v1/channels/room:both/presence')).body.total === 2, {
      what: 'both members',
    });
    expect((await get(one, '/v1/channels?prefix=room:both')).body.channels).toEqual([
      { channel: 'room:both', members: 2 },
    ]);
    expect((await get(one, '/v1/channels?prefix=plain:only')).body.channels).toEqual([
      { channel: 'plain:only-two' },
    ]);
  });

  it('answer with a retryable problem while Redis is away, and work again when it is back', async () => {
    await redis.kill();
    const headers = { 'idempotency-key': 'outage' };
    for (const [method, path, body] of routes) {
      const answer = await call(one, method, path, body);
      if (path !== '/v1/publish/many') expectProblem(answer, 'bus_unavailable');
      else
        expect(answer.body).toMatchObject({
          results: [{ error: { code: 'bus_unavailable', retryable: true } }],
        });
    }
    expectProblem(await post(one, '/v1/publish', { channel: 'room:1', data: 1 }, headers), 'bus_unavailable');
    await redis.restart();
    await until(
      async () => (await post(one, '/v1/publish', { channel: 'room:1', data: 1 }, headers)).status === 200,
      { what: 'Redis to be back' },
    );
  });
});

describe('Api', () => {
  /** An API on a bus that can be held up, or whose store fails. */
  async function start(
    bus: MemoryBus,
  ): Promise<{ apiUrl: string; reports: string[]; stop(): Promise<void> }> {
    const metrics = createMetrics('test');
    const reports: string[] = [];
    const report = (stage: string) => void reports.push(stage);
    const api = new Api({
      keys: new ApiKeys(key),
      bus,
      bans: new Bans(bus, report, () => {}),
      channels: await readChannels(policy, {
        plainChannel: 'ws_broadcast',
        maxMessageBytes: 65_536,
        anonymous: true,
      }),
      publisher: new Publisher(bus, metrics, 65_536),
      presence: new Presence(bus, 30_000, metrics, report),
      metrics,
      report,
      maxMessageBytes: 65_536,
    });
    return { apiUrl: `http://127.0.0.1:${await api.start(0, '127.0.0.1')}`, reports, stop: () => api.stop() };
  }
  const body = { channel: 'plain:1', data: 1 };
  const headers = { 'idempotency-key': 'the same' };

  it('says that a call is in progress while the first one with its key has not ended', async () => {
    const held = Promise.withResolvers<void>();
    let publishes = 0;
    class HeldUpBus extends MemoryBus {
      override async publish(topic: string, bytes: Buffer): Promise<void> {
        publishes += 1;
        await held.promise;
        return super.publish(topic, bytes);
      }
    }
    const api = await start(new HeldUpBus());
    const first = post(api, '/v1/publish', body, headers);
    await until(() => publishes === 1, { what: 'the first call to be underway' });
    const second = await post(api, '/v1/publish', body, headers);
    expectProblem(second, 'key_in_progress');
    expect(second.headers.get('retry-after')).toBe('1');
    held.resolve();
    expect((await first).status).toBe(200);
    expect((await post(api, '/v1/publish', body, headers)).body).toEqual((await first).body);
    expect(publishes).toBe(1);
    await api.stop();
  });

  it('answers with what was done where that cannot be remembered', async () => {
    const bus = new MemoryBus();
    bus.store.settle = () => Promise.reject(new Error('the store is gone'));
    const api = await start(bus);
    expect((await post(api, '/v1/publish', body, headers)).body).toEqual({ id: expect.any(String) });
    expect(api.reports).toEqual(['api.settle']);
    await api.stop();
  });

  it('tells a failure of its own from the caller’s, and says nothing of its cause', async () => {
    const bus = new MemoryBus();
    bus.publish = () => Promise.reject(new Error('redis://user:secret@host'));
    const api = await start(bus);
    const answer = await post(api, '/v1/publish', body);
    expectProblem(answer, 'internal');
    expect(JSON.stringify(answer.body)).not.toContain('secret');
    expect(api.reports).toEqual(['api']);
    await api.stop();
  });
});
