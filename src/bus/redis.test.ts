// The Redis bus when something goes wrong: whatever happens to Redis or to the line, it comes back by itself, and
// says exactly what may be missing.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import calculateSlot from 'cluster-key-slot';
import type { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { openRedisBus, startRedisBus, type TestRedisBus } from '../../test/bus.ts';
import { freePort } from '../../test/ports.ts';
import { startProxy, type TcpProxy } from '../../test/proxy.ts';
import {
  type RedisCluster,
  type RedisSentinel,
  type RedisServer,
  startCluster,
  startRedis,
  startSentinel,
} from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { readinessOf } from '../gateway/admin.ts';
import { type BusState, channelTopic, TOPIC_PREFIX } from './bus.ts';

type Address = Parameters<typeof startRedisBus>[0];

/** Generous, because machines are busy. What it takes on an idle one is printed at the end. */
const BACK_WITHIN_MS = 10_000;

/** What took how long, for people. */
const measured: string[] = [];
afterAll(() => {
  const lines = measured.map((line) => `    ${line}`);
  if (lines.length > 0) process.stdout.write(`  delivering again after (the target is 2000 ms)\n${lines.join('\n')}\n`);
});

/** Publishes on each topic with the first pod until all pods hear it, and notes how long that took from now. */
async function deliversAgain(what: string, pods: readonly TestRedisBus[], topics: readonly string[]): Promise<void> {
  const sinceMs = performance.now();
  const text = `again ${what} ${sinceMs}`;
  await Promise.all(
    topics.map((topic) =>
      until(
        async () => {
          await pods[0]?.bus.publish(topic, Buffer.from(text)).catch(() => {});
          return pods.every(({ heard }) => heard.texts(topic).includes(text));
        },
        { what: `${topic} to deliver again after ${what}`, timeoutMs: BACK_WITHIN_MS },
      ),
    ),
  );
  measured.push(`${what}: ${Math.round(performance.now() - sinceMs)} ms`);
}

/** Resolves when each pod has named the topics as interrupted. Each is named once, and no other is. */
async function interruptionsAre(pods: readonly TestRedisBus[], topics: readonly string[]): Promise<void> {
  for (const { heard } of pods) {
    await until(() => heard.interruptions.length >= topics.length, { what: 'all interruptions to be told' });
    expect(heard.interruptions.toSorted()).toEqual(topics.toSorted());
  }
}

async function stateIs(state: BusState, pods: readonly TestRedisBus[]): Promise<void> {
  for (const { bus } of pods) {
    await until(() => bus.health.state === state, { what: `the bus to be ${state}`, timeoutMs: 20_000 });
  }
}

/** Every state that the pods are seen in until the returned function is called. */
function watchStates(pods: readonly TestRedisBus[]): () => Set<BusState> {
  const states = new Set<BusState>();
  const timer = setInterval(() => {
    for (const { bus } of pods) states.add(bus.health.state);
  }, 5);
  return () => {
    clearInterval(timer);
    return states;
  };
}

async function startPod(address: Address): Promise<TestRedisBus> {
  const pod = await startRedisBus(address);
  onTestFinished(() => pod.bus.stop());
  return pod;
}

function openPod(address: Address): TestRedisBus {
  const pod = openRedisBus(address);
  onTestFinished(() => pod.bus.stop());
  return pod;
}

async function reasonMatches(pod: TestRedisBus, pattern: RegExp): Promise<void> {
  await until(() => pattern.test(pod.bus.health.reason ?? ''), { what: `${pod.bus.health.reason} to match ${pattern}` });
}

const many = (count: number, name = 'room') => Array.from({ length: count }, (_, index) => channelTopic(`${name}:${index}`));

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
    await deliversAgain('CLIENT KILL TYPE pubsub', pods, some);
    await interruptionsAre(pods, topics);
  });

  test('delivers again after all its connections were cut', async () => {
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal');
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await deliversAgain('CLIENT KILL of all', pods, some);
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
    await expect(one.bus.publish(wished, Buffer.from('lost'))).rejects.toMatchObject({ code: 'bus_unavailable' });
    expect(fulfilled).toBe(false);

    await redis.restart();
    await deliversAgain('kill and restart', pods, some);
    await wish;
    await two.bus.publish(wished, Buffer.from('found'));
    await one.heard.until(wished, 'found');
    expect(two.heard.texts(wished)).toEqual([]);
    // Who left it during the outage and came back was told that it arrives from then on, so nothing is missing.
    await interruptionsAre([one], topics.filter((topic) => topic !== dropped && topic !== changed));
    await interruptionsAre([two], topics.filter((topic) => topic !== dropped));
    expect(await admin.pubsub('NUMSUB', dropped)).toEqual([dropped, 0]);
    await stateIs('up', pods);
    // A Redis that was away is down, and never makes a pod unready on its way back.
    expect([...states()].toSorted()).toEqual(['down', 'up']);

    one.bus.unsubscribe(wished);
    await Promise.all(pods.map(({ bus }) => bus.subscribe(dropped)));
  });

  test('bounds what waits for a Redis that is frozen, and delivers again when it goes on', async () => {
    const [one] = pods as [TestRedisBus];
    redis.pause();
    onTestFinished(() => redis.resume());
    const bytes = Buffer.alloc(100, 'x');
    const publishes = Array.from({ length: 21_000 }, () => one.bus.publish(some[0] ?? '', bytes));
    const codes = publishes.map((it) => it.then(() => 'ok', (error: { code: string; retryable: boolean }) => `${error.code} ${error.retryable}`));
    // Those beyond the bound are refused at once.
    expect(await codes[20_999]).toBe('overloaded true');
    expect(await codes[20_000]).toBe('overloaded true');
    // The others do not wait for ever.
    const all = await until(() => Promise.all(codes), { what: 'every publish to end', timeoutMs: 10_000 });
    expect(all.filter((code) => code === 'bus_unavailable true')).toHaveLength(20_000);
    // And make room for others.
    await expect(one.bus.publish(some[0] ?? '', bytes)).rejects.toMatchObject({ code: 'bus_unavailable' });
    await stateIs('down', pods);
    const large = Array.from({ length: 70 }, () => one.bus.publish('ws_broadcast', Buffer.alloc(1_048_576)).catch((error: { code: string }) => error.code));
    expect(new Set(await Promise.all(large))).not.toContain('overloaded');

    redis.resume();
    await deliversAgain('SIGSTOP and SIGCONT', pods, some);
    await stateIs('up', pods);
  });

  test('bounds the bytes that wait, too', async () => {
    const [one] = pods as [TestRedisBus];
    redis.pause();
    onTestFinished(() => redis.resume());
    const publishes = Array.from({ length: 66 }, () => one.bus.publish('ws_broadcast', Buffer.alloc(1_048_576)));
    const codes = publishes.map((it) => it.then(() => 'ok', (error: { code: string }) => error.code));
    expect(await codes[65]).toBe('overloaded');
    redis.resume();
    const all = await Promise.all(codes);
    expect(all.filter((code) => code === 'overloaded')).toHaveLength(2);
    await stateIs('up', pods);
  });

  test('leaves nothing behind when it stops', async () => {
    const mine = async () => String(await admin.client('LIST')).split('\n').filter((line) => / name=tidegate/.test(line)).length;
    const before = await mine();
    const pod = await startRedisBus({ url: redis.url });
    await Promise.all(many(100, 'leak').map((topic) => pod.bus.subscribe(topic)));
    expect(await mine()).toBeGreaterThan(before);
    expect(await admin.pubsub('CHANNELS', channelTopic('leak:*'))).toHaveLength(100);
    await pod.bus.stop();
    await until(async () => (await mine()) === before, { what: 'its connections to be gone' });
    expect(await admin.pubsub('CHANNELS', channelTopic('leak:*'))).toEqual([]);
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
    await expect(pod.bus.publish(topics[0] ?? '', Buffer.from('lost'))).rejects.toMatchObject({ code: 'bus_unavailable' });
    proxy.resume();
    await deliversAgain('a silent line, as soon as it was noticed', [pod], topics);
    await stateIs('up', [pod]);
  });

  test('that goes silent for long takes the bus down, and no longer than it lasts', async () => {
    const before = proxy.accepted;
    proxy.stall();
    // Long enough for connections to be made anew, in vain.
    await until(() => proxy.accepted >= before + 4, { what: 'the bus to try again', timeoutMs: 30_000 });
    proxy.resume();
    await deliversAgain('a long silence', [pod], topics);
    await interruptionsAre([pod], topics);
    await stateIs('up', [pod]);
  });

  test('that is cut is mended', async () => {
    proxy.reset();
    await deliversAgain('a reset', [pod], topics);
    await interruptionsAre([pod], topics);
  });

  test('that nobody answers takes the bus down, and no longer than it lasts', async () => {
    proxy.refuse();
    proxy.reset();
    await stateIs('down', [pod]);
    proxy.accept();
    await deliversAgain('a refusal', [pod], topics);
    await interruptionsAre([pod], topics);
  });

  test('that is slow is only slow', async () => {
    const states = watchStates([pod]);
    proxy.delay(120);
    const texts = Array.from({ length: 200 }, (_, index) => `slow ${index}`);
    await Promise.all(texts.map((text) => pod.bus.publish(topics[0] ?? '', Buffer.from(text))));
    await pod.heard.until(topics[0] ?? '', 'slow 199');
    // Some probes must go this way.
    await until(async () => (await pod.bus.publish(topics[1] ?? '', Buffer.from('tick')), pod.heard.texts(topics[1] ?? '').length >= 12), { what: 'some time to pass' });
    proxy.delay(0);
    expect(pod.heard.texts(topics[0] ?? '').filter((text) => text.startsWith('slow'))).toEqual(texts);
    expect([...states()]).toEqual(['up']);
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
    await deliversAgain('deafness', [pod], topics);
    await stateIs('up', [pod]);
    expect(readinessOf('serving', pod.bus.health)).toEqual({ ready: true, phase: 'serving', bus: 'up' });
    await interruptionsAre([pod], topics);
  });

  test('between Redis and the subscriber that goes silent is noticed without an error', async () => {
    proxy.stall('tidegate-subscriber');
    const before = proxy.accepted;
    await until(() => proxy.accepted > before, { what: 'the bus to try another connection', timeoutMs: 20_000 });
    proxy.resume();
    await deliversAgain('a silent subscriber', [pod], topics);
    await interruptionsAre([pod], topics);
  });
});

