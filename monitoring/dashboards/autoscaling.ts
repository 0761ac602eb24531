// Autoscaling: how connections are spread over pods, who is turned away, and how pods come and go.

import { type Dashboard, OPERATOR, PODS, type Row, rate, total, WINDOW } from '../panel.ts';

/** What the operator says. Where it is off these panels are empty. */
function operatorRow(): Row {
  const ofPolicy = (metric: string) => `max by (policy) (tidegate_operator_${metric}{${OPERATOR}})`;
  return {
    title: 'The operator',
    panels: [
      {
        title: 'Replicas: wanted, there, and the most',
        description:
          'Of the HorizontalPodAutoscaler. Good: there follows wanted within a minute, and both stay below the most.',
        kind: 'lines',
        unit: 'short',
        width: 8,
        queries: [
          { expr: ofPolicy('hpa_desired_replicas'), legend: '{{policy}}: wanted' },
          { expr: ofPolicy('hpa_current_replicas'), legend: '{{policy}}: there' },
          { expr: ofPolicy('hpa_max_replicas'), legend: '{{policy}}: most' },
        ],
        alert: 'TidegateHpaAtMax',
      },
      {
        title: 'Skew, as the operator sees it',
        description:
          'Good: below the maxSkew of the policy. It is absent while a pod is unknown, and nothing is done then.',
        kind: 'lines',
        unit: 'short',
        width: 8,
        queries: [{ expr: ofPolicy('skew_ratio'), legend: '{{policy}}' }],
        alert: 'TidegateSkewAfterScaleOut',
      },
      {
        title: 'Pods, by whether they answer',
        description:
          'Good: all known. The operator does nothing while one is unknown for longer than it may.',
        kind: 'lines',
        unit: 'short',
        width: 8,
        stacked: true,
        queries: [
          {
            expr: `max by (policy, state) (tidegate_operator_pods{${OPERATOR}})`,
            legend: '{{policy}}: {{state}}',
          },
        ],
      },
      {
        title: 'Connections, as the operator counts them',
        description: 'What the autoscaler is told. Good: the same as all pods together.',
        kind: 'lines',
        unit: 'short',
        width: 8,
        queries: [
          { expr: ofPolicy('connections'), legend: '{{policy}}' },
          { expr: total('connections'), legend: 'as the pods say' },
        ],
      },
      {
        title: 'Leaders',
        description:
          'Replicas of the operator that lead. Good: 1. At 0 for long nothing is decided; autoscaling goes on.',
        kind: 'lines',
        unit: 'short',
        width: 8,
        queries: [{ expr: `sum (tidegate_operator_leader{${OPERATOR}})`, legend: 'leaders' }],
        bad: { below: 1 },
      },
      {
        title: 'Failures of the operator',
        description: 'Good: 0. Each has a line in its log.',
        kind: 'lines',
        unit: 'reqps',
        width: 8,
        queries: [
          {
            expr: `sum (rate(tidegate_operator_failures_total{${OPERATOR}}[${WINDOW}]))`,
            legend: 'failures',
          },
          {
            expr: `sum (rate(tidegate_operator_watch_restarts_total{${OPERATOR}}[${WINDOW}]))`,
            legend: 'watches made anew',
          },
        ],
      },
    ],
  };
}

