// The bus contract, held by every bus: memory, and Redis alone, under Sentinel and as a Cluster.

import calculateSlot from 'cluster-key-slot';
import fc from 'fast-check';
import type { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Heard, startRedisBus } from '../../test/bus.ts';
import { type RedisServer, startCluster, startRedis, startSentinel } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { type Bus, CONTROL_TOPIC, channelTopic, userTopic } from './bus.ts';
import { MemoryBus } from './memory.ts';

/** A bus instance under test, as one gateway has it. */
interface Pod {
  readonly bus: Bus;
  readonly heard: Heard;
}

/** What a kind of bus needs so that the contract can be tried. */
interface Backend {
  readonly pods: readonly Pod[];
  /** Where another program would connect; one for each node. Empty where there is no outside. */
  readonly outside: readonly Redis[];
  /** Takes away what the bus runs on, for good. Undefined where it runs on nothing. */
  readonly breakDown: (() => Promise<void>) | undefined;
  stop(): Promise<void>;
}

async function memory(): Promise<Backend> {
  const pod = { bus: new MemoryBus(), heard: new Heard() };
  await pod.bus.start(pod.heard);
  return { pods: [pod], outside: [], breakDown: undefined, stop: () => pod.bus.stop() };
}

async function standalone(): Promise<Backend> {
  const redis = await startRedis();
  return over([redis], await twoPods({ url: redis.url }), redis);
}

async function sentinel(): Promise<Backend> {
  const group = await startSentinel();
  return over([group.master, group.replica], await twoPods({ url: group.url, mode: 'sentinel' }), group);
}

async function cluster(): Promise<Backend> {
  const nodes = await startCluster();
  return over(nodes.nodes, await twoPods({ url: nodes.url, mode: 'cluster' }), nodes);
}

function twoPods(address: Parameters<typeof startRedisBus>[0]): Promise<Pod[]> {
  return Promise.all([startRedisBus(address), startRedisBus(address)]);
}

function over(
  servers: readonly RedisServer[],
  pods: readonly Pod[],
  { stop }: { stop(): Promise<void> },
): Backend {
  return {
    pods,
    outside: servers.map((server) => server.client()),
    async breakDown() {
      await Promise.all(servers.map((server) => server.kill()));
    },
    async stop() {
      await Promise.all(pods.map(({ bus }) => bus.stop()));
      await stop();
    },
  };
}

const backends = [
  { name: 'memory', start: memory },
  { name: 'Redis', start: standalone },
  { name: 'Redis under Sentinel', start: sentinel },
  { name: 'a Redis Cluster', start: cluster },
];

