// The operator's own metrics. What is said of a policy is said by the leader alone, so that sums are right.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';
import type { Reading } from '../platform/metrics.ts';
import { conditionTypes } from './conditions.ts';
import type { Observation } from './observation.ts';
import type { SeenPod } from './pods.ts';
import type { Policy, PolicyStatus } from './policy.ts';

/** Every metric of the operator. */
export type OperatorMetrics = ReturnType<typeof createOperatorMetrics>;

/** Not `namespace`, which Prometheus gives to the operator's own pod. */
const ofPolicy = ['policy_namespace', 'policy'] as const;

/** Seconds: pods are asked for two at the most. */
const ROUND_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Makes the operator's metrics in a registry of their own. */
export function createOperatorMetrics(version: string) {
  const registry = new Registry();
  const registers = [registry];
  const name = (it: string) => `tidegate_operator_${it}`;
  const counter = <const L extends string = never>(it: string, help: string, labelNames: readonly L[] = []) =>
    new Counter<L>({ name: name(it), help, labelNames: [...labelNames], registers });
  const gauge = <const L extends string = never>(it: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name: name(it), help, labelNames: [...labelNames], registers });
  const reading = (it: string, help: string): Reading => {
    const source: Reading = { read: () => 0 };
    new Gauge({
      name: name(it),
      help,
      registers,
      collect() {
        this.set(source.read());
      },
    });
    return source;
  };

  collectDefaultMetrics({ register: registry, prefix: 'tidegate_operator_' });

  const metrics = {
    registry,
    leader: reading('leader', 'Whether this replica leads: 1 or 0. Their sum is 1, or for a moment 0.'),
    policies: reading('policies', 'Connection policies that this replica works on.'),
    rounds: counter('rounds_total', 'Rounds of observing a workload, by outcome.', ['outcome']),
    roundSeconds: new Histogram({
      name: name('round_seconds'),
      help: 'How long a round takes: finding the workload, asking its pods, deciding, applying.',
      registers,
      buckets: ROUND_BUCKETS,
    }),
    watchRestarts: counter(
      'watch_restarts_total',
      'Watches of the API server made anew because they failed.',
    ),
    failures: counter('failures_total', 'Failures in the background, each with a line in the log.'),
    metricQueries: counter('metric_queries_total', 'Queries of the metrics API, by the status answered.', [
      'code',
    ]),
    certificateExpiry: reading(
      'certificate_expiry_timestamp_seconds',
      'When the certificate of the metrics API ends, in seconds since 1970; 0 where there is none.',
    ),
    connections: gauge('connections', 'Connections on all ready pods of the workload.', ofPolicy),
    pods: gauge('pods', 'Pods of the workload that are not being deleted, by whether they answer.', [
      ...ofPolicy,
      'state',
    ]),
    skew: gauge(
      'skew_ratio',
      'The fullest pod divided by the mean; absent while a pod is unknown.',
      ofPolicy,
    ),
    hpaDesired: gauge('hpa_desired_replicas', 'Replicas that the autoscaler wants.', ofPolicy),
    hpaCurrent: gauge('hpa_current_replicas', 'Replicas that the autoscaler has seen.', ofPolicy),
    hpaMax: gauge('hpa_max_replicas', 'Most replicas that the autoscaler may want.', ofPolicy),
    conditions: gauge('condition', 'Conditions of the policy: 1 true, 0 false, -1 unknown.', [
      ...ofPolicy,
      'type',
    ]),
    moves: counter('moves_total', 'Connections asked to move, and what came of it, as pods count them.', [
      ...ofPolicy,
      'outcome',
    ]),
    writes: counter('writes_total', 'What the leader wrote, by kind and outcome.', ['kind', 'outcome']),
    configReloads: counter(
      'config_reloads_total',
      'Files that have changed since the start, by whether what they hold could be used.',
      ['file', 'result'],
    ),
    configValid: gauge(
      'config_file_valid',
      'Whether what is in use is what the file holds: 1, or 0 while it cannot be used and what it held before goes on.',
      ['file'],
    ),
    configLoaded: gauge('config_loaded_timestamp_seconds', 'When what is in use of the file was read.', [
      'file',
    ]),
    buildInfo: gauge('build_info', 'Always 1; the labels say what is running.', ['version', 'node']),
  };
  metrics.buildInfo.set({ version, node: process.version }, 1);
  return metrics;
}

const conditionValues = { True: 1, False: 0, Unknown: -1 } as const;

/** Says of a policy what its status says. What is not known has no series. */
export function measurePolicy(
  metrics: OperatorMetrics,
  policy: Policy,
  { hpa, pods }: Observation,
  { connections, skew, conditions }: PolicyStatus,
): void {
  const labels = labelsOf(policy);
  const set = (gauge: Gauge<(typeof ofPolicy)[number]>, value: number | undefined) =>
    value === undefined ? gauge.remove(labels) : gauge.set(labels, value);
  const staying = pods.filter(({ deleting }) => !deleting);
  const known = staying.filter(({ heard }) => heard.known).length;
  metrics.pods.set({ ...labels, state: 'known' }, known);
  metrics.pods.set({ ...labels, state: 'unknown' }, staying.length - known);
  set(metrics.connections, connections);
  set(metrics.skew, skew);
  set(metrics.hpaDesired, hpa?.desired);
  set(metrics.hpaCurrent, hpa?.current);
  set(metrics.hpaMax, hpa?.max);
  for (const { type, status } of conditions)
    metrics.conditions.set({ ...labels, type }, conditionValues[status]);
}

/** Counts what pods told of their moves since the round before. */
export function countMoves(metrics: OperatorMetrics, policy: Policy, pods: readonly SeenPod[]): void {
  const labels = labelsOf(policy);
  for (const { heard, before } of pods) {
    if (!heard.known || before?.shed === undefined || before.startedAtMs !== heard.answer.startedAtMs)
      continue;
    for (const outcome of ['asked', 'moved', 'stayed'] as const) {
      const more = (heard.answer.shed?.[outcome] ?? 0) - before.shed[outcome];
      if (more > 0) metrics.moves.inc({ ...labels, outcome }, more);
    }
  }
}

/** Takes back what was said of a policy: it is gone, or another replica says it. Counters stay, as counters must. */
export function forgetPolicy(metrics: OperatorMetrics, policy: Policy): void {
  const labels = labelsOf(policy);
  for (const gauge of [
    metrics.connections,
    metrics.skew,
    metrics.hpaDesired,
    metrics.hpaCurrent,
    metrics.hpaMax,
  ])
    gauge.remove(labels);
  for (const state of ['known', 'unknown']) metrics.pods.remove({ ...labels, state });
  for (const type of Object.keys(conditionTypes)) metrics.conditions.remove({ ...labels, type });
}

function labelsOf({ namespace, name }: Policy): { policy_namespace: string; policy: string } {
  return { policy_namespace: namespace, policy: name };
}