describe('a Redis with users', () => {
  let redis: RedisServer;
  let admin: Redis;

  beforeAll(async () => {
    redis = await startRedis({ password: 'p@ss/w:rd' });
    admin = redis.client();
    await admin.call('ACL', 'SETUSER', 'gateway', 'on', '>s3cret', '~tg:*', '&tg:*', '&ws_*', '+@all');
  });
  afterAll(() => redis.stop());
  const acl = (...rules: string[]) => admin.call('ACL', 'SETUSER', 'gateway', ...rules);

  test.each([
    ['a password in the URL', () => ({ url: redis.url })],
    ['a password beside the URL', () => ({ url: `redis://127.0.0.1:${redis.port}`, password: 'p@ss/w:rd' })],
    ['an ACL user in the URL', () => ({ url: `redis://gateway:s3cret@127.0.0.1:${redis.port}` })],
    ['an ACL user beside the URL', () => ({ url: `redis://127.0.0.1:${redis.port}`, username: 'gateway', password: 's3cret' })],
    ['a user in the URL and his password beside it', () => ({ url: `redis://gateway@127.0.0.1:${redis.port}`, password: 's3cret' })],
  ])('lets in who has %s', async (_, address) => {
    const pod = await startPod(address());
    await pod.bus.subscribe('ws_broadcast');
    await pod.bus.publish('ws_broadcast', Buffer.from('in'));
    await pod.heard.until('ws_broadcast', 'in');
    await pod.bus.store.join('room', ['ann'], 1000);
  });

  test.each([
    ['a wrong password', () => ({ url: `redis://gateway:wrong@127.0.0.1:${redis.port}` }), /WRONGPASS/],
    ['no password', () => ({ url: `redis://127.0.0.1:${redis.port}` }), /NOAUTH/],
    ['a name that is unknown', () => ({ url: 'redis://no-such-host.invalid:6379' }), /ENOTFOUND|EAI_AGAIN/],
    ['a port where nobody is', () => ({ url: 'redis://127.0.0.1:1' }), /ECONNREFUSED/],
  ])('says of %s that it is the reason', async (_, address, reason) => {
    const pod = openPod(address());
    await reasonMatches(pod, reason);
    expect(pod.bus.health.state).toBe('starting');
    expect(JSON.stringify(pod.bus.health)).not.toContain('wrong@');
    await expect(pod.bus.publish('ws_broadcast', Buffer.from('out'))).rejects.toMatchObject({ code: 'bus_unavailable' });
  });

  test('gets in as soon as the password is right', async () => {
    const pod = openPod({ url: `redis://late:come@127.0.0.1:${redis.port}` });
    await reasonMatches(pod, /WRONGPASS/);
    await admin.call('ACL', 'SETUSER', 'late', 'on', '>come', '~*', '&*', '+@all');
    await until(() => pod.started.then(() => true), { what: 'the bus to start' });
    expect(pod.bus.health).toEqual({ state: 'up' });
  });

  test('is not ready where it may publish and not subscribe, says why, and starts as soon as it may', async () => {
    await acl('-subscribe');
    const pod = openPod({ url: `redis://gateway:s3cret@127.0.0.1:${redis.port}` });
    await reasonMatches(pod, /do not come back to this pod/);
    expect(pod.bus.health.state).toBe('starting');
    await acl('+subscribe');
    await until(() => pod.started.then(() => true), { what: 'the bus to start' });

    await acl('-subscribe');
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await stateIs('deaf', [pod]);
    expect(pod.bus.health.reason).toMatch(/do not come back to this pod: NOPERM .*subscribe/);
    await acl('+subscribe');
    await stateIs('up', [pod]);
  });

  test('keeps a topic that is not allowed from holding up others', async () => {
    const pod = await startPod({ url: `redis://gateway:s3cret@127.0.0.1:${redis.port}` });
    const allowed = [...many(50), 'ws_allowed'];
    let refused = true;
    const waits = [pod.bus.subscribe('other_programs')?.then(() => (refused = false)), ...allowed.map((topic) => pod.bus.subscribe(topic))];
    await deliversAgain('a refused neighbour', [pod], allowed);
    expect(refused).toBe(true);
    expect(pod.bus.health).toEqual({ state: 'up' });
    await acl('&other_*');
    await Promise.all(waits);
    await deliversAgain('a permission', [pod], ['other_programs']);
    expect(pod.heard.interruptions).toEqual([]);
  });
});

