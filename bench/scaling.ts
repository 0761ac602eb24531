// Horizontal scaling, on a cluster: what a delivery costs when the same connections are on 1, 2 and 4 pods, and what
// Redis does meanwhile. The load is paced, far from saturation: on a few cores the sum cannot grow with the pods, so
// what is looked for is the cost. docs/capacity.md rests on what this prints.
//
// It needs kubectl and helm, an image that the cluster has, and a network on which this machine reaches Services.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { start } from './process.ts';
import { prepareTools, root } from './tools.ts';

const { values: options } = parseArgs({
  options: {
    image: { type: 'string', default: 'localhost/tidegate:dev' },
    pods: { type: 'string', default: '1,2,4' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '20' },
    json: { type: 'string' },
  },
});

const NAMESPACE = 'tidegate-scaling';
const RELEASE = 'tidegate';
const SETTLE_SECONDS = 3;

/** Two loads with the same deliveries a second, of which one has ten times the messages; one that has nothing but
 * messages; and none. */
const loads = [
  { name: '1000 connections × 50 messages/s', connections: 1000, perSecond: 50 },
  { name: '100 connections × 500 messages/s', connections: 100, perSecond: 500 },
  { name: '1 connection × 500 messages/s', connections: 1, perSecond: 500 },
  { name: 'idle, 1000 connections', connections: 1000, perSecond: 0 },
] as const;

/** What one measurement shows. */
interface Sample {
  readonly pods: number;
  readonly load: string;
  readonly messages: number;
  readonly deliveries: number;
  readonly lost: number;
  readonly p99Ms: number;
  /** CPU seconds, all pods together. */
  readonly gatewayCpu: number;
  readonly redisCpu: number;
  readonly seconds: number;
}

const podCounts = options.pods.split(',').map(Number);
const seconds = Number(options.seconds);
const { loadClient } = await prepareTools();
if (loadClient === undefined)
  throw new Error('there is no load client: set LIMIT_DIR to the folder of wsload.c');

const samples: Sample[] = [];
try {
  install();
  const host = kubectl('get', 'service', RELEASE, '-o', 'jsonpath={.spec.clusterIP}');
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const pods of podCounts) {
      await scale(pods);
      for (const load of loads) {
        const sample = await measure(host, pods, load);
        samples.push(sample);
        console.error(
          `round ${round + 1}, ${pods} pods, ${load.name}: ${sample.deliveries} deliveries, ${sample.lost} lost, p99 ${sample.p99Ms} ms, CPU ${sample.gatewayCpu.toFixed(2)} + Redis ${sample.redisCpu.toFixed(2)} s in ${sample.seconds.toFixed(1)} s`,
        );
      }
    }
  }
  report();
} finally {
  kubectl('delete', 'namespace', NAMESPACE, '--wait=false');
}

/** Without a CPU limit, which would throttle and be what is measured: the chart sets none. */
function install(): void {
  const [repository, tag] = [
    options.image.slice(0, options.image.lastIndexOf(':')),
    options.image.slice(options.image.lastIndexOf(':') + 1),
  ];
  run('helm', [
    ...[
      'install',
      RELEASE,
      join(root, 'charts/tidegate'),
      '--namespace',
      NAMESPACE,
      '--create-namespace',
      '--wait',
    ],
    ...['--set', `image.repository=${repository},image.tag=${tag},auth.mode=anonymous,replicaCount=1`],
    ...[
      '--set',
      'limits.upgradeRate=0,limits.messageRate=0,preStopSeconds=0,drainSeconds=0,operator.enabled=false',
    ],
    ...['--set', 'logLevel=warn,resources.requests.cpu=10m,redis.resources.requests.cpu=10m'],
  ]);
}

async function scale(pods: number): Promise<void> {
  kubectl('scale', 'deployment', RELEASE, `--replicas=${pods}`);
  kubectl('rollout', 'status', 'deployment', RELEASE, '--timeout=120s');
  while (podNames().length !== pods) await delay(200);
}

