import { afterAll, expect, test } from 'vitest';
import { churn } from '../../test/churn.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';

const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
const gateway = await startLocalGateway({ CHANNELS: channels });
afterAll(() => gateway.stop());

test('gives each subscriber just what is published while it is subscribed, in order, under churn', async () => {
  const { faults, checked } = await churn({
    publisherUrl: gateway.url,
    subscriberUrls: Array.from({ length: 20 }, () => gateway.url),
    channel: 'room:churn',
    rounds: 15,
  });
  expect(faults).toEqual([]);
  expect(checked).toBeGreaterThan(20 * 15);
});

test('counts users and channels, not connections and subscriptions', async () => {
  const clients = await Promise.all([
    TestClient.v1(`${gateway.url}/ws/ann`),
    TestClient.v1(`${gateway.url}/ws/ann`),
    TestClient.v1(`${gateway.url}/ws/bob`),
  ]);
  for (const client of clients) await client.call({ type: 'subscribe', channels: ['room:1', 'room:2'] });
  const counts = async () => [
    await gateway.metric('tidegate_connections'),
    await gateway.metric('tidegate_users'),
    await gateway.metric('tidegate_channels'),
  ];
  expect(await counts()).toEqual([3, 2, 2]);
  await clients[2]?.leave();
  await clients[1]?.call({ type: 'unsubscribe', channel: 'room:2' });
  await until(async () => (await counts()).join() === '2,1,2', { what: 'bob to be gone' });
  await Promise.all([clients[0]?.leave(), clients[1]?.leave()]);
  await until(async () => (await counts()).join() === '0,0,0', { what: 'all to be gone' });
});

test('keeps a bounded number of topics for one client that joins and leaves without end', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/mallory`);
  for (let round = 0; round < 15; round += 1) {
    const names = Array.from({ length: 1000 }, (_, n) => `room:${round}.${n}`);
    expect(await client.call({ type: 'subscribe', channels: names })).toMatchObject({ type: 'ok' });
    expect(await client.call({ type: 'unsubscribe', channels: names })).toMatchObject({ type: 'ok' });
  }
  expect(await gateway.metric('tidegate_bus_subscriptions')).toBeLessThan(11_000);
  await client.leave();
  await until(async () => (await gateway.metric('tidegate_bus_subscriptions')) === 1, {
    what: 'all but the plain channel to be let go',
    timeoutMs: 20_000,
  });
});
