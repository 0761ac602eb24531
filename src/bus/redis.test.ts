// The Redis bus when something goes wrong: whatever happens to Redis or to the line, it comes back by itself, and
// says exactly what may be missing.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import {
  deliversAgain,
  interruptionsAre,
  openPod,
  openRedisBus,
  printMeasurements,
  reasonMatches,
  startBusProcess,
  startPod,
  startRedisBus,
  stateIs,
  type TestRedisBus,
  watchStates,
} from '../../test/bus.ts';
import { freePort } from '../../test/ports.ts';
import { startProxy, type TcpProxy } from '../../test/proxy.ts';
import { type RedisServer, startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { readinessOf } from '../gateway/admin.ts';
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
    const all = await until(() => Promise.all(codes), { what: 'every publish to end', timeoutMs: 10_000 });
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
    await until(() => proxy.accepted >= before + 4, { what: 'the bus to try again', timeoutMs: 30_000 });
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
      timeoutMs: 20_000,
    });
    proxy.resume();
    await deliversAgain('after a silence of the subscriber’s alone', [pod], topics);
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
    [
      'an ACL user beside the URL',
      () => ({ url: `redis://127.0.0.1:${redis.port}`, username: 'gateway', password: 's3cret' }),
    ],
    [
      'a user in the URL and his password beside it',
      () => ({ url: `redis://gateway@127.0.0.1:${redis.port}`, password: 's3cret' }),
    ],
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
    [
      'a wrong password of a Cluster',
      () => ({ url: `redis://:wrong@127.0.0.1:${redis.port}`, mode: 'cluster' as const }),
      /WRONGPASS/,
    ],
    [
      'a server that is no Cluster',
      () => ({ url: redis.url, mode: 'cluster' as const }),
      /cluster support disabled/,
    ],
    [
      'a server that is no Sentinel',
      () => ({ url: redis.url, mode: 'sentinel' as const, sentinelPassword: 'p@ss/w:rd' }),
      /unknown command .*sentinel/i,
    ],
  ])('says of %s that it is the reason', async (_, address, reason) => {
    const pod = openPod(address());
    await reasonMatches(pod, reason);
    expect(pod.bus.health.state).toBe('starting');
    expect(pod.bus.health.reason).not.toMatch(/wrong\b|s3cret/);
    await expect(pod.bus.publish('ws_broadcast', Buffer.from('out'))).rejects.toMatchObject({
      code: 'bus_unavailable',
    });
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
    const waits = [
      pod.bus.subscribe('other_programs')?.then(() => (refused = false)),
      ...allowed.map((topic) => pod.bus.subscribe(topic)),
    ];
    await deliversAgain('beside a topic that is not allowed', [pod], allowed);
    expect(refused).toBe(true);
    // It is tried again and again, but told once.
    await until(() => pod.reports.length > 0, { what: 'the refusal to be reported' });
    await deliversAgain('beside a topic that is still not allowed', [pod], allowed);
    expect(pod.reports).toEqual([expect.stringMatching(/^bus\.subscribe: NOPERM /)]);
    expect(pod.bus.health).toEqual({ state: 'up' });
    await acl('&other_*');
    await Promise.all(waits);
    await deliversAgain('after a permission', [pod], ['other_programs']);
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
    openssl(
      'req',
      '-x509',
      ...key,
      '-CA',
      'ca.crt',
      '-CAkey',
      'ca.key',
      '-keyout',
      'redis.key',
      '-out',
      'redis.crt',
      '-subj',
      '/CN=redis',
      '-addext',
      names,
      '-addext',
      'basicConstraints=critical,CA:FALSE',
    );
    port = await freePort();
    const tls = [
      '--tls-port',
      `${port}`,
      '--tls-cert-file',
      file('redis.crt'),
      '--tls-key-file',
      file('redis.key'),
      '--tls-ca-cert-file',
      caFile,
      '--tls-auth-clients',
      'no',
    ];
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
    await deliversAgain('after CLIENT KILL, with TLS', [pod], ['ws_broadcast']);
  });

  test('is not trusted without the authority that signed it', async () => {
    const pod = openPod({ url: `rediss://:s3cret@127.0.0.1:${port}` });
    await reasonMatches(pod, /certificate/);
    expect(pod.bus.health.state).toBe('starting');
  });

  test('is told from one without', async () => {
    const pod = openPod({ url: `rediss://:s3cret@127.0.0.1:${redis.port}`, caFile });
    // It waits for the end of what it takes for a command.
    await reasonMatches(pod, /ETIMEDOUT/);
  });

  test('needs a file with certificates that exists', () => {
    expect(() => openRedisBus({ url: 'rediss://127.0.0.1:1', caFile: file('none.crt') })).toThrow(
      /none\.crt/,
    );
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
