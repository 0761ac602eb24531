// Metrics: every one the gateway has, in one place. Labels are bounded: a namespace, never a channel or a user; and
// each value of a label is there from the start, at zero, because a counter that begins with its first event hides
// that event from rate() and increase().

import {
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type Metric,
  Registry,
} from '@prometheus-io/client';
import { closeCodeLabels } from '../protocol/close.ts';
import { errorKinds } from '../protocol/errors.ts';

/** Seconds, from a quarter of a millisecond to ten seconds: a delivery is usually one or two milliseconds. */
const LATENCY_BUCKETS = [
  0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];

/** The label of a channel's namespace. Not `namespace`: Prometheus gives that name to a pod's own. */
const NAMESPACE = 'channel_namespace';

/** Every value that each label takes, but for namespaces, which the channels file names. */
export const labelValues = {
  opens: { protocol: ['plain', 'v1'] },
  closes: { code: closeCodeLabels },
  refusals: {
    reason: [
      'path',
      'user',
      'origin',
      'draining',
      'capacity',
      'moving',
      'rate',
      'token',
      'keys_unavailable',
      'handshake_timeout',
      'bad_request',
    ],
  },
  shed: { result: ['asked', 'moved', 'stayed', 'closed'] },
  errors: { code: Object.keys(errorKinds) },
  publishFailures: { reason: ['bus_unavailable', 'overloaded', 'internal'] },
  busDropped: { reason: ['foreign', 'kind', 'too_large', 'not_utf8'] },
  gaps: { reason: ['bus', 'slow', 'trimmed', 'forked', 'limit'] },
  recoveries: { outcome: ['recovered', 'trimmed', 'forked', 'unknown', 'limit'] },
  repairs: { outcome: ['repaired', 'trimmed', 'forked', 'limit'] },
  slowConsumers: { action: ['disconnect', 'drop', 'cut'] },
  busProbeFailures: { reason: ['refused', 'missed', 'stalled'] },
  traceSpans: { outcome: ['exported', 'failed', 'dropped'] },
} as const satisfies Record<string, Record<string, readonly string[]>>;

/** A gauge whose value is asked for at each scrape instead of being kept up to date. */
export interface Reading {
  read: () => number;
}

/** Every metric of a gateway, and how they are read. */
export type Metrics = ReturnType<typeof createMetrics>;

