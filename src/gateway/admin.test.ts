import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { exchange, RawPeer } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';
import { readinessOf } from './admin.ts';

const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
const gateway = await startLocalGateway({ CHANNELS: channels, MAX_CONNECTIONS: '123' });
afterAll(() => gateway.stop());

test('is ready while it serves, unless the bus takes messages and brings none', () => {
  expect(readinessOf('serving', { state: 'up' })).toEqual({ ready: true, phase: 'serving', bus: 'up' });
  expect(readinessOf('serving', { state: 'down', reason: 'Redis is away' })).toEqual({
    ready: true,
    phase: 'serving',
    bus: 'down',
    reason: 'Redis is away',
  });
  expect(readinessOf('serving', { state: 'deaf', reason: 'nothing comes' })).toMatchObject({
    ready: false,
    bus: 'deaf',
    reason: 'nothing comes',
  });
});

test('is not ready before it serves and after it began to stop, whatever the bus does', () => {
  for (const state of ['starting', 'up', 'deaf', 'down'] as const) {
    expect(readinessOf('starting', { state, reason: 'a reason' })).toMatchObject({
      ready: false,
      reason: 'a reason',
    });
    expect(readinessOf('draining', { state, reason: 'a reason' })).toMatchObject({
      ready: false,
      phase: 'draining',
      reason: 'the gateway is stopping',
    });
  }
});

test('answers probes and totals as JSON', async () => {
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  const again = await TestClient.v1(`${gateway.url}/ws/ann`);
  for (const [path, body] of [
    ['/livez', { status: 'ok' }],
    ['/readyz', { ready: true, phase: 'serving', bus: 'up' }],
    ['/readyz?verbose', { ready: true }],
    ['/connections', { connections: 2, users: 1, maxConnections: 123 }],
  ] as const) {
    const response = await fetch(gateway.adminUrl + path);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toMatchObject(body);
  }
  expect((await fetch(`${gateway.adminUrl}/readyz`, { method: 'HEAD' })).status).toBe(200);
  await Promise.all([ann.leave(), again.leave()]);
});