describe('a Redis with TLS', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tidegate-tls-'));
  const file = (name: string) => join(dir, name);
  const caFile = file('ca.crt');
  let redis: RedisServer;
  let port: number;

  beforeAll(async () => {
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=tidegate test CA');
    const names = 'subjectAltName=IP:127.0.0.1,DNS:localhost';
    openssl('req', '-x509', ...key, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-keyout', 'redis.key', '-out', 'redis.crt', '-subj', '/CN=redis', '-addext', names, '-addext', 'basicConstraints=critical,CA:FALSE');
    port = await freePort();
    const tls = ['--tls-port', `${port}`, '--tls-cert-file', file('redis.crt'), '--tls-key-file', file('redis.key'), '--tls-ca-cert-file', caFile, '--tls-auth-clients', 'no'];
    redis = await startRedis({ password: 's3cret', args: tls });
  });
  afterAll(async () => {
    await redis?.stop();
    rmSync(dir, { recursive: true });
  });

  test.each(['127.0.0.1', 'localhost'])('is trusted at %s by its certificate', async (host) => {
    const pod = await startPod({ url: `rediss://:s3cret@${host}:${port}`, caFile });
    await pod.bus.subscribe('ws_broadcast');
    await pod.bus.publish('ws_broadcast', Buffer.from('sealed'));
    await pod.heard.until('ws_broadcast', 'sealed');
    await redis.client().call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await deliversAgain('CLIENT KILL with TLS', [pod], ['ws_broadcast']);
  });

  test('is not trusted without the authority that signed it', async () => {
    const pod = openPod({ url: `rediss://:s3cret@127.0.0.1:${port}` });
    await reasonMatches(pod, /certificate/);
    expect(pod.bus.health.state).toBe('starting');
  });

  test('is told from one without', async () => {
    const pod = openPod({ url: `rediss://:s3cret@127.0.0.1:${redis.port}`, caFile });
    await reasonMatches(pod, /packet length|wrong version|ECONNRESET|disconnected|socket hang up/i);
  });

  test('needs a file with certificates that exists', () => {
    expect(() => openRedisBus({ url: 'rediss://127.0.0.1:1', caFile: file('none.crt') })).toThrow(/none\.crt/);
  });
});

