// Measurements: one function each; every one starts the server anew, so that none inherits another's heap or sockets.

import {
  type Client,
  type Load,
  type Pace,
  type Report,
  startDurableClient,
  startReturnClient,
  startRoomsClient,
  startWsload,
} from './client.ts';
import type { FigureId } from './figures.ts';
import { cpuSeconds, end, rssKib } from './process.ts';
import type { Running, Server } from './servers.ts';
import { sleep } from './wait.ts';

/** How long things last, and where the clients run. */
export interface Settings {
  readonly loadClient: string | undefined;
  readonly core: number | undefined;
  readonly windowSeconds: number;
  readonly pacedSeconds: number;
  /** Load before the measured load, so that compilers are done. */
  readonly warmSeconds: number;
  readonly idleSettleMs: number;
  readonly starts: number;
  readonly idle: { readonly few: number; readonly many: number };
}

/** What one measurement gives. A figure may have several values, as the start has. */
export interface Outcome {
  readonly values: readonly (readonly [FigureId, number])[];
  /** The share of its core that the client used, where it reports one. */
  readonly clientCpu?: number;
  /** What happened that the reader should know, such as connections cut by the server. */
  readonly remarks: readonly string[];
}

export interface Measurement {
  readonly id: string;
  /** For the time estimate. */
  readonly nominalSeconds: (settings: Settings) => number;
  readonly needsLoadClient: boolean;
  readonly isFor: (server: Server) => boolean;
  readonly run: (server: Server, settings: Settings) => Promise<Outcome>;
}

const CONNECTIONS = 1000;
const SETTLE_SECONDS = 1;
const CPU_MARGIN_MS = 200;
const PEAK_EVERY_MS = 20;
// At 10,000 publishes a second compilers, which share the server's core, are at work for two seconds; in that time
// a message waits for 100 ms and more, and the row is not about that.
const ROOMS_WARM_SECONDS = 3;
// Starting, opening 1000 connections twice, settling and ending, in seconds.
const OVERHEAD_SECONDS = 2.8;
const WSLOAD_TAIL_SECONDS = 1.5;

export const measurements: readonly Measurement[] = [
  outstanding(4, 'rate4'),
  outstanding(16, 'rate16'),
  outstanding(64, 'rate64'),
  cost(),
  paced('paced-20k', 20, ['p50At20k', 'p99At20k', 'lossAt20k']),
  paced('paced-100k', 100, ['p50At100k', 'p99At100k', 'lossAt100k', 'cpuAt100k']),
  idle('idle-few', 'few', 'kibAtFew', 'accepted'),
  idle('idle-many', 'many', 'kibAtMany'),
  startUp(),
  rooms(),
  manyPublishers(),
  durable(),
  returning(),
];

function outstanding(messages: number, figure: FigureId): Measurement {
  return {
    id: `outstanding-${messages}`,
    needsLoadClient: true,
    isFor: () => true,
    nominalSeconds: ({ windowSeconds, warmSeconds }) => OVERHEAD_SECONDS + windowSeconds + warmSeconds,
    run: (server, settings) =>
      withServer(server, async (running) => {
        const load = { pace: { kind: 'outstanding', messages }, seconds: settings.windowSeconds } as const;
        const report = await loadWarm(server, running, settings, load);
        return outcome(report, [[figure, read(report, 'deliveries_per_s')]]);
      }),
  };
}

/** What a delivery costs, whatever else the machine is busy with: only CPU time of the server counts. At a pace first:
 * with so many outstanding, what a delivery costs goes by how many messages share a write, which is the client's doing. */
function cost(): Measurement {
  const paced = (perSecond: number): Pace => ({ kind: 'rate', perSecond });
  const loads: readonly [FigureId, Pick<Load, 'connections' | 'publishers' | 'pace'>][] = [
    ['microsADelivery', { connections: CONNECTIONS, publishers: 1, pace: paced(100) }],
    ['microsADeliveryToFew', { connections: 100, publishers: 100, pace: paced(1000) }],
    ['microsAtOnce', { connections: 100, publishers: 100, pace: { kind: 'outstanding', messages: 64 } }],
  ];
  return {
    id: 'cost',
    needsLoadClient: true,
    isFor: ({ id }) => id.startsWith('traces-'),
    nominalSeconds: ({ pacedSeconds, warmSeconds }) =>
      loads.length * (OVERHEAD_SECONDS + pacedSeconds + warmSeconds),
    run: (server, settings) =>
      withServer(server, async (running) => {
        const costs: [FigureId, number][] = [];
        for (const [figure, load] of loads) {
          let seconds = 0;
          const report = await loadWarm(
            server,
            running,
            settings,
            { ...load, seconds: settings.pacedSeconds },
            async (client) => {
              await client.reported('open');
              const before = cpuSeconds(running.pid);
              await client.report;
              seconds = cpuSeconds(running.pid) - before;
            },
          );
          costs.push([figure, (seconds * 1e6) / read(report, 'delivered')]);
        }
        return { values: costs, remarks: [] };
      }),
  };
}

