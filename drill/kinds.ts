// The kinds of faults: what each needs, what it does, and what it has then done.

import { statSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import calculateSlot from 'cluster-key-slot';
import { startProxy } from '../test/proxy.ts';
import type { Random } from '../test/random.ts';
import { type RedisServer, startCluster, startRedis, startSentinel } from '../test/redis.ts';
import { until } from '../test/until.ts';
import type { Publication } from './checker.ts';
import type { Load } from './load.ts';
import { startRedisProxy } from './proxy.ts';
import type { Stage } from './stage.ts';

/** What a fault has done. */
export interface Struck {
  /** When it was over: from then on everything can be repaired. */
  readonly overAtMs: number;
  /** The message by which the repair is known. Undefined: the first that is published after. */
  readonly probe?: Publication;
}

/** A fault that is ready to happen. */
export interface Strike {
  /** Which of its forms the seed has chosen. */
  readonly form: string;
  /** Redis may lose what it has acknowledged without a trace. Who was away meanwhile could not know. */
  readonly loses?: boolean;
  /** Makes it happen and end, while the load goes on. */
  strike(load: Load): Promise<Struck>;
}

/** A kind of fault. */
export interface Kind {
  readonly namespace: 'drill' | 'lossy';
  /** Characters of padding in each message, at least. */
  readonly padding: number;
  /** Puts Redis and gateways on the stage. */
  prepare(stage: Stage, random: Random): Promise<Strike>;
}

const host = '127.0.0.1';

/** What happens to a Redis that is killed and started again. */
async function prepareRestart(stage: Stage, random: Random): Promise<Strike> {
  const form = random.pick([
    'appendfsync always',
    'appendfsync everysec',
    'appendfsync everysec, last second lost',
  ]);
  const fsync = form.includes('always') ? 'always' : 'everysec';
  const redis = await putRedis(stage, ['--appendonly', 'yes', '--appendfsync', fsync]);
  await stage.startGateways(gateways(random, redis.url));
  const losesTail = form.endsWith('lost');
  const [beforeMs, downMs, lostMs] = [
    random.integer(100, 800),
    random.integer(0, 1200),
    random.integer(50, 1000),
  ];
  return {
    form,
    loses: losesTail,
    async strike() {
      const file = await appendOnlyFile(redis);
      const sizes: { atMs: number; bytes: number }[] = [];
      const look = () => sizes.push({ atMs: performance.now(), bytes: statSync(file).size });
      const looking = setInterval(look, 10);
      look();
      await sleep(beforeMs + (losesTail ? lostMs : 0));
      clearInterval(looking);
      const killedAtMs = performance.now();
      await redis.kill();
      if (losesTail) {
        // A killed process loses nothing that it has written; a machine without power, what it has not synced.
        const kept = sizes.findLast(({ atMs }) => atMs <= killedAtMs - lostMs) ?? sizes[0];
        await truncate(file, kept?.bytes ?? 0);
      }
      await sleep(downMs);
      await redis.restart();
      return { overAtMs: performance.now() };
    },
  };
}

/** What happens at a failover to a replica that had fallen behind. */
async function prepareFailover(stage: Stage, random: Random): Promise<Strike> {
  const bySentinel = random.chance(0.25);
  const [lost, downMs] = [random.integer(10, 80), random.integer(0, 800)];
  const { master, replica, settings, promote } = bySentinel
    ? await withSentinel(stage)
    : await withAddress(stage);
  stage.master = () => replica.client();
  await stage.startGateways(gateways(random, '', settings));
  return {
    form: bySentinel ? 'Sentinel' : 'address that follows the master',
    loses: true,
    async strike(load) {
      const admin = master.client();
      // The replica is cut off for good, so that what it has not got it never will.
      await admin.call('ACL', 'SETUSER', 'default', '-psync', '-sync');
      await admin.call('CLIENT', 'KILL', 'TYPE', 'replica');
      await load.goOn(lost);
      await master.kill();
      await sleep(downMs);
      await promote();
      return { overAtMs: performance.now() };
    },
  };
}

async function withSentinel(stage: Stage) {
  const sentinel = await startSentinel();
  stage.onStop(() => sentinel.stop());
  const { master, replica, url } = sentinel;
  const client = replica.client();
  return {
    master,
    replica,
    settings: { REDIS_MODE: 'sentinel', REDIS_URL: url },
    promote: async () => {
      await until(async () => (await client.role())[0] === 'master', {
        what: 'a failover',
      });
    },
  };
}

async function withAddress(stage: Stage) {
  const master = await putRedis(stage);
  const replica = await putRedis(stage, ['--replicaof', host, String(master.port)]);
  const client = replica.client();
  await until(async () => (await client.info('replication')).includes('master_link_status:up'), {
    what: 'a replica',
  });
  const proxy = await startRedisProxy(master.port);
  stage.onStop(() => proxy.stop());
  return {
    master,
    replica,
    settings: { REDIS_URL: `redis://${host}:${proxy.port}` },
    promote: async () => {
      await client.call('REPLICAOF', 'NO', 'ONE');
      proxy.aim(replica.port);
    },
  };
}

/** What happens to a gateway that is cut off from Redis. */
async function preparePartition(stage: Stage, random: Random): Promise<Strike> {
  const form = random.pick(['stall, then reset', 'stall, then resume', 'reset and refuse']);
  const redis = await putRedis(stage);
  const proxy = await startProxy({ target: redis.port });
  stage.onStop(() => proxy.stop());
  const [away, ...others] = gateways(random, redis.url);
  await stage.startGateways([{ ...away, REDIS_URL: `redis://${host}:${proxy.port}` }, ...others]);
  const [stallMs, refuseMs] = [random.integer(300, 4000), random.integer(0, 1000)];
  return {
    form,
    async strike() {
      if (form.startsWith('stall')) {
        proxy.stall();
        await sleep(stallMs);
      }
      if (form.endsWith('resume')) proxy.resume();
      else {
        proxy.refuse();
        proxy.reset();
        proxy.resume();
        await sleep(refuseMs);
        proxy.accept();
      }
      return { overAtMs: performance.now() };
    },
  };
}

/** What happens when the last message of a burst does not reach a gateway, and nothing comes after it. */
async function prepareSilence(stage: Stage, random: Random): Promise<Strike> {
  const redis = await putRedis(stage);
  const proxy = await startRedisProxy(redis.port);
  stage.onStop(() => proxy.stop());
  const [deaf, ...others] = gateways(random, redis.url);
  await stage.startGateways([{ ...deaf, REDIS_URL: `redis://${host}:${proxy.port}` }, ...others]);
  const burst = random.integer(0, 200);
  return {
    form: 'one message',
    async strike(load) {
      await load.goOn(burst);
      await load.rest();
      const key = `"${load.publishers[0]?.nextKey}"`;
      const swallowed = proxy.swallow(key);
      const [probe] = await Promise.all([load.last(), swallowed]);
      const overAtMs = performance.now();
      // Where it does not come, that is found out afterwards, by what comes next or by the time it took.
      await load.seen(probe).catch(() => {});
      load.publish();
      return { overAtMs, probe };
    },
  };
}

/** What happens to the clients of a gateway that is gone from one moment to the next. */
async function prepareKill(stage: Stage, random: Random): Promise<Strike> {
  const redis = await putRedis(stage);
  const settings = gateways(random, redis.url);
  await stage.startGateways(settings);
  const [index, beforeMs] = [random.integer(0, settings.length - 1), random.integer(0, 600)];
  const comesBack = random.chance(0.5);
  return {
    form: comesBack ? 'and started again' : 'for good',
    async strike() {
      await sleep(beforeMs);
      await stage.hide(index).stop('SIGKILL');
      const overAtMs = performance.now();
      if (comesBack) await stage.replace(index);
      return { overAtMs };
    },
  };
}

/** What happens when every gateway is replaced, one after the other. */
async function prepareRoll(stage: Stage, random: Random): Promise<Strike> {
  const redis = await putRedis(stage);
  const settings = gateways(random, redis.url);
  await stage.startGateways(settings);
  return {
    form: `${settings.length} gateways`,
    async strike() {
      for (const index of settings.keys()) {
        const ended = stage.hide(index).stop('SIGTERM');
        await stage.replace(index);
        const code = await ended;
        if (code !== 0) throw new Error(`a gateway that was asked to stop ended with ${code}`);
      }
      return { overAtMs: performance.now() };
    },
  };
}

/** What happens when a Cluster gives the channel to another node. */
async function prepareMove(stage: Stage, random: Random): Promise<Strike> {
  const cluster = await startCluster();
  stage.onStop(() => cluster.stop());
  await stage.startGateways(gateways(random, cluster.url, { REDIS_MODE: 'cluster' }));
  const slot = calculateSlot(stage.streamKey);
  const begin = Math.floor((slot * cluster.nodes.length) / 16_384);
  const ways = [random.integer(1, 2), random.integer(1, 2)].slice(0, random.integer(1, 2));
  const pauseMs = random.integer(0, 500);
  return {
    form: ways.length === 1 ? 'once' : 'twice',
    async strike() {
      let at = begin;
      for (const way of ways) {
        await sleep(pauseMs);
        at = (at + way) % cluster.nodes.length;
        await cluster.moveSlot(slot, at);
      }
      stage.master = () => {
        const node = cluster.nodes[at];
        if (node === undefined) throw new Error(`the cluster has no node ${at}`);
        return node.client();
      };
      return { overAtMs: performance.now() };
    },
  };
}

/** What happens when somebody deletes a channel, or a part of it, or everything. */
async function prepareFlush(stage: Stage, random: Random): Promise<Strike> {
  const form = random.pick(['stream and head', 'every key of the channel', 'FLUSHALL', 'stream', 'head']);
  const redis = await putRedis(stage);
  await stage.startGateways(gateways(random, redis.url));
  const beforeMs = random.integer(0, 1500);
  return {
    form,
    async strike() {
      const client = redis.client();
      const { headKey, streamKey } = stage;
      await sleep(beforeMs);
      switch (form) {
        case 'stream and head':
          await client.del(streamKey, headKey);
          break;
        case 'every key of the channel':
          await client.eval(
            `return redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))`,
            0,
            `tg:{c:${stage.channel}}:*`,
          );
          break;
        case 'FLUSHALL':
          await client.flushall();
          break;
        case 'head':
          await client.del(headKey);
          break;
        default: {
          // The head lives on, and so does the branch: what was in the stream is old, not lost.
          const [removed] = (await client.multi().xrange(streamKey, '-', '+').del(streamKey).exec()) ?? [];
          for (const position of positionsOf(removed?.[1])) stage.removed.add(position);
        }
      }
      return { overAtMs: performance.now() };
    },
  };
}

/** What happens to a reader that reads nothing for a while, where the namespace drops messages rather than readers. */
async function prepareSlow(stage: Stage, random: Random): Promise<Strike> {
  const redis = await putRedis(stage);
  await stage.startGateways(gateways(random, redis.url));
  const moreMs = random.integer(0, 500);
  return {
    form: 'one reader',
    async strike(load) {
      // The last one goes from gateway to gateway.
      const index = random.integer(0, load.subscribers.length - 2);
      const gateway = stage.gateway(load.homeOf(index));
      load.subscribers[index]?.pause();
      const dropped = () => gateway.metric('tidegate_slow_consumers_total', { action: 'drop' });
      await until(async () => (await dropped()) > 0, {
        what: 'the reader to be too slow',
      });
      await sleep(moreMs);
      load.subscribers[index]?.resume();
      return { overAtMs: performance.now() };
    },
  };
}

/** Every kind, by its name. */
export const kinds = {
  restart: { namespace: 'drill', padding: 0, prepare: prepareRestart },
  failover: { namespace: 'drill', padding: 0, prepare: prepareFailover },
  partition: { namespace: 'drill', padding: 0, prepare: preparePartition },
  silence: { namespace: 'drill', padding: 0, prepare: prepareSilence },
  kill: { namespace: 'drill', padding: 0, prepare: prepareKill },
  roll: { namespace: 'drill', padding: 0, prepare: prepareRoll },
  move: { namespace: 'drill', padding: 0, prepare: prepareMove },
  flush: { namespace: 'drill', padding: 0, prepare: prepareFlush },
  slow: { namespace: 'lossy', padding: 16_000, prepare: prepareSlow },
} as const satisfies Record<string, Kind>;

export type KindName = keyof typeof kinds;

export const kindNames = Object.keys(kinds) as KindName[];

/** The positions, as texts, in an answer of XRANGE on a stream of the log. */
export function positionsOf(entries: unknown): string[] {
  if (!Array.isArray(entries)) return [];
  return (entries as [string, string[]][]).map(
    ([number, [, id]]) => `${number.slice(0, number.indexOf('-'))}-${id}`,
  );
}

async function putRedis(stage: Stage, args: string[] = []): Promise<RedisServer> {
  const redis = await startRedis({ args });
  stage.onStop(() => redis.stop());
  stage.master = () => redis.client();
  return redis;
}

/** The settings of two or three gateways. */
function gateways(
  random: Random,
  url: string,
  more: Readonly<Record<string, string>> = {},
): Record<string, string>[] {
  return Array.from({ length: random.integer(2, 3) }, () => ({ REDIS_URL: url, ...more }));
}

/** The file that Redis appends to. */
async function appendOnlyFile(redis: RedisServer): Promise<string> {
  const [, dir] = (await redis.client().call('CONFIG', 'GET', 'dir')) as [string, string];
  return join(dir, 'appendonlydir', 'appendonly.aof.1.incr.aof');
}
