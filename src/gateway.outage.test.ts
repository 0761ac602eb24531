// What a gateway does while Redis is away. A file of its own, because these tests end the Redis they share.

import { afterAll, expect, test } from 'vitest';
import { spawnGateway, startGateway } from '../test/gateway.ts';
import { freePort } from '../test/ports.ts';
import { startRedis } from '../test/redis.ts';
import { until } from '../test/until.ts';
import { type Json, TestClient } from '../test/websocket.ts';

const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
const redis = await startRedis();
const settings = { REDIS_URL: redis.url, CHANNELS: channels };
const [one, two] = await Promise.all([startGateway(settings), startGateway(settings)]);

afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await redis.stop();
});

async function readiness(adminUrl: string): Promise<Json & { status: number }> {
  const response = await fetch(`${adminUrl}/readyz`);
  return { status: response.status, ...((await response.json()) as Json) };
}

async function busToBe(state: string, adminUrl: string): Promise<void> {
  await until(async () => (await readiness(adminUrl)).bus === state, {
    what: `the bus to be ${state}`,
  });
}

/** Publishes until it is taken: a bus that has just come back may not have all of its connections yet. */
async function publishUntilTaken(client: TestClient, command: Json): Promise<void> {
  await until(async () => (await client.call(command)).type === 'ok', {
    what: 'a publish to be taken',
  });
}