function manyPublishers(): Measurement {
  return {
    id: 'publishers',
    needsLoadClient: true,
    isFor: () => true,
    nominalSeconds: ({ windowSeconds, warmSeconds }) => OVERHEAD_SECONDS + windowSeconds + warmSeconds,
    run: (server, settings) =>
      withServer(server, async (running) => {
        const report = await loadWarm(server, running, settings, {
          pace: { kind: 'outstanding', messages: 64 },
          seconds: settings.windowSeconds,
          publishers: 200,
        });
        return outcome(report, [
          ['publishersRate', read(report, 'deliveries_per_s')],
          ['publishersP99', readLatency(report, 'p99_ms')],
        ]);
      }),
  };
}

function paced(
  id: string,
  perSecond: number,
  [p50, p99, lost, cpu]: readonly [FigureId, FigureId, FigureId, FigureId?],
): Measurement {
  // At 20 messages a second a p99 needs the longer look: it is little more than the worst message.
  const lasting = ({ pacedSeconds }: Settings): number => pacedSeconds * (perSecond < 50 ? 2 : 1);
  return {
    id,
    needsLoadClient: true,
    isFor: () => true,
    nominalSeconds: (settings) =>
      OVERHEAD_SECONDS + WSLOAD_TAIL_SECONDS + lasting(settings) + settings.warmSeconds,
    run: (server, settings) =>
      withServer(server, async (running) => {
        let cores = Number.NaN;
        const report = await loadWarm(
          server,
          running,
          settings,
          { pace: { kind: 'rate', perSecond }, seconds: lasting(settings) },
          async (client) => {
            await client.reported('open');
            await sleep(SETTLE_SECONDS * 1000);
            cores = await coresDuring(running.pid, lasting(settings));
          },
        );
        return outcome(report, [
          [p50, readLatency(report, 'p50_ms')],
          [p99, readLatency(report, 'p99_ms')],
          [lost, read(report, 'expected') - read(report, 'delivered')],
          ...(cpu === undefined ? [] : [[cpu, cores] as const]),
        ]);
      }),
  };
}

/** Cores that a process uses while the client, which has just begun, measures. */
async function coresDuring(pid: number, seconds: number): Promise<number> {
  await sleep(CPU_MARGIN_MS);
  const before = { cpu: cpuSeconds(pid), at: performance.now() };
  await sleep(seconds * 1000 - 2 * CPU_MARGIN_MS);
  return ((cpuSeconds(pid) - before.cpu) * 1000) / (performance.now() - before.at);
}

function idle(id: string, size: 'few' | 'many', memory: FigureId, accepted?: FigureId): Measurement {
  return {
    id,
    needsLoadClient: true,
    isFor: () => true,
    // Ports run short towards 20,000 connections, and the kernel searches longer for a free one.
    nominalSeconds: ({ idle, idleSettleMs }) =>
      0.5 + idleSettleMs / 1000 + (idle[size] / 10_000) * (size === 'few' ? 4 : 5),
    run: (server, settings) =>
      withServer(server, async (running) => {
        const before = rssKib(running.pid);
        const connections = settings.idle[size];
        const client = wsload(server, running, settings, {
          connections,
          pace: { kind: 'idle' },
          seconds: 600,
        });
        try {
          const report = await client.reported('open');
          await sleep(settings.idleSettleMs);
          return outcome(report, [
            [memory, (rssKib(running.pid) - before) / connections],
            ...(accepted === undefined ? [] : [[accepted, read(report, 'connect_per_s')] as const]),
          ]);
        } finally {
          await client.stop();
        }
      }),
  };
}

function startUp(): Measurement {
  return {
    id: 'start',
    needsLoadClient: false,
    isFor: () => true,
    nominalSeconds: ({ starts }) => starts * 0.5,
    run: async (server, { starts }) => {
      const values: [FigureId, number][] = [];
      for (let count = 0; count < starts; count += 1) {
        values.push(['ready', await readyMs(server.start)]);
        if (server.startBundled) values.push(['readyBundled', await readyMs(server.startBundled)]);
      }
      return { values, remarks: [] };
    },
  };
}

async function readyMs(startServer: () => Promise<Running>): Promise<number> {
  const running = await startServer();
  await end(running);
  return running.readyMs;
}

/** Starts a bundled server once and lets it end by itself, which is when Node writes its compile cache. */
export async function fillCompileCache(server: Server): Promise<void> {
  if (!server.startBundled) return;
  const running = await server.startBundled();
  const timer = setTimeout(() => void end(running), 10_000);
  await end(running, 'SIGTERM');
  clearTimeout(timer);
}

function rooms(): Measurement {
  return {
    id: 'rooms',
    needsLoadClient: false,
    isFor: (server) => server.rooms !== undefined,
    nominalSeconds: ({ pacedSeconds }) => 5 + pacedSeconds + ROOMS_WARM_SECONDS,
    run: async (server, settings) => {
      const dialect = server.rooms;
      if (dialect === undefined) throw new Error('it has no rooms');
      return withServer(server, async (running) => {
        const client = startRoomsClient(settings.core, running, dialect, {
          rooms: 100,
          members: 10,
          publishesPerSecond: 10_000,
          seconds: settings.pacedSeconds,
          warmSeconds: ROOMS_WARM_SECONDS,
        });
        await client.reported('measuring');
        const cores = await coresDuring(running.pid, settings.pacedSeconds);
        const report = await client.report;
        return outcome(report, [
          ['roomsCpu', cores],
          ['roomsRate', read(report, 'deliveries_per_s')],
          ['roomsP99', readLatency(report, 'p99_ms')],
          ['roomsLoss', read(report, 'expected') - read(report, 'delivered')],
        ]);
      });
    },
  };
}