describe.each(backends)('a bus over $name', ({ name, start }) => {
  let backend: Backend;
  let first: Pod;
  /** The other gateway; in memory there is but one. */
  let second: Pod;
  let tests = 0;
  /** A topic that no other test has. Those of one test share a slot where the name is in the braces. */
  const topic = (text: string) => channelTopic(`${tests}:${text}`);
  const neighbours = (...texts: string[]) => texts.map((text) => `${topic('same slot')}:${text}`);
  const everyone = <T>(work: (pod: Pod) => T | Promise<T>) => Promise.all(backend.pods.map(work));

  beforeAll(async () => {
    backend = await start();
    const [one, other = one] = backend.pods;
    if (one === undefined || other === undefined) throw new Error(`no pod over ${name}`);
    first = one;
    second = other;
  });
  afterAll(() => backend?.stop());
  beforeEach(() => {
    tests += 1;
    for (const { heard } of backend.pods) heard.clear();
  });

  test('is up once it has started', async () => {
    await everyone(({ bus }) => expect(bus.health).toEqual({ state: 'up' }));
  });

  test('delivers every message once, in one order for all, over many topics', async () => {
    const topics = Array.from({ length: 90 }, (_, index) => topic(`${index}`));
    topics.push(CONTROL_TOPIC, userTopic('ann'), `raw-${name}`);
    await everyone(({ bus }) => Promise.all(topics.map((it) => bus.subscribe(it))));
    const each = 30;
    await everyone(async ({ bus }, publisher = backend.pods.findIndex((pod) => pod.bus === bus)) => {
      const sent: Promise<void>[] = [];
      for (let sequence = 0; sequence < each; sequence += 1) {
        for (const it of topics) sent.push(bus.publish(it, Buffer.from(`${publisher}:${sequence}`)));
        // A turn of the event loop between some, so that not all leave in one write.
        if (sequence % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(sent);
    });
    const total = topics.length * each * backend.pods.length;
    await everyone(({ heard }) => until(() => heard.messages.length >= total, { what: `${total} messages` }));
    for (const it of topics) {
      const texts = first.heard.texts(it);
      expect(new Set(texts).size, it).toBe(each * backend.pods.length);
      for (const publisher of backend.pods.keys()) {
        const own = texts.filter((text) => text.startsWith(`${publisher}:`));
        expect(own, it).toEqual(Array.from({ length: each }, (_, sequence) => `${publisher}:${sequence}`));
      }
      expect(second.heard.texts(it), it).toEqual(texts);
    }
    await everyone(({ heard }) => expect(heard.messages).toHaveLength(total));
    await everyone(({ heard }) => expect(heard.interruptions).toEqual([]));
  });

  test('brings back what a gateway published itself', async () => {
    await first.bus.subscribe(topic('own'));
    await first.bus.publish(topic('own'), Buffer.from('mine'));
    await first.heard.until(topic('own'), 'mine');
  });

  test('has brought everything that was published before it caught up, whoever asks at the same time', async () => {
    const topics = Array.from({ length: 20 }, (_, index) => topic(`${index}`));
    await Promise.all(topics.map((it) => first.bus.subscribe(it)));
    for (let round = 1; round <= 30; round += 1) {
      await Promise.all(topics.map((it) => second.bus.publish(it, Buffer.from(`${round}`))));
      await Promise.all(topics.map((it) => first.bus.catchUp(round % 2 ? topics : [it])));
      for (const it of topics) expect(first.heard.texts(it)).toHaveLength(round);
    }
    await first.bus.catchUp([]);
  });

  test('is silent on topics that were not subscribed, or are no more', async () => {
    const [never = '', left = '', fence = ''] = neighbours('never', 'left', 'fence');
    await Promise.all([first.bus.subscribe(left), first.bus.subscribe(fence)]);
    await second.bus.publish(left, Buffer.from('before'));
    await first.heard.until(left, 'before');
    first.bus.unsubscribe(left);
    first.bus.unsubscribe(never);
    // What is subscribed now is so after the other was left.
    const [after = ''] = neighbours('after');
    await first.bus.subscribe(after);
    await Promise.all([never, left, fence].map((it) => second.bus.publish(it, Buffer.from('now'))));
    await first.heard.until(fence, 'now');
    expect(first.heard.messages.map((message) => message.topic)).toEqual([left, fence]);
  });

  test('says nothing where the topic arrives already, and tells all who wait for one that does not yet', async () => {
    const waits = [first.bus.subscribe(topic('waited for')), first.bus.subscribe(topic('waited for'))];
    await Promise.all(waits);
    expect(first.bus.subscribe(topic('waited for'))).toBeUndefined();
    first.bus.unsubscribe(topic('waited for'));
    expect(first.bus.subscribe(topic('waited for'))).toBeUndefined();
    await second.bus.publish(topic('waited for'), Buffer.from('here'));
    await first.heard.until(topic('waited for'), 'here');
    expect(first.heard.texts(topic('waited for'))).toEqual(['here']);
  });

  test('ends in the state that was wished for last, however topics are churned', async () => {
    const names = neighbours('a', 'b', 'c', 'd');
    const [fence = ''] = neighbours('fence');
    await first.bus.subscribe(fence);
    const step = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          kind: fc.constantFrom('subscribe', 'unsubscribe'),
          topic: fc.nat(names.length - 1),
        }),
      },
      { weight: 1, arbitrary: fc.constant({ kind: 'turn', topic: 0 }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait'), topic: fc.nat(names.length - 1) }) },
    );
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        round += 1;
        const wished = new Set<string>();
        for (const { kind, topic: index } of steps) {
          const name = names[index] ?? '';
          if (kind === 'turn') await new Promise((resolve) => setImmediate(resolve));
          if (kind === 'subscribe' || kind === 'wait') wished.add(name);
          if (kind === 'wait') await first.bus.subscribe(name);
          else if (kind === 'subscribe') first.bus.subscribe(name);
          else if (kind === 'unsubscribe') {
            wished.delete(name);
            first.bus.unsubscribe(name);
          }
        }
        await Promise.all([...wished].map((name) => first.bus.subscribe(name)));
        const text = `round ${round}`;
        // Behind everything that was left, on the same connection.
        const [last = ''] = neighbours(text);
        await first.bus.subscribe(last);
        for (const name of [...names, fence]) await second.bus.publish(name, Buffer.from(text));
        await first.heard.until(fence, text);
        const heard = first.heard.messages
          .filter(({ bytes }) => bytes.toString() === text)
          .map((it) => it.topic);
        expect(heard).toEqual([...names.filter((name) => wished.has(name)), fence]);
        for (const name of [...names, last]) first.bus.unsubscribe(name);
      }),
      { numRuns: 40 },
    );
    expect(first.heard.interruptions).toEqual([]);
  });

  test('carries any bytes', async () => {
    const payloads = [
      Buffer.alloc(0),
      Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
      Buffer.from('\r\n$5\r\nhello\r\n'),
      Buffer.alloc(1_048_576, 'tide'),
    ];
    await first.bus.subscribe(topic('bytes'));
    for (const payload of payloads) await second.bus.publish(topic('bytes'), payload);
    await until(() => first.heard.messages.length === payloads.length, { what: 'all payloads' });
    for (const [index, payload] of payloads.entries()) {
      expect(first.heard.messages[index]?.bytes.equals(payload), `payload ${index}`).toBe(true);
    }
  });

  test('lists the topics of all gateways by prefix, and no more than it is asked for', async () => {
    const [one = '', two = '', three = ''] = neighbours('list*[a]:1', 'list*[a]:2', 'list*[a]:3');
    const prefix = one.slice(0, -1);
    await Promise.all([
      first.bus.subscribe(one),
      first.bus.subscribe(two),
      second.bus.subscribe(two),
      second.bus.subscribe(three),
    ]);
    expect((await first.bus.topics(prefix, 10)).sort()).toEqual([one, two, three]);
    expect(await second.bus.topics(prefix, 2)).toHaveLength(2);
    expect(await second.bus.topics(`${prefix}none`, 10)).toEqual([]);
    await second.bus.subscribe(`raw-list-${name}`);
    expect(await first.bus.topics('raw-list-', 10)).toEqual([`raw-list-${name}`]);
    expect(await first.bus.topics('', 1000)).toEqual(
      expect.arrayContaining([one, two, three, `raw-list-${name}`]),
    );
    first.bus.unsubscribe(two);
    expect(await second.bus.topics(two, 10)).toEqual([two].filter(() => backend.pods.length > 1));
  });

  describe('as a store of presence', () => {
    const ttlMs = 60_000;

    test('tells who has joined on any pod, each once', async () => {
      const channel = `${tests}:joined`;
      expect((await first.bus.store.join(channel, ['ann', 'bob'], ttlMs)).sort()).toEqual(['ann', 'bob']);
      expect(await first.bus.store.join(channel, ['ann', 'bob', 'cid'], ttlMs)).toEqual(['cid']);
      expect(await second.bus.store.join(channel, ['ann'], ttlMs)).toEqual([]);
      const { users, total } = await second.bus.store.members(channel, 10);
      expect({ users: users.sort(), total }).toEqual({ users: ['ann', 'bob', 'cid'], total: 3 });
      expect((await second.bus.store.members(channel, 2)).users).toHaveLength(2);
      expect(await second.bus.store.members(channel, 0)).toEqual({ users: [], total: 3 });
      expect(await second.bus.store.members(`${channel}:other`, 10)).toEqual({ users: [], total: 0 });
      expect(await second.bus.store.expire(channel)).toEqual([]);
    });

    test('tells that a user has left with the last pod he was on', async () => {
      const channel = `${tests}:left`;
      await everyone(({ bus }) => bus.store.join(channel, ['ann'], ttlMs));
      const answers: boolean[] = [];
      for (const { bus } of backend.pods) answers.push(await bus.store.leave(channel, 'ann'));
      expect(answers).toEqual(backend.pods.map((_, index) => index === backend.pods.length - 1));
      expect(await first.bus.store.leave(channel, 'ann')).toBe(false);
      expect(await first.bus.store.members(channel, 10)).toEqual({ users: [], total: 0 });
      expect(await second.bus.store.join(channel, ['ann'], ttlMs)).toEqual(['ann']);
    });

    test.skipIf(name === 'memory')(
      'forgets the members of a pod that is gone, and tells one caller (not in memory, where they end with the process)',
      async () => {
        const channel = `${tests}:gone`;
        await second.bus.store.join(channel, ['ann', 'bob'], 300);
        await first.bus.store.join(channel, ['bob'], ttlMs);
        await until(async () => (await first.bus.store.members(channel, 10)).total === 1, {
          what: 'ann to expire',
        });
        const told = await everyone(({ bus }) => bus.store.expire(channel));
        expect(told.flat()).toEqual(['ann']);
        expect(await first.bus.store.members(channel, 10)).toEqual({ users: ['bob'], total: 1 });
        expect(await second.bus.store.join(channel, ['ann'], ttlMs)).toEqual(['ann']);
      },
    );

    test.skipIf(name === 'memory')(
      'tells of a user who comes back after a pod that is gone held him last (not in memory)',
      async () => {
        const channel = `${tests}:back`;
        // He was on a pod that was killed, then renewed by one that he left in order.
        await second.bus.store.join(channel, ['ann'], 2000);
        await first.bus.store.join(channel, ['ann'], ttlMs);
        expect(await first.bus.store.leave(channel, 'ann')).toBe(false);
        await until(async () => (await first.bus.store.expire(channel)).includes('ann'), {
          what: 'ann to expire',
        });
        expect(await first.bus.store.join(channel, ['ann'], ttlMs)).toEqual(['ann']);
      },
    );
  });

  test('keeps bans until they end', async () => {
    const untilMs = Date.now() + 60_000;
    await first.bus.store.ban(`ann-${tests}`, untilMs);
    await first.bus.store.ban(`bob-${tests}`, Date.now() + 300);
    await second.bus.store.ban(`cid-${tests}`, Date.now() - 1000);
    const bans = () => second.bus.store.bans();
    expect((await bans()).get(`ann-${tests}`)).toBe(untilMs);
    expect((await bans()).has(`cid-${tests}`)).toBe(false);
    await until(async () => !(await bans()).has(`bob-${tests}`), { what: 'bob’s ban to end' });
    await second.bus.store.ban(`ann-${tests}`, untilMs + 1000);
    expect((await bans()).get(`ann-${tests}`)).toBe(untilMs + 1000);
  });

  describe('as a store of idempotency keys', () => {
    const ttlMs = 60_000;

    test('lets one caller claim a key, and gives the others what became of it', async () => {
      const key = `key-${tests}`;
      const claims = await everyone(({ bus }) =>
        Promise.all([1, 2, 3].map(() => bus.store.claim(key, 'hash', ttlMs))),
      );
      expect(claims.flat().filter(({ kind }) => kind === 'new')).toHaveLength(1);
      expect(claims.flat().filter(({ kind }) => kind === 'in_progress')).toHaveLength(
        backend.pods.length * 3 - 1,
      );
      expect(await second.bus.store.claim(key, 'another', ttlMs)).toEqual({ kind: 'reused' });
      await first.bus.store.settle(key, 'hash', '{"an":"answer"}\n', ttlMs);
      expect(await second.bus.store.claim(key, 'hash', ttlMs)).toEqual({
        kind: 'done',
        answer: '{"an":"answer"}\n',
      });
      expect(await second.bus.store.claim(key, 'another', ttlMs)).toEqual({ kind: 'reused' });
    });

    test('gives back the key of a call that failed', async () => {
      const key = `key-${tests}`;
      await first.bus.store.claim(key, 'hash', ttlMs);
      await first.bus.store.settle(key, 'hash', undefined, ttlMs);
      expect(await second.bus.store.claim(key, 'another', ttlMs)).toEqual({ kind: 'new' });
    });

    test('leaves a key alone that meanwhile is another call’s', async () => {
      const key = `key-${tests}`;
      await first.bus.store.claim(key, 'hash', 100);
      await until(async () => (await second.bus.store.claim(key, 'another', ttlMs)).kind === 'new', {
        what: 'the claim to end',
      });
      await first.bus.store.settle(key, 'hash', undefined, ttlMs);
      expect(await second.bus.store.claim(key, 'another', ttlMs)).toEqual({ kind: 'in_progress' });
      await first.bus.store.settle(key, 'hash', 'late', ttlMs);
      expect(await second.bus.store.claim(key, 'another', ttlMs)).toEqual({ kind: 'in_progress' });
    });

    test('keeps an answer for its own time, however short the claim was', async () => {
      const key = `key-${tests}`;
      await first.bus.store.claim(key, 'hash', 1500);
      await first.bus.store.settle(key, 'hash', 'kept', ttlMs);
      await first.bus.store.claim(`${key}:clock`, 'hash', 1600);
      await until(async () => (await first.bus.store.claim(`${key}:clock`, 'other', ttlMs)).kind === 'new', {
        what: 'time to pass',
      });
      expect(await first.bus.store.claim(key, 'hash', ttlMs)).toEqual({ kind: 'done', answer: 'kept' });
    });
  });

  test.skipIf(name === 'memory')(
    'shares raw topics with other programs, whatever node they use (not in memory, which has no outside)',
    async () => {
      const raw = `raw_${tests}`;
      await everyone(({ bus }) => bus.subscribe(raw));
      // Under Sentinel the second server is a replica, where nobody should publish.
      const outside = name.includes('Cluster') ? backend.outside : backend.outside.slice(0, 1);
      for (const [index, client] of outside.entries()) {
        const bytes = Buffer.from([0xff, 0x00, index]);
        await client.publish(raw, bytes);
        await everyone(({ heard }) =>
          until(() => heard.messages.some((it) => it.topic === raw && it.bytes.equals(bytes)), {
            what: 'the foreign message',
          }),
        );
      }
      await everyone(({ heard }) => expect(heard.messages).toHaveLength(outside.length));
      for (const client of outside) {
        const stranger = client.duplicate();
        try {
          const arrived: string[] = [];
          stranger.on('message', (_, text) => arrived.push(text));
          await stranger.subscribe(raw);
          // Subscriptions are told to the other nodes of a Cluster a little later.
          await until(
            async () => {
              await first.bus.publish(raw, Buffer.from('for strangers'));
              return arrived.length > 0;
            },
            { what: 'the message to reach a foreign subscriber' },
          );
          expect(arrived[0]).toBe('for strangers');
        } finally {
          stranger.disconnect();
        }
      }
    },
  );

  test.skipIf(name !== 'a Redis Cluster')(
    'spreads its topics over all nodes (only a Cluster has several)',
    async () => {
      const spread = Array.from({ length: 60 }, (_, index) => topic(`${index}`));
      await Promise.all(spread.map((it) => first.bus.subscribe(it)));
      const counts = await Promise.all(
        backend.outside.map(async (node) => (await node.pubsub('SHARDCHANNELS', topic('*'))).length),
      );
      expect(counts.reduce((sum, count) => sum + count)).toBe(60);
      expect(Math.min(...counts)).toBeGreaterThan(0);
      expect(new Set(spread.map((it) => calculateSlot(it))).size).toBeGreaterThan(40);
    },
  );

  describe('at its end', () => {
    test.skipIf(name === 'memory')(
      'refuses what cannot be done while Redis is away, and does not wait for it (memory is never away)',
      async () => {
        await first.bus.subscribe(topic('outage'));
        await backend.breakDown?.();
        const calls = () => [
          first.bus.publish(topic('outage'), Buffer.from('lost')),
          first.bus.publish('raw-outage', Buffer.from('lost')),
          first.bus.topics('tg:', 10),
          first.bus.catchUp([topic('outage')]),
          first.bus.store.join('room', ['ann'], 1000),
          first.bus.store.leave('room', 'ann'),
          first.bus.store.members('room', 1),
          first.bus.store.expire('room'),
          first.bus.store.ban('ann', Date.now() + 1000),
          first.bus.store.bans(),
          first.bus.store.claim('key', 'hash', 1000),
          first.bus.store.settle('key', 'hash', 'answer', 1000),
        ];
        // At first those that were on their way, then those that find nobody there.
        for (let round = 0; round < 3; round += 1) {
          const results = await until(() => Promise.allSettled(calls()), {
            what: 'all calls to end',
          });
          for (const result of results) {
            expect(result).toMatchObject({
              status: 'rejected',
              reason: { code: 'bus_unavailable', retryable: true },
            });
          }
        }
        const isDown = ({ state, reason = '' }: Bus['health']) =>
          state === 'down' && reason.includes('ECONNREFUSED');
        await until(() => isDown(first.bus.health), {
          what: 'the bus to say why it is down',
        });
        first.bus.unsubscribe(topic('outage'));
      },
    );

    test('stops once and for all, and can be told to twice', async () => {
      const published = everyone(({ bus }) => bus.publish(topic('end'), Buffer.from('late')).catch(() => {}));
      const stops = backend.pods.flatMap(({ bus }) => [bus.stop(), bus.stop()]);
      await Promise.all(stops);
      const counts = backend.pods.map(({ heard }) => heard.messages.length);
      await published;
      await everyone(({ bus }) => bus.stop());
      await new Promise((resolve) => setImmediate(resolve));
      expect(backend.pods.map(({ heard }) => heard.messages.length)).toEqual(counts);
    });
  });
});