describe('a Redis under Sentinel', () => {
  let group: RedisSentinel;
  let pods: TestRedisBus[];
  const topics = [...many(50), 'ws_broadcast'];

  beforeAll(async () => {
    group = await startSentinel();
    pods = await Promise.all([1, 2].map(() => startRedisBus({ url: group.url, mode: 'sentinel' })));
    await Promise.all(pods.flatMap(({ bus }) => topics.map((topic) => bus.subscribe(topic))));
  }, 60_000);
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
    await until(async () => (await client.role())[0] === 'master', { what: 'the replica to take over', timeoutMs: 30_000 });
  }

  /** Resolves when a server follows the other, as all Sentinels see it, so that there can be another failover. */
  async function following(server: RedisServer): Promise<void> {
    const client = server.client();
    await until(async () => (await client.info('replication')).includes('master_link_status:up'), { what: 'the old master to follow', timeoutMs: 30_000 });
  }

  test('delivers again after a failover, and after the one back', async () => {
    await group.failover();
    await deliversAgain('a Sentinel failover', pods, topics);
    for (const { heard } of pods) expect(new Set(heard.interruptions)).toEqual(new Set(topics));
    await group.failover();
    await deliversAgain('a Sentinel failover back', pods, topics);
  });

  test('delivers again after the master was killed', async () => {
    await following(group.replica);
    await group.master.kill();
    await promotion(group.replica);
    await deliversAgain('a killed master, from the promotion on', pods, topics);
    for (const { heard } of pods) expect(new Set(heard.interruptions)).toEqual(new Set(topics));
    await group.master.restart();
    await following(group.master);
    await stateIs('up', pods);
    await deliversAgain('the old master’s return', pods, topics);
  });

  test('delivers again after the master froze, also to who starts while a Sentinel is frozen', async () => {
    await following(group.master);
    const [frozen] = group.sentinels;
    frozen?.pause();
    onTestFinished(() => frozen?.resume());
    group.replica.pause();
    onTestFinished(() => group.replica.resume());
    await promotion(group.master);
    await deliversAgain('a frozen master, from the promotion on', pods, topics);
    const late = await startPod({ url: group.url, mode: 'sentinel' });
    await late.bus.subscribe('ws_broadcast');
    await deliversAgain('a late start', [late, ...pods], ['ws_broadcast']);
  });
});