/** Makes the gateway's metrics in a registry of their own, so that two gateways can live in one test process. */
export function createMetrics(version: string) {
  const registry = new Registry();
  const registers = [registry];
  const plain = (name: string, help: string) => new Counter({ name: `tidegate_${name}`, help, registers });
  const counter = <const L extends string>(
    name: string,
    help: string,
    values: Readonly<Record<L, readonly string[]>>,
  ) => {
    const [label] = Object.keys(values) as [L];
    const made = new Counter<L>({ name: `tidegate_${name}`, help, labelNames: [label], registers });
    for (const value of values[label]) made.labels(value).inc(0);
    return made;
  };
  const perNamespace = (name: string, help: string) =>
    new Counter({ name: `tidegate_${name}`, help, labelNames: [NAMESPACE], registers });
  const gauge = <const L extends string = never>(name: string, help: string, labelNames: L[] = []) =>
    new Gauge<L>({ name: `tidegate_${name}`, help, labelNames, registers });
  const reading = (name: string, help: string): Reading => {
    const source: Reading = { read: () => 0 };
    new Gauge({
      name: `tidegate_${name}`,
      help,
      registers,
      collect() {
        this.set(source.read());
      },
    });
    return source;
  };

  collectDefaultMetrics({ register: registry, prefix: 'tidegate_', eventLoopMonitoringPrecision: 20 });
  const metrics = {
    ready: reading('ready', 'Whether the pod wants new connections, as /readyz says: 1 or 0.'),
    connections: reading('connections', 'Connections open on this pod.'),
    connectionsLimit: gauge('connections_limit', 'Connections this pod holds at the most.'),
    users: reading('users', 'Users with at least one connection on this pod.'),
    channels: reading('channels', 'Channels with at least one subscriber on this pod.'),
    opens: counter('opens_total', 'Connections opened.', labelValues.opens),
    closes: counter(
      'closes_total',
      'Connections closed, by close code; 1006 is a connection that was cut.',
      labelValues.closes,
    ),
    refusals: counter('refusals_total', 'Upgrades refused, by reason.', labelValues.refusals),
    shed: counter(
      'shed_total',
      'Connections that were asked to move to another pod, and what became of them.',
      labelValues.shed,
    ),
    shedOutstanding: reading(
      'shed_outstanding_connections',
      'Connections that were asked to move and have neither left nor stayed yet.',
    ),
    ceiling: reading(
      'ceiling_connections',
      'Connections above which this pod sheds and refuses those who move; +Inf while the operator sets none.',
    ),
    messagesIn: perNamespace(
      'messages_in_total',
      'Messages taken from clients and the HTTP API for publishing.',
    ),
    publishFailures: new Counter({
      name: 'tidegate_publish_failures_total',
      help: 'Messages of those taken that the bus did not accept, by reason; their senders were told.',
      labelNames: [NAMESPACE, 'reason'],
      registers,
    }),
    bytesIn: plain('bytes_in_total', 'Bytes of text frames received from clients.'),
    bytesOut: plain('bytes_out_total', 'Bytes of frames written to connections.'),
    errors: counter('errors_total', 'Errors told to clients and API callers, by code.', labelValues.errors),
    busMessages: perNamespace('bus_messages_total', 'Messages received from the bus.'),
    busDropped: counter(
      'bus_dropped_total',
      'Messages from the bus that were dropped because they were not usable.',
      labelValues.busDropped,
    ),
    deliveries: perNamespace('deliveries_total', 'Messages written to connections.'),
    dropped: perNamespace(
      'dropped_total',
      'Deliveries not made because the connection reads too slowly; each is told by a gap.',
    ),
    gaps: counter('gaps_total', 'Gaps told to connections, by reason.', labelValues.gaps),
    recoveries: counter(
      'recoveries_total',
      'Clients that came to a durable channel with a position, by whether they recovered, or why not.',
      labelValues.recoveries,
    ),
    repairs: counter(
      'repairs_total',
      'Repairs of durable channels on this pod that found something missing, by what came of it.',
      labelValues.repairs,
    ),
    deliveryLatency: new Histogram({
      name: 'tidegate_delivery_latency_seconds',
      help: 'From publish to the last socket write on this pod, a value for each message; none on raw channels.',
      labelNames: [NAMESPACE],
      // The library takes exemplars for OpenMetrics only, and this registry can tell both.
      registers: [],
      buckets: LATENCY_BUCKETS,
      enableExemplars: true,
    }),
    slowConsumers: counter(
      'slow_consumers_total',
      'Connections whose backlog reached its bound, by what was done.',
      labelValues.slowConsumers,
    ),
    congested: reading('congested_connections', 'Connections that have a backlog now.'),
    backlogBytes: reading('backlog_bytes', 'Bytes that wait for connections that read slowly.'),
    busUp: reading('bus_up', 'Whether messages cross the bus: 1 or 0.'),
    busReconnects: plain('bus_reconnects_total', 'Subscriptions made anew after the bus was lost.'),
    busProbe: new Histogram({
      name: 'tidegate_bus_probe_seconds',
      help: 'Time a probe message takes through the bus and back to this pod; none on the memory bus.',
      registers,
      buckets: LATENCY_BUCKETS,
    }),
    busProbeFailures: counter(
      'bus_probe_failures_total',
      'Probes that did not come back through the bus after one had, by what became of them.',
      labelValues.busProbeFailures,
    ),
    busSubscriptions: reading('bus_subscriptions', 'Topics this pod is subscribed to on the bus.'),
    redisUsedMemory: reading(
      'redis_used_memory_bytes',
      'Memory Redis uses, of its server that is closest to its limit; 0 where it is not known.',
    ),
    redisMaxMemory: reading(
      'redis_max_memory_bytes',
      'What that server may use before its policy acts; 0 where it has no limit.',
    ),
    presenceMembers: reading('presence_members', 'Pairs of channel and user that this pod keeps present.'),
    drainLimit: gauge('drain_limit_seconds', 'Seconds a drain may take.'),
    drainElapsed: reading('drain_elapsed_seconds', 'Seconds since this pod began to drain; 0 before.'),
    drainRemaining: reading(
      'drain_remaining_connections',
      'Connections left to close while this pod drains.',
    ),
    drainLate: reading(
      'drain_late_connections',
      'Connections that should be gone by now, by the pace of the drain.',
    ),
    drainCuts: plain(
      'drain_cuts_total',
      'Connections cut because they were still there when the drain ended.',
    ),
    traceSpans: counter(
      'trace_spans_total',
      'Spans of traces, by whether their receiver took them; dropped are those above the bound of what may wait.',
      labelValues.traceSpans,
    ),
    configReloads: new Counter({
      name: 'tidegate_config_reloads_total',
      help: 'Files that have changed since the start, by whether what they hold could be used.',
      labelNames: ['file', 'result'],
      registers,
    }),
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
  registry.registerMetric(metrics.deliveryLatency);
  metrics.buildInfo.set({ version, node: process.version }, 1);

  return {
    ...metrics,
    registry,
    /** Puts the series of these namespaces there, at zero. */
    addNamespaces(names: Iterable<string>): void {
      for (const name of names) {
        const { messagesIn, busMessages, deliveries, dropped, publishFailures, deliveryLatency } = metrics;
        for (const each of [messagesIn, busMessages, deliveries, dropped]) each.inc({ [NAMESPACE]: name }, 0);
        for (const reason of labelValues.publishFailures.reason)
          publishFailures.inc({ [NAMESPACE]: name, reason }, 0);
        deliveryLatency.zero({ [NAMESPACE]: name });
      }
    },
    /** What a scrape gets, in the format that it accepts: only OpenMetrics has exemplars. */
    exposition(accept: string | undefined): Promise<{ type: string; text: string }> {
      return expose(accept?.includes('application/openmetrics-text') ? openMetrics(registry) : registry);
    },
  };
}

/** The metrics of one namespace, looked up once instead of at every message. */
export function metricsOfNamespace(metrics: Metrics, namespace: string) {
  const labels = { [NAMESPACE]: namespace };
  const latency = metrics.deliveryLatency.labels(labels);
  return {
    busMessages: metrics.busMessages.labels(labels),
    deliveries: metrics.deliveries.labels(labels),
    dropped: metrics.dropped.labels(labels),
    /** `traceId`: of a trace that was sampled, so that a bucket leads to an example. */
    observeLatency(seconds: number, traceId: string | undefined): void {
      if (traceId === undefined) {
        latency.observe(seconds);
        return;
      }
      const exemplarLabels: Record<string, string> = { trace_id: traceId };
      metrics.deliveryLatency.observe({ labels, value: seconds, exemplarLabels });
    },
  };
}

async function expose(registry: Pick<Registry, 'contentType' | 'metrics'>) {
  return { type: registry.contentType, text: await registry.metrics() };
}

/** The same metrics in a registry of the other format. It strips `_total` from the name of a counter and puts it back
 * at each series, so it is given stand-ins instead of the counters themselves. */
function openMetrics(registry: Registry): Registry {
  const other = new Registry(Registry.OPENMETRICS_CONTENT_TYPE);
  for (const { name } of registry.getMetricsAsArray()) {
    const metric = registry.getSingleMetric(name);
    if (!(metric instanceof Counter)) {
      if (metric !== undefined) other.registerMetric(metric);
      continue;
    }
    const bare = name.replace(/_total$/, '');
    const standIn = {
      name: bare,
      type: 'counter',
      get: async () => ({ ...(await metric.get()), name: bare }),
    };
    other.registerMetric(standIn as unknown as Metric);
  }
  return other;
}
