// Service health: is it up, for whom not, and since when.

import { chartTuning } from '../chart.ts';
import { type Dashboard, PODS, rate, ratesThatOccur, total } from '../panel.ts';
import { deliveryErrors, slowDeliveries } from '../rules.ts';

/** The chart's defaults: a dashboard knows no values. */
const { slo } = chartTuning();
const minimum = slo.minimumPerSecond;
const inTimeSeconds = slo.deliveryLatencySeconds;
const deliveryBudget = budget(slo.deliverySuccessPercent);
const latencyBudget = budget(slo.deliveryLatencyPercent);

/** The share that may fail, without the noise of binary fractions. */
function budget(percent: number | string): number {
  return Number((1 - Number(percent) / 100).toFixed(6));
}

export const health: Dashboard = {
  uid: 'tidegate-health',
  title: 'Tidegate / Service health',
  description: 'Is it up, for whom not, and since when.',
  rows: [
    {
      title: 'Is it up?',
      panels: [
        {
          title: 'Pods ready',
          description:
            'Gateways that want new connections. Good: as many as there should be. At 0 nobody can connect.',
          kind: 'number',
          unit: 'none',
          width: 4,
          queries: [{ expr: total('ready'), legend: 'ready' }],
          bad: { below: 1 },
          alert: 'TidegateNoPodReady',
        },
        {
          title: 'Pods with a bus',
          description: 'Gateways that messages reach through Redis. Good: the same number as pods.',
          kind: 'number',
          unit: 'none',
          width: 4,
          queries: [{ expr: total('bus_up'), legend: 'bus up' }],
          bad: { below: 1 },
          alert: 'TidegateBusDown',
        },
        {
          title: 'Connections',
          description: 'Clients connected now. Good: what is usual at this time of day.',
          kind: 'number',
          unit: 'short',
          width: 4,
          queries: [{ expr: total('connections'), legend: 'connections' }],
        },
        {
          title: 'Fullest pod',
          description:
            'Connections of the fullest pod, of what it holds at the most. Good: below 70%, so that there is room while new pods start.',
          kind: 'number',
          unit: 'percentunit',
          width: 4,
          queries: [
            {
              expr: `max (tidegate_connections{${PODS}} / tidegate_connections_limit{${PODS}})`,
              legend: 'of the limit',
            },
          ],
          bad: { above: 0.9 },
          alert: 'TidegateRefusals',
        },
        {
          title: 'Deliveries made',
          description:
            'Of the deliveries that were due in the last hour, those that were made. Good: 99.9% and more.',
          kind: 'number',
          unit: 'percentunit',
          width: 4,
          queries: [{ expr: `1 - max (${deliveryErrors(PODS, '1h', minimum)})`, legend: 'made' }],
          bad: { below: 1 - deliveryBudget },
          alert: 'TidegateDeliveryErrorBudgetBurn',
        },
        {
          title: 'Deliveries in time',
          description:
            'Of the messages of the last hour, those that reached the sockets within 250 ms. Good: 99% and more.',
          kind: 'number',
          unit: 'percentunit',
          width: 4,
          queries: [
            {
              expr: `1 - max (${slowDeliveries(PODS, '1h', inTimeSeconds, minimum)})`,
              legend: 'in time',
            },
          ],
          bad: { below: 1 - latencyBudget },
          alert: 'TidegateDeliveryLatencyBudgetBurn',
        },
      ],
    },
    {
      title: 'Since when?',
      panels: [
        {
          title: 'Ready, by pod',
          description:
            'Good: one colour. A pod that was never ready waits for Redis; one that is not any more drains, or is deaf.',
          kind: 'states',
          unit: 'none',
          width: 6,
          queries: [{ expr: `max by (pod) (tidegate_ready{${PODS}})`, legend: '{{pod}}' }],
          alert: 'TidegateNoPodReady',
        },
        {
          title: 'Bus up, by pod',
          description:
            'Good: one colour. If all pods change together it is Redis, if one does it is that pod or its node.',
          kind: 'states',
          unit: 'none',
          width: 6,
          queries: [{ expr: `max by (pod) (tidegate_bus_up{${PODS}})`, legend: '{{pod}}' }],
          alert: 'TidegateBusDown',
        },
        {
          title: 'Age of the processes',
          description:
            'Time since each gateway started. Good: lines that rise together. One that falls to 0 is a restart.',
          kind: 'lines',
          unit: 's',
          width: 6,
          queries: [
            {
              expr: `max by (pod) (time() - tidegate_process_start_time_seconds{${PODS}})`,
              legend: '{{pod}}',
            },
          ],
        },
        {
          title: 'Files in use, by pod',
          description:
            'Good: one colour. Where a file has changed and cannot be used, a pod goes on with what it held before.',
          kind: 'states',
          unit: 'none',
          width: 6,
          queries: [{ expr: `min by (pod) (tidegate_config_file_valid{${PODS}})`, legend: '{{pod}}' }],
          alert: 'TidegateConfigFileInvalid',
        },
        {
          title: 'Error budgets, burn rate of the last hour',
          description:
            'How many times faster than allowed the budget of 30 days is spent. Good: below 1. At 14.4 for an hour somebody is called.',
          kind: 'lines',
          unit: 'short',
          width: 12,
          queries: [
            {
              expr: `max (${deliveryErrors(PODS, '1h', minimum)}) / ${deliveryBudget}`,
              legend: 'delivery',
            },
            {
              expr: `max (${slowDeliveries(PODS, '1h', inTimeSeconds, minimum)}) / ${latencyBudget}`,
              legend: 'latency',
            },
          ],
          bad: { above: 14.4 },
          alert: 'TidegateDeliveryErrorBudgetBurn',
        },
        {
          title: 'Connections over time',
          description:
            'All pods together. Good: a line without steps. A step down that comes back at once is clients that had to reconnect.',
          kind: 'lines',
          unit: 'short',
          width: 12,
          stacked: true,
          queries: [{ expr: total('connections', ['pod']), legend: '{{pod}}' }],
        },
      ],
    },
    {
      title: 'For whom not?',
      panels: [
        {
          title: 'Refused upgrades, by reason',
          description:
            'Clients that wanted to connect and could not. Good: 0 but for `draining` in a restart. capacity: add pods; rate: an attack, or trustedProxies is wrong; token: an application signs wrongly.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('refusals_total', ['reason']), legend: '{{reason}}' }],
          alert: 'TidegateRefusals',
        },
        {
          title: 'Publishes refused, by namespace',
          description:
            'Messages that the bus did not accept. Good: 0. Their senders were told and may retry.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [
            { expr: rate('publish_failures_total', ['channel_namespace']), legend: '{{channel_namespace}}' },
          ],
          alert: 'TidegateDeliveryErrorBudgetBurn',
        },
        {
          title: 'Gaps told, by reason',
          description:
            'Clients that were told that messages are missing. Good: 0, and some `trimmed` or `limit` from clients that were away for long.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('gaps_total', ['reason']), legend: '{{reason}}' }],
          alert: 'TidegateGapsDeclared',
        },
        {
          title: 'Connections closed, by code',
          description:
            'Good: 1000, 1001 and 1005, which are clients that leave. 1006: cut lines. 1012: a pod that stops. 4401: slow readers. 4402: tokens that were not renewed.',
          kind: 'lines',
          unit: 'reqps',
          width: 12,
          queries: [{ expr: ratesThatOccur('closes_total', 'code'), legend: '{{code}}' }],
        },
        {
          title: 'Errors told, by code',
          description:
            'What clients and API callers were answered. Good: near 0. internal is a bug; bus_unavailable and overloaded are Redis; all others are the caller’s.',
          kind: 'lines',
          unit: 'reqps',
          width: 12,
          queries: [{ expr: ratesThatOccur('errors_total', 'code'), legend: '{{code}}' }],
        },
      ],
    },
    {
      title: 'How full is it?',
      panels: [
        {
          title: 'Event loop lag, 99th percentile',
          description:
            'How late things happen on each pod. Good: about 20 ms, which is how finely it is measured. Above 100 ms the pod has more to do than one core can.',
          kind: 'lines',
          unit: 's',
          width: 8,
          queries: [
            {
              expr: `max by (pod) (tidegate_nodejs_eventloop_lag_p99_seconds{${PODS}})`,
              legend: '{{pod}}',
            },
          ],
          bad: { above: 0.1 },
          alert: 'TidegateEventLoopLag',
        },
        {
          title: 'CPU',
          description: 'Cores used. Good: below 0.8. One thread does the work, so 1 is the end.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [{ expr: rate('process_cpu_seconds_total', ['pod']), legend: '{{pod}}' }],
          bad: { above: 0.8 },
          alert: 'TidegateEventLoopLag',
        },
        {
          title: 'Memory',
          description:
            'Resident memory. Good: flat, and in step with connections (about 10 KiB each) and backlogs.',
          kind: 'lines',
          unit: 'bytes',
          width: 8,
          queries: [{ expr: total('process_resident_memory_bytes', ['pod']), legend: '{{pod}}' }],
        },
      ],
    },
  ],
};
