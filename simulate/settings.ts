// The settings of a simulation: those of the chart from its values, as Helm would merge them, and what a chart cannot
// know (clients, load balancer, how fast pods start) from flags.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { parse } from 'yaml';
import { z } from 'zod';
import { isRecord } from '../src/platform/records.ts';
import { type BalancerName, balancerNames } from './balancer.ts';
import { type History, historyFromCsv, historyOf, type ShapeName, shapes } from './history.ts';
import { defaultRules, type HpaMetric, type HpaSettings } from './hpa.ts';
import { type WorldSettings, worldDefaults } from './world.ts';

export interface Settings {
  readonly history: History;
  readonly hpa: HpaSettings;
  /** Time between two looks of the autoscaler: a flag of the controller manager. */
  readonly syncSeconds: number;
  /** How old metrics are at most when the autoscaler reads them. */
  readonly metricsSeconds: number;
  readonly world: WorldSettings;
  /** Mean time that a client stays connected, in seconds. */
  readonly sessionSeconds: number;
  /** What a ConnectionPolicy says. Undefined: there is no operator. */
  readonly policy: Readonly<Record<string, unknown>> | undefined;
  readonly maxSkew: number;
  /** Connections a pod that the autoscaler holds. Undefined: it does not look at connections. */
  readonly target: number | undefined;
  readonly seed: number;
}

/** What somebody asked for on the command line. */
export interface Wish {
  readonly settings: Settings;
  /** Where the picture goes. */
  readonly picture: string;
}

export const usage = `usage: npm run hpa:simulate -- [options]

What happens (default: --history spike):
  --history NAME|FILE     ${Object.entries(shapes)
    .map(([name, { help }]) => `${name.padEnd(8)}${help}`)
    .join(`\n${' '.repeat(26)}`)}
                          or a CSV file with two columns, time and clients
  --peak N                clients at the peak of a built-in shape (40000)
  --session MINUTES       mean time that a client stays (120)
  --cores N               CPU cores that 1000 connections cost (0.03)

What it meets:
  --values FILE           values of the chart, as for helm; may be given several times
  --set KEY=VALUE         one value, as for helm: --set autoscaling.connections.target=8000
  --balancer NAME         ${balancerNames.join(', ')} (round-robin)
  --registration SECONDS  until the load balancer sends clients to a new pod (10)
  --start SECONDS         from a new pod to a ready one (15)
  --sync SECONDS          between two looks of the autoscaler (15)
  --metrics SECONDS       how old its metrics may be (5)
  --seed N                another run of chance (1)

What comes out:
  --out FILE              the picture (simulation.svg); the table is printed
`;

const chartValues = new URL('../charts/tidegate/values.yaml', import.meta.url);

/** Reads the command line; files are meant from `folder` on. @throws Fault where something in it is wrong. */
export function readWish(args: readonly string[], folder = '.'): Wish | 'help' {
  const { values: flags } = parseFlags(args);
  if (flags.help === true) return 'help';
  const chart = readChart(
    (flags.values ?? []).map((file) => resolve(folder, file)),
    flags.set ?? [],
  );
  const number = (name: keyof typeof flags, fallback: number, least = 0): number => {
    const text = flags[name];
    if (text === undefined) return fallback;
    const value = Number(text);
    if (!(value >= least)) throw new Fault(`--${name} must be a number from ${least}, not ${text}`);
    return value;
  };
  const balancer = flags.balancer ?? 'round-robin';
  if (!isBalancer(balancer)) throw new Fault(`--balancer must be one of ${balancerNames.join(', ')}`);
  const times = timesOf(chart);
  const { autoscaling, connectionPolicy, operator } = chart;
  return {
    picture: resolve(folder, flags.out ?? 'simulation.svg'),
    settings: {
      history: readHistory(flags.history ?? 'spike', number('peak', 40_000, 1), folder),
      hpa: hpaOf(chart, times.scaleDownPeriodSeconds),
      syncSeconds: number('sync', 15, 1),
      metricsSeconds: number('metrics', 5, 1),
      world: {
        ...worldDefaults,
        balancer,
        registrationSeconds: number('registration', 10),
        startSeconds: number('start', 15),
        preStopSeconds: times.preStopSeconds,
        drainSeconds: chart.drainSeconds,
        graceSeconds: times.graceSeconds,
        maxConnections: chart.maxConnections,
        coresPerConnection: number('cores', 0.03) / 1000,
      },
      sessionSeconds: number('session', 120, 0.1) * 60,
      policy:
        operator.enabled && connectionPolicy.enabled
          ? { rebalance: connectionPolicy.rebalance, scaleIn: { protect: connectionPolicy.protectScaleIn } }
          : undefined,
      maxSkew: connectionPolicy.rebalance.maxSkew ?? 1.2,
      target: autoscaling.connections.enabled ? autoscaling.connections.target : undefined,
      seed: number('seed', 1),
    },
  };
}