describe('a Redis Cluster', () => {
  let cluster: RedisCluster;
  let admins: Redis[];
  let pods: TestRedisBus[];
  const topics = [...many(120), 'ws_broadcast', 'other_raw'];
  const spreadTopics = topics.slice(0, 12);

  beforeAll(async () => {
    cluster = await startCluster();
    admins = cluster.nodes.map((node) => node.client());
    pods = await Promise.all([1, 2].map(() => startRedisBus({ url: cluster.url, mode: 'cluster' })));
    await Promise.all(pods.flatMap(({ bus }) => topics.map((topic) => bus.subscribe(topic))));
  }, 60_000);
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

  const sameSlot = (slot: number) => topics.filter((topic) => topic.startsWith(TOPIC_PREFIX) && calculateSlot(topic) === slot);

  test('follows a slot to another node, and interrupts nothing else', async () => {
    const [moved = ''] = spreadTopics;
    const slot = calculateSlot(moved);
    const from = await ownerOf(slot);
    for (const to of [(from + 1) % 3, from]) {
      for (const { heard } of pods) heard.clear();
      await cluster.moveSlot(slot, to);
      await deliversAgain('a slot’s move', pods, topics);
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
        await pods[0]?.bus.publish(moved, Buffer.from(text)).then(() => accepted.push(text), () => {});
      }
    })();
    await cluster.moveSlot(slot, (from + 1) % 3);
    await cluster.moveSlot(slot, from);
    moving = false;
    await publishing;
    // Nothing was refused: the command goes after the slot.
    expect(accepted).toHaveLength(sent);
    await deliversAgain('two moves under load', pods, [moved]);
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
    const away = admins[from]?.pipeline().cluster('SETSLOT', slot, 'NODE', other).cluster('SETSLOT', slot, 'NODE', mine);
    expect((await away?.exec())?.map(([error]) => error)).toEqual([null, null]);
    await deliversAgain('a slot that came back at once', pods, topics);
    await interruptionsAre(pods, sameSlot(slot));
  });

  test('goes on probing where the slot of its probe has moved', async () => {
    const probes = (await Promise.all(admins.map((admin) => admin.pubsub('SHARDCHANNELS', 'tg:{probe:*')))).flat().map(String);
    expect(probes).toHaveLength(pods.length * 3);
    const states = watchStates(pods);
    const slots = [...new Set(probes.map((probe) => calculateSlot(probe)))];
    const homes = await Promise.all(slots.map(ownerOf));
    for (const [index, slot] of slots.entries()) await cluster.moveSlot(slot, ((homes[index] ?? 0) + 1) % 3);
    const watched = async () => (await Promise.all(admins.map(async (admin) => (await admin.pubsub('SHARDCHANNELS', 'tg:{probe:*')).length)));
    await until(async () => (await watched()).every((count) => count === pods.length), { what: 'each node to be probed again' });
    await deliversAgain('the moves of all probes', pods, topics);
    for (const [index, slot] of slots.entries()) await cluster.moveSlot(slot, homes[index] ?? 0);
    await until(async () => (await watched()).every((count) => count === pods.length), { what: 'each node to be probed again' });
    await deliversAgain('their moves back', pods, topics);
    expect([...states()]).toEqual(['up']);
    const inThoseSlots = topics.filter((topic) => slots.some((slot) => sameSlot(slot).includes(topic)));
    for (const { heard } of pods) expect(new Set(heard.interruptions)).toEqual(new Set(inThoseSlots));
  });

  test('hears its own topics after the last raw one was left, and raw ones after the last of its own', async () => {
    const pod = await startPod({ url: cluster.url, mode: 'cluster' });
    await Promise.all(['ws_broadcast', ...spreadTopics].map((topic) => pod.bus.subscribe(topic)));
    pod.bus.unsubscribe('ws_broadcast');
    await deliversAgain('the last raw topic was left', [pod], spreadTopics);
    await pod.bus.subscribe('ws_broadcast');
    for (const topic of spreadTopics) pod.bus.unsubscribe(topic);
    await deliversAgain('only a raw topic was left', [pod], ['ws_broadcast']);
    expect(pod.heard.interruptions).toEqual([]);
  });

  test('keeps raw topics where they are when slots move, once', async () => {
    const slot = calculateSlot('ws_broadcast');
    const from = await ownerOf(slot);
    await cluster.moveSlot(slot, (from + 1) % 3);
    for (const { bus } of pods) expect(bus.subscribe('ws_broadcast')).toBeUndefined();
    await deliversAgain('a raw topic’s slot moved', pods, ['ws_broadcast']);
    for (const { heard } of pods) {
      expect(heard.texts('ws_broadcast')).toHaveLength(new Set(heard.texts('ws_broadcast')).size);
      expect(heard.interruptions).toEqual(sameSlot(slot));
    }
    await cluster.moveSlot(slot, from);
  });

  test.each(['unknown-endpoint', 'hostname', 'ip'])('finds its nodes where they tell of themselves by %s', async (kind) => {
    for (const admin of admins) {
      await admin.call('CONFIG', 'SET', 'cluster-announce-hostname', kind === 'hostname' ? 'localhost' : '');
      await admin.call('CONFIG', 'SET', 'cluster-preferred-endpoint-type', kind);
    }
    const expected = { 'unknown-endpoint': null, hostname: 'localhost', ip: '127.0.0.1' }[kind];
    const hosts = async (admin: Redis) => ((await admin.call('CLUSTER', 'SLOTS')) as [number, number, [string | null]][]).map(([, , [host]]) => host);
    await until(async () => (await Promise.all(admins.map(hosts))).flat().every((host) => host === expected), { what: 'all nodes to say so' });
    const pod = await startPod({ url: cluster.url, mode: 'cluster' });
    await Promise.all(spreadTopics.map((topic) => pod.bus.subscribe(topic)));
    await deliversAgain(`a start by ${kind}`, [pod], spreadTopics);
    const [moved = ''] = spreadTopics;
    const slot = calculateSlot(moved);
    const from = await ownerOf(slot);
    await cluster.moveSlot(slot, (from + 1) % 3);
    await deliversAgain(`a slot’s move by ${kind}`, [pod], spreadTopics);
    await cluster.moveSlot(slot, from);
    await deliversAgain(`a slot’s move back by ${kind}`, [pod], spreadTopics);
    expect(new Set(pod.heard.interruptions)).toEqual(new Set(sameSlot(slot)));
  });

  test('delivers again after a master was killed and started anew', async () => {
    const [, victim] = cluster.nodes;
    const lost = topics.filter((topic) => topic.startsWith(TOPIC_PREFIX));
    const homes = new Map(await Promise.all(lost.map(async (topic) => [topic, await ownerOf(calculateSlot(topic))] as const)));
    await victim?.kill();
    await stateIs('down', pods);
    await victim?.restart();
    await deliversAgain('a killed and restarted master of a Cluster', pods, topics);
    const there = lost.filter((topic) => homes.get(topic) === 1);
    for (const { heard } of pods) expect(heard.interruptions).toEqual(expect.arrayContaining(there));
    for (const { heard } of pods) expect(heard.interruptions.filter((topic) => homes.get(topic) !== 1 && homes.has(topic))).toEqual([]);
    await stateIs('up', pods);
  });

  test('delivers again after a master was killed and its replica took over', async () => {
    const [, , victim] = cluster.nodes;
    const replica = await startReplica(2);
    onTestFinished(() => replica.stop());
    const states = watchStates(pods);
    await victim?.kill();
    const client = replica.client();
    await until(async () => (await client.role())[0] === 'master', { what: 'the replica to take over', timeoutMs: 30_000 });
    await deliversAgain('a failover of a Cluster, from the promotion on', pods, topics);
    await stateIs('up', pods);
    expect([...states()]).not.toContain('deaf');
    // The old master comes back as the new one’s replica, and owns nothing.
    await victim?.restart();
    const old = victim?.client();
    await until(async () => (await old?.role())?.[0] === 'slave', { what: 'the old master to follow', timeoutMs: 30_000 });
    await deliversAgain('its return', pods, topics);
    await stateIs('up', pods);
  });

  /** Starts a replica of a node. */
  async function startReplica(of: number): Promise<RedisServer> {
    const [admin] = admins;
    const master = admins[of];
    const busPort = await freePort();
    const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', '--cluster-announce-ip', '127.0.0.1', '--cluster-port', `${busPort}`];
    const replica = await startRedis({ args: settings });
    const client = replica.client();
    await admin?.call('CLUSTER', 'MEET', '127.0.0.1', replica.port, busPort);
    const id = String(await master?.cluster('MYID'));
    await until(async () => String(await client.call('CLUSTER', 'NODES')).includes(id), { what: 'the replica to be met' });
    await until(() => client.call('CLUSTER', 'REPLICATE', id), { what: 'the replica to follow' });
    await until(async () => (await client.info('replication')).includes('master_link_status:up'), { what: 'the replica to be in sync' });
    await until(async () => String(await admin?.call('CLUSTER', 'NODES')).includes(`slave ${id}`), { what: 'the others to know' });
    return replica;
  }
});

