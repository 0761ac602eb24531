// The Redis bus on a Cluster: it follows slots and masters, and interrupts nothing else.

import calculateSlot from 'cluster-key-slot';
import type { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import {
  deliversAgain,
  interruptionsAre,
  printMeasurements,
  startBusProcess,
  startPod,
  startRedisBus,
  stateIs,
  type TestRedisBus,
  watchStates,
} from '../../test/bus.ts';
import { freePort } from '../../test/ports.ts';
import { type RedisCluster, type RedisServer, startCluster, startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { channelTopic, TOPIC_PREFIX } from './bus.ts';

printMeasurements();

describe('a Redis Cluster', () => {
  let cluster: RedisCluster;
  let admins: Redis[];
  let pods: TestRedisBus[];
  const topics = [
    ...Array.from({ length: 120 }, (_, index) => channelTopic(`room:${index}`)),
    'ws_broadcast',
    'other_raw',
  ];
  const spreadTopics = topics.slice(0, 12);

  beforeAll(async () => {
    cluster = await startCluster();
    admins = cluster.nodes.map((node) => node.client());
    pods = await Promise.all([1, 2].map(() => startRedisBus({ url: cluster.url, mode: 'cluster' })));
    await Promise.all(pods.flatMap(({ bus }) => topics.map((topic) => bus.subscribe(topic))));
  });
  afterAll(async () => {
    await Promise.all(pods.map(({ bus }) => bus.stop()));
    await cluster.stop();
  });
  beforeEach(async () => {
    await stateIs('up', pods);
    for (const { heard } of pods) heard.clear();
  });

  /** Which node has the slot, as it says itself. */
  async function ownerOf(slot: number): Promise<number> {
    const [first] = admins;
    const ranges = (await first?.call('CLUSTER', 'SLOTS')) as [number, number, [string, number]][];
    const port = ranges.find(([from, to]) => from <= slot && slot <= to)?.[2][1];
    return cluster.nodes.findIndex((node) => node.port === port);
  }

  const sameSlot = (slot: number) =>
    topics.filter((topic) => topic.startsWith(TOPIC_PREFIX) && calculateSlot(topic) === slot);

  test('follows a slot to another node, and interrupts nothing else', async () => {
    const [moved = ''] = spreadTopics;
    const slot = calculateSlot(moved);
    const from = await ownerOf(slot);
    for (const to of [(from + 1) % 3, from]) {
      for (const { heard } of pods) heard.clear();
      await cluster.moveSlot(slot, to);
      await deliversAgain('after a slot’s move', pods, topics);
      await interruptionsAre(pods, sameSlot(slot));
    }
  });

  test('publishes while a slot moves, to nobody twice and in order', async () => {
    const [moved = ''] = spreadTopics;
    const slot = calculateSlot(moved);
    const from = await ownerOf(slot);
    let moving = true;
    let sent = 0;
    const accepted: string[] = [];
    const publishing = (async () => {
      while (moving) {
        const text = String(sent++);
        await pods[0]?.bus.publish(moved, Buffer.from(text)).then(
          () => accepted.push(text),
          () => {},
        );
      }
    })();
    await cluster.moveSlot(slot, (from + 1) % 3);
    await cluster.moveSlot(slot, from);
    moving = false;
    await publishing;
    // Nothing was refused: the command goes after the slot.
    expect(accepted).toHaveLength(sent);
    await deliversAgain('after two moves under load', pods, [moved]);
    for (const { heard } of pods) {
      const texts = heard.texts(moved).filter((text) => /^\d+$/.test(text));
      expect(texts).toEqual([...new Set(texts)].toSorted((a, b) => Number(a) - Number(b)));
      expect(new Set(heard.interruptions)).toEqual(new Set(sameSlot(slot)));
    }
  });

  test('finds out that a node dropped topics, also where it has them again before anybody looks', async () => {
    const [moved = ''] = spreadTopics;
    const slot = calculateSlot(moved);
    const from = await ownerOf(slot);
    const ids = await Promise.all(admins.map((admin) => admin.cluster('MYID')));
    const [mine, other] = [String(ids[from]), String(ids[(from + 1) % 3])];
    const away = admins[from]
      ?.pipeline()
      .cluster('SETSLOT', slot, 'NODE', other)
      .cluster('SETSLOT', slot, 'NODE', mine);
    expect((await away?.exec())?.map(([error]) => error)).toEqual([null, null]);
    await deliversAgain('after a slot that came back at once', pods, topics);
    await interruptionsAre(pods, sameSlot(slot));
  });

  test('follows a key whose slot is on its way', async () => {
    const key = 'on-its-way';
    const slot = calculateSlot(`tg:k:${key}`);
    const from = await ownerOf(slot);
    const to = (from + 1) % 3;
    const ids = await Promise.all(admins.map((admin) => admin.call('CLUSTER', 'MYID')));
    await admins[to]?.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', String(ids[from]));
    await admins[from]?.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', String(ids[to]));
    const [one, two] = pods as [TestRedisBus, TestRedisBus];
    expect(await one.bus.store.claim(key, 'hash', 60_000)).toEqual({ kind: 'new' });
    expect(await two.bus.store.claim(key, 'hash', 60_000)).toEqual({ kind: 'in_progress' });
    await cluster.moveSlot(slot, to);
    expect(await two.bus.store.claim(key, 'hash', 60_000)).toEqual({ kind: 'in_progress' });
    await cluster.moveSlot(slot, from);
    expect(await one.bus.store.claim(key, 'hash', 60_000)).toEqual({ kind: 'in_progress' });
  });

  test('goes on probing where the slot of its probe has moved', async () => {
    const probes = (await Promise.all(admins.map((admin) => admin.pubsub('SHARDCHANNELS', 'tg:{probe:*'))))
      .flat()
      .map(String);
    expect(probes).toHaveLength(pods.length * 3);
    const states = watchStates(pods);
    const slots = [...new Set(probes.map((probe) => calculateSlot(probe)))];
    const homes = await Promise.all(slots.map(ownerOf));
    for (const [index, slot] of slots.entries()) await cluster.moveSlot(slot, ((homes[index] ?? 0) + 1) % 3);
    const watched = async () =>
      await Promise.all(
        admins.map(async (admin) => (await admin.pubsub('SHARDCHANNELS', 'tg:{probe:*')).length),
      );
    await until(async () => (await watched()).every((count) => count === pods.length), {
      what: 'each node to be probed again',
    });
    await deliversAgain('after the moves of all probes', pods, topics);
    for (const [index, slot] of slots.entries()) await cluster.moveSlot(slot, homes[index] ?? 0);
    await until(async () => (await watched()).every((count) => count === pods.length), {
      what: 'each node to be probed again',
    });
    await deliversAgain('after their moves back', pods, topics);
    expect(states()).toEqual(['up']);
    const inThoseSlots = topics.filter((topic) => slots.some((slot) => sameSlot(slot).includes(topic)));
    for (const { heard } of pods) expect(new Set(heard.interruptions)).toEqual(new Set(inThoseSlots));
  });

  test('hears its own topics after the last raw one was left, and raw ones after the last of its own', async () => {
    const pod = await startPod({ url: cluster.url, mode: 'cluster' });
    const own = Array.from({ length: 12 }, (_, index) => channelTopic(`own:${index}`));
    const isLeft = async (kind: 'NUMSUB' | 'SHARDNUMSUB', topic: string) => {
      const counts = await Promise.all(admins.map((admin) => admin.call('PUBSUB', kind, topic)));
      return counts.flat().every((count) => count === topic || count === 0);
    };
    await Promise.all(['own_raw', ...own].map((topic) => pod.bus.subscribe(topic)));
    pod.bus.unsubscribe('own_raw');
    await until(() => isLeft('NUMSUB', 'own_raw'), { what: 'the raw topic to be left' });
    await deliversAgain('while the last raw topic is left', [pod], own);
    await pod.bus.subscribe('own_raw');
    for (const topic of own) pod.bus.unsubscribe(topic);
    await until(
      async () => (await Promise.all(own.map((topic) => isLeft('SHARDNUMSUB', topic)))).every(Boolean),
      {
        what: 'its own topics to be left',
      },
    );
    await deliversAgain('while only a raw topic is left', [pod], ['own_raw']);
    expect(pod.heard.interruptions).toEqual([]);
  });

  test('keeps raw topics where they are when slots move, once', async () => {
    const slot = calculateSlot('ws_broadcast');
    const from = await ownerOf(slot);
    await cluster.moveSlot(slot, (from + 1) % 3);
    for (const { bus } of pods) expect(bus.subscribe('ws_broadcast')).toBeUndefined();
    await deliversAgain('after a raw topic’s slot moved', pods, ['ws_broadcast']);
    for (const { heard } of pods) {
      expect(heard.texts('ws_broadcast')).toHaveLength(new Set(heard.texts('ws_broadcast')).size);
      expect(heard.interruptions).toEqual(sameSlot(slot));
    }
    await cluster.moveSlot(slot, from);
  });

  test.each(['unknown-endpoint', 'hostname', 'ip'])(
    'finds its nodes where they tell of themselves by %s',
    async (kind) => {
      for (const admin of admins) {
        await admin.call(
          'CONFIG',
          'SET',
          'cluster-announce-hostname',
          kind === 'hostname' ? 'localhost' : '',
        );
        await admin.call('CONFIG', 'SET', 'cluster-preferred-endpoint-type', kind);
      }
      const expected = { 'unknown-endpoint': null, hostname: 'localhost', ip: '127.0.0.1' }[kind];
      const hosts = async (admin: Redis) =>
        ((await admin.call('CLUSTER', 'SLOTS')) as [number, number, [string | null]][]).map(
          ([, , [host]]) => host,
        );
      await until(
        async () => (await Promise.all(admins.map(hosts))).flat().every((host) => host === expected),
        { what: 'all nodes to say so' },
      );
      const pod = await startPod({ url: cluster.url, mode: 'cluster' });
      await Promise.all(spreadTopics.map((topic) => pod.bus.subscribe(topic)));
      await deliversAgain(`after a start by ${kind}`, [pod], spreadTopics);
      const [moved = ''] = spreadTopics;
      const slot = calculateSlot(moved);
      const from = await ownerOf(slot);
      await cluster.moveSlot(slot, (from + 1) % 3);
      await deliversAgain(`after a slot’s move by ${kind}`, [pod], spreadTopics);
      await cluster.moveSlot(slot, from);
      await deliversAgain(`after a slot’s move back by ${kind}`, [pod], spreadTopics);
      expect(new Set(pod.heard.interruptions)).toEqual(new Set(sameSlot(slot)));
    },
  );

  test('delivers again after a master was killed and started anew', async () => {
    const [, victim] = cluster.nodes;
    const lost = topics.filter((topic) => topic.startsWith(TOPIC_PREFIX));
    const homes = new Map(
      await Promise.all(lost.map(async (topic) => [topic, await ownerOf(calculateSlot(topic))] as const)),
    );
    await victim?.kill();
    await stateIs('down', pods);
    await victim?.restart();
    await deliversAgain('after a killed and restarted master of a Cluster', pods, topics);
    const there = lost.filter((topic) => homes.get(topic) === 1);
    for (const { heard } of pods) expect(heard.interruptions).toEqual(expect.arrayContaining(there));
    for (const { heard } of pods)
      expect(heard.interruptions.filter((topic) => homes.get(topic) !== 1 && homes.has(topic))).toEqual([]);
    await stateIs('up', pods);
  });

  test('delivers again after a master was killed and its replica took over', async () => {
    const [, , victim] = cluster.nodes;
    const replica = await startReplica(2);
    // A vote that fails takes 8 s to be repeated.
    await until(async () => (await Promise.all(admins.map(isOk))).every(Boolean), {
      what: 'all nodes to be ok',
    });
    onTestFinished(() => replica.stop());
    const states = watchStates(pods);
    await victim?.kill();
    const client = replica.client();
    await until(async () => (await client.role())[0] === 'master', {
      what: 'the replica to take over',
    });
    await deliversAgain('after a failover of a Cluster, from the promotion on', pods, topics);
    await stateIs('up', pods);
    expect(states()).not.toContain('deaf');
    // The old master comes back as the new one’s replica, and owns nothing, until it is told to take over.
    await victim?.restart();
    const old = victim?.client();
    const isMaster = async () => (await old?.role())?.[0] === 'master';
    const inSync = async () => (await old?.info('replication'))?.includes('master_link_status:up');
    await until(async () => !(await isMaster()) && inSync(), {
      what: 'the old master to follow',
    });
    await deliversAgain('after its return', pods, topics);
    // Without a vote, which a busy machine may be too slow for.
    await old?.call('CLUSTER', 'FAILOVER', 'TAKEOVER');
    await until(isMaster, { what: 'the old master to take over' });
    await deliversAgain('after a failover by hand', pods, topics);
    await until(async () => (await client.role())[0] === 'slave', {
      what: 'the other to follow',
    });
    await stateIs('up', pods);
  });

  test('keeps the topics of a node that is gone while nobody owns their slots', async () => {
    const small = await startCluster(2);
    const pod = await startRedisBus({ url: small.url, mode: 'cluster' });
    onTestFinished(async () => {
      await pod.bus.stop();
      await small.stop();
    });
    const own = topics.filter((topic) => topic.startsWith(TOPIC_PREFIX));
    await Promise.all(own.map((topic) => pod.bus.subscribe(topic)));
    const [first, second] = small.nodes.map((node) => node.client());
    const firstHalf = [0, 8191] as const;
    await first?.call('CLUSTER', 'DELSLOTSRANGE', ...firstHalf);
    await second?.call('CLUSTER', 'DELSLOTSRANGE', ...firstHalf);
    // As who mends a Cluster does: one range after the other.
    await second?.call('CLUSTER', 'ADDSLOTSRANGE', 0, 9);
    await until(async () => !String(await first?.client('LIST')).includes(' name=tidegate'), {
      what: 'the node to be left',
      timeoutMs: 20_000,
    });
    await second?.call('CLUSTER', 'ADDSLOTSRANGE', 10, firstHalf[1]);
    await deliversAgain('after nobody had owned slots', [pod], own);
    const moved = own.filter((topic) => calculateSlot(topic) <= firstHalf[1]);
    expect(pod.heard.interruptions).toEqual(expect.arrayContaining(moved));
  });

  test('lets its process end, also where no node answers', async () => {
    const [up, absent] = [
      startBusProcess('cluster', cluster.url),
      startBusProcess('cluster', 'redis://127.0.0.1:1,127.0.0.1:2'),
    ];
    await Promise.all([up.up(), absent.begun()]);
    await Promise.all([up.end(), absent.end()]);
  });

  /** Whether a node calls the Cluster ok, and knows the replica. */
  async function isOk(admin: Redis): Promise<boolean> {
    const [info, nodes] = [
      String(await admin.call('CLUSTER', 'INFO')),
      String(await admin.call('CLUSTER', 'NODES')),
    ];
    return info.includes('cluster_state:ok') && /^\S+ \S+ slave \S+ \d+ \d+ \d+ connected/m.test(nodes);
  }

  /** Starts a replica of a node. */
  async function startReplica(of: number): Promise<RedisServer> {
    const [admin] = admins;
    const master = admins[of];
    const busPort = await freePort();
    const settings = [
      '--cluster-enabled',
      'yes',
      '--cluster-node-timeout',
      '2000',
      '--cluster-announce-ip',
      '127.0.0.1',
      '--cluster-port',
      `${busPort}`,
    ];
    const replica = await startRedis({ args: settings });
    const client = replica.client();
    await admin?.call('CLUSTER', 'MEET', '127.0.0.1', replica.port, busPort);
    const id = String(await master?.cluster('MYID'));
    await until(async () => String(await client.call('CLUSTER', 'NODES')).includes(id), {
      what: 'the replica to be met',
    });
    await until(() => client.call('CLUSTER', 'REPLICATE', id), { what: 'the replica to follow' });
    await until(async () => (await client.info('replication')).includes('master_link_status:up'), {
      what: 'the replica to be in sync',
    });
    await until(async () => String(await admin?.call('CLUSTER', 'NODES')).includes(`slave ${id}`), {
      what: 'the others to know',
    });
    return replica;
  }
});
