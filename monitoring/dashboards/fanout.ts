// Fan-out and latency: how much is delivered, how fast, and to whom it is not.

import { type Dashboard, quantile, rate, total } from '../panel.ts';

export const fanout: Dashboard = {
  uid: 'tidegate-fanout',
  title: 'Tidegate / Fan-out and latency',
  description:
    'How much is delivered and how fast, with examples that lead to traces, and what slow readers cost.',
  rows: [
    {
      title: 'How much',
      panels: [
        {
          title: 'Messages published',
          description:
            'Taken from clients and the HTTP API, by namespace of the channel. Good: what your application sends.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          stacked: true,
          queries: [
            { expr: rate('messages_in_total', ['channel_namespace']), legend: '{{channel_namespace}}' },
          ],
        },
        {
          title: 'Deliveries',
          description:
            'Messages written to connections. Good: it moves with the messages. This is what costs CPU.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          stacked: true,
          queries: [
            { expr: rate('deliveries_total', ['channel_namespace']), legend: '{{channel_namespace}}' },
          ],
        },
        {
          title: 'Deliveries a message',
          description:
            'How many connections one message reaches on a pod. Good: steady. A sudden rise is one channel that everybody joined.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [
            {
              expr: `${rate('deliveries_total', ['channel_namespace'])} / (${rate('bus_messages_total', ['channel_namespace'])} > 0) or 0 * ${rate('bus_messages_total', ['channel_namespace'])}`,
              legend: '{{channel_namespace}}',
            },
          ],
        },
        {
          title: 'Deliveries, by pod',
          description:
            'Good: pods that have as many connections deliver about as much. One that stands out has a busier channel.',
          kind: 'lines',
          unit: 'reqps',
          width: 12,
          queries: [{ expr: rate('deliveries_total', ['pod']), legend: '{{pod}}' }],
        },
        {
          title: 'Bytes in and out',
          description:
            'Text frames received, and frames written. Good: well below what the node’s network carries.',
          kind: 'lines',
          unit: 'Bps',
          width: 12,
          queries: [
            { expr: rate('bytes_in_total'), legend: 'in' },
            { expr: rate('bytes_out_total'), legend: 'out' },
          ],
        },
      ],
    },
    {
      title: 'How fast',
      panels: [
        {
          title: 'Delivery latency',
          description:
            'From publish to the last socket write on a pod, through Redis. Good: a median of some milliseconds and a 99th percentile below 50 ms. Each dot is one message, and leads to its trace.',
          kind: 'lines',
          unit: 's',
          width: 12,
          queries: [
            { expr: quantile(0.5, 'delivery_latency_seconds'), legend: 'median' },
            { expr: quantile(0.95, 'delivery_latency_seconds'), legend: '95%' },
            { expr: quantile(0.99, 'delivery_latency_seconds'), legend: '99%', exemplars: true },
          ],
          bad: { above: 0.25 },
          alert: 'TidegateDeliveryLatencyBudgetBurn',
        },
        {
          title: 'Delivery latency, all messages',
          description:
            'How many messages took how long. Good: one band, low and narrow. A second band above it is a pod or a namespace of its own.',
          kind: 'heat',
          unit: 's',
          width: 12,
          queries: [
            { expr: rate('delivery_latency_seconds_bucket', ['le']), legend: '{{le}}', exemplars: true },
          ],
          alert: 'TidegateDeliveryLatencyBudgetBurn',
        },
        {
          title: 'Latency, 99th percentile by namespace',
          description:
            'Good: all alike. Durable channels take a little longer, because Redis keeps what they carry.',
          kind: 'lines',
          unit: 's',
          width: 8,
          queries: [
            {
              expr: quantile(0.99, 'delivery_latency_seconds', ['channel_namespace']),
              legend: '{{channel_namespace}}',
            },
          ],
          alert: 'TidegateDeliveryLatencyBudgetBurn',
        },
        {
          title: 'Latency, 99th percentile by pod',
          description:
            'Good: all alike. One pod above the others is too full, or its node is; or its clock is off.',
          kind: 'lines',
          unit: 's',
          width: 8,
          queries: [{ expr: quantile(0.99, 'delivery_latency_seconds', ['pod']), legend: '{{pod}}' }],
          alert: 'TidegateEventLoopLag',
        },
        {
          title: 'Through Redis and back',
          description:
            'A probe of each pod, twice a second. Good: a millisecond or two. It is a part of every delivery.',
          kind: 'lines',
          unit: 's',
          width: 8,
          queries: [{ expr: quantile(0.99, 'bus_probe_seconds', ['pod']), legend: '{{pod}}' }],
          alert: 'TidegateProbeFailing',
        },
      ],
    },
    {
      title: 'Slow readers',
      panels: [
        {
          title: 'Slow consumers, by what was done',
          description:
            'Connections whose backlog reached its bound. Good: 0, or a few clients with bad lines. cut means that the pod protects its own memory.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('slow_consumers_total', ['action']), legend: '{{action}}' }],
          alert: 'TidegateSlowConsumers',
        },
        {
          title: 'Connections with a backlog',
          description:
            'Connections whose socket is full now. Good: a few that change. Many at once are a network, not clients.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [{ expr: total('congested_connections', ['pod']), legend: '{{pod}}' }],
          alert: 'TidegateSlowConsumers',
        },
        {
          title: 'Bytes that wait',
          description: 'Memory that slow readers cost. Good: far below limits.totalBacklogBytes (128 MiB).',
          kind: 'lines',
          unit: 'bytes',
          width: 8,
          queries: [{ expr: total('backlog_bytes', ['pod']), legend: '{{pod}}' }],
          alert: 'TidegateSlowConsumers',
        },
        {
          title: 'Deliveries dropped',
          description:
            'Left out for slow readers, in namespaces with slow: drop. Each is told by a gap. Good: 0.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('dropped_total', ['channel_namespace']), legend: '{{channel_namespace}}' }],
          alert: 'TidegateSlowConsumers',
        },
        {
          title: 'Clients that came back, by outcome',
          description:
            'To a durable channel, with a position. Good: recovered. trimmed and limit: away for too long. forked, unknown: Redis has lost messages.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('recoveries_total', ['outcome']), legend: '{{outcome}}' }],
          alert: 'TidegateGapsDeclared',
        },
        {
          title: 'Repairs, by outcome',
          description:
            'Messages of durable channels that a pod missed and got from the log. Good: 0, and repaired after an outage.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('repairs_total', ['outcome']), legend: '{{outcome}}' }],
          alert: 'TidegateGapsDeclared',
        },
      ],
    },
  ],
};
