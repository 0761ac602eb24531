// The benchmark: reads the arguments, measures server by server and round by round, and prints the medians.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { figuresFor, Samples } from './figures.ts';
import { fillCompileCache, type Measurement, measurements, type Settings } from './measure.ts';
import { DISTURBED_CORES, watchOthers } from './noise.ts';
import { chooseCores, end, endAll, openFilesLimit } from './process.ts';
import { Progress } from './progress.ts';
import { json, markdown } from './report.ts';
import { availableServers, type Server, type ServerId, serverIds, startRedis } from './servers.ts';
import { cache, prepareTools } from './tools.ts';

const USAGE = `Usage: npm run bench -- [options]

  --rounds N        interleaved rounds, of which the medians are shown (3; 1 with --quick)
  --quick           one round with short windows, without c-write, in less than four minutes
  --only ROW,...    ${measurements.map(({ id }) => id).join(', ')}
  --servers NAME,...  ${serverIds.join(', ')}
  --json FILE       keep every raw value

  BENCH_GATEWAY     a bundled gateway to measure instead of src/gateway.ts
  LIMIT_DIR         the folder of wsload.c and wslimit.c (../shared/limit)
`;

// What a server opens beside its connections, with room to spare.
const SPARE_FILES = 500;

interface Arguments {
  readonly rounds: number;
  readonly quick: boolean;
  readonly rows: readonly Measurement[];
  readonly servers: readonly ServerId[];
  readonly json: string | undefined;
}

process.on('exit', endAll);
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.on(signal, () => process.exit(code));
}

const wanted = readArguments();
const startedAt = performance.now();

if (process.platform !== 'linux') fail('The benchmark needs Linux: it reads /proc, and wsload uses epoll.');

const cores = chooseCores();
const tools = prepareTools();
const redis = tools.redisServer ? await startRedis(tools.redisServer, cores.client) : undefined;
const notes = [`Where they run: ${cores.note}.`, ...tools.missing];
const settings = await readSettings(wanted.quick);
const servers = availableServers({
  tools,
  core: cores.server,
  redisUrl: redis?.url,
  compileCache: join(cache, 'compile'),
}).filter(({ id }) => wanted.servers.includes(id));
const rows = wanted.rows.filter((row) => tools.loadClient !== undefined || !row.needsLoadClient);
for (const note of notes) console.error(note);
if (servers.length === 0 || rows.length === 0) fail('Nothing is left to measure.');

const samples = new Samples();
let disturbed = 0;
const progress = new Progress(
  Array.from({ length: wanted.rounds }, () =>
    rows.flatMap((row) => servers.map(() => row.nominalSeconds(settings))),
  ).flat(),
);
if (rows.some(({ id }) => id === 'start'))
  for (const server of servers) await attempt(() => fillCompileCache(server));
for (let round = 1; round <= wanted.rounds; round += 1) {
  for (const row of rows) for (const server of servers) await measure(row, server, round);
}

if (disturbed > 0) {
  notes.push(
    `Other processes used more than ${DISTURBED_CORES} cores during ${disturbed} of ${wanted.rounds * rows.length * servers.length} measurements. These are left out where other rounds were undisturbed.`,
  );
}

const run = {
  rounds: wanted.rounds,
  quick: wanted.quick,
  servers,
  figures: figuresFor(settings.idle),
  samples,
  notes,
  seconds: (performance.now() - startedAt) / 1000,
};
console.log(markdown(run));
if (wanted.json !== undefined) writeFileSync(wanted.json, json(run));
if (redis) await end(redis.started);
process.exit(0);

async function measure(row: Measurement, server: Server, round: number): Promise<void> {
  progress.begin(`round ${round}/${wanted.rounds}  ${row.id}  ${server.title}`);
  const where = `${server.title}, ${row.id}, round ${round}`;
  const othersSinceNow = watchOthers();
  const outcome = await attempt(() => row.run(server, settings), where);
  const othersCpu = othersSinceNow();
  if (othersCpu > DISTURBED_CORES) disturbed += 1;
  for (const [figure, value] of outcome?.values ?? []) {
    samples.all.push({ figure, server: server.id, round, value, clientCpu: outcome?.clientCpu, othersCpu });
  }
  for (const remark of outcome?.remarks ?? []) notes.push(`${where}: ${remark}.`);
  if (othersCpu > DISTURBED_CORES) progress.warn(`others used ${othersCpu.toFixed(2)} cores`);
  progress.end(
    outcome?.values.map(([figure, value]) => `${figure} ${Number(value.toPrecision(4))}`).join('  '),
  );
}

/** One measurement that fails is told and leaves the others as they are. */
async function attempt<T>(action: () => Promise<T>, where = 'compile cache'): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    notes.push(`${where}: failed: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

async function readSettings(quick: boolean): Promise<Settings> {
  const files = await openFilesLimit();
  const most = Math.floor((files - SPARE_FILES) / 1000) * 1000;
  const asked = quick ? { few: 5000, many: 10_000 } : { few: 5000, many: 20_000 };
  const idle = { few: Math.min(asked.few, most), many: Math.min(asked.many, most) };
  if (most < asked.many) {
    notes.push(
      `A process may open ${files} files here, so ${idle.many} connections stand in for ${asked.many}. Raise the limit: \`ulimit -Hn\`.`,
    );
  }
  const lengths = quick
    ? { windowSeconds: 1.5, pacedSeconds: 2, warmSeconds: 0.5, idleSettleMs: 1000, starts: 2 }
    : { windowSeconds: 3, pacedSeconds: 4, warmSeconds: 1, idleSettleMs: 2000, starts: 5 };
  return { loadClient: tools.loadClient, core: cores.client, idle, ...lengths };
}

function readArguments(): Arguments {
  try {
    const { values } = parseArgs({
      options: {
        rounds: { type: 'string' },
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        servers: { type: 'string' },
        json: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds must be a whole number from 1');
    const defaults = serverIds.filter((id) => !values.quick || id !== 'c-write');
    return {
      rounds,
      quick: values.quick,
      rows: pick('--only', values.only, measurements, ({ id }) => id),
      servers:
        values.servers === undefined ? defaults : pick('--servers', values.servers, serverIds, (id) => id),
      json: values.json,
    };
  } catch (error) {
    return fail(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  }
}

/** The named ones in their own order, or all. @throws {Error} for a name that there is not. */
function pick<T>(
  option: string,
  list: string | undefined,
  all: readonly T[],
  name: (item: T) => string,
): readonly T[] {
  if (list === undefined) return all;
  const names = list.split(',');
  const unknown = names.filter((given) => !all.some((item) => name(item) === given));
  if (unknown.length > 0) throw new Error(`${option}: there is no ${unknown.join(', ')}`);
  return all.filter((item) => names.includes(name(item)));
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
