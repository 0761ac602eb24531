// How the Redis bus gets in: addresses, passwords, users and certificates, and what it says where it does not.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { deliversAgain, openPod, openRedisBus, reasonMatches, startPod } from '../../test/bus.ts';
import { freePort } from '../../test/ports.ts';
import { type RedisServer, startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { channelTopic } from './bus.ts';

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

  test('takes a new password for its next connection, and keeps those that are up', async () => {
    await admin.call('ACL', 'SETUSER', 'rotating', 'on', '>old', '~*', '&*', '+@all');
    const pod = await startPod({ url: `redis://rotating@127.0.0.1:${redis.port}`, password: 'old' });
    await pod.bus.subscribe('ws_rotating');
    const cut = async () => Number(await admin.call('CLIENT', 'KILL', 'USER', 'rotating'));

    pod.address.password = 'new';
    await pod.bus.publish('ws_rotating', Buffer.from('by the old connection'));
    await pod.heard.until('ws_rotating', 'by the old connection');

    await admin.call('ACL', 'SETUSER', 'rotating', '>new', '<old');
    expect(await cut()).toBeGreaterThan(0);
    await deliversAgain('after a rotation', [pod], ['ws_rotating']);

    // The other way round: Redis has the next one first, and the gateway is told of it later.
    await admin.call('ACL', 'SETUSER', 'rotating', '>next', '<new');
    await cut();
    await reasonMatches(pod, /WRONGPASS/);
    expect(pod.probeFailures).toContain('refused');
    pod.address.password = 'next';
    await deliversAgain('after a rotation', [pod], ['ws_rotating']);
  });

  test('gets in as soon as the password is right', async () => {
    const pod = openPod({ url: `redis://late:come@127.0.0.1:${redis.port}` });
    await reasonMatches(pod, /WRONGPASS/);
    await admin.call('ACL', 'SETUSER', 'late', 'on', '>come', '~*', '&*', '+@all');
    await until(() => pod.started.then(() => true), { what: 'the bus to start' });
    expect(pod.bus.health).toEqual({ state: 'up' });
    // No way broke: there was none yet.
    expect(pod.probeFailures).toEqual([]);
  });

  test('is not ready where it may publish and not subscribe, says why, and starts as soon as it may', async () => {
    await acl('-subscribe');
    const pod = openPod({ url: `redis://gateway:s3cret@127.0.0.1:${redis.port}` });
    await reasonMatches(pod, /do not come back to this pod: NOPERM .*subscribe/);
    expect(pod.bus.health.state).toBe('starting');
    await acl('+subscribe');
    await until(() => pod.started.then(() => true), { what: 'the bus to start' });
    expect(pod.bus.health).toEqual({ state: 'up' });
  });

  test('keeps a topic that is not allowed from holding up others', async () => {
    const pod = await startPod({ url: `redis://gateway:s3cret@127.0.0.1:${redis.port}` });
    const allowed = [
      ...Array.from({ length: 50 }, (_, index) => channelTopic(`room:${index}`)),
      'ws_allowed',
    ];
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
