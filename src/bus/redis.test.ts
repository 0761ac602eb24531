// The Redis bus when something goes wrong: whatever happens to Redis or to the line, it comes back by itself, and
// says exactly what may be missing.

import type { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import {
  deliversAgain,
  interruptionsAre,
  printMeasurements,
  startBusProcess,
  startRedisBus,
  stateIs,
  type TestRedisBus,
  watchStates,
} from '../../test/bus.ts';
import { startProxy, type TcpProxy } from '../../test/proxy.ts';
import { type RedisServer, startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { readinessOf } from '../gateway/admin.ts';
import { newId } from '../platform/ids.ts';
import { channelTopic } from './bus.ts';

printMeasurements();

const many = (count: number, name = 'room') =>
  Array.from({ length: count }, (_, index) => channelTopic(`${name}:${index}`));

describe('one Redis', () => {
  let redis: RedisServer;
  let admin: Redis;
  let pods: TestRedisBus[];
  /** More than fit into one SUBSCRIBE. */
  const topics = [...many(1200), 'ws_broadcast'];
  const some = [topics[0] ?? '', topics.at(-2) ?? '', 'ws_broadcast'];

  beforeAll(async () => {
    redis = await startRedis();
    admin = redis.client();
    pods = await Promise.all([startRedisBus({ url: redis.url }), startRedisBus({ url: redis.url })]);
    await Promise.all(pods.flatMap(({ bus }) => topics.map((topic) => bus.subscribe(topic))));
  });
  afterAll(async () => {
    await Promise.all(pods.map(({ bus }) => bus.stop()));
    await redis.stop();
  });
  beforeEach(async () => {
    await stateIs('up', pods);
    for (const { heard } of pods) heard.clear();
  });

  test('delivers again after its subscriptions were cut', async () => {
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await deliversAgain('after CLIENT KILL TYPE pubsub', pods, some);
    await interruptionsAre(pods, topics);
  });

  test('does not say that it has caught up while it misses what nobody has been told of', async () => {
    const [one, two] = pods as [TestRedisBus, TestRedisBus];
    let missed = 0;
    const silent = new Set<string>();
    for (let round = 0; round < 20; round += 1) {
      for (const { heard } of pods) heard.clear();
      await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
      await Promise.all(some.map((topic) => two.bus.publish(topic, Buffer.from(`${round}`))));
      // Whenever it says so, each message is either here or told to be missing.
      const check = () => {
        for (const topic of some) {
          if (one.heard.texts(topic).includes(`${round}`)) continue;
          missed += 1;
          if (!one.heard.interruptions.includes(topic)) silent.add(`${topic} in round ${round}`);
        }
      };
      // As often as can be, also while only some of the topics are there again.
      const untilMs = performance.now() + 20_000;
      while (one.heard.interruptions.length < topics.length && performance.now() < untilMs) {
        void one.bus.catchUp(some).then(check, () => {});
        await new Promise((resolve) => setImmediate(resolve));
      }
      await one.bus.catchUp(some).then(check);
    }
    expect([...silent]).toEqual([]);
    expect(missed).toBeGreaterThan(0);
  });

  test('delivers again after all its connections were cut', async () => {
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal');
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await deliversAgain('after CLIENT KILL of everything', pods, some);
    await interruptionsAre(pods, topics);
  });

  test('delivers again after Redis was killed and started anew, and keeps the wishes made meanwhile', async () => {
    const [one, two] = pods as [TestRedisBus, TestRedisBus];
    await redis.kill();
    await stateIs('down', pods);
    const states = watchStates(pods);
    const wished = channelTopic('wished');
    const dropped = topics[7] ?? '';
    const changed = topics[8] ?? '';
    const wish = one.bus.subscribe(wished);
    let fulfilled = false;
    wish?.then(() => {
      fulfilled = true;
    });
    for (const { bus } of pods) bus.unsubscribe(dropped);
    one.bus.unsubscribe(changed);
    one.bus.subscribe(changed);
    one.bus.unsubscribe(changed);
    expect(one.bus.subscribe(changed)).toBeInstanceOf(Promise);
    await expect(one.bus.publish(wished, Buffer.from('lost'))).rejects.toMatchObject({
      code: 'bus_unavailable',
    });
    expect(fulfilled).toBe(false);

    await redis.restart();
    await deliversAgain('after a kill, from the restart on', pods, some);
    await wish;
    // What arrives at a pod does not show that it can publish: that is another connection, which comes back by itself.
    await stateIs('up', [two]);
    await two.bus.publish(wished, Buffer.from('found'));
    await one.heard.until(wished, 'found');
    expect(two.heard.texts(wished)).toEqual([]);
    // Who came during the outage was told when it began to arrive, and misses nothing.
    await interruptionsAre(
      [one],
      topics.filter((topic) => topic !== dropped && topic !== changed),
    );
    await interruptionsAre(
      [two],
      topics.filter((topic) => topic !== dropped),
    );
    expect(await admin.pubsub('NUMSUB', dropped)).toEqual([dropped, 0]);
    await stateIs('up', pods);
    // A Redis that was away is down, and never makes a pod unready on its way back.
    expect(states()).toEqual(['down', 'up']);

    one.bus.unsubscribe(wished);
    await Promise.all(pods.map(({ bus }) => bus.subscribe(dropped)));
  });

  test('bounds what waits for a Redis that is frozen, and delivers again when it goes on', async () => {
    const [one] = pods as [TestRedisBus];
    redis.pause();
    onTestFinished(() => redis.resume());
    const bytes = Buffer.alloc(100, 'x');
    const publishes = Array.from({ length: 21_000 }, () => one.bus.publish(some[0] ?? '', bytes));
    const codes = publishes.map((it) =>
      it.then(
        () => 'ok',
        (error: { code: string; retryable: boolean }) => `${error.code} ${error.retryable}`,
      ),
    );
    // Those beyond the bound are refused at once.
    expect(await codes[20_999]).toBe('overloaded true');
    expect(await codes[20_000]).toBe('overloaded true');
    // The others do not wait for ever.
    const all = await until(() => Promise.all(codes), { what: 'every publish to end' });
    expect(all.filter((code) => code === 'bus_unavailable true')).toHaveLength(20_000);
    // And make room for others.
    await expect(one.bus.publish(some[0] ?? '', bytes)).rejects.toMatchObject({ code: 'bus_unavailable' });
    await stateIs('down', pods);

    redis.resume();
    await deliversAgain('after SIGSTOP, from SIGCONT on', pods, some);
    await stateIs('up', pods);
  });

  test('bounds the bytes that wait, too', async () => {
    const [one] = pods as [TestRedisBus];
    redis.pause();
    onTestFinished(() => redis.resume());
    const publishes = Array.from({ length: 66 }, () =>
      one.bus.publish('ws_broadcast', Buffer.alloc(1_048_576)),
    );
    const codes = publishes.map((it) =>
      it.then(
        () => 'ok',
        (error: { code: string }) => error.code,
      ),
    );
    expect(await codes[65]).toBe('overloaded');
    redis.resume();
    const all = await Promise.all(codes);
    expect(all.filter((code) => code === 'overloaded')).toHaveLength(2);
    await stateIs('up', pods);
  });

  test('forgets the oldest messages of a channel first, whatever its clock has said', async () => {
    const [one] = pods as [TestRedisBus];
    const topic = channelTopic('doc:clock');
    const append = (id: string) =>
      one.bus.log.append({
        topic,
        id,
        sender: undefined,
        timeMs: Date.now(),
        skip: undefined,
        traceparent: undefined,
        payload: '1',
        key: id,
        keyTtlMs: 60_000,
        retention: { messages: 100, ageMs: 60_000 },
        replicas: undefined,
      });
    // The clock of Redis was an hour ahead for the first, and right again for the second, two hours ago.
    const hourMs = 3_600_000;
    const entry = (offset: number, timeMs: number) =>
      admin.xadd(`${topic}:stream`, `${offset}-${timeMs}`, 'i', `id-${offset}`, 'm', `old ${offset}`);
    await entry(1, Date.now() + hourMs);
    await entry(2, Date.now() - 2 * hourMs);
    await append(newId());
    const kept = async () =>
      (await admin.xrange(`${topic}:stream`, '-', '+')).map(([number]) => Number.parseInt(number, 10));
    // Without the second, whoever had the first would be told that nothing is missing.
    expect(await kept()).toEqual([1, 2, 3]);
    await admin.del(`${topic}:stream`, `${topic}:head`);
    await entry(1, Date.now() - 2 * hourMs);
    await entry(2, Date.now() - 2 * hourMs);
    await append(newId());
    expect(await kept()).toEqual([3]);
  });

  test('bounds what waits to be sent again to a Redis that is gone', async () => {
    const [one] = pods as [TestRedisBus];
    await redis.kill();
    await stateIs('down', pods);
    const payload = JSON.stringify('x'.repeat(1_048_574));
    const appends: Promise<string>[] = [];
    for (let at = 0; at < 66; at += 1) {
      const append = one.bus.log.append({
        topic: channelTopic('doc:1'),
        id: newId(),
        sender: undefined,
        timeMs: Date.now(),
        skip: undefined,
        traceparent: undefined,
        payload,
        key: `key-${at}`,
        keyTtlMs: 60_000,
        retention: { messages: 10, ageMs: 60_000 },
        replicas: undefined,
      });
      appends.push(
        append.then(
          () => 'ok',
          (error: { code: string }) => error.code,
        ),
      );
      // By the next one this one has failed for the first time.
      await new Promise((resolve) => setImmediate(resolve));
    }
    const codes = await Promise.all(appends);
    await redis.restart();
    expect(codes.filter((code) => code === 'bus_unavailable')).toHaveLength(64);
    expect(codes.filter((code) => code === 'overloaded')).toHaveLength(2);
    await deliversAgain('after Redis was gone', pods, some);
    await stateIs('up', pods);
  });

  test('leaves nothing behind when it stops', async () => {
    const mine = async () =>
      String(await admin.client('LIST'))
        .split('\n')
        .filter((line) => / name=tidegate/.test(line)).length;
    // Two connections each, of the two that are there all the time.
    await until(async () => (await mine()) === 4, { what: 'all connections to be there' });
    const pod = await startRedisBus({ url: redis.url });
    await Promise.all(many(100, 'leak').map((topic) => pod.bus.subscribe(topic)));
    expect(await mine()).toBe(6);
    expect(await admin.pubsub('CHANNELS', channelTopic('leak:*'))).toHaveLength(100);
    await pod.bus.stop();
    await until(async () => (await mine()) === 4, { what: 'its connections to be gone' });
    expect(await admin.pubsub('CHANNELS', channelTopic('leak:*'))).toEqual([]);
  });

  test('lets its process end, whatever Redis does', async () => {
    const [up, frozen, absent] = [
      startBusProcess('standalone', redis.url),
      startBusProcess('standalone', redis.url),
      startBusProcess('standalone', 'redis://127.0.0.1:1'),
    ];
    await Promise.all([up.up(), frozen.up(), absent.begun()]);
    await up.end();
    redis.pause();
    onTestFinished(() => redis.resume());
    await Promise.all([frozen.end(), absent.end()]);
  });
});

describe('a bad line', () => {
  let redis: RedisServer;
  let proxy: TcpProxy;
  let pod: TestRedisBus;
  const topics = many(20);

  beforeAll(async () => {
    redis = await startRedis();
    proxy = await startProxy({ target: redis.port });
    pod = await startRedisBus({ url: `redis://127.0.0.1:${proxy.port}` });
    await Promise.all(topics.map((topic) => pod.bus.subscribe(topic)));
  });
  afterAll(async () => {
    await pod.bus.stop();
    await proxy.stop();
    await redis.stop();
  });
  beforeEach(async () => {
    await stateIs('up', [pod]);
    pod.heard.clear();
  });

  test('that goes silent takes the bus down, and no longer than it lasts', async () => {
    proxy.stall();
    await stateIs('down', [pod]);
    expect(pod.bus.health.reason).toMatch(/timed out/);
    await expect(pod.bus.publish(topics[0] ?? '', Buffer.from('lost'))).rejects.toMatchObject({
      code: 'bus_unavailable',
    });
    proxy.resume();
    await deliversAgain('after a silence that was just noticed', [pod], topics);
    await stateIs('up', [pod]);
  });

  test('that goes silent for long takes the bus down, and no longer than it lasts', async () => {
    const before = proxy.accepted;
    proxy.stall();
    // Long enough for connections to be made anew, in vain.
    await until(() => proxy.accepted >= before + 4, { what: 'the bus to try again' });
    proxy.resume();
    await deliversAgain('after a long silence', [pod], topics);
    await interruptionsAre([pod], topics);
    await stateIs('up', [pod]);
  });

  test('that is cut is mended', async () => {
    proxy.reset();
    await deliversAgain('after a reset', [pod], topics);
    await interruptionsAre([pod], topics);
  });

  test('that nobody answers takes the bus down, and no longer than it lasts', async () => {
    proxy.refuse();
    proxy.reset();
    await stateIs('down', [pod]);
    proxy.accept();
    await deliversAgain('after refused connections', [pod], topics);
    await interruptionsAre([pod], topics);
  });

  test('that is slow is only slow', async () => {
    const states = watchStates([pod]);
    proxy.delay(120);
    const texts = Array.from({ length: 200 }, (_, index) => `slow ${index}`);
    await Promise.all(texts.map((text) => pod.bus.publish(topics[0] ?? '', Buffer.from(text))));
    await pod.heard.until(topics[0] ?? '', 'slow 199');
    // Some probes must go this way.
    const ticks = async () => {
      await pod.bus.publish(topics[1] ?? '', Buffer.from('tick'));
      return pod.heard.texts(topics[1] ?? '').length;
    };
    await until(async () => (await ticks()) >= 5, { what: 'some probes to have gone this way' });
    proxy.delay(0);
    expect(pod.heard.texts(topics[0] ?? '').filter((text) => text.startsWith('slow'))).toEqual(texts);
    expect(states()).toEqual(['up']);
    expect(pod.heard.interruptions).toEqual([]);
  });

  test('between Redis and the subscriber alone makes the pod deaf, and unready', async () => {
    proxy.stall('tidegate-subscriber');
    proxy.reset('tidegate-subscriber');
    await stateIs('deaf', [pod]);
    expect(readinessOf('serving', pod.bus.health)).toMatchObject({
      ready: false,
      bus: 'deaf',
      reason: 'Redis takes messages, but they do not come back to this pod',
    });
    // It does take them.
    await pod.bus.publish(topics[0] ?? '', Buffer.from('unheard'));
    proxy.resume();
    await deliversAgain('after deafness', [pod], topics);
    await stateIs('up', [pod]);
    expect(readinessOf('serving', pod.bus.health)).toEqual({ ready: true, phase: 'serving', bus: 'up' });
    await interruptionsAre([pod], topics);
  });

  test('between Redis and the subscriber that goes silent is noticed without an error', async () => {
    proxy.stall('tidegate-subscriber');
    const before = proxy.accepted;
    await until(() => proxy.accepted > before, {
      what: 'the bus to try another connection',
    });
    proxy.resume();
    await deliversAgain('after a silence of the subscriber’s alone', [pod], topics);
    await interruptionsAre([pod], topics);
  });
});
