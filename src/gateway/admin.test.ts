import { afterAll, expect, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { exchange } from '../../test/raw.ts';
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