describe('a process that uses the bus', () => {
  const program = `
    const [, mode, url] = process.argv;
    const { RedisBus } = await import(${JSON.stringify(new URL('./redis.ts', import.meta.url).href)});
    const bus = new RedisBus({ address: { url, mode, sentinelName: 'mymaster' }, pod: 'pod', report() {}, onProbe() {}, onReconnect() {} });
    // A gateway has listeners that keep it alive.
    const alive = setInterval(() => {}, 1000);
    const started = bus.start({ message() {}, interrupted() {} }).then(async () => {
      await Promise.all(Array.from({ length: 50 }, (_, index) => bus.subscribe('tg:{c:' + index + '}')));
      console.log('up');
    });
    process.stdin.once('data', async () => {
      const late = bus.publish('tg:{c:1}', Buffer.from('late')).catch(() => {});
      await bus.stop();
      await started;
      await late;
      clearInterval(alive);
      process.stdin.destroy();
      console.log('stopped');
    });
    console.log('begun');`;

  async function run(mode: string, url: string) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, mode, url], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    return {
      says: (word: string) => until(() => output.includes(word), { what: `"${word}"`, timeoutMs: 20_000 }),
      /** Tells it to stop and resolves when it has ended by itself. */
      async end() {
        const ended = once(child, 'exit');
        child.stdin.end('stop');
        await until(() => output.includes('stopped'), { what: 'the bus to stop' });
        const [code] = await until(() => ended, { what: 'the process to end by itself' });
        expect(code).toBe(0);
      },
    };
  }

  test('ends by itself once the bus has stopped, whatever Redis does', async () => {
    const redis = await startRedis();
    onTestFinished(() => redis.stop());
    const up = await run('standalone', redis.url);
    const frozen = await run('standalone', redis.url);
    await Promise.all([up.says('up'), frozen.says('up')]);
    await up.end();
    redis.pause();
    await frozen.end();
    redis.resume();
    const absent = await run('standalone', 'redis://127.0.0.1:1');
    await absent.says('begun');
    await absent.end();
  });

  test('ends by itself with a Cluster, and one that is not there', async () => {
    const cluster = await startCluster();
    onTestFinished(() => cluster.stop());
    const up = await run('cluster', cluster.url);
    await up.says('up');
    await up.end();
    const absent = await run('cluster', 'redis://127.0.0.1:1,127.0.0.1:2');
    await absent.says('begun');
    await absent.end();
  });

  test('ends by itself with Sentinels, and ones that are not there', async () => {
    const group = await startSentinel();
    onTestFinished(() => group.stop());
    const up = await run('sentinel', group.url);
    await up.says('up');
    await up.end();
    const absent = await run('sentinel', 'redis://127.0.0.1:1,127.0.0.1:2');
    await absent.says('begun');
    await absent.end();
  });
});

describe('an address', () => {
  test.each([
    ['http://redis:6379', /redis:\/\//],
    ['redis://', /redis:\/\//],
    ['redis://host:port', /host/],
    ['redis://one,two', /REDIS_MODE/],
    ['redis://:100%@host', /%25/],
  ])('such as %s is refused with what to do', (url, message) => {
    expect(() => openRedisBus({ url })).toThrow(message);
  });
});
