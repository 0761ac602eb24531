// Servers: how each server under test is started, and how the load clients speak to it.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { freePort } from '../test/ports.ts';
import { type Launch, type Started, start } from './process.ts';
import { root, type Tools } from './tools.ts';
import { accepts, answersOk, waitUntil } from './wait.ts';

/** What wsload says to a server. The pad makes the frame that a receiver gets 200 bytes long. */
export interface Dialect {
  readonly path: string;
  readonly message: string;
  readonly pad: number;
  readonly subscribe?: string;
}

/** What rooms-client says to a server; `%room%` is the room's number. */
export interface RoomsDialect extends Dialect {
  readonly header?: string;
}

/** A server that is ready, with how long that took. */
export interface Running extends Started {
  readonly port: number;
  readonly readyMs: number;
}

export type ServerId = 'c' | 'c-write' | 'tidegate' | 'tidegate+redis' | 'plain-ws' | 'socket.io' | TracedId;

/** The same gateway without traces, and with ever more of them. */
type TracedId = 'traces-off' | 'traces-0' | 'traces-1' | 'traces-100';

export interface Server {
  readonly id: ServerId;
  readonly title: string;
  readonly dialect: Dialect;
  readonly rooms?: RoomsDialect;
  /** Whether a first load may be thrown away. wslimit needs none, and dies of SIGPIPE when clients leave it. */
  readonly canWarm: boolean;
  /** Whether it has durable channels. */
  readonly keeps: boolean;
  start(): Promise<Running>;
  /** Starts the same server from one bundled file, with V8's compile cache. */
  startBundled?: () => Promise<Running>;
}

/** In the order of the table. */
export const serverIds: readonly ServerId[] = [
  'c',
  'c-write',
  'tidegate',
  'tidegate+redis',
  'plain-ws',
  'socket.io',
];

/** Measured with `--traces`. */
export const tracedIds: readonly TracedId[] = ['traces-off', 'traces-0', 'traces-1', 'traces-100'];

/** Where servers run and what they need; `redisUrl` is unset where there is no Redis. */
export interface Surroundings {
  readonly tools: Tools;
  readonly core: number | undefined;
  readonly redisUrl: string | undefined;
  /** Where spans go; unset where nobody is to be traced. */
  readonly otlpUrl: string | undefined;
  readonly compileCache: string;
}

const broadcast: Dialect = { path: '/ws/u%d', message: '%STAMP%', pad: 155 };
const verbatim: Dialect = { path: '/ws/u%d', message: '%STAMP%', pad: 180 };
const engineIo = '/socket.io/?EIO=4&transport=websocket';

const limits = { MESSAGE_RATE: '0', BYTE_RATE: '0', UPGRADE_RATE: '0', MAX_CONNECTIONS_PER_USER: '0' };
const open = { subscribe: 'anyone', publish: 'anyone' };
const namespaces = JSON.stringify({
  namespaces: { room: open, doc: { ...open, durable: { messages: 10_000, ageSeconds: 3600 } } },
});

const tracedShares: Readonly<Record<TracedId, { title: string; share?: string }>> = {
  'traces-off': { title: 'traces off' },
  'traces-0': { title: '0 % traced', share: '0' },
  'traces-1': { title: '1 % traced', share: '0.01' },
  'traces-100': { title: 'all traced', share: '1' },
};

/** Every server that can be started with what there is. */
export function availableServers(surroundings: Surroundings): Server[] {
  const { tools, redisUrl, otlpUrl } = surroundings;
  const servers: Server[] = [];
  if (tools.gateway !== undefined && otlpUrl !== undefined) {
    for (const id of tracedIds) servers.push(traced(id, tools.gateway, surroundings, otlpUrl));
  }
  if (tools.limitServer !== undefined) {
    servers.push(limitServer('c', 'C, coalescing', ['coalesce'], tools.limitServer, surroundings));
    servers.push(limitServer('c-write', 'C, a write a message', [], tools.limitServer, surroundings));
  }
  if (tools.gateway !== undefined) {
    servers.push(tidegate('tidegate', 'Tidegate, memory', tools.gateway, surroundings));
  }
  if (redisUrl === undefined) return servers;
  if (tools.gateway !== undefined) {
    servers.push(tidegate('tidegate+redis', 'Tidegate, Redis', tools.gateway, surroundings, redisUrl));
  }
  servers.push(plainWs(redisUrl, surroundings), socketIo(redisUrl, surroundings));
  return servers;
}

function limitServer(id: ServerId, title: string, mode: string[], program: string, at: Surroundings): Server {
  return {
    id,
    title,
    dialect: verbatim,
    canWarm: false,
    keeps: false,
    start: () =>
      startReady(at, (port) => ({ name: title, command: program, args: [String(port), ...mode] }), accepts),
  };
}

/** A raw channel carries nothing but payloads, and so no trace: here the plain one is none. */
function traced(id: TracedId, gateway: string, at: Surroundings, otlpUrl: string): Server {
  const { title, share } = tracedShares[id];
  const to =
    share === undefined ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT: otlpUrl, OTEL_TRACES_SAMPLER_ARG: share };
  return tidegate(id, title, gateway, at, undefined, { PLAIN_CHANNEL: 'room:plain', ...to });
}