export const autoscaling: Dashboard = {
  uid: 'tidegate-autoscaling',
  title: 'Tidegate / Autoscaling',
  description: 'How connections are spread over pods, who is turned away, and how pods come and go.',
  rows: [
    {
      title: 'Where connections are',
      panels: [
        {
          title: 'Connections, by pod',
          description:
            'Good: lines close to each other. After a scale-out the old ones fall as the new ones rise.',
          kind: 'lines',
          unit: 'short',
          width: 12,
          queries: [{ expr: total('connections', ['pod']), legend: '{{pod}}' }],
          alert: 'TidegateSkewAfterScaleOut',
        },
        {
          title: 'Skew',
          description:
            'Connections on the fullest pod divided by the mean. Good: 1 to 1.2. New pods get no old connections by themselves.',
          kind: 'lines',
          unit: 'short',
          width: 6,
          queries: [
            {
              expr: `max (tidegate_connections{${PODS}}) / clamp_min(avg (tidegate_connections{${PODS}}), 1)`,
              legend: 'skew',
            },
          ],
          bad: { above: 1.5 },
          alert: 'TidegateSkewAfterScaleOut',
        },
        {
          title: 'Pods',
          description:
            'Gateways there are, and those that are ready. Good: the same, but while pods come and go.',
          kind: 'lines',
          unit: 'short',
          width: 6,
          queries: [
            { expr: `count (tidegate_ready{${PODS}})`, legend: 'there' },
            { expr: total('ready'), legend: 'ready' },
          ],
          alert: 'TidegateHpaAtMax',
        },
        {
          title: 'Connections and room for them',
          description: 'Good: the connections stay below 70% of what all pods hold together.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [
            { expr: total('connections'), legend: 'connections' },
            { expr: total('connections_limit'), legend: 'room' },
          ],
          alert: 'TidegateHpaAtMax',
        },
        {
          title: 'Opened and closed',
          description:
            'Connections a second. Good: about equal. Both high at once: clients reconnect in waves.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [
            { expr: rate('opens_total'), legend: 'opened' },
            { expr: rate('closes_total'), legend: 'closed' },
          ],
        },
        {
          title: 'Refused upgrades, by reason',
          description:
            'Good: 0. capacity: pods are full. moving: clients that were asked to move and try the next pod. draining: pods that stop.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [
            {
              expr: rate('refusals_total', ['reason'], 'reason=~"capacity|moving|draining|rate"'),
              legend: '{{reason}}',
            },
          ],
          alert: 'TidegateRefusals',
        },
      ],
    },
    {
      title: 'Moving connections',
      panels: [
        {
          title: 'Asked to move, and what became of it',
          description:
            'Good: moved follows asked. stayed: they found no pod with room; too many of them and the operator stops asking.',
          kind: 'lines',
          unit: 'reqps',
          width: 8,
          queries: [{ expr: rate('shed_total', ['result']), legend: '{{result}}' }],
          alert: 'TidegateSkewAfterScaleOut',
        },
        {
          title: 'Being moved now',
          description:
            'Connections that were asked and have neither left nor stayed. Good: few, and back to 0.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [{ expr: total('shed_outstanding_connections', ['pod']), legend: '{{pod}}' }],
        },
        {
          title: 'What a pod is to keep',
          description:
            'Above this it sheds: the operator’s ceiling, or the pod’s own limit while there is none. Good: ceilings that come and go after a scale-out.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [
            {
              expr: `max by (pod) (tidegate_ceiling_connections{${PODS}} < tidegate_connections_limit{${PODS}} or tidegate_connections_limit{${PODS}})`,
              legend: '{{pod}}',
            },
          ],
        },
      ],
    },
    {
      title: 'Pods that drain',
      panels: [
        {
          title: 'Connections left to close',
          description: 'On pods that stop. Good: straight lines to 0 within drainSeconds.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [{ expr: total('drain_remaining_connections', ['pod']), legend: '{{pod}}' }],
          alert: 'TidegateDrainOverrun',
        },
        {
          title: 'Behind the pace',
          description: 'Connections that should be gone by now, and those that were cut at the end. Good: 0.',
          kind: 'lines',
          unit: 'short',
          width: 8,
          queries: [
            { expr: total('drain_late_connections', ['pod']), legend: 'late: {{pod}}' },
            { expr: total('drain_cuts_total', ['pod']), legend: 'cut: {{pod}}' },
          ],
          alert: 'TidegateDrainOverrun',
        },
        {
          title: 'Time that drains take',
          description:
            'Of the time they may take. Good: below 100%. Above it the pod is killed when its grace period ends.',
          kind: 'lines',
          unit: 'percentunit',
          width: 8,
          queries: [
            {
              expr: `max by (pod) (tidegate_drain_elapsed_seconds{${PODS}} / clamp_min(tidegate_drain_limit_seconds{${PODS}}, 1))`,
              legend: '{{pod}}',
            },
          ],
          bad: { above: 1 },
          alert: 'TidegateDrainOverrun',
        },
      ],
    },
    operatorRow(),
  ],
};