test('keeps its connections and tells the truth through an outage, and delivers again after it', async () => {
  const ann = await TestClient.v1(`${one.url}/ws/ann`);
  const bob = await TestClient.v1(`${two.url}/ws/bob`);
  const plain = await TestClient.open(`${one.url}/ws/plain`);
  const beating = await TestClient.open(`${one.url}/ws/beating?heartbeat=true`);
  for (const client of [ann, bob]) await client.call({ type: 'subscribe', channel: 'room:1' });

  await redis.kill();
  await busToBe('down', one.adminUrl);

  // No pod is unready over it: a load balancer would cut all sockets at once.
  const during = await readiness(one.adminUrl);
  expect(during).toMatchObject({ status: 200, ready: true, bus: 'down' });
  expect(during.reason).toMatch(/Redis/);
  expect((await fetch(`${one.adminUrl}/livez`)).status).toBe(200);
  expect(await one.metric('tidegate_bus_up')).toBe(0);
  const refused = await ann.call({ type: 'publish', channel: 'room:1', data: 'lost' });
  expect(refused).toMatchObject({ type: 'error', code: 'bus_unavailable', retryable: true });
  expect(refused.retryAfterMs).toBeGreaterThan(0);
  expect(await ann.call({ type: 'send', user: 'bob', data: 1 })).toMatchObject({ code: 'bus_unavailable' });
  plain.send('lost');
  expect(JSON.parse(await plain.text())).toMatchObject({
    type: 'error',
    code: 'bus_unavailable',
    retryable: true,
  });
  // Each message that the bus did not take is counted as one, the plain one as well.
  const failures = { reason: 'bus_unavailable' };
  for (const channel_namespace of ['room', 'direct', 'ws_broadcast'])
    expect(await one.metric('tidegate_publish_failures_total', { ...failures, channel_namespace })).toBe(1);
  expect(await one.metric('tidegate_bus_probe_failures_total')).toBeGreaterThan(0);
  expect(await ann.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  // What needs nothing new of the bus works on, and what does is refused in bounded time.
  expect(await ann.call({ type: 'subscribe', channel: 'room:1' })).toMatchObject({ type: 'ok' });
  expect(await ann.call({ type: 'subscribe', channel: 'room:new' })).toMatchObject({
    code: 'bus_unavailable',
    retryable: true,
  });

  await redis.restart();
  for (const client of [ann, bob]) {
    expect(await client.json((it) => it.type === 'gap' && it.channel === 'room:1')).toMatchObject({
      reason: 'bus',
    });
    expect(await client.json((it) => it.type === 'gap' && it.direct === true)).toMatchObject({
      reason: 'bus',
    });
  }
  expect(await beating.json((it) => it.channel === 'ws_broadcast')).toMatchObject({
    type: 'gap',
    reason: 'bus',
  });
  await publishUntilTaken(ann, { type: 'publish', channel: 'room:1', data: 'back' });
  expect(await bob.json((it) => it.type === 'message')).toMatchObject({
    channel: 'room:1',
    from: 'ann',
    data: 'back',
  });
  await publishUntilTaken(bob, { type: 'send', user: 'ann', data: 'direct' });
  expect(await ann.json((it) => it.direct === true && it.type === 'message')).toMatchObject({
    data: 'direct',
  });
  await busToBe('up', one.adminUrl);
  expect(await readiness(one.adminUrl)).toEqual({ status: 200, ready: true, phase: 'serving', bus: 'up' });
  plain.send('hello');
  expect(await plain.text()).toBe('{"sender":"plain","text":"hello"}');
  expect([ann, bob, plain, beating].map((client) => client.ended)).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  await Promise.all([ann, bob, plain, beating].map((client) => client.leave()));
});

test('lets in those who come during an outage, welcomes them late, and tells when messages to them begin', async () => {
  await busToBe('up', one.adminUrl);
  await redis.kill();
  await busToBe('down', one.adminUrl);
  const late = await TestClient.open(`${one.url}/ws/late`, { protocols: ['tidegate.v1'] });
  late.send({ type: 'ping', ref: 'early' });
  expect(await late.json()).toMatchObject({ type: 'welcome', user: 'late' });
  expect(await late.json()).toEqual({ type: 'ok', ref: 'early' });
  // One that leaves before its subscription has come to be leaves nothing behind.
  const fleeting = await TestClient.open(`${one.url}/ws/fleeting`, { protocols: ['tidegate.v1'] });
  fleeting.send({ type: 'subscribe', channel: 'room:fleeting' });
  fleeting.ws.terminate();
  await redis.restart();
  expect(await late.json()).toMatchObject({ type: 'gap', direct: true, reason: 'bus' });
  await publishUntilTaken(late, { type: 'send', user: 'late', data: 'now' });
  expect(await late.json((it) => it.type === 'message')).toMatchObject({ direct: true, data: 'now' });
  await late.leave();
  await until(async () => (await one.metric('tidegate_users')) === 0, { what: 'both to be gone' });
  expect(await one.metric('tidegate_channels')).toBe(0);
});

test('does not wait without end for a Redis that is frozen', async () => {
  await busToBe('up', two.adminUrl);
  const ann = await TestClient.v1(`${two.url}/ws/ann`);
  await ann.call({ type: 'subscribe', channel: 'room:1' });
  redis.pause();
  try {
    const refused = await ann.call({ type: 'publish', channel: 'room:1', data: 'lost?' });
    expect(refused).toMatchObject({ type: 'error', code: 'bus_unavailable', retryable: true });
    expect((await readiness(two.adminUrl)).status).toBe(200);
  } finally {
    redis.resume();
  }
  // What is taken may still be lost, as it is told, where the subscriptions are being made anew.
  await until(
    async () => {
      await ann.call({ type: 'publish', channel: 'room:1', data: 'back' });
      return ann.inbox.some((text) => text.includes('"back"'));
    },
    { what: 'a message' },
  );
  await ann.leave();
});

test.concurrent('is alive and not ready until Redis has been there once, and starts then', async () => {
  const port = await freePort();
  const adminPort = await freePort();
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  const starting = spawnGateway({
    AUTH: 'anonymous',
    HOST: '127.0.0.1',
    PORT: '0',
    ADMIN_PORT: String(adminPort),
    REDIS_URL: `redis://127.0.0.1:${port}`,
  });
  await until(async () => (await fetch(`${adminUrl}/livez`)).status === 200, {
    what: 'the admin listener',
  });
  const before = await readiness(adminUrl);
  expect(before).toMatchObject({ status: 503, ready: false, phase: 'starting', bus: 'starting' });
  expect(before.reason).toEqual(expect.any(String));
  expect((await fetch(`${adminUrl}/metrics`)).status).toBe(200);
  // It says what it waits for, and has not opened its doors.
  await until(() => starting.log.some((line) => line.msg === 'waiting for the bus'), { what: 'a warning' });
  expect(starting.log.some((line) => line.msg === 'ready')).toBe(false);
  const late = await startRedis({ port });
  await until(async () => (await readiness(adminUrl)).status === 200, {
    what: 'it to be ready',
  });
  expect(await readiness(adminUrl)).toEqual({ status: 200, ready: true, phase: 'serving', bus: 'up' });
  starting.process.kill('SIGTERM');
  await until(() => starting.process.exitCode !== null, { what: 'it to end' });
  expect(starting.process.exitCode).toBe(0);
  await late.stop();
});

test.concurrent('stops at once while it still waits for Redis', async () => {
  const adminPort = await freePort();
  const starting = spawnGateway({
    AUTH: 'anonymous',
    HOST: '127.0.0.1',
    PORT: '0',
    ADMIN_PORT: String(adminPort),
    REDIS_URL: `redis://127.0.0.1:${await freePort()}`,
  });
  await until(() => fetch(`http://127.0.0.1:${adminPort}/livez`), {
    what: 'the admin listener',
  });
  starting.process.kill('SIGTERM');
  await until(() => starting.process.exitCode !== null, { what: 'it to end' });
  expect(starting.process.exitCode).toBe(0);
});
