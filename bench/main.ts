// The benchmark: reads the arguments, measures server by server and round by round, and prints the medians.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail, readArguments } from './arguments.ts';
import { figuresFor, Samples } from './figures.ts';
import { fillCompileCache, type Measurement, type Outcome, type Settings } from './measure.ts';
import { DISTURBED_CORES, untilQuiet, watchOthers } from './noise.ts';
import { chooseCores, end, endAllAtExit, openFilesLimit } from './process.ts';
import { Progress } from './progress.ts';
import { json, markdown } from './report.ts';
import { availableServers, type Server, startOtlpSink, startRedis } from './servers.ts';
import { cache, prepareTools } from './tools.ts';

// What a server opens beside its connections, with room to spare.
const SPARE_FILES = 500;
const PATIENT_TRIES = 4;
const QUIET_LIMIT_SECONDS = 120;

endAllAtExit();

const wanted = readArguments();
const startedAt = performance.now();

if (process.platform !== 'linux') fail('The benchmark needs Linux: it reads /proc, and wsload uses epoll.');

const cores = chooseCores();
const tools = await prepareTools();
const redis = tools.redisServer ? await startRedis(tools.redisServer, cores.client) : undefined;
const sink = wanted.traces ? await startOtlpSink(cores.client) : undefined;
const notes = [`Where they run: ${cores.note}.`, ...tools.missing];
const settings = await readSettings(wanted.quick);
const servers = availableServers({
  tools,
  core: cores.server,
  redisUrl: redis?.url,
  otlpUrl: sink?.url,
  compileCache: join(cache, 'compile'),
}).filter(({ id }) => wanted.servers.includes(id));
const rows = wanted.rows.filter((row) => tools.loadClient !== undefined || !row.needsLoadClient);
for (const note of notes) console.error(note);
if (servers.length === 0 || rows.length === 0) fail('Nothing is left to measure.');

/** One measurement of one server in one round. */
interface Step {
  readonly round: number;
  readonly row: Measurement;
  readonly server: Server;
}

const steps = Array.from({ length: wanted.rounds }, (_, index) => index + 1).flatMap((round) =>
  rows.flatMap((row) => servers.filter(row.isFor).map((server): Step => ({ round, row, server }))),
);
const samples = new Samples();
const progress = new Progress(steps.map(({ row }) => row.nominalSeconds(settings)));
let disturbed = 0;
if (rows.some(({ id }) => id === 'start')) {
  for (const server of servers) await attempt('compile cache', () => fillCompileCache(server));
}
for (const step of steps) await measure(step);
if (disturbed > 0) {
  notes.push(
    `Other processes used more than ${DISTURBED_CORES} cores during ${disturbed} of ${steps.length} measurements. These are left out where other rounds were undisturbed. \`--patient\` waits for a quiet machine.`,
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
if (sink) await end(sink.started);
process.exit(0);

async function measure({ round, row, server }: Step): Promise<void> {
  progress.begin(`round ${round}/${wanted.rounds}  ${row.id}  ${server.title}`);
  const where = `${server.title}, ${row.id}, round ${round}`;
  let outcome: Outcome | undefined;
  let othersCpu = 0;
  for (let tries = wanted.patient ? PATIENT_TRIES : 1; tries > 0; tries -= 1) {
    if (wanted.patient) await untilQuiet(QUIET_LIMIT_SECONDS);
    const othersSinceNow = watchOthers();
    outcome = await attempt(where, () => row.run(server, settings));
    othersCpu = othersSinceNow();
    if (othersCpu <= DISTURBED_CORES) break;
    progress.warn(`others used ${othersCpu.toFixed(2)} cores`);
  }
  if (othersCpu > DISTURBED_CORES) disturbed += 1;
  const values = outcome?.values ?? [];
  for (const [figure, value] of values) {
    samples.all.push({ figure, server: server.id, round, value, clientCpu: outcome?.clientCpu, othersCpu });
  }
  for (const remark of outcome?.remarks ?? []) notes.push(`${where}: ${remark}.`);
  progress.end(values.map(([figure, value]) => `${figure} ${Number(value.toPrecision(4))}`).join('  '));
}

/** One measurement that fails is told and leaves the others as they are. */
async function attempt<T>(what: string, action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    notes.push(`${what}: failed: ${error instanceof Error ? error.message : String(error)}`);
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
