// The operator's own metrics. What is said of a policy is said by the leader alone, so that sums are right.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';
import type { Reading } from '../platform/metrics.ts';

export type OperatorMetrics = ReturnType<typeof createOperatorMetrics>;

const ofPolicy = ['namespace', 'policy'] as const;

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
    buildInfo: gauge('build_info', 'Always 1; the labels say what is running.', ['version', 'node']),
  };
  metrics.buildInfo.set({ version, node: process.version }, 1);
  return metrics;
}
