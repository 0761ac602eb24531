// Real Redis servers for tests: one alone, a master with its replica under Sentinel, a Cluster.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis, type RedisOptions } from 'ioredis';
import { freePort, isFree } from './ports.ts';
import { until } from './until.ts';
import { startWatchdog } from './watchdog.ts';

const host = '127.0.0.1';
const slotCount = 16_384;

export type StartOptions = {
  /** Default: a free one. */
  port?: number;
  /** As on the command line: `['--appendonly', 'yes']`. They win over the helper's own. */
  args?: string[];
  /** The default user's, and the one with which it follows a master. */
  password?: string;
};

/** The client's settings, but for the one that changes the type of every reply. */
export type ClientOptions = Omit<RedisOptions, 'replyMapping'>;

export type RedisServer = {
  readonly port: number;
  /** For `REDIS_URL`, with the password if there is one. */
  readonly url: string;
  /** Of the running process; after `restart` another one. */
  readonly pid: number;
  /** Ends the process with a signal that ends it (default SIGKILL), and waits until it is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Starts it again on the same port and directory, after an orderly end if it was running. */
  restart(): Promise<void>;
  /** Freezes it: connections stay open and nothing is answered, until `resume`. */
  pause(): void;
  resume(): void;
  /** A new client, closed by `stop`. It reconnects every 20 ms, so that it is soon back after a restart. */
  client(options?: ClientOptions): Redis;
  /** Ends the process and removes its directory; the second call does nothing. */
  stop(): Promise<void>;
};

export type RedisSentinel = {
  /** The three sentinels, for `REDIS_URL`. */
  readonly url: string;
  /** What the sentinels call the master. */
  readonly name: string;
  /** The server that began as master; after `failover` the other one is. */
  readonly master: RedisServer;
  /** The server that began as replica. */
  readonly replica: RedisServer;
  readonly sentinels: readonly RedisServer[];
  /**
   * Makes the replica master, and returns it once it is and every sentinel says so: 1 s the first time. The
   * old master becomes a replica some 4 s later, and only then can another `failover` go back to it; a
   * master killed within 4 s of a failover is replaced only after them.
   */
  failover(): Promise<RedisServer>;
  stop(): Promise<void>;
};

export type RedisCluster = {
  /** Every node, for `REDIS_URL`. */
  readonly url: string;
  readonly nodes: readonly RedisServer[];
  /** Moves a slot with its keys to another node, and waits until all nodes know. */
  moveSlot(slot: number, toIndex: number): Promise<void>;
  stop(): Promise<void>;
};

/**
 * Starts a Redis that keeps nothing on disk, and waits until it answers.
 *
 * @example
 * const redis = await startRedis();
 * afterAll(() => redis.stop());
 */
export async function startRedis({ port, args = [], password }: StartOptions = {}): Promise<RedisServer> {
  const auth = password === undefined ? [] : ['--requirepass', password, '--masterauth', password];
  // A replica would otherwise get its first copy five seconds late.
  const quick = ['--save', '', '--repl-diskless-sync-delay', '0'];
  return launch({
    port: port ?? (await freePort()),
    password,
    config: '',
    args: [...quick, ...auth, ...args],
  });
}

/** Starts a master, a replica that is in sync, and three sentinels that know each other (quorum 2). */
export async function startSentinel(): Promise<RedisSentinel> {
  const name = 'mymaster';
  const master = await startRedis();
  const replica = await startReplica(master);
  const peers = await Promise.all(
    [1, 2, 3].map(async () => ({ port: await freePort(), id: randomBytes(20).toString('hex') })),
  );
  const sentinels = await Promise.all(
    peers.map(({ port, id }) =>
      launch({
        port,
        password: undefined,
        // Introduced by configuration, because finding each other takes sentinels some seconds.
        config: [
          `sentinel myid ${id}`,
          `sentinel monitor ${name} ${host} ${master.port} 2`,
          `sentinel down-after-milliseconds ${name} 500`,
          `sentinel failover-timeout ${name} 2000`,
          `sentinel known-replica ${name} ${host} ${replica.port}`,
          ...peers
            .filter((peer) => peer.id !== id)
            .map((peer) => `sentinel known-sentinel ${name} ${host} ${peer.port} ${peer.id}`),
        ].join('\n'),
        args: ['--sentinel'],
      }),
    ),
  );
  const admins = sentinels.map((sentinel) => sentinel.client());
  // Quicker than the defaults, within two bounds. A replica counts as good if it has told about itself within
  // five ping periods, and while the master is down it is asked once a second. A server that has become
  // master is made a replica again, by sentinels that do not know why, after four publish periods, and a
  // failover takes a second, on a busy machine two.
  const periods = ['ping-period', '300', 'info-period', '200', 'publish-period', '1000'];
  await each(admins, (admin) => admin.call('SENTINEL', 'DEBUG', ...periods));
  await each(admins, (admin) =>
    until(() => admin.call('SENTINEL', 'CKQUORUM', name), { what: 'a quorum of sentinels' }),
  );
  // Only from then on would they fail over to it.
  await each(admins, (admin) =>
    until(() => isKnownToFollow(admin, name), { what: 'every sentinel to know the replica' }),
  );

  return {
    url: urlOf(sentinels),
    name,
    master,
    replica,
    sentinels,
    async failover() {
      const [first] = admins;
      if (!first) throw new Error('there is no sentinel');
      const target = (await masterPort(first, name)) === master.port ? replica : master;
      // A former master follows only after a while. Promoted before every sentinel has seen that, its being
      // master is no news to them: they wait in vain for the change, or make it a replica after all.
      const client = target.client();
      await until(() => isInSync(client), { what: `the server on ${target.port} to follow the master` });
      await each(admins, (admin) =>
        until(() => isKnownToFollow(admin, name), { what: 'every sentinel to know that it follows' }),
      );
      await until(() => first.call('SENTINEL', 'FAILOVER', name), { what: 'a failover to be accepted' });
      await until(async () => (await client.role())[0] === 'master', { what: 'the replica to be master' });
      await each(admins, (admin) =>
        until(async () => (await masterPort(admin, name)) === target.port, {
          what: 'every sentinel to know',
        }),
      );
      return target;
    },
    // The sentinels first, so that none of them acts on the end of the others.
    async stop() {
      await each(sentinels, (sentinel) => sentinel.stop());
      await each([master, replica], (server) => server.stop());
    },
  };
}