function tidegate(
  id: ServerId,
  title: string,
  gateway: string,
  at: Surroundings,
  redisUrl?: string,
  more: Record<string, string> = {},
): Server {
  const startFrom = async (file: string, env: Record<string, string>): Promise<Running> => {
    const adminPort = await freePort();
    const apiPort = await freePort();
    return startReady(
      at,
      (port) => ({
        name: title,
        command: process.execPath,
        args: [file],
        env: {
          AUTH: 'anonymous',
          PORT: String(port),
          API_PORT: String(apiPort),
          ADMIN_PORT: String(adminPort),
          MAX_CONNECTIONS: '30000',
          LOG_LEVEL: 'info',
          CHANNELS: namespaces,
          ...limits,
          ...(redisUrl === undefined ? {} : { REDIS_URL: redisUrl }),
          ...more,
          ...env,
        },
      }),
      () => answersOk(adminPort, '/readyz'),
    );
  };
  const { bundle } = at.tools;
  return {
    id,
    title,
    dialect: broadcast,
    canWarm: true,
    keeps: true,
    rooms: {
      path: '/ws/u%room%',
      header: 'Sec-WebSocket-Protocol: tidegate.v1',
      subscribe: '{"type":"subscribe","channel":"room:%room%"}',
      message: '{"type":"publish","channel":"room:%room%","data":"%STAMP%"}',
      pad: 85,
    },
    start: () => startFrom(gateway, {}),
    ...(bundle === undefined
      ? {}
      : { startBundled: () => startFrom(bundle, { NODE_COMPILE_CACHE: at.compileCache }) }),
  };
}

function plainWs(redisUrl: string, at: Surroundings): Server {
  return {
    id: 'plain-ws',
    title: 'plain ws + Redis',
    dialect: broadcast,
    canWarm: true,
    keeps: false,
    rooms: { path: '/room/%room%', message: '%STAMP%', pad: 155 },
    start: () => startPeer('plain-ws', redisUrl, at),
  };
}

function socketIo(redisUrl: string, at: Surroundings): Server {
  return {
    id: 'socket.io',
    title: 'Socket.IO + Redis',
    dialect: { path: engineIo, subscribe: '40', message: '42["m","%STAMP%"]', pad: 170 },
    canWarm: true,
    keeps: false,
    rooms: {
      path: engineIo,
      subscribe: '40|42["join","%room%"]',
      message: '42["say","%room%","%STAMP%"]',
      pad: 170,
    },
    start: () => startPeer('socket-io', redisUrl, at),
  };
}

function startPeer(name: string, redisUrl: string, at: Surroundings): Promise<Running> {
  const file = join(root, 'bench/peers', `${name}.ts`);
  return startReady(
    at,
    (port) => ({
      name,
      command: process.execPath,
      args: [file],
      env: { PORT: String(port), REDIS_URL: redisUrl },
    }),
    accepts,
  );
}

async function startReady(
  at: Surroundings,
  launch: (port: number) => Launch,
  isReady: (port: number) => Promise<boolean>,
): Promise<Running> {
  const port = await freePort();
  const startedAt = performance.now();
  const started = start({ ...launch(port), core: at.core });
  await waitUntil(started, () => isReady(port));
  return { ...started, port, readyMs: performance.now() - startedAt };
}

/** Takes spans, and throws them away: what is measured is who sends them. */
export async function startOtlpSink(
  core: number | undefined,
): Promise<{ readonly url: string; readonly started: Started }> {
  const port = await freePort();
  const file = join(root, 'bench/otlp-sink.ts');
  const env = { PORT: String(port) };
  const started = start({ name: 'otlp-sink', command: process.execPath, args: [file], env, core });
  await waitUntil(started, () => accepts(port));
  return { url: `http://127.0.0.1:${port}`, started };
}

/** A Redis of the bench's own, which keeps nothing on disk. */
export async function startRedis(
  program: string,
  core: number | undefined,
  more: readonly string[] = [],
): Promise<{ readonly url: string; readonly port: number; readonly started: Started }> {
  const port = await freePort();
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', ...more];
  const started = start({ name: 'redis-server', command: program, args, core });
  await waitUntil(started, () => accepts(port));
  return { url: `redis://127.0.0.1:${port}`, port, started };
}

const SLOTS = 16_384;

/** A Redis Cluster of the bench's own, without replicas: its masters, in the order of their slots. */
export async function startCluster(
  program: string,
  core: number | undefined,
  size: number,
): Promise<{ readonly url: string; readonly masters: readonly Started[] }> {
  const dir = mkdtempSync(join(tmpdir(), 'tidegate-bench-'));
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
  const nodes: { url: string; port: number; started: Started; bus: number; admin: Redis }[] = [];
  for (let index = 0; index < size; index += 1) {
    const bus = await freePort();
    const cluster = ['--cluster-enabled', 'yes', '--cluster-port', String(bus)];
    const config = ['--cluster-config-file', join(dir, `${index}.conf`)];
    const node = await startRedis(program, core, [...cluster, ...config]);
    const admin = new Redis(node.url);
    const from = Math.floor((index * SLOTS) / size);
    await admin.call('CLUSTER', 'ADDSLOTSRANGE', from, Math.floor(((index + 1) * SLOTS) / size) - 1);
    await admin.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1);
    nodes.push({ ...node, bus, admin });
  }
  for (const { admin } of nodes) {
    for (const { port, bus } of nodes) await admin.call('CLUSTER', 'MEET', '127.0.0.1', port, bus);
  }
  for (const { admin, started } of nodes) {
    const isWhole = async () => String(await admin.call('CLUSTER', 'INFO')).includes('cluster_state:ok');
    await waitUntil(started, isWhole);
    admin.disconnect();
  }
  return { url: nodes[0]?.url ?? '', masters: nodes.map(({ started }) => started) };
}