async function measure(host: string, pods: number, load: (typeof loads)[number]): Promise<Sample> {
  const lines: string[] = [];
  const client = start({
    name: 'wsload',
    command: loadClient ?? '',
    args: [
      ...['-h', host, '-p', '8080', '-u', '/ws/u%d', '-n', String(load.connections)],
      ...['-m', '%STAMP%', '-b', '155', '-r', String(load.perSecond)],
      ...['-d', String(seconds), '-w', String(SETTLE_SECONDS)],
    ],
    onLine: (line) => lines.push(line),
  });
  while (!lines.some((line) => line.startsWith('open='))) {
    if (!client.isRunning()) throw new Error(`wsload ${(await client.ended).reason}`);
    await delay(50);
  }
  await delay(SETTLE_SECONDS * 1000);
  const startedAtMs = performance.now();
  const before = cpu();
  const ending = await client.ended;
  if (!ending.ok) throw new Error(`wsload ${ending.reason}`);
  const after = cpu();
  const told = new Map(
    lines.flatMap((line) => [...line.matchAll(/(\w+)=([\d.]+)/g)].map(([, k, v]) => [k, Number(v)])),
  );
  const deliveries = told.get('delivered') ?? 0;
  return {
    pods,
    load: load.name,
    messages: told.get('sent') ?? 0,
    deliveries,
    lost: (told.get('expected') ?? 0) - deliveries,
    p99Ms: told.get('p99_ms') ?? 0,
    gatewayCpu: after.gateway - before.gateway,
    redisCpu: after.redis - before.redis,
    seconds: (performance.now() - startedAtMs) / 1000,
  };
}

/** CPU seconds since each process started: of all gateways together, and of Redis. */
function cpu(): { gateway: number; redis: number } {
  const gateway = podNames().map((pod) => {
    const text = kubectl('get', '--raw', `/api/v1/namespaces/${NAMESPACE}/pods/${pod}:9090/proxy/metrics`);
    return Number(/^tidegate_process_cpu_seconds_total (\S+)/m.exec(text)?.[1]);
  });
  const info = kubectl(
    ...['exec', `${RELEASE}-redis-0`, '--', 'sh', '-c'],
    'REDISCLI_AUTH=$(tr -d "\\n" </run/secrets/redis/redis-password) redis-cli INFO cpu',
  );
  const redis = ['used_cpu_sys', 'used_cpu_user'].map((name) => {
    return Number(new RegExp(`^${name}:(\\S+)`, 'm').exec(info)?.[1]);
  });
  return { gateway: sum(gateway), redis: sum(redis) };
}

function podNames(): string[] {
  const selector = 'app.kubernetes.io/component=gateway';
  const names = kubectl('get', 'pods', '-l', selector, '-o', 'jsonpath={.items[*].metadata.name}');
  return names.split(' ').filter((name) => name !== '');
}

/** Prints the medians, and the constants that follow from them. */
function report(): void {
  const of = (pods: number, load: string, figure: (sample: Sample) => number) =>
    median(samples.filter((sample) => sample.pods === pods && sample.load === load).map(figure));
  const idle = loads.at(-1);
  const busy = loads.slice(0, -1);
  const perMillion = (pods: number, load: string, which: 'gatewayCpu' | 'redisCpu') =>
    of(pods, load, (sample) => (sample[which] / sample.deliveries) * 1e6);
  console.log(
    '| load | pods | p99, ms | lost | CPU s a million deliveries | of 1 pod | Redis, CPU s a million messages |',
  );
  console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const { name } of busy) {
    const one = perMillion(podCounts[0] ?? 1, name, 'gatewayCpu');
    for (const pods of podCounts) {
      const cost = perMillion(pods, name, 'gatewayCpu');
      const redis = of(pods, name, (sample) => (sample.redisCpu / sample.messages) * 1e6);
      const cells = [
        name,
        pods,
        of(pods, name, (sample) => sample.p99Ms).toFixed(1),
        of(pods, name, (sample) => sample.lost),
        cost.toFixed(2),
        (cost / one).toFixed(2),
        redis.toFixed(1),
      ];
      console.log(`| ${cells.join(' | ')} |`);
    }
  }
  for (const pods of podCounts) {
    const cores = of(pods, idle?.name ?? '', (sample) => sample.gatewayCpu / sample.seconds);
    console.log(`idle, 1000 connections on ${pods} pods: ${cores.toFixed(3)} cores`);
  }
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(samples, undefined, 1)}\n`);
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function kubectl(...args: string[]): string {
  return run('kubectl', ['--namespace', NAMESPACE, ...args]);
}

function run(program: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? stderr}`);
  return stdout;
}