/** What keeping messages costs: the same load on an ephemeral and on a durable channel, one after the other. */
function durable(): Measurement {
  return {
    id: 'durable',
    needsLoadClient: false,
    isFor: ({ keeps }) => keeps,
    nominalSeconds: ({ windowSeconds }) => 2 * (3.5 + windowSeconds),
    run: (server, settings) =>
      withServer(server, async (running) => {
        const load = { seconds: settings.windowSeconds, warmSeconds: 2 };
        const ephemeral = await startDurableClient(settings.core, running, { channel: 'room:1', ...load })
          .report;
        const kept = await startDurableClient(settings.core, running, { channel: 'doc:1', ...load }).report;
        return outcome(kept, [
          ['ephemeralPublishes', read(ephemeral, 'publishes_per_s')],
          ['ephemeralDeliveries', read(ephemeral, 'deliveries_per_s')],
          ['durablePublishes', read(kept, 'publishes_per_s')],
          ['durableDeliveries', read(kept, 'deliveries_per_s')],
          ['durableP99', readLatency(kept, 'p99_ms')],
        ]);
      }),
  };
}

/** Many who return at once, as after a gateway was lost. */
function returning(): Measurement {
  return {
    id: 'return',
    needsLoadClient: false,
    isFor: ({ keeps }) => keeps,
    nominalSeconds: () => 12,
    run: (server, settings) =>
      withServer(server, async (running) => {
        const clients = Math.min(10_000, settings.idle.many);
        const client = startReturnClient(settings.core, running, { clients, missed: 100 });
        await client.reported('measuring');
        const before = rssKib(running.pid);
        let peak = before;
        const watch = setInterval(() => {
          peak = Math.max(peak, rssKib(running.pid));
        }, PEAK_EVERY_MS);
        try {
          const report = await client.report;
          return outcome(report, [
            ['returnMs', read(report, 'live_ms')],
            ['returnPeakMib', (peak - before) / 1024],
            ['returnCalmP99', readLatency(report, 'calm_p99_ms')],
            ['returnStormP99', readLatency(report, 'storm_p99_ms')],
            ['returnLost', clients - read(report, 'returned')],
          ]);
        } finally {
          clearInterval(watch);
        }
      }),
  };
}

async function withServer<T>(server: Server, use: (running: Running) => Promise<T>): Promise<T> {
  const running = await server.start();
  try {
    return await use(running);
  } catch (error) {
    // That the server died says more than what its client saw of it.
    if (running.isRunning()) throw error;
    throw new Error(`${server.title} ${(await running.ended).reason}`, { cause: error });
  } finally {
    await end(running);
  }
}

type WarmLoad = Omit<Load, 'connections' | 'settleSeconds'> & Partial<Pick<Load, 'connections'>>;

/** A short load that is thrown away, where the server gains by it, then the one that counts. */
async function loadWarm(
  server: Server,
  running: Running,
  settings: Settings,
  load: WarmLoad,
  during?: (client: Client) => Promise<void>,
): Promise<Report> {
  const warm = { pace: { kind: 'outstanding', messages: 16 }, seconds: settings.warmSeconds } as const;
  if (server.canWarm) await wsload(server, running, settings, { connections: CONNECTIONS, ...warm }).report;
  const client = wsload(server, running, settings, { connections: CONNECTIONS, ...load });
  const [report] = await Promise.all([client.report, during?.(client)]);
  return report;
}

function wsload(
  server: Server,
  running: Running,
  settings: Settings,
  load: Omit<Load, 'settleSeconds'>,
): Client {
  if (settings.loadClient === undefined) throw new Error('there is no wsload');
  const settleSeconds = load.pace.kind === 'idle' ? 0 : SETTLE_SECONDS;
  return startWsload(settings.loadClient, settings.core, running, server.dialect, { settleSeconds, ...load });
}

function outcome(report: Report, values: Outcome['values']): Outcome {
  const remarks = (['failed', 'dropped'] as const)
    .filter((key) => (report.get(key) ?? 0) > 0)
    .map((key) => `${report.get(key)} connections ${key}`);
  const clientCpu = report.get('client_cpu');
  return { values, remarks, ...(clientCpu === undefined ? {} : { clientCpu }) };
}

/** @throws {Error} where the client did not report it. */
function read(report: Report, key: string): number {
  const value = report.get(key);
  if (value === undefined) throw new Error(`the client reported no ${key}`);
  return value;
}

/** A client that got nothing reports no latency: there is none, not an error. */
function readLatency(report: Report, key: string): number {
  return report.get(key) ?? Number.NaN;
}
