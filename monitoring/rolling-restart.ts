// A rolling restart as Prometheus sees it: one pod after the other comes, and one goes, drains and is gone.

import type { Series } from './promtool.ts';

const STEP_SECONDS = 15;

/** As the chart has it behind an ALB: a new pod counts after minReadySeconds, and an old one waits before it drains. */
const MIN_READY_SECONDS = 60;
const PRE_STOP_SECONDS = 20;
const DRAIN_SECONDS = 30;

/** Before the roll begins, and after it is over. */
const CALM_SECONDS = 600;
const AFTER_SECONDS = 1800;

const MESSAGES_PER_SECOND = 100;

interface Pod {
  readonly name: string;
  readonly bornAt: number;
  /** When it is told to stop; undefined: never. */
  readonly stopsAt: number | undefined;
  connections: number;
  readonly counters: Map<string, number>;
  readonly samples: Map<string, (number | undefined)[]>;
}

/** Makes the series of a roll, with clients that reconnect to whatever pod is ready. */
export function rollingRestart({ pods, connections }: { pods: number; connections: number }) {
  const seconds = CALM_SECONDS + pods * MIN_READY_SECONDS + AFTER_SECONDS;
  const nameOf = (roll: string, at: number) => `tidegate-${roll}-${String(at).padStart(5, '0')}`;
  // The next comes as soon as one is told to go, so there is one too many all the time.
  const turn = (at: number) => CALM_SECONDS + at * MIN_READY_SECONDS;
  const old = Array.from(
    { length: pods },
    (_, at): Pod => ({
      name: nameOf('6c4f9d7b8', at),
      bornAt: 0,
      stopsAt: turn(at) + MIN_READY_SECONDS,
      connections: connections / pods,
      counters: new Map(),
      samples: new Map(),
    }),
  );
  const fresh = Array.from(
    { length: pods },
    (_, at): Pod => ({
      name: nameOf('7d9f8c6b5', at),
      bornAt: turn(at),
      stopsAt: undefined,
      connections: 0,
      counters: new Map(),
      samples: new Map(),
    }),
  );
  const all = [...old, ...fresh];
  for (let second = 0; second < seconds; second += STEP_SECONDS) {
    move(all, second);
    for (const pod of all) tell(pod, second);
  }
  const series = all.flatMap(({ name, samples }) =>
    [...samples].map(([key, values]): Series => {
      const [metric = '', labels = '{}'] = key.split(' ');
      return {
        name: metric,
        labels: { pod: name, ...(JSON.parse(labels) as Record<string, string>) },
        values,
      };
    }),
  );
  return { series, minutes: Math.floor(seconds / 60), stepSeconds: STEP_SECONDS };
}

function isThere({ bornAt, stopsAt }: Pod, second: number): boolean {
  return second >= bornAt && (stopsAt === undefined || second <= stopsAt + PRE_STOP_SECONDS + DRAIN_SECONDS);
}

/** Seconds since it began to drain; 0 before. */
function drainedFor({ stopsAt }: Pod, second: number): number {
  return stopsAt === undefined ? 0 : Math.max(0, second - stopsAt - PRE_STOP_SECONDS);
}

/** Clients of pods that drain go to those that are ready, evenly: nobody knows which of them are new. */
function move(pods: readonly Pod[], second: number): void {
  const there = pods.filter((pod) => isThere(pod, second));
  const ready = there.filter((pod) => drainedFor(pod, second) === 0);
  for (const pod of there.filter((it) => drainedFor(it, second) > 0)) {
    const left = Math.max(0, 1 - drainedFor(pod, second) / (DRAIN_SECONDS * 0.7));
    const going = Math.ceil(pod.connections * (1 - left));
    pod.connections -= going;
    add(pod, 'closes_total', { code: '1012' }, going);
    // A load balancer that has not heard yet sends some of them back to where they came from.
    add(pod, 'refusals_total', { reason: 'draining' }, Math.ceil(going / 4));
    for (const other of ready) {
      other.connections += going / ready.length;
      add(other, 'opens_total', { protocol: 'v1' }, going / ready.length);
    }
  }
}

function add(pod: Pod, metric: string, labels: Record<string, string>, value: number): void {
  const key = `tidegate_${metric} ${JSON.stringify(labels)}`;
  pod.counters.set(key, (pod.counters.get(key) ?? 0) + value);
}

/** What a scrape of the pod finds. */
function tell(pod: Pod, second: number): void {
  const at = second / STEP_SECONDS;
  const there = isThere(pod, second);
  const drained = drainedFor(pod, second);
  const isNew = second === pod.bornAt && second > 0;
  const room = { channel_namespace: 'room' };
  if (there) {
    add(pod, 'messages_in_total', room, MESSAGES_PER_SECOND * STEP_SECONDS);
    add(pod, 'deliveries_total', room, pod.connections * STEP_SECONDS);
    add(pod, 'delivery_latency_seconds_count', room, MESSAGES_PER_SECOND * STEP_SECONDS);
    add(pod, 'delivery_latency_seconds_bucket', { ...room, le: '0.25' }, MESSAGES_PER_SECOND * STEP_SECONDS);
    add(pod, 'opens_total', { protocol: 'v1' }, drained > 0 ? 0 : 5);
    for (const reason of ['bus', 'forked', 'slow', 'trimmed', 'limit']) add(pod, 'gaps_total', { reason }, 0);
    for (const reason of ['capacity', 'rate', 'token', 'draining']) add(pod, 'refusals_total', { reason }, 0);
    for (const action of ['drop', 'cut']) add(pod, 'slow_consumers_total', { action }, 0);
    for (const reason of ['missed', 'refused', 'stalled'])
      add(pod, 'bus_probe_failures_total', { reason }, 0);
    add(pod, 'publish_failures_total', { ...room, reason: 'bus_unavailable' }, 0);
    add(pod, 'dropped_total', room, 0);
    add(pod, 'drain_cuts_total', {}, 0);
  }
  const gauges: Record<string, number> = {
    ready: isNew || drained > 0 ? 0 : 1,
    // A pod that starts has not seen its first probe come back yet.
    bus_up: isNew ? 0 : 1,
    connections: Math.round(pod.connections),
    nodejs_eventloop_lag_p99_seconds: isNew ? 0.25 : drained > 0 ? 0.04 : 0.021,
    drain_elapsed_seconds: drained,
    drain_limit_seconds: DRAIN_SECONDS,
    drain_remaining_connections: drained > 0 ? Math.round(pod.connections) : 0,
    drain_late_connections: 0,
    redis_used_memory_bytes: isNew ? 0 : 60e6,
    redis_max_memory_bytes: isNew ? 0 : 256e6,
  };
  const values = new Map(Object.entries(gauges).map(([name, value]) => [`tidegate_${name} {}`, value]));
  // A change that running pods cannot take may be what the restart is for.
  const isOutdated = pod.stopsAt !== undefined && second >= CALM_SECONDS - STEP_SECONDS;
  values.set('tidegate_config_file_valid {"file":"CHANNELS_FILE"}', isOutdated ? 0 : 1);
  for (const [key, value] of pod.counters) values.set(key, value);
  for (const [key, value] of values) {
    let samples = pod.samples.get(key);
    if (samples === undefined) {
      samples = new Array<number | undefined>(at).fill(undefined);
      pod.samples.set(key, samples);
    }
    samples[at] = there ? value : undefined;
  }
}
