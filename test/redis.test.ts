// The helpers that start Redis: what fails here would be blamed on the gateway elsewhere.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { Cluster, Redis } from 'ioredis';
import { describe, it, type TestContext } from 'vitest';
import { freePort, isFree } from './ports.ts';
import { startCluster, startRedis, startSentinel } from './redis.ts';
import { until } from './until.ts';

describe.concurrent('startRedis', () => {
  it('answers as soon as it has started, and leaves nothing behind when it is stopped', async ({
    expect,
  }) => {
    const redis = await startRedis();
    const client = redis.client();
    expect(await client.ping()).toBe('PONG');
    const dir = await directoryOf(client);
    const { pid } = redis;
    expect(existsSync(dir)).toBe(true);
    await redis.stop();
    expect(isRunning(pid)).toBe(false);
    expect(existsSync(dir)).toBe(false);
    await redis.stop();
  });

  it('takes a port and arguments, and a password that its URL and clients carry', async ({
    expect,
    onTestFinished,
  }) => {
    const port = await freePort();
    const redis = await startRedis({ port, password: 'p@ss/word', args: ['--maxclients', '77'] });
    onTestFinished(() => redis.stop());
    const client = redis.client();
    expect(redis.port).toBe(port);
    expect(await client.call('CONFIG', 'GET', 'maxclients')).toEqual(['maxclients', '77']);
    const other = new Redis(redis.url);
    onTestFinished(() => other.disconnect());
    expect(await other.ping()).toBe('PONG');
    const stranger = redis.client({ password: '' });
    await expect(stranger.ping()).rejects.toThrow(/NOAUTH/);
  });

  it('restarts on the same port and directory, and its clients reconnect', async ({
    expect,
    onTestFinished,
  }) => {
    const redis = await startRedis({ args: ['--appendonly', 'yes'] });
    onTestFinished(() => redis.stop());
    const client = redis.client();
    await client.set('kept', 'yes');
    const { pid } = redis;
    await redis.restart();
    expect(redis.pid).not.toBe(pid);
    expect(await client.get('kept')).toBe('yes');
    await redis.kill();
    expect(isRunning(redis.pid)).toBe(false);
    expect(await isFree(redis.port)).toBe(true);
    await redis.restart();
    expect(await client.get('kept')).toBe('yes');
  });

  it('answers nothing while it is paused, and what was asked when it resumes', async ({
    expect,
    onTestFinished,
  }) => {
    const redis = await startRedis();
    onTestFinished(() => redis.stop());
    const client = redis.client();
    await client.ping();
    redis.pause();
    const asked = client.ping();
    await expect(until(() => asked, { what: 'a frozen server', timeoutMs: 100 })).rejects.toThrow();
    redis.resume();
    expect(await asked).toBe('PONG');
    redis.pause();
    await redis.restart();
    expect(await client.ping()).toBe('PONG');
    redis.pause(); // and a frozen one can be stopped
  });

  it('says why a server did not start', async ({ expect, onTestFinished }) => {
    const redis = await startRedis();
    onTestFinished(() => redis.stop());
    await expect(startRedis({ port: redis.port })).rejects.toThrow(/is not free/);
    await expect(startRedis({ args: ['--maxmemory', 'a lot'] })).rejects.toThrow(/ended at once.*maxmemory/s);
  });

  it('ends with the process that started it, however that one ends', async ({ expect, onTestFinished }) => {
    const program = `
      import { startRedis } from ${JSON.stringify(new URL('./redis.ts', import.meta.url).href)};
      const redis = await startRedis();
      const [, dir] = await redis.client().call('CONFIG', 'GET', 'dir');
      console.log(JSON.stringify({ port: redis.port, dir }));
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    await until(() => output.endsWith('\n'), { what: 'the child to have started a Redis' });
    const { port, dir } = JSON.parse(output) as { port: number; dir: string };
    expect(await isFree(port)).toBe(false);
    child.kill('SIGKILL');
    await until(() => isFree(port), { what: 'the orphaned Redis to end' });
    await until(() => !existsSync(dir), { what: 'its directory to be removed' });
  });
});

describe.concurrent('startSentinel', () => {
  async function start({ onTestFinished }: TestContext) {
    const sentinel = await startSentinel();
    onTestFinished(() => sentinel.stop());
    const sentinels = sentinel.sentinels.map(({ port }) => ({ host: '127.0.0.1', port }));
    const connect = () => {
      const client = new Redis({ sentinels, name: sentinel.name });
      onTestFinished(() => client.disconnect());
      return client;
    };
    return { sentinel, connect };
  }

  it('replicates from the master, fails over to the replica, and back', async (context) => {
    const { expect } = context;
    const { sentinel, connect } = await start(context);
    const ports = sentinel.sentinels.map(({ port }) => `127.0.0.1:${port}`);
    expect(sentinel.url).toBe(`redis://${ports.join(',')}`);
    const before = connect();
    await before.set('written', 'before');
    expect(await before.wait(1, 5000)).toBe(1);

    expect(await sentinel.failover()).toBe(sentinel.replica);
    const after = connect();
    expect(await after.call('CONFIG', 'GET', 'port')).toEqual(['port', String(sentinel.replica.port)]);
    expect(await after.get('written')).toBe('before');

    expect(await sentinel.failover()).toBe(sentinel.master);
    expect(await connect().call('CONFIG', 'GET', 'port')).toEqual(['port', String(sentinel.master.port)]);
  });

  it('fails over by itself when the master is killed, which then comes back as replica', async (context) => {
    const { sentinel } = await start(context);
    const [master, replica] = [sentinel.master.client(), sentinel.replica.client()];
    await sentinel.master.kill();
    await until(async () => (await replica.role())[0] === 'master', { what: 'the replica to take over' });
    await sentinel.master.restart();
    await until(async () => (await master.role())[0] === 'slave', { what: 'the old master to follow' });
  });
});