/** A fault that the person at the keyboard can mend. */
export class Fault extends Error {}

function parseFlags(args: readonly string[]) {
  const text = { type: 'string' } as const;
  const list = { type: 'string', multiple: true } as const;
  try {
    return parseArgs({
      args: [...args],
      options: {
        history: text,
        peak: text,
        session: text,
        cores: text,
        values: list,
        set: list,
        balancer: text,
        registration: text,
        start: text,
        sync: text,
        metrics: text,
        seed: text,
        out: text,
        help: { type: 'boolean' },
      },
    });
  } catch (error) {
    throw new Fault(error instanceof Error ? error.message : String(error));
  }
}

function isBalancer(name: string): name is BalancerName {
  return balancerNames.some((known) => known === name);
}

function readHistory(name: string, peak: number, folder: string): History {
  if (Object.hasOwn(shapes, name)) return historyOf(name as ShapeName, peak);
  let text: string;
  try {
    text = readFileSync(resolve(folder, name), 'utf8');
  } catch {
    throw new Fault(`--history ${name}: neither a file nor one of ${Object.keys(shapes).join(', ')}`);
  }
  try {
    return historyFromCsv(name, text);
  } catch (error) {
    throw new Fault(error instanceof Error ? error.message : String(error));
  }
}

// ── The chart ───────────────────────────────────────────────────────────────────────────────────────────────

const wayIn = z.object({ enabled: z.boolean(), preset: z.string().default('') });

/** What of the chart's values matters here. The rest is passed over; the chart's own schema checks it. */
const chartSchema = z.object({
  maxConnections: z.number().int().min(1),
  drainSeconds: z.number().min(0),
  preStopSeconds: z.number().min(0).nullish(),
  terminationGracePeriodSeconds: z.number().min(0).nullish(),
  resources: z.object({ requests: z.object({ cpu: z.union([z.string(), z.number()]) }) }),
  autoscaling: z.object({
    enabled: z.boolean(),
    minReplicas: z.number().int().min(0),
    maxReplicas: z.number().int().min(1),
    cpu: z.object({ enabled: z.boolean(), targetUtilization: z.number().min(1) }),
    connections: z.object({ enabled: z.boolean(), target: z.number().min(1) }),
    scaleUp: z.object({
      pods: z.number().int().min(1),
      periodSeconds: z.number().min(1),
      stabilizationWindowSeconds: z.number().min(0),
    }),
    scaleDown: z.object({
      periodSeconds: z.number().min(1).nullish(),
      stabilizationWindowSeconds: z.number().min(0),
    }),
  }),
  operator: z.object({ enabled: z.boolean() }),
  connectionPolicy: z.object({
    enabled: z.boolean(),
    protectScaleIn: z.boolean(),
    rebalance: z.looseObject({ maxSkew: z.number().optional() }),
  }),
  ingress: wayIn,
  gatewayApi: wayIn,
  loadBalancer: wayIn,
});

type Chart = z.infer<typeof chartSchema>;