test('knows no other path and no other method, and survives what is neither', async () => {
  expect((await fetch(`${gateway.adminUrl}/`)).status).toBe(404);
  expect((await fetch(`${gateway.adminUrl}/livez/x`)).status).toBe(404);
  expect((await fetch(`${gateway.adminUrl}/livez`, { method: 'POST', body: 'x' })).status).toBe(405);
  for (const target of ['//', '/%', '*', 'http://[/livez', '?']) {
    const response = await exchange(
      gateway.ports.admin,
      `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
    );
    expect(response).toMatch(/^HTTP\/1\.1 40[04] /);
  }
  expect((await fetch(`${gateway.adminUrl}/livez`)).status).toBe(200);
});

describe('the contract with the operator', () => {
  const ADMIN_TOKEN = 'a-token-of-some-length';
  const bearer = { authorization: `Bearer ${ADMIN_TOKEN}` };

  async function startGuarded(env: Record<string, string> = {}) {
    const guarded = await startLocalGateway({ CHANNELS: channels, ADMIN_TOKEN, ...env });
    onTestFinished(() => guarded.stop());
    const call = async (
      method: string,
      path: string,
      body?: string,
      headers: Record<string, string> = bearer,
    ) => {
      const response = await fetch(guarded.adminUrl + path, {
        method,
        headers,
        ...(body !== undefined && { body }),
      });
      const text = await response.text();
      return {
        status: response.status,
        headers: response.headers,
        body: text === '' ? undefined : JSON.parse(text),
      };
    };
    return { guarded, call };
  }

  test('tells what it knows of itself, in counters that only grow', async () => {
    const { guarded, call } = await startGuarded({ MAX_CONNECTIONS: '2', DRAIN_SECONDS: '0' });
    const [ann, bob] = [
      await TestClient.v1(`${guarded.url}/ws/ann?moves=true`),
      await TestClient.v1(`${guarded.url}/ws/bob`),
    ];
    await expect(TestClient.v1(`${guarded.url}/ws/carl`)).rejects.toMatchObject({ status: 503 });
    await ann.call({ type: 'subscribe', channel: 'room:1' });
    await bob.call({ type: 'publish', channel: 'room:1', data: 1 });
    await ann.json((it) => it.type === 'message');
    await call('PUT', '/ceiling', '{"connections":5,"expiresAfterMs":60000,"minAgeSeconds":0}');
    const { body } = await call('GET', '/connections');
    expect(body).toEqual({
      connections: 2,
      users: 2,
      maxConnections: 2,
      drainSeconds: 0,
      phase: 'serving',
      bus: 'up',
      startedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      accepted: 2,
      refused: expect.objectContaining({ capacity: 1, moving: 0 }),
      deliveries: 1,
      cpuSeconds: expect.any(Number),
      movable: 1,
      immovable: expect.any(Number),
      ceiling: { connections: 5, expiresInMs: expect.any(Number) },
      shed: { asked: 0, moved: 0, stayed: 0, closed: 0, outstanding: 0 },
    });
    expect(Date.parse(body.startedAt)).toBeLessThanOrEqual(Date.now());
    await Promise.all([ann.leave(), bob.leave()]);
    await until(async () => (await call('GET', '/connections')).body.connections === 0, {
      what: 'both to be gone',
    });
    expect((await call('GET', '/connections')).body).toMatchObject({ accepted: 2, movable: 0 });
  });

  test('sets a ceiling, replaces it, and lifts it', async () => {
    const { guarded, call } = await startGuarded();
    expect((await call('GET', '/connections')).body.ceiling).toBeNull();
    expect(await guarded.metric('tidegate_ceiling_connections')).toBe(Infinity);
    const first = await call('PUT', '/ceiling', '{"connections":5,"expiresAfterMs":60000}');
    expect(first).toMatchObject({ status: 200, body: { connections: 5 } });
    expect(first.body.expiresInMs).toBeGreaterThan(0);
    expect(first.body.expiresInMs).toBeLessThanOrEqual(60_000);
    expect((await call('PUT', '/ceiling', '{"connections":7}')).body).toMatchObject({ connections: 7 });
    expect((await call('GET', '/connections')).body.ceiling).toMatchObject({ connections: 7 });
    expect(await guarded.metric('tidegate_ceiling_connections')).toBe(7);
    for (let again = 0; again < 2; again += 1) expect((await call('DELETE', '/ceiling')).status).toBe(204);
    expect((await call('GET', '/connections')).body.ceiling).toBeNull();
    await call('PUT', '/ceiling', '{"connections":9,"expiresAfterMs":1}');
    await until(async () => (await call('GET', '/connections')).body.ceiling === null, {
      what: 'it to expire',
    });
  });

  test('asks for the token everywhere but at probes and metrics, and believes no other', async () => {
    const { call } = await startGuarded();
    for (const [method, path, body] of [
      ['GET', '/connections'],
      ['PUT', '/ceiling', '{"connections":0}'],
      ['DELETE', '/ceiling'],
    ] as const) {
      for (const authorization of [
        '',
        'Bearer',
        'Bearer x',
        `Bearer ${ADMIN_TOKEN}x`,
        `Basic ${ADMIN_TOKEN}`,
        `Bearer ${ADMIN_TOKEN.slice(1)}`,
      ]) {
        const refused = await call(method, path, body, { authorization });
        expect(refused).toMatchObject({
          status: 401,
          body: { error: expect.stringContaining('ADMIN_TOKEN') },
        });
        expect(refused.headers.get('www-authenticate')).toBe('Bearer');
      }
    }
    for (const path of ['/livez', '/readyz'])
      expect((await call('GET', path, undefined, {})).status).toBe(200);
    expect((await call('GET', '/connections')).body.ceiling).toBeNull();
  });

  test('changes nothing for anybody where no token is set', async () => {
    for (const method of ['PUT', 'DELETE', 'GET', 'POST']) {
      const response = await fetch(`${gateway.adminUrl}/ceiling`, {
        method,
        headers: bearer,
        ...(method === 'PUT' && { body: '{"connections":0}' }),
      });
      expect(response.status).toBe(403);
      expect(await response.json()).toEqual({ error: 'set ADMIN_TOKEN to allow this' });
    }
    expect((await fetch(`${gateway.adminUrl}/connections`)).status).toBe(200);
  });

  test('refuses bodies that are none, too long or cut off, and says why', async () => {
    const { guarded, call } = await startGuarded();
    expect(await call('PUT', '/ceiling', '{"connections":-1}')).toMatchObject({
      status: 400,
      body: { error: expect.stringContaining('connections') },
    });
    expect(await call('PUT', '/ceiling', '')).toMatchObject({ status: 400 });
    expect(await call('PUT', '/ceiling', ' '.repeat(1_000_000))).toMatchObject({ status: 413 });
    expect(await call('POST', '/ceiling', '{"connections":1}')).toMatchObject({ status: 405 });
    const cut = await RawPeer.connect(guarded.ports.admin);
    cut.socket.write(
      `PUT /ceiling HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${ADMIN_TOKEN}\r\nContent-Length: 99\r\n\r\n{"conn`,
    );
    cut.socket.resetAndDestroy();
    expect((await call('GET', '/connections')).body.ceiling).toBeNull();
  });
});