describe.concurrent('startCluster', () => {
  it('serves every slot, and moves one with its keys to another node', async ({ expect, onTestFinished }) => {
    const cluster = await startCluster();
    onTestFinished(() => cluster.stop());
    const client = new Cluster(cluster.nodes.map(({ port }) => ({ host: '127.0.0.1', port })));
    onTestFinished(() => client.disconnect());
    const slot = 12_182; // of "foo", which the third node has
    await client.set('foo', 'bar');
    await client.set('{foo}2', 'baz');
    const [first, , third] = cluster.nodes.map((node) => node.client());
    expect(await third?.get('foo')).toBe('bar');

    await cluster.moveSlot(slot, 0);
    expect(await first?.get('foo')).toBe('bar');
    await expect(third?.get('foo')).rejects.toThrow(/MOVED 12182/);
    expect(await client.get('{foo}2')).toBe('baz');

    await cluster.moveSlot(slot, 2);
    await cluster.moveSlot(slot, 2);
    expect(await client.get('foo')).toBe('bar');
    await expect(cluster.moveSlot(slot, 3)).rejects.toThrow(/no node 3/);
  });
});

describe.concurrent('until', () => {
  it('says what it waited for, and what came instead', async ({ expect }) => {
    const wait = (condition: () => unknown) => until(condition, { what: 'the tide', timeoutMs: 30 });
    await expect(wait(() => 0)).rejects.toThrow('waited 30 ms for the tide; the last value was 0');
    await expect(wait(() => Promise.reject(new Error('ebb')))).rejects.toThrow(/the tide; .*failed: ebb/);
    await expect(wait(() => new Promise(() => {}))).rejects.toThrow(/the tide; it was never answered/);
  });

  it('resolves with the first truthy value', async ({ expect }) => {
    const values = ['', null, 'flood', 'ebb'];
    expect(await until(() => values.shift(), { what: 'the tide' })).toBe('flood');
  });
});

async function directoryOf(client: Redis): Promise<string> {
  const [, dir = ''] = (await client.call('CONFIG', 'GET', 'dir')) as string[];
  return dir;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
