import { afterAll, expect, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { RedisMemory, readMemory } from './redis-memory.ts';

const redis = await startRedis({ args: ['--maxmemory', '64mb'] });
afterAll(() => redis.stop());

test('tells of the memory of a real Redis as metrics', async () => {
  const gateway = await startLocalGateway({ REDIS_URL: redis.url });
  await until(async () => (await gateway.metric('tidegate_redis_used_memory_bytes')) > 100_000, {
    what: 'the memory to be known',
  });
  expect(await gateway.metric('tidegate_redis_max_memory_bytes')).toBe(64 * 1_048_576);
  await gateway.stop();
});

test('tells of the server that is closest to its limit, whatever the others use', async () => {
  const answer = (used: number, max: number) =>
    Promise.resolve(`used_memory:${used}\r\nmaxmemory:${max}\r\n`);
  const memory = new RedisMemory(() => [
    answer(900, 0),
    answer(80, 100),
    answer(500, 1000),
    Promise.reject(),
  ]);
  await memory.look();
  expect(memory).toMatchObject({ usedBytes: 80, maxBytes: 100 });
});

test('keeps what it knew while nobody answers', async () => {
  let away = false;
  const memory = new RedisMemory(() => [
    away ? Promise.reject(new Error('away')) : Promise.resolve('used_memory:5\r\nmaxmemory:9\r\n'),
  ]);
  await memory.look();
  away = true;
  await memory.look();
  expect(memory).toMatchObject({ usedBytes: 5, maxBytes: 9 });
});

test('takes what is no answer for nothing', () => {
  expect(readMemory('used_memory:abc\r\nused_memory_rss:7\r\n')).toEqual({ usedBytes: 0, maxBytes: 0 });
});