/** Starts a Cluster without replicas, its slots divided evenly, and waits until every node calls it ok. */
export async function startCluster(masters = 3): Promise<RedisCluster> {
  const nodes = await Promise.all(Array.from({ length: masters }, startClusterNode));
  const admins = nodes.map((node) => node.client());
  const ids = await each(admins, async (admin) => String(await admin.call('CLUSTER', 'MYID')));
  await each(admins, async (admin, index) => {
    const from = Math.floor((index * slotCount) / masters);
    const to = Math.floor(((index + 1) * slotCount) / masters) - 1;
    await admin.call('CLUSTER', 'ADDSLOTSRANGE', from, to);
    await admin.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1);
  });
  await each(admins, async (admin) => {
    for (const { port, busPort } of nodes) await admin.call('CLUSTER', 'MEET', host, port, busPort);
  });
  await each(admins, (admin, index) =>
    until(() => isClusterOk(admin, masters), { what: `cluster node ${index} to be ok` }),
  );

  return {
    url: urlOf(nodes),
    nodes,
    async moveSlot(slot, toIndex) {
      const [target, targetId, targetNode] = [admins[toIndex], ids[toIndex], nodes[toIndex]];
      if (!target || !targetId || !targetNode) throw new Error(`the cluster has no node ${toIndex}`);
      const fromPort = await slotPort(target, slot);
      const fromIndex = nodes.findIndex((node) => node.port === fromPort);
      const [source, sourceId] = [admins[fromIndex], ids[fromIndex]];
      if (!source || !sourceId) throw new Error(`no node of the cluster has slot ${slot}`);
      if (source === target) return;

      await target.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', sourceId);
      await source.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', targetId);
      for (;;) {
        const keys = (await source.call('CLUSTER', 'GETKEYSINSLOT', slot, 1000)) as string[];
        if (keys.length === 0) break;
        await source.call('MIGRATE', host, targetNode.port, '', 0, 5000, 'KEYS', ...keys);
      }
      // The target first: until it owns the slot, the source must go on sending clients there with ASK.
      const others = admins.filter((admin) => admin !== target);
      for (const admin of [target, ...others]) await admin.call('CLUSTER', 'SETSLOT', slot, 'NODE', targetId);
      await each(admins, (admin) =>
        until(async () => (await slotPort(admin, slot)) === targetNode.port, {
          what: `slot ${slot} to move`,
        }),
      );
      // Until all know that this was its last change, what they hear of older ones can undo the move.
      const epoch = await configEpoch(target, targetId);
      await each(admins, (admin) =>
        until(async () => (await configEpoch(admin, targetId)) >= epoch, {
          what: `the move of slot ${slot} to stay`,
        }),
      );
    },
    async stop() {
      await each(nodes, (node) => node.stop());
    },
  };
}

type Launch = { port: number; password: string | undefined; config: string; args: string[] };

