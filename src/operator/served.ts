// The samples that the metrics API serves: from what the pods of all policies with `metrics.serve` last said.

import type { MetricsSource, PodLabels, QueryResult, Sample, ServedMetric } from './metrics-api.ts';
import type { Observer } from './observe.ts';
import type { SeenPod } from './pods.ts';
import type { PodAnswer } from './poll.ts';

/** How long a pod's last value is served after it stopped answering, with the time at which it was true. */
export const MAX_AGE_MS = 60_000;

/** Answers queries from the pods of all policies together. */
export class Served implements MetricsSource {
  readonly #observers: () => readonly Observer[];
  readonly #now: () => number;

  constructor(observers: () => readonly Observer[], now: () => number = Date.now) {
    this.#observers = observers;
    this.#now = now;
  }

  query(namespace: string, metric: ServedMetric, wants: (pod: PodLabels) => boolean): QueryResult {
    const observers = this.#observers().filter(
      ({ policy }) => policy.namespace === namespace && policy.spec.metrics.serve,
    );
    if (observers.length === 0) {
      return {
        status: 404,
        message: `no ConnectionPolicy with metrics.serve that this operator knows is in ${namespace}`,
      };
    }
    if (!observers.every(({ isComplete }) => isComplete)) return unavailable('the first round is under way');
    const samples = new Map<string, Sample>();
    for (const pod of observers.flatMap(({ pods }) => pods)) {
      // The autoscaler leaves out pods that are being deleted or have not begun to run, and so must this.
      if (pod.deleting || !pod.runs || !wants(pod)) continue;
      const sample = sampleOf(pod, metric, this.#now());
      if (sample === undefined) return unavailable(`pod ${pod.name} has not told its ${metric} for a minute`);
      samples.set(pod.name, sample);
    }
    if (samples.size === 0)
      return { status: 404, message: 'no pod of a ConnectionPolicy with metrics.serve matches' };
    return { samples: [...samples.values()] };
  }
}

function unavailable(message: string): QueryResult {
  return { status: 503, message };
}

function sampleOf(pod: SeenPod, metric: ServedMetric, nowMs: number): Sample | undefined {
  const answer = pod.heard.known ? pod.heard.answer : pod.heard.last;
  // Also where it comes from the future, because the clock was set back: nobody knows how old it is.
  if (answer === undefined || Math.abs(nowMs - answer.atMs) > MAX_AGE_MS) return undefined;
  const value = metricOf(answer, pod.before, metric);
  return value === undefined ? undefined : { pod: pod.name, value, atMs: answer.atMs };
}

function metricOf(
  answer: Omit<PodAnswer, 'bus'>,
  before: PodAnswer | undefined,
  metric: ServedMetric,
): number | undefined {
  switch (metric) {
    case 'tidegate_connections':
      return answer.connections;
    case 'tidegate_refusals_per_second':
      return rate(answer, before, 'refused');
    case 'tidegate_deliveries_per_second':
      return rate(answer, before, 'deliveries');
  }
}

/** Of a counter, from one answer to the next. Undefined where it began anew in between. */
function rate(
  answer: Omit<PodAnswer, 'bus'>,
  before: PodAnswer | undefined,
  counter: 'refused' | 'deliveries',
): number | undefined {
  const [to, from] = [answer[counter], before?.[counter]];
  if (to === undefined || from === undefined || before === undefined) return undefined;
  if (before.startedAtMs !== answer.startedAtMs || to < from || answer.atMs <= before.atMs) return undefined;
  return ((to - from) * 1000) / (answer.atMs - before.atMs);
}
