// What the capacity model rests on: the CPU of Redis a message on one server and on three masters, when one server is
// full, and the CPU of a gateway a message, a copy and a delivery, where it has little and where it has much to do.
// Prints the tables of docs/capacity.md and the constants that follow. On two cores the sum of three masters cannot
// grow, so they share a core, and what is looked for is the CPU of each.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { threadCores } from '../capacity/model.ts';
import { type PodsLoad, startPodsClient, startRoomsClient } from './client.ts';
import { DISTURBED_CORES, untilQuiet, watchOthers } from './noise.ts';
import { chooseCores, end, endAllAtExit, type Started, threadSeconds } from './process.ts';
import { Progress } from './progress.ts';
import { machine, table } from './report.ts';
import { availableServers, startCluster, startRedis } from './servers.ts';
import { prepareTools, root } from './tools.ts';
import { sleep } from './wait.ts';

const USAGE = `Usage: npm run bench:capacity -- [options]

  --rounds N       interleaved rounds, of which the medians are shown (3)
  --seconds N      of each measurement (3)
  --only PART,...  redis, full, gateway
  --patient        wait until nobody else uses the machine, and measure again what was disturbed
  --docs           put the tables into docs/capacity.md: all of them, so not with --only
  --json FILE      keep every raw value
`;

const PARTS = ['redis', 'full', 'gateway'] as const;
const PATIENT_TRIES = 4;
const QUIET_LIMIT_SECONDS = 120;
const MICRO = 1e6;

const MASTERS = 3;
const podCounts = [1, 2, 4, 8] as const;
const layouts = ['one', 'three'] as const;
type Layout = (typeof layouts)[number];
/** Messages a second: few enough that most find Redis at rest, and more. */
const kinds = {
  many: { title: '96 channels, 1000 messages/s', channels: 96, durable: false, rate: 1000 },
  busier: { title: '96 channels, 8000 messages/s', channels: 96, durable: false, rate: 8000 },
  hot: { title: 'one channel, 1000 messages/s', channels: 1, durable: false, rate: 1000 },
  durable: { title: '96 durable channels, 1000 messages/s', channels: 96, durable: true, rate: 1000 },
} as const;
type Kind = keyof typeof kinds;
const kindNames = Object.keys(kinds) as Kind[];
const fullPodCounts = [1, 4, 16, 64] as const;
const fullDurablePodCounts = [1, 4, 16] as const;
const SHARES = [0.25, 0.5, 0.75] as const;

/** What a gateway is given: nobody who hears, rooms of ten, one room for all. A `quiet` rate lets most messages find the
 * gateway at rest, a `busy` one does not. No connection has two messages in one turn, which would share a write. */
const mixes = {
  publish: { title: 'nobody hears', rooms: 1000, members: 1, quiet: 200, rates: [15_000] },
  rooms: { title: 'rooms of 10', rooms: 500, members: 10, quiet: 100, rates: [1000, 4000, 8000] },
  news: { title: 'one room of 1000', rooms: 1, members: 1000, quiet: 5, rates: [100, 150] },
} as const;
type Mix = keyof typeof mixes;
const GATEWAY_WARM_SECONDS = 3;
const MARGIN_MS = 200;
const WARM_SECONDS = 1;
/** What a client takes to start, of which all share a core. */
const START_MS = 500;

type Values = Readonly<Record<string, number>>;

interface Step {
  readonly name: string;
  readonly nominalSeconds: number;
  run(): Promise<Values>;
}

/** Every value of a step, and whether others were busy meanwhile. */
const samples = new Map<string, { values: Values; othersCpu: number }[]>();

const failures: string[] = [];

endAllAtExit();

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    only: { type: 'string', default: PARTS.join(',') },
    patient: { type: 'boolean', default: false },
    docs: { type: 'boolean', default: false },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