async function launch({ port, password, config, args }: Launch): Promise<RedisServer> {
  const dir = await mkdtemp(join(tmpdir(), 'tidegate-redis-'));
  const logFile = join(dir, 'redis.log');
  const configFile = join(dir, 'redis.conf');
  // A file, because Sentinel and Cluster write what has changed back into it, and a restart finds it there.
  await writeFile(configFile, `port ${port}\nbind ${host}\ndir ${dir}\n${config}\n`);
  const watchdog = startWatchdog(dir);
  const clients = new Set<Redis>();
  let child: ChildProcess;
  let restarting: Promise<void> | undefined;
  let stopping: Promise<void> | undefined;
  try {
    child = await run();
  } catch (error) {
    await watchdog.end();
    throw error;
  }

  async function run(): Promise<ChildProcess> {
    // Otherwise the server that has the port would answer for the one that ends for want of it.
    if (!(await isFree(port))) throw new Error(`port ${port} is not free for redis-server`);
    const log = await open(logFile, 'a');
    const output = ['ignore', log.fd, log.fd] as const;
    const started = spawn('redis-server', [configFile, ...args], { stdio: [...output], detached: false });
    await once(started, 'spawn').finally(() => log.close());
    watchdog.watch(started.pid);
    const state = await until(async () => (hasEnded(started) ? 'ended' : answers(port)), {
      what: `redis-server on port ${port} to answer`,
    });
    if (state === 'ended') {
      const lines = (await readFile(logFile, 'utf8')).trim().split('\n');
      throw new Error(`redis-server on port ${port} ended at once:\n${lines.slice(-5).join('\n')}`);
    }
    return started;
  }

  async function kill(signal: NodeJS.Signals): Promise<void> {
    if (hasEnded(child)) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT'); // a stopped process would never get it
    await ended;
    watchdog.watch(undefined);
  }

  async function restart(): Promise<void> {
    await kill('SIGTERM');
    child = await run();
  }

  async function stop(): Promise<void> {
    await restarting?.catch(() => {}); // its caller is told
    for (const client of clients) client.disconnect();
    await kill('SIGKILL');
    await watchdog.end();
  }

  const userInfo = password === undefined ? '' : `:${encodeURIComponent(password)}@`;
  return {
    port,
    url: `redis://${userInfo}${host}:${port}`,
    get pid() {
      if (child.pid === undefined) throw new Error(`redis-server on port ${port} has no process`);
      return child.pid;
    },
    kill: (signal = 'SIGKILL') => kill(signal),
    restart() {
      if (stopping) throw new Error(`redis-server on port ${port} has been stopped`);
      restarting = restart();
      return restarting;
    },
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    client(options = {}) {
      const auth = password === undefined ? {} : { password };
      const client = new Redis({ host, port, ...auth, retryStrategy: () => 20, ...options });
      client.on('error', () => {}); // tests end servers on purpose; what matters, the commands tell
      clients.add(client);
      return client;
    },
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}

async function startReplica(master: RedisServer): Promise<RedisServer> {
  const replica = await startRedis({ args: ['--replicaof', host, String(master.port)] });
  const client = replica.client();
  await until(() => isInSync(client), { what: 'the replica to be in sync' });
  return replica;
}

async function startClusterNode(): Promise<RedisServer & { busPort: number }> {
  const busPort = await freePort();
  const cluster = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];
  const address = ['--cluster-announce-ip', host, '--cluster-port', String(busPort)];
  return Object.assign(await startRedis({ args: [...cluster, ...address] }), { busPort });
}

/** Whether a server answers PING; that it asks for a password is an answer, that it still loads is not. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host, () => socket.write('PING\r\n'));
    const finish = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1000, () => finish(false));
    socket.once('error', () => finish(false));
    socket.once('close', () => finish(false));
    socket.once('data', (data) => finish(/^(\+PONG|-NOAUTH)/.test(data.toString())));
  });
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

async function isInSync(replica: Redis): Promise<boolean> {
  return (await replica.info('replication')).includes('master_link_status:up');
}

async function isKnownToFollow(sentinel: Redis, name: string): Promise<boolean> {
  const [replica = []] = (await sentinel.call('SENTINEL', 'REPLICAS', name)) as string[][];
  const field = (key: string) => replica[replica.indexOf(key) + 1];
  return field('role-reported') === 'slave' && field('master-link-status') === 'ok';
}

async function masterPort(sentinel: Redis, name: string): Promise<number> {
  const [, port] = (await sentinel.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name)) as [string, string];
  return Number(port);
}

async function isClusterOk(node: Redis, size: number): Promise<boolean> {
  const info = String(await node.call('CLUSTER', 'INFO'));
  return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${size}\r`);
}

async function slotPort(node: Redis, slot: number): Promise<number | undefined> {
  const ranges = (await node.call('CLUSTER', 'SLOTS')) as [number, number, [string, number]][];
  return ranges.find(([from, to]) => from <= slot && slot <= to)?.[2][1];
}

/** The number of a node's last change, as another one has heard of it. */
async function configEpoch(node: Redis, id: string): Promise<number> {
  const lines = String(await node.call('CLUSTER', 'NODES')).split('\n');
  return Number(lines.find((line) => line.startsWith(id))?.split(' ')[6]);
}

function urlOf(servers: readonly RedisServer[]): string {
  return `redis://${servers.map(({ port }) => `${host}:${port}`).join(',')}`;
}

function each<T, R>(items: readonly T[], work: (item: T, index: number) => R | Promise<R>): Promise<R[]> {
  return Promise.all(items.map(work));
}
