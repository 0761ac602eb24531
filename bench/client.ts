// Clients: runs wsload or rooms-client against a server that is ready, and reads what they report.

import { join } from 'node:path';
import { end, type Started, start } from './process.ts';
import type { Dialect, RoomsDialect, Running } from './servers.ts';
import { root } from './tools.ts';

/** What a client reports, by wsload's own names, such as `deliveries_per_s`. */
export type Report = ReadonlyMap<string, number>;

/** How messages are sent: kept at so many outstanding, at a rate, or not at all. */
export type Pace =
  | { readonly kind: 'outstanding'; readonly messages: number }
  | { readonly kind: 'rate'; readonly perSecond: number }
  | { readonly kind: 'idle' };

export interface Load {
  readonly connections: number;
  readonly pace: Pace;
  readonly seconds: number;
  readonly settleSeconds: number;
  readonly publishers?: number;
}

/** A client at work. */
export interface Client {
  readonly pid: number;
  /** Resolves when the client has reported this value, such as `open`; rejects when it ends without. */
  reported(key: string): Promise<Report>;
  /** Resolves when the client is done. */
  readonly report: Promise<Report>;
  stop(): Promise<void>;
}

const OVERTIME_SECONDS = 60;
const RETURN_SECONDS = 30;

export function startWsload(
  program: string,
  core: number | undefined,
  server: Running,
  dialect: Dialect,
  load: Load,
): Client {
  const args = [
    ...['-p', String(server.port), '-u', dialect.path, '-n', String(load.connections)],
    ...['-m', dialect.message, '-b', String(dialect.pad), '-P', String(load.publishers ?? 1)],
    ...['-d', String(load.seconds), '-w', String(load.settleSeconds), ...paceArgs(load.pace)],
    ...(dialect.subscribe === undefined ? [] : ['-s', dialect.subscribe]),
  ];
  return startClient('wsload', program, args, core, load.seconds + load.settleSeconds);
}

function paceArgs(pace: Pace): string[] {
  switch (pace.kind) {
    case 'outstanding':
      return ['-c', String(pace.messages)];
    case 'rate':
      return ['-r', String(pace.perSecond)];
    case 'idle':
      return ['-r', '0'];
  }
}

export interface RoomsLoad {
  readonly rooms: number;
  readonly members: number;
  readonly publishesPerSecond: number;
  readonly seconds: number;
  readonly warmSeconds: number;
  /** Of the warm-up, where it is another one. */
  readonly warmPerSecond?: number;
}

export function startRoomsClient(
  core: number | undefined,
  server: Running,
  dialect: RoomsDialect,
  load: RoomsLoad,
): Client {
  const args = [
    join(root, 'bench/rooms-client.ts'),
    ...['--port', String(server.port), '--path', dialect.path],
    ...['--publish', dialect.message, '--pad', String(dialect.pad)],
    ...['--rooms', String(load.rooms), '--members', String(load.members)],
    ...['--rate', String(load.publishesPerSecond), '--seconds', String(load.seconds)],
    ...[
      '--warm',
      String(load.warmSeconds),
      '--warm-rate',
      String(load.warmPerSecond ?? load.publishesPerSecond),
    ],
    ...(dialect.subscribe === undefined ? [] : ['--subscribe', dialect.subscribe]),
    ...(dialect.header === undefined ? [] : ['--header', dialect.header]),
  ];
  return startClient('rooms-client', process.execPath, args, core, load.seconds + load.warmSeconds);
}

/** Starts durable-client.ts on one channel. */
export function startDurableClient(
  core: number | undefined,
  server: Running,
  load: { channel: string; seconds: number; warmSeconds: number },
): Client {
  const args = [
    join(root, 'bench/durable-client.ts'),
    ...['--port', String(server.port), '--channel', load.channel],
    ...['--seconds', String(load.seconds), '--warm', String(load.warmSeconds)],
  ];
  return startClient('durable-client', process.execPath, args, core, load.seconds + load.warmSeconds);
}

/** Starts return-client.ts. */
export function startReturnClient(
  core: number | undefined,
  server: Running,
  load: { clients: number; missed: number },
): Client {
  const args = [
    join(root, 'bench/return-client.ts'),
    ...['--port', String(server.port), '--clients', String(load.clients), '--missed', String(load.missed)],
  ];
  return startClient('return-client', process.execPath, args, core, RETURN_SECONDS);
}

/** Load on Redis, as pods-client.ts takes it. */
export interface PodsLoad {
  readonly pods: number;
  readonly channels: number;
  /** Messages a second of all pods together, or as many as Redis takes. */
  readonly rate: number | 'full';
  readonly durable: boolean;
  /** Which sides are bare sockets, because a bus would be full before Redis is. */
  readonly bare: 'none' | 'readers' | 'both';
  readonly seconds: number;
  readonly warmSeconds: number;
  /** How long after SIGUSR2 it begins. */
  readonly afterMs: number;
}

/** Starts pods-client.ts, which waits for SIGUSR2 when it is `ready`. */
export function startPodsClient(
  core: number | undefined,
  url: string,
  load: PodsLoad,
  cluster: boolean,
): Client {
  const args = [
    join(root, 'bench/pods-client.ts'),
    ...['--url', url, '--pods', String(load.pods), '--channels', String(load.channels)],
    ...['--rate', String(load.rate), '--bare', load.bare, '--after', String(load.afterMs)],
    ...['--seconds', String(load.seconds), '--warm', String(load.warmSeconds)],
    ...(load.durable ? ['--durable'] : []),
    ...(cluster ? ['--cluster'] : []),
  ];
  return startClient('pods-client', process.execPath, args, core, load.seconds + load.warmSeconds);
}

function startClient(
  name: string,
  command: string,
  args: readonly string[],
  core: number | undefined,
  seconds: number,
): Client {
  const values = new Map<string, number>();
  const awaited = new Map<string, PromiseWithResolvers<Report>>();
  const reported = (key: string): Promise<Report> => {
    const one = awaited.get(key) ?? Promise.withResolvers<Report>();
    awaited.set(key, one);
    if (values.has(key)) one.resolve(values);
    return one.promise;
  };
  const started = start({
    name,
    command,
    args,
    core,
    onLine: (line) => {
      for (const [, key = '', value] of line.matchAll(/(\w+)=(-?[\d.]+)/g)) {
        values.set(key, Number(value));
        awaited.get(key)?.resolve(values);
      }
    },
  });
  const report = finish(started, values, seconds + OVERTIME_SECONDS);
  report.catch((error) => {
    for (const one of awaited.values()) one.reject(error);
  });
  return { pid: started.pid, reported, report, stop: () => stopQuietly(started, report) };
}

async function finish(started: Started, values: Report, limitSeconds: number): Promise<Report> {
  const timer = setTimeout(() => void end(started), limitSeconds * 1000);
  const ending = await started.ended;
  clearTimeout(timer);
  if (!ending.ok) throw new Error(`${started.name} ${ending.reason}`);
  return values;
}

async function stopQuietly(started: Started, report: Promise<Report>): Promise<void> {
  report.catch(() => {});
  await end(started);
}