test('serves metrics in the format that its content type says, each with a help and a type', async () => {
  const response = await fetch(`${gateway.adminUrl}/metrics`);
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4; charset=utf-8$/);
  const types = new Map<string, string>();
  const names = new Set<string>();
  for (const line of (await response.text()).trimEnd().split('\n')) {
    if (line === '') continue;
    const [, type, name = '', value = ''] = /^# (TYPE|HELP) (\S+) (.+)$/.exec(line) ?? [];
    if (type === 'TYPE') types.set(name, value);
    if (line.startsWith('#')) continue;
    expect(line).toMatch(
      /^[a-z_][a-z0-9_]*(\{([a-z_]+="([^"\\\n]|\\.)*",?)+\})? (NaN|[-+]?Inf|[-+]?[0-9.]+(e[-+]?\d+)?)( \d+)?$/i,
    );
    names.add(line.replace(/[{ ].*$/, ''));
  }
  for (const name of names) {
    const base = name.replace(/_(bucket|sum|count)$/, '');
    expect(types.has(name) || types.has(base), name).toBe(true);
  }
  for (const [name, type] of [
    ['tidegate_connections', 'gauge'],
    ['tidegate_deliveries_total', 'counter'],
    ['tidegate_delivery_latency_seconds', 'histogram'],
    ['tidegate_bus_up', 'gauge'],
    ['tidegate_build_info', 'gauge'],
    ['tidegate_nodejs_eventloop_lag_p99_seconds', 'gauge'],
  ] as const) {
    expect(types.get(name), name).toBe(type);
  }
});

test('has no series for a channel, a user or what a client makes up', async () => {
  for (let n = 0; n < 20; n += 1) {
    const client = await TestClient.v1(`${gateway.url}/ws/user${n}`);
    await client.call({ type: 'subscribe', channel: `room:made-up-${n}` });
    await client.call({ type: 'publish', channel: `room:made-up-${n}`, data: n });
    await client.call({ type: 'subscribe', channel: `unknown-${n}:x` });
    await client.call({ type: 'publish', channel: `unknown-${n}:x`, data: 1 });
    await client.call({ type: `made-up-${n}` });
    client.ws.close(3000 + n);
    await client.close();
    await fetch(`http://127.0.0.1:${gateway.ports.ws}/made-up-${n}`);
    await TestClient.open(`${gateway.url}/made-up-${n}`).catch(() => {});
  }
  await until(async () => (await gateway.metric('tidegate_connections')) === 0, { what: 'all to be gone' });
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(text).not.toMatch(/made-up|user\d|unknown-\d|30\d\d"/);
  expect(await gateway.metric('tidegate_closes_total', { code: 'other' })).toBe(20);
});
