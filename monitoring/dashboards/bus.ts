// Redis and the bus: whether messages cross it, how fast, and how full it is.

import { type Dashboard, PODS, quantile, rate, total } from '../panel.ts';

export const bus: Dashboard = {
  uid: 'tidegate-bus',
  title: 'Tidegate / Redis and bus',
  description: 'Whether messages cross the bus, how fast, what was lost on the way, and how full Redis is.',
  rows: [
    {
      title: 'The way through Redis',
      panels: [
        {
          title: 'Bus up, by pod',
          description:
            'Good: one colour. If all pods change together it is Redis, if one does it is that pod or its node.',
          kind: 'states',
          unit: 'none',
          width: 12,
          queries: [{ expr: `max by (pod) (tidegate_bus_up{${PODS}})`, legend: '{{pod}}' }],
          alert: 'TidegateBusDown',
        },
        {
          title: 'Through Redis and back',
          description:
            'A probe of each pod, twice a second. Good: a millisecond or two. It is a part of every delivery.',
          kind: 'lines',
          unit: 's',
          width: 12,
          queries: [
            { expr: quantile(0.5, 'bus_probe_seconds'), legend: 'median' },
            { expr: quantile(0.99, 'bus_probe_seconds'), legend: '99%' },
          ],
          alert: 'TidegateProbeFailing',
        },
        {
          title: 'Probes that failed',
          description:
            'Good: 0. refused: Redis does not take messages. missed: it takes them, and they do not come back. stalled: it says nothing.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('bus_probe_failures_total', ['reason']), legend: '{{reason}}' }],
          alert: 'TidegateProbeFailing',
        },
        {
          title: 'Subscriptions made anew',
          description:
            'Interruptions in the last hour. Good: 0. Each was told to clients, or repaired on durable channels.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [
            {
              expr: `sum by (pod) (increase(tidegate_bus_reconnects_total{${PODS}}[1h]))`,
              legend: '{{pod}}',
            },
          ],
          alert: 'TidegateGapsDeclared',
        },
        {
          title: 'Publishes refused, by reason',
          description:
            'Good: 0. bus_unavailable: Redis is away. overloaded: it does not keep up, and too many publishes wait.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('publish_failures_total', ['reason']), legend: '{{reason}}' }],
          alert: 'TidegateDeliveryErrorBudgetBurn',
        },
      ],
    },
    {
      title: 'What crosses it',
      panels: [
        {
          title: 'Messages from the bus',
          description:
            'Each pod gets those of the channels that somebody on it hears. Good: it moves with what is published.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          stacked: true,
          queries: [
            { expr: rate('bus_messages_total', ['channel_namespace']), legend: '{{channel_namespace}}' },
          ],
        },
        {
          title: 'Subscriptions',
          description: 'Topics each pod hears: its channels and users. Good: it moves with the connections.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [{ expr: total('bus_subscriptions', ['pod']), legend: '{{pod}}' }],
        },
        {
          title: 'Messages thrown away',
          description:
            'Not usable. Good: 0. foreign: another program publishes to Tidegate’s topics. too_large, not_utf8: on a raw channel.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('bus_dropped_total', ['reason']), legend: '{{reason}}' }],
        },
        {
          title: 'Lost on the way, told to clients',
          description:
            'Gaps because of the bus. Good: 0. bus: an interruption. forked: a failover of Redis lost what was answered.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('gaps_total', ['reason'], 'reason=~"bus|forked"'), legend: '{{reason}}' }],
          alert: 'TidegateGapsDeclared',
        },
        {
          title: 'Repairs of durable channels',
          description:
            'Good: 0, and repaired after an interruption: nothing was lost. forked, trimmed: something was.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('repairs_total', ['outcome']), legend: '{{outcome}}' }],
          alert: 'TidegateGapsDeclared',
        },
        {
          title: 'Presence',
          description:
            'Pairs of channel and user that the pods keep present in Redis. Good: it moves with the connections.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [{ expr: total('presence_members', ['pod']), legend: '{{pod}}' }],
        },
      ],
    },
    {
      title: 'How full it is',
      panels: [
        {
          title: 'Memory of Redis',
          description:
            'What it uses, and what it may use before its policy acts (0: no limit). Good: below 90%. When it is full, durable channels take nothing more.',
          kind: 'lines',
          unit: 'bytes',
          width: 12,
          queries: [
            { expr: `max (tidegate_redis_used_memory_bytes{${PODS}})`, legend: 'used' },
            { expr: `max (tidegate_redis_max_memory_bytes{${PODS}})`, legend: 'maxmemory' },
          ],
          alert: 'TidegateRedisMemory',
        },
        {
          title: 'Share of its memory',
          description: 'Good: below 90%, and flat: what is kept is trimmed. 0 where Redis has no limit.',
          kind: 'lines',
          unit: 'percentunit',
          width: 12,
          queries: [
            {
              expr: `max (tidegate_redis_used_memory_bytes{${PODS}} / (tidegate_redis_max_memory_bytes{${PODS}} > 0)) or 0 * max (tidegate_redis_max_memory_bytes{${PODS}})`,
              legend: 'used',
            },
          ],
          bad: { above: 0.9 },
          alert: 'TidegateRedisMemory',
        },
      ],
    },
  ],
};
