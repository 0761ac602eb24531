// Metrics: every one the gateway has, in one place. Labels are bounded: a namespace, never a channel or a user.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';

/** Seconds, from a quarter of a millisecond to ten seconds: a delivery is usually one or two milliseconds. */
const LATENCY_BUCKETS = [
  0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];

/** A gauge whose value is asked for at each scrape instead of being kept up to date. */
export interface Reading {
  read: () => number;
}

export type Metrics = ReturnType<typeof createMetrics>;

/** Makes the gateway's metrics in a registry of their own, so that two gateways can live in one test process. */
export function createMetrics(version: string) {
  const registry = new Registry();
  const registers = [registry];
  const counter = <const L extends string = never>(name: string, help: string, labelNames: L[] = []) =>
    new Counter<L>({ name: `tidegate_${name}`, help, labelNames, registers });
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
  const histogram = <const L extends string = never>(name: string, help: string, labelNames: L[] = []) =>
    new Histogram<L>({ name: `tidegate_${name}`, help, labelNames, registers, buckets: LATENCY_BUCKETS });

  collectDefaultMetrics({ register: registry, prefix: 'tidegate_', eventLoopMonitoringPrecision: 20 });
  const metrics = {
    registry,
    connections: reading('connections', 'Connections open on this pod.'),
    users: reading('users', 'Users with at least one connection on this pod.'),
    channels: reading('channels', 'Channels with at least one subscriber on this pod.'),
    opens: counter('opens_total', 'Connections opened.', ['protocol']),
    closes: counter('closes_total', 'Connections closed, by close code; 1006 is a connection that was cut.', [
      'code',
    ]),
    refusals: counter('refusals_total', 'Upgrades refused, by reason.', ['reason']),
    shed: counter(
      'shed_total',
      'Connections that were asked to move to another pod, and what became of them.',
      ['result'],
    ),
    shedOutstanding: reading(
      'shed_outstanding_connections',
      'Connections that were asked to move and have neither left nor stayed yet.',
    ),
    ceiling: reading(
      'ceiling_connections',
      'Connections above which this pod sheds and refuses those who move; +Inf while the operator sets none.',
    ),
    messagesIn: counter('messages_in_total', 'Messages taken from clients and the HTTP API for publishing.', [
      'namespace',
    ]),
    bytesIn: counter('bytes_in_total', 'Bytes of text frames received from clients.'),
    errors: counter('errors_total', 'Errors told to clients and API callers, by code.', ['code']),
    busMessages: counter('bus_messages_total', 'Messages received from the bus.', ['namespace']),
    busDropped: counter(
      'bus_dropped_total',
      'Messages from the bus that were dropped because they were not usable.',
      ['reason'],
    ),
    deliveries: counter('deliveries_total', 'Messages written to connections.', ['namespace']),
    dropped: counter(
      'dropped_total',
      'Deliveries not made because the connection reads too slowly; each is told by a gap.',
      ['namespace'],
    ),
    gaps: counter('gaps_total', 'Gaps told to connections, by reason.', ['reason']),
    recoveries: counter(
      'recoveries_total',
      'Clients that came to a durable channel with a position, by whether they recovered, or why not.',
      ['outcome'],
    ),
    repairs: counter(
      'repairs_total',
      'Repairs of durable channels on this pod that found something missing, by what came of it.',
      ['outcome'],
    ),
    deliveryLatency: histogram(
      'delivery_latency_seconds',
      'From publish to the last socket write on this pod, a value for each message.',
      ['namespace'],
    ),
    slowConsumers: counter(
      'slow_consumers_total',
      'Connections whose backlog reached its bound, by what was done.',
      ['action'],
    ),
    congested: reading('congested_connections', 'Connections that have a backlog now.'),
    backlogBytes: reading('backlog_bytes', 'Bytes that wait for connections that read slowly.'),
    busUp: reading('bus_up', 'Whether messages cross the bus: 1 or 0.'),
    busReconnects: counter('bus_reconnects_total', 'Subscriptions made anew after the bus was lost.'),
    busProbe: histogram(
      'bus_probe_seconds',
      'Time a probe message takes through the bus and back to this pod.',
    ),
    busSubscriptions: reading('bus_subscriptions', 'Topics this pod is subscribed to on the bus.'),
    presenceMembers: reading('presence_members', 'Pairs of channel and user that this pod keeps present.'),
    drainRemaining: reading(
      'drain_remaining_connections',
      'Connections left to close while this pod drains.',
    ),
    buildInfo: gauge('build_info', 'Always 1; the labels say what is running.', ['version', 'node']),
  };
  metrics.buildInfo.set({ version, node: process.version }, 1);
  return metrics;
}