function readChart(files: readonly string[], sets: readonly string[]): Chart {
  // Whoever simulates an autoscaler wants one, by connections unless they say otherwise.
  let values: unknown = { autoscaling: { enabled: true, connections: { enabled: true } } };
  values = merge(parse(readFileSync(chartValues, 'utf8')), values);
  for (const file of files) {
    try {
      values = merge(values, parse(readFileSync(file, 'utf8')));
    } catch (error) {
      throw new Fault(`--values ${file}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  for (const set of sets) {
    const at = set.indexOf('=');
    if (at < 1) throw new Fault(`--set ${set}: expected KEY=VALUE`);
    const keys = set.slice(0, at).split('.');
    if (!isThere(values, keys)) throw new Fault(`--set ${set}: the chart has no value ${keys.join('.')}`);
    const value: unknown = parse(set.slice(at + 1));
    values = merge(
      values,
      keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value),
    );
  }
  const result = chartSchema.safeParse(values);
  if (result.success) return result.data;
  throw new Fault(result.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('\n'));
}

/** Whether the chart has such a value, or what it is in may hold anything. A misspelt one would change nothing. */
function isThere(values: unknown, keys: readonly string[]): boolean {
  const [key, ...more] = keys;
  if (key === undefined || !isRecord(values) || Object.keys(values).length === 0) return true;
  return Object.hasOwn(values, key) && isThere(values[key], more);
}

function merge(under: unknown, over: unknown): unknown {
  if (!isRecord(under) || !isRecord(over)) return over === undefined ? under : over;
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) merged[key] = merge(under[key], value);
  return merged;
}

/** The times that the chart works out itself where nothing is set: `tidegate.times` in its helpers. */
function timesOf(chart: Chart) {
  const byPreset: Readonly<Record<string, number>> = { alb: 20, aws: 20, gce: 60, gke: 60, nlb: 120 };
  const { ingress, gatewayApi, loadBalancer } = chart;
  const ways = [
    ...[ingress, gatewayApi].map((way) => ({ ...way, usual: 10 })),
    { ...loadBalancer, usual: 20 },
  ].filter(({ enabled }) => enabled);
  const preStopSeconds =
    chart.preStopSeconds ?? Math.max(5, ...ways.map(({ preset, usual }) => byPreset[preset] ?? usual));
  const graceSeconds = chart.terminationGracePeriodSeconds ?? preStopSeconds + chart.drainSeconds + 10;
  const scaleDownPeriodSeconds = chart.autoscaling.scaleDown.periodSeconds ?? Math.max(60, graceSeconds);
  return { preStopSeconds, graceSeconds, scaleDownPeriodSeconds };
}

function hpaOf({ autoscaling, resources }: Chart, scaleDownPeriodSeconds: number): HpaSettings {
  const { minReplicas, maxReplicas, cpu, connections, scaleUp, scaleDown } = autoscaling;
  const metrics: HpaMetric[] = [];
  if (cpu.enabled) {
    const requestMilli = milliCpu(resources.requests.cpu);
    metrics.push({ kind: 'cpu', targetPercent: cpu.targetUtilization, requestMilli });
  }
  if (connections.enabled) {
    metrics.push({ kind: 'pods', name: 'tidegate_connections', targetMilli: connections.target * 1000 });
  }
  if (metrics.length === 0)
    throw new Fault('autoscaling: enable cpu or connections, or there is no autoscaler');
  if (minReplicas > maxReplicas) throw new Fault('autoscaling: minReplicas is above maxReplicas');
  return {
    minReplicas,
    maxReplicas,
    metrics,
    behavior: {
      scaleUp: {
        ...defaultRules.scaleUp,
        stabilizationWindowSeconds: scaleUp.stabilizationWindowSeconds,
        policies: [
          { type: 'Pods', value: scaleUp.pods, periodSeconds: scaleUp.periodSeconds },
          { type: 'Percent', value: 100, periodSeconds: scaleUp.periodSeconds },
        ],
      },
      scaleDown: {
        ...defaultRules.scaleDown,
        selectPolicy: 'Min',
        stabilizationWindowSeconds: scaleDown.stabilizationWindowSeconds,
        policies: [{ type: 'Pods', value: 1, periodSeconds: scaleDownPeriodSeconds }],
      },
    },
    tolerance: 0.1,
    downscaleStabilizationSeconds: 300,
  };
}

function milliCpu(quantity: string | number): number {
  const text = String(quantity);
  return text.endsWith('m') ? Number(text.slice(0, -1)) : Number(text) * 1000;
}
