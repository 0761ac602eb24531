// The Redis bus under Sentinel: it follows the master wherever that goes.

import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import {
  deliversAgain,
  printMeasurements,
  startBusProcess,
  startPod,
  startRedisBus,
  stateIs,
  type TestRedisBus,
} from '../../test/bus.ts';
import { type RedisSentinel, type RedisServer, startSentinel } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { channelTopic } from './bus.ts';

printMeasurements();

describe('a Redis under Sentinel', () => {
  let group: RedisSentinel;
  let pods: TestRedisBus[];
  const topics = [...Array.from({ length: 50 }, (_, index) => channelTopic(`room:${index}`)), 'ws_broadcast'];

  beforeAll(async () => {
    group = await startSentinel();
    pods = await Promise.all([1, 2].map(() => startRedisBus({ url: group.url, mode: 'sentinel' })));
    await Promise.all(pods.flatMap(({ bus }) => topics.map((topic) => bus.subscribe(topic))));
  });
  afterAll(async () => {
    await Promise.all(pods.map(({ bus }) => bus.stop()));
    await group.stop();
  });
  beforeEach(async () => {
    await stateIs('up', pods);
    for (const { heard } of pods) heard.clear();
  });

  /** Resolves when the other server has become master. */
  async function promotion(of: RedisServer): Promise<void> {
    const client = of.client();
    await until(async () => (await client.role())[0] === 'master', {
      what: 'the replica to take over',
    });
  }

  /** Resolves when a server follows the other, as all Sentinels see it, so that there can be another failover. */
  async function following(server: RedisServer): Promise<void> {
    const client = server.client();
    await until(async () => (await client.info('replication')).includes('master_link_status:up'), {
      what: 'the old master to follow',
    });
  }

  test('delivers again after a failover, and after the one back', async () => {
    await group.failover();
    await deliversAgain('after a failover', pods, topics);
    for (const { heard } of pods) expect(new Set(heard.interruptions)).toEqual(new Set(topics));
    await group.failover();
    await deliversAgain('after the failover back', pods, topics);
  });

  test('delivers again after the master was killed', async () => {
    await following(group.replica);
    await group.master.kill();
    await promotion(group.replica);
    await deliversAgain('after a master was killed, from the promotion on', pods, topics);
    for (const { heard } of pods) expect(new Set(heard.interruptions)).toEqual(new Set(topics));
    await group.master.restart();
    await following(group.master);
    await stateIs('up', pods);
    await deliversAgain('after the old master’s return', pods, topics);
  });

  test('delivers again after the master froze, also to who starts while a Sentinel is frozen', async () => {
    await following(group.master);
    const [frozen] = group.sentinels;
    frozen?.pause();
    onTestFinished(() => frozen?.resume());
    group.replica.pause();
    onTestFinished(() => group.replica.resume());
    await promotion(group.master);
    await deliversAgain('after a master froze, from the promotion on', pods, topics);
    const late = await startPod({ url: group.url, mode: 'sentinel' });
    await late.bus.subscribe('ws_broadcast');
    await deliversAgain('to who starts late', [late, ...pods], ['ws_broadcast']);
  });

  test('lets its process end, also where no Sentinel answers', async () => {
    const [up, absent] = [
      startBusProcess('sentinel', group.url),
      startBusProcess('sentinel', 'redis://127.0.0.1:1,127.0.0.1:2'),
    ];
    await Promise.all([up.up(), absent.begun()]);
    await Promise.all([up.end(), absent.end()]);
  });
});