if (options.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const seconds = Number(options.seconds);
const rounds = Number(options.rounds);
const only = options.only.split(',');
const isWhole = PARTS.every((part) => only.includes(part));
const unknown = only.find((part) => !PARTS.some((known) => known === part));
if (unknown !== undefined || !(seconds > 0) || !(rounds >= 1) || (options.docs && !isWhole)) {
  console.error(unknown === undefined ? 'Too little is asked for.' : `There is no part ${unknown}.`);
  console.error(`\n${USAGE}`);
  process.exit(2);
}
const cores = chooseCores();
const tools = await prepareTools();
const { redisServer } = tools;
if (process.platform !== 'linux' || redisServer === undefined) {
  console.error('This needs Linux, for /proc, and redis-server on the PATH.');
  process.exit(2);
}

const one = await startRedis(redisServer, cores.server);
const three = await startCluster(redisServer, cores.server, MASTERS);
const redises = { one: { url: one.url, masters: [one.started] }, three };
const clients = await startRedis(redisServer, cores.client);
const [gateway] = availableServers({
  tools,
  core: cores.server,
  redisUrl: clients.url,
  otlpUrl: undefined,
  compileCache: '',
}).filter(({ id }) => id === 'tidegate+redis');

const steps = [
  ...(only.includes('redis') ? redisSteps() : []),
  ...(only.includes('full') ? fullSteps() : []),
  ...(only.includes('gateway') ? gatewaySteps() : []),
];
const startedAtMs = performance.now();
const progress = new Progress(
  Array.from({ length: rounds }, () => steps.map(({ nominalSeconds }) => nominalSeconds)).flat(),
);
for (let round = 1; round <= rounds; round += 1) for (const step of steps) await measure(step, round);
const text = report();
console.log(text);
if (options.docs) writeDocs(text);
if (options.json !== undefined) {
  writeFileSync(options.json, `${JSON.stringify(Object.fromEntries(samples), undefined, 1)}\n`);
}
for (const redis of [one.started, clients.started, ...three.masters]) await end(redis);
process.exit(0);

async function measure(step: Step, round: number): Promise<void> {
  progress.begin(`round ${round}/${rounds}  ${step.name}`);
  for (let tries = options.patient ? PATIENT_TRIES : 1; tries > 0; tries -= 1) {
    if (options.patient) await untilQuiet(QUIET_LIMIT_SECONDS);
    const othersSinceNow = watchOthers();
    const values = await step.run().catch((error: unknown) => {
      failures.push(
        `${step.name}, round ${round}: ${error instanceof Error ? error.message : String(error)}`,
      );
      return {};
    });
    const othersCpu = othersSinceNow();
    const isDisturbed = othersCpu > DISTURBED_CORES;
    if (isDisturbed) progress.warn(`others used ${othersCpu.toFixed(2)} cores`);
    if (isDisturbed && tries > 1) continue;
    const all = samples.get(step.name) ?? [];
    samples.set(step.name, [...all, { values, othersCpu }]);
    const told = Object.entries(values).map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`);
    progress.end(told.join('  '));
    return;
  }
}

function redisSteps(): Step[] {
  return podCounts.flatMap((pods) =>
    kindNames.flatMap((kind) =>
      layouts.map((layout) => ({
        name: redisName(layout, kind, pods),
        nominalSeconds: seconds + 3 + (pods * START_MS) / 1000,
        run: async () => {
          const { title: _, ...load } = kinds[kind];
          const { cpu, rate, lost, p99Ms } = await loadRedis(layout, { ...load, pods, bare: 'none' });
          const perMessage = cpu.map((used) => (used * MICRO) / rate);
          return { sum: sum(perMessage), busiest: Math.max(...perMessage), lost, p99Ms };
        },
      })),
    ),
  );
}

function redisName(layout: Layout, kind: Kind, pods: number): string {
  return `${layout === 'one' ? 'one Redis' : 'three masters'}, ${kinds[kind].title}, ${pods} pods`;
}

/** First as many messages as one Redis takes, then shares of that, paced. */
function fullSteps(): Step[] {
  const step = (pods: number, durable: boolean): Step => ({
    name: fullName(pods, durable),
    nominalSeconds: (SHARES.length + 1) * (seconds + 3),
    run: async () => {
      const load = { pods, channels: 96, durable, bare: durable ? ('readers' as const) : ('both' as const) };
      const full = await loadRedis('one', { ...load, rate: 'full' });
      const values: Record<string, number> = { rate: full.rate, cores: sum(full.cpu), p99Ms: full.p99Ms };
      let { lost } = full;
      for (const share of SHARES) {
        const paced = await loadRedis('one', { ...load, rate: Math.round(full.rate * share) });
        values[`rate${share}`] = paced.rate;
        values[`cores${share}`] = sum(paced.cpu);
        values[`p99Ms${share}`] = paced.p99Ms;
        lost += paced.lost;
      }
      return { ...values, lost };
    },
  });
  return [
    ...fullPodCounts.map((pods) => step(pods, false)),
    ...fullDurablePodCounts.map((pods) => step(pods, true)),
  ];
}

function fullName(pods: number, durable: boolean): string {
  return `one Redis full, ${durable ? 'durable, ' : ''}${pods} pods`;
}

/** What a load costs each Redis, in cores. Each pod that is a bus has a process of its own. */
async function loadRedis(layout: Layout, load: Omit<PodsLoad, 'seconds' | 'warmSeconds' | 'afterMs'>) {
  const { url, masters } = redises[layout];
  const { pods, rate, bare } = load;
  const processes = bare === 'none' ? pods : 1;
  const share = {
    ...load,
    pods: pods / processes,
    rate: rate === 'full' ? rate : rate / processes,
    seconds,
    warmSeconds: WARM_SECONDS,
  };
  const clients = Array.from({ length: processes }, (_, index) => {
    // They publish in turn, and not all in the same millisecond.
    const afterMs = rate === 'full' ? 0 : (index * 1000) / rate;
    return startPodsClient(cores.client, url, { ...share, afterMs }, layout === 'three');
  });
  const all = (key: string) => Promise.all(clients.map((client) => client.reported(key)));
  await all('ready');
  for (const { pid } of clients) process.kill(pid, 'SIGUSR2');
  await all('measuring');
  const before = readThreads(masters);
  await all('published');
  const after = readThreads(masters);
  const reports = await Promise.all(clients.map(({ report }) => report));
  const total = (key: string) => sum(reports.map((told) => told.get(key) ?? Number.NaN));
  return {
    rate: total('publishes_per_s'),
    cpu: after.cpu.map(
      (used, index) => ((used - (before.cpu[index] ?? 0)) * 1000) / (after.atMs - before.atMs),
    ),
    p99Ms: Math.max(...reports.map((told) => told.get('p99_ms') ?? Number.NaN)),
    lost: total('sent') * pods - total('heard') + total('failed'),
  };
}

function readThreads(processes: readonly Started[]): { readonly cpu: number[]; readonly atMs: number } {
  return { cpu: processes.map(({ pid }) => threadSeconds(pid)), atMs: performance.now() };
}

function gatewaySteps(): Step[] {
  return (Object.keys(mixes) as Mix[]).flatMap((mix) =>
    [0, mixes[mix].quiet, ...mixes[mix].rates].map((rate) => ({
      name: gatewayName(mix, rate),
      nominalSeconds: seconds + GATEWAY_WARM_SECONDS + 5,
      run: () => loadGateway(mix, rate),
    })),
  );
}

function gatewayName(mix: Mix, rate: number): string {
  return `gateway, ${mixes[mix].title}, ${rate} messages/s`;
}

async function loadGateway(mix: Mix, rate: number): Promise<Values> {
  if (gateway?.rooms === undefined) throw new Error('there is no gateway');
  const { rooms, members, rates } = mixes[mix];
  const { subscribe, ...silent } = gateway.rooms;
  const running = await gateway.start();
  try {
    const client = startRoomsClient(
      cores.client,
      running,
      mix === 'publish' || subscribe === undefined ? silent : { ...silent, subscribe },
      {
        ...{ rooms, members, publishesPerSecond: rate, seconds },
        // Always the most, so that no measurement has code in it that is not compiled yet.
        ...{ warmSeconds: GATEWAY_WARM_SECONDS, warmPerSecond: rates.at(-1) ?? rate },
      },
    );
    await client.reported('measuring');
    await sleep(MARGIN_MS);
    const before = readThreads([running]);
    await sleep(seconds * 1000 - 2 * MARGIN_MS);
    const after = readThreads([running]);
    const told = await client.report;
    const used = sum(after.cpu) - sum(before.cpu);
    const expected = mix === 'publish' ? 0 : (told.get('expected') ?? Number.NaN);
    return {
      cores: (used * 1000) / (after.atMs - before.atMs),
      lost: expected - (told.get('delivered') ?? Number.NaN),
      p99Ms: told.get('p99_ms') ?? Number.NaN,
      clientCores: told.get('client_cpu') ?? Number.NaN,
    };
  } finally {
    await end(running);
  }
}

/** The median of a value: of the undisturbed samples, where there are any. */
function of(name: string, value: string): number {
  const all = samples.get(name) ?? [];
  const quiet = all.filter(({ othersCpu }) => othersCpu <= DISTURBED_CORES);
  const sorted = (quiet.length > 0 ? quiet : all)
    .map(({ values }) => values[value] ?? Number.NaN)
    .sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** What docs/capacity.md has between its markers. */
function report(): string {
  const taken = [...samples.values()].flat();
  const disturbed = taken.filter(({ othersCpu }) => othersCpu > DISTURBED_CORES).length;
  const minutes = Math.round((performance.now() - startedAtMs) / 60_000);
  const lost = sum(taken.map(({ values }) => values.lost ?? 0));
  return [
    `Measured ${new Date().toISOString().slice(0, 10)} on ${machine()}, in ${minutes} min: medians of`,
    `${rounds} interleaved ${rounds === 1 ? 'round' : 'rounds'} of ${seconds} s a measurement. ${disturbed} of ${taken.length} measurements were disturbed by other`,
    `processes, and are left out where other rounds were not. Missing when a measurement was over: ${lost} messages.`,
    ...failures.map((failure) => `Failed: ${failure}.`),
    ...(only.includes('redis') ? ['', ...redisTable()] : []),
    ...(only.includes('full') ? ['', ...fullTable()] : []),
    ...(only.includes('gateway') ? ['', ...gatewayTable()] : []),
    ...(isWhole ? ['', ...constantsTable()] : []),
  ].join('\n');
}

/** Puts the report where docs/capacity.md has the last one. */
function writeDocs(text: string): void {
  const path = join(root, 'docs/capacity.md');
  const page = readFileSync(path, 'utf8');
  const [start, end] = ['<!-- measured by bench:capacity -->\n', '<!-- end of bench:capacity -->'];
  const [from, to] = [page.indexOf(start) + start.length, page.indexOf(end)];
  if (from < start.length || to < from) throw new Error(`${path} lacks the markers of bench:capacity`);
  writeFileSync(path, `${page.slice(0, from)}\n${text}\n\n${page.slice(to)}`);
}

function redisTable(): string[] {
  const rows = kindNames.flatMap((kind) =>
    podCounts.map((pods) => {
      const single = of(redisName('one', kind, pods), 'sum');
      const [all, busiest] = ['sum', 'busiest'].map((value) => of(redisName('three', kind, pods), value));
      return [
        pods === podCounts[0] ? kinds[kind].title : '',
        String(pods),
        single.toFixed(1),
        (all ?? Number.NaN).toFixed(1),
        (busiest ?? Number.NaN).toFixed(1),
        ((busiest ?? Number.NaN) / single).toFixed(2),
      ];
    }),
  );
  const heads = ['CPU of Redis a message, µs', 'Pods', 'One Redis', 'Three masters together'];
  return table([...heads, 'Busiest master', 'Busiest of one Redis'], rows);
}

function fullTable(): string[] {
  const row = (pods: number, durable: boolean): string[] => {
    const name = fullName(pods, durable);
    const quiet = of(redisName('one', durable ? 'durable' : 'many', pods), 'sum');
    const busy = busyMicros(name);
    return [
      `${durable ? 'durable, ' : ''}${pods}`,
      thousands(MICRO / busy),
      thousands((pods * MICRO) / busy),
      busy.toFixed(2),
      of(name, 'cores').toFixed(2),
      of(name, 'p99Ms').toFixed(1),
      ...SHARES.flatMap((share) => {
        const at = of(name, `rate${share}`) / MICRO;
        const model = Number.isNaN(quiet) ? '' : ` (${threadCores(at * quiet, at * busy).toFixed(2)})`;
        return [`${of(name, `cores${share}`).toFixed(2)}${model}`, of(name, `p99Ms${share}`).toFixed(1)];
      }),
    ];
  };
  const heads = ['Pods', 'Full at messages/s', 'Copies/s', 'µs a message', 'Cores when measured', 'p99, ms'];
  const shares = SHARES.flatMap((share) => [`Cores at ${share * 100} % (model)`, 'p99, ms']);
  return table(
    [...heads, ...shares],
    [
      ...fullPodCounts.map((pods) => row(pods, false)),
      ...fullDurablePodCounts.map((pods) => row(pods, true)),
    ],
  );
}

/** What a message costs Redis while it takes as many as it can. */
function busyMicros(name: string): number {
  return (of(name, 'cores') / of(name, 'rate')) * MICRO;
}

function gatewayTable(): string[] {
  const { quiet, busy } = gatewayCosts();
  const rows = (Object.keys(mixes) as Mix[]).flatMap((mix) => {
    const { title, members } = mixes[mix];
    const idle = of(gatewayName(mix, 0), 'cores');
    const heard = mix === 'publish' ? 0 : members;
    return [mixes[mix].quiet, ...mixes[mix].rates].map((rate) => {
      const cost = (of: Costs) =>
        (rate * (of.publish + (heard > 0 ? of.arrival : 0) + heard * of.delivery)) / MICRO;
      const name = gatewayName(mix, rate);
      return [
        title,
        thousands(rate),
        thousands(rate * heard),
        of(name, 'cores').toFixed(3),
        (idle + threadCores(cost(quiet), cost(busy))).toFixed(3),
        mix === 'publish' ? '-' : of(name, 'p99Ms').toFixed(1),
      ];
    });
  });
  return table(['Gateway', 'Messages/s', 'Deliveries/s', 'Cores', 'The model says', 'p99, ms'], rows);
}

interface Costs {
  readonly publish: number;
  readonly arrival: number;
  readonly delivery: number;
}

/** What a gateway pays for each, in µs, where it has little to do and where it has much. */
function gatewayCosts(): { readonly quiet: Costs; readonly busy: Costs } {
  const solve = (rateOf: (mix: Mix) => number): Costs => {
    const perMessage = (mix: Mix) =>
      ((of(gatewayName(mix, rateOf(mix)), 'cores') - of(gatewayName(mix, 0), 'cores')) * MICRO) / rateOf(mix);
    const publish = perMessage('publish');
    const rooms = perMessage('rooms');
    const delivery = (perMessage('news') - rooms) / (mixes.news.members - mixes.rooms.members);
    return { publish, arrival: rooms - publish - mixes.rooms.members * delivery, delivery };
  };
  return { quiet: solve((mix) => mixes[mix].quiet), busy: solve((mix) => mixes[mix].rates.at(-1) ?? 0) };
}

/** What capacity/constants.ts takes over. */
function constantsTable(): string[] {
  const paced = (kind: Kind) =>
    lineThrough(podCounts.map((pods) => [pods, of(redisName('one', kind, pods), 'sum')] as const));
  const full = (counts: readonly number[], durable: boolean) =>
    lineThrough(counts.map((pods) => [pods, busyMicros(fullName(pods, durable))] as const));
  const [publish = 0, copy = 0] = paced('many');
  const [publishBusy = 0, copyBusy = 0] = full(fullPodCounts, false);
  const [durable = 0] = paced('durable');
  const [durableBusy = 0] = full(fullDurablePodCounts, true);
  const { quiet, busy } = gatewayCosts();
  const rows: [string, number, number][] = [
    ['publishCpu', quiet.publish, busy.publish],
    ['arrivalCpu', quiet.arrival, busy.arrival],
    ['deliveryCpu', quiet.delivery, busy.delivery],
    ['redisPublishCpu', publish, publishBusy],
    ['redisCopyCpu', copy, copyBusy],
    ['redisDurableCpu', durable - publish, durableBusy - publishBusy],
  ];
  return table(
    ['Constant, µs', 'quiet', 'busy'],
    rows.map(([name, ...values]) => [name, ...values.map((value) => value.toFixed(2))]),
  );
}

/** The straight line through the points, by least squares of the relative errors: its value at 0, and its slope. */
function lineThrough(points: readonly (readonly [x: number, y: number])[]): number[] {
  const weights = points.map(([, y]) => 1 / y ** 2);
  const mean = (values: readonly number[]) =>
    sum(values.map((value, index) => value * (weights[index] ?? 0))) / sum(weights);
  const meanX = mean(points.map(([x]) => x));
  const meanY = mean(points.map(([, y]) => y));
  const slope =
    mean(points.map(([x, y]) => (x - meanX) * (y - meanY))) / mean(points.map(([x]) => (x - meanX) ** 2));
  return [meanY - slope * meanX, slope];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function thousands(value: number): string {
  return Number.isNaN(value) ? '-' : Number(value.toPrecision(3)).toLocaleString('en');
}
