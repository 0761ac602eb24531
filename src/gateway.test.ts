import { afterAll, expect, test } from 'vitest';
import { startGateway } from '../test/gateway.ts';
import { startRedis } from '../test/redis.ts';
import { TestClient } from '../test/websocket.ts';

const redis = await startRedis();
const [one, two] = await Promise.all([startGateway({ REDIS_URL: redis.url }), startGateway({ REDIS_URL: redis.url })]);

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
});

test('sends a message to every connection of a user on whatever pod', async () => {
  const ann = await TestClient.v1(`${one.url}/ws/ann`);
  const bobs = await Promise.all([TestClient.v1(`${one.url}/ws/bob`), TestClient.v1(`${two.url}/ws/bob`)]);
  expect(await ann.call({ type: 'send', user: 'bob', data: 'hi' })).toMatchObject({ type: 'ok' });
  for (const bob of bobs) expect(await bob.json()).toMatchObject({ type: 'message', direct: true, from: 'ann', data: 'hi' });
});
