// Rules: what Prometheus records and when it alerts. Written once, here; `npm run docs` makes the chart's template of
// them. A threshold is a number where they are tested, and stands for a value in the template.

/** What an SRE may tune: the values below `monitoring.rules`, as numbers and durations or what stands for them. */
export interface Tuning {
  readonly slo: {
    readonly deliverySuccessPercent: Setting;
    readonly deliveryLatencyPercent: Setting;
    readonly deliveryLatencySeconds: Setting;
    readonly minimumPerSecond: Setting;
  };
  readonly noPodReady: { readonly for: Setting };
  readonly busDown: { readonly for: Setting };
  readonly probeFailing: { readonly failures: Setting };
  readonly slowConsumers: { readonly percent: Setting; readonly for: Setting };
  readonly refusals: { readonly percent: Setting; readonly for: Setting };
  readonly gaps: { readonly connections: Setting };
  readonly drainOverrun: { readonly connections: Setting };
  readonly eventLoopLag: { readonly seconds: Setting; readonly for: Setting };
  readonly configFileInvalid: { readonly for: Setting };
  readonly skew: { readonly ratio: Setting; readonly connections: Setting; readonly for: Setting };
  readonly hpaAtMax: { readonly for: Setting };
  readonly redisMemory: { readonly percent: Setting; readonly for: Setting };
}

type Setting = number | string;

/** Where the rules hold. */
export interface Place {
  /** What selects the gateways of the release: neither its operator nor another release in the namespace. */
  readonly pods: string;
  /** What the names of the release's resources begin with; what is recorded for it has this label. */
  readonly release: string;
  /** What selects that. */
  readonly recorded: string;
  /** The most pods that the autoscaler makes. */
  readonly maxPods: Setting;
}

export interface Recording {
  readonly record: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly for?: Setting;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: { readonly summary: string; readonly description: string };
}

export interface RuleGroup {
  readonly name: string;
  readonly rules: readonly (Recording | Alert)[];
  /** Only where there is an autoscaler. */
  readonly autoscaled?: true;
}

/** The windows of the burn rates, from Google's SRE workbook (chapter 5, table 5-8): what part of a 30-day budget is
 * spent in the long window. The short one ends the alert soon after the burning does. */
const BURN_RATES = [
  { factor: 14.4, long: '1h', short: '5m', severity: 'critical', spent: '2% of the month in an hour' },
  { factor: 6, long: '6h', short: '30m', severity: 'critical', spent: '5% of the month in six hours' },
  { factor: 3, long: '1d', short: '2h', severity: 'warning', spent: '10% of the month in a day' },
  { factor: 1, long: '3d', short: '6h', severity: 'warning', spent: '10% of the month in three days' },
] as const;

const WINDOWS = ['5m', '30m', '1h', '2h', '6h', '1d', '3d'] as const;

/** Refusals that the gateway or its surroundings are the reason of, or an application whose users are shut out. A
 * pod that stops, a client that moves and requests that are no WebSocket are none of them. */
const REFUSALS = 'capacity|rate|token|keys_unavailable|origin|handshake_timeout';

/** What Redis or the way to it has lost. Clients that come too late are no failure of the gateway. */
const LOST = 'bus|forked';

/** All groups, in order. */
export function ruleGroups(tuning: Tuning, place: Place): RuleGroup[] {
  return [
    { name: 'tidegate.slo', rules: [...recordSlos(tuning, place), ...burnAlerts(tuning, place)] },
    { name: 'tidegate.pods', rules: [...recordPods(place), ...podAlerts(tuning, place)] },
    { name: 'tidegate.bus', rules: busAlerts(tuning, place) },
    { name: 'tidegate.autoscaling', rules: [hpaAtMax(tuning, place)], autoscaled: true },
  ];
}

/** Whether a rule is an alert. */
export function isAlert(rule: Recording | Alert): rule is Alert {
  return 'alert' in rule;
}

function recordSlos({ slo }: Tuning, { pods, release }: Place): Recording[] {
  const labels = { release };
  return WINDOWS.flatMap((window) => [
    {
      record: `tidegate:delivery_errors:ratio_rate${window}`,
      expr: deliveryErrors(pods, window, slo.minimumPerSecond),
      labels,
    },
    {
      record: `tidegate:slow_deliveries:ratio_rate${window}`,
      expr: slowDeliveries(pods, window, slo.deliveryLatencySeconds, slo.minimumPerSecond),
      labels,
    },
  ]);
}

/** The chance that a delivery that was due is not made: its message was not accepted, or it was and did not reach the
 * connection. The two are added, each in its own unit, because how many deliveries a refused message would have become
 * is not known. A gap counts as one delivery, the least that it can stand for. */
export function deliveryErrors(selector: string, window: string, minimumPerSecond: Setting): string {
  const sum = (metric: string, labels = '') =>
    `sum by (namespace) (rate(tidegate_${metric}{${selector}${labels}}[${window}]))`;
  const lost = `(${sum('dropped_total')} + ${sum('gaps_total', `,reason=~"${LOST}"`)})`;
  return lines(
    sum('publish_failures_total'),
    `  / clamp_min(${sum('messages_in_total')}, ${minimumPerSecond})`,
    `+ ${lost}`,
    `  / clamp_min(${sum('deliveries_total')} + ${lost}, ${minimumPerSecond})`,
  );
}

/** The share of messages that took longer than they may, from publish to the last socket write on a pod. */
export function slowDeliveries(
  selector: string,
  window: string,
  seconds: Setting,
  minimumPerSecond: Setting,
): string {
  const rate = (series: string, labels = '') =>
    `sum by (namespace) (rate(tidegate_delivery_latency_seconds_${series}{${selector}${labels}}[${window}]))`;
  return lines(
    `(${rate('count')} - ${rate('bucket', `,le="${seconds}"`)})`,
    `  / clamp_min(${rate('count')}, ${minimumPerSecond})`,
  );
}

function burnAlerts({ slo }: Tuning, { recorded }: Place): Alert[] {
  const slos = [
    {
      alert: 'TidegateDeliveryErrorBudgetBurn',
      series: 'tidegate:delivery_errors',
      percent: slo.deliverySuccessPercent,
      summary: 'Messages are not delivered: the error budget burns {factor} times too fast.',
      description: `{{ $value | humanizePercentage }} of the deliveries that were due in the last {long} were not made; ${slo.deliverySuccessPercent}% have to be.`,
    },
    {
      alert: 'TidegateDeliveryLatencyBudgetBurn',
      series: 'tidegate:slow_deliveries',
      percent: slo.deliveryLatencyPercent,
      summary: 'Messages are delivered late: the latency budget burns {factor} times too fast.',
      description: `{{ $value | humanizePercentage }} of the messages of the last {long} took longer than ${slo.deliveryLatencySeconds} s to reach the sockets; ${slo.deliveryLatencyPercent}% have to be in time.`,
    },
  ];
  return slos.flatMap(({ alert, series, percent, summary, description }) =>
    BURN_RATES.map(({ factor, long, short, severity, spent }): Alert => {
      const limit = `${factor} * (1 - ${percent} / 100)`;
      const burns = (window: string) => `${series}:ratio_rate${window}{${recorded}} > ${limit}`;
      const fill = (text: string) => text.replace('{factor}', String(factor)).replace('{long}', long);
      return {
        alert,
        expr: lines(burns(long), `and ${burns(short)}`),
        labels: { severity, window: long },
        annotations: {
          summary: fill(summary),
          description: `${fill(description)} At this pace it spends ${spent}.`,
        },
      };
    }),
  );
}

function recordPods({ pods, release }: Place): Recording[] {
  const ready = `tidegate_connections{${pods}} and on (namespace, pod) (tidegate_ready{${pods}} == 1)`;
  const labels = { release };
  return [
    {
      record: 'tidegate:ready_pods:sum',
      expr: `sum by (namespace) (tidegate_ready{${pods}})`,
      labels,
    },
    {
      record: 'tidegate:connections:skew',
      expr: `max by (namespace) (${ready}) / clamp_min(avg by (namespace) (${ready}), 1)`,
      labels,
    },
  ];
}

/** Gone when a pod has drained lately: in a rolling restart pods are one too many, and uneven, for good reason, and those
 * that hold on to an older file are on their way out. */
function unlessDrained({ pods }: Place): string {
  return `unless on (namespace) max by (namespace) (max_over_time(tidegate_drain_elapsed_seconds{${pods}}[10m])) > 0`;
}

function podAlerts(tuning: Tuning, place: Place): Alert[] {
  const { noPodReady, slowConsumers, refusals, drainOverrun, eventLoopLag, configFileInvalid, skew } = tuning;
  const { pods, recorded } = place;
  const increase = (metric: string, labels = '') => `increase(tidegate_${metric}{${pods}${labels}}[10m])`;
  const refused = `tidegate_refusals_total{${pods},reason=~"${REFUSALS}"}`;
  const late = `max by (namespace, pod) (max_over_time(tidegate_drain_late_connections{${pods}}[5m]))`;
  const peak = (metric: string) => `max by (namespace, pod) (max_over_time(tidegate_${metric}{${pods}}[5m]))`;
  return [
    {
      alert: 'TidegateNoPodReady',
      expr: lines(`sum by (namespace) (tidegate_ready{${pods}}) == 0`, `or absent(tidegate_ready{${pods}})`),
      for: noPodReady.for,
      labels: { severity: 'critical' },
      annotations: {
        summary: 'No gateway is ready: nobody can connect.',
        description:
          'Every gateway in {{ $labels.namespace }} is unready or gone, or Prometheus cannot reach any.',
      },
    },
    {
      alert: 'TidegateSlowConsumers',
      expr: lines(
        `sum by (namespace) (${increase('slow_consumers_total')})`,
        // A handful is always slow: of fewer connections than this, that would be many percent.
        `  > ${slowConsumers.percent} / 100 * clamp_min(sum by (namespace) (tidegate_connections{${pods}}), 500)`,
      ),
      for: slowConsumers.for,
      labels: { severity: 'warning' },
      annotations: {
        summary: 'Many clients read too slowly, and lose messages or their connection.',
        description: `{{ $value | humanize }} connections in {{ $labels.namespace }} reached their backlog bound within 10 minutes, more than ${slowConsumers.percent}% of all.`,
      },
    },
    {
      alert: 'TidegateRefusals',
      expr: lines(
        `sum by (namespace, reason) (rate(${refused}[5m]))`,
        `  / on (namespace) group_left () clamp_min(`,
        `    sum by (namespace) (rate(tidegate_opens_total{${pods}}[5m]))`,
        `      + sum by (namespace) (rate(${refused}[5m])), 0.1)`,
        `  > ${refusals.percent} / 100`,
      ),
      for: refusals.for,
      labels: { severity: 'warning' },
      annotations: {
        summary: 'Clients are refused: {{ $labels.reason }}.',
        description: `{{ $value | humanizePercentage }} of those who want to connect in {{ $labels.namespace }} are refused with the reason {{ $labels.reason }}.`,
      },
    },
    {
      alert: 'TidegateDrainOverrun',
      expr: lines(
        `${late} > ${drainOverrun.connections}`,
        `or ${peak('drain_elapsed_seconds')} > ${peak('drain_limit_seconds')} + 5`,
        `or sum by (namespace, pod) (increase(tidegate_drain_cuts_total{${pods}}[5m])) > ${drainOverrun.connections}`,
      ),
      labels: { severity: 'warning' },
      annotations: {
        summary: 'A pod does not drain in its time: clients are cut.',
        description:
          'The drain of {{ $labels.pod }} in {{ $labels.namespace }} is behind its pace or over its time, or has cut connections.',
      },
    },
    {
      alert: 'TidegateEventLoopLag',
      expr: `max by (namespace, pod) (tidegate_nodejs_eventloop_lag_p99_seconds{${pods}}) > ${eventLoopLag.seconds}`,
      for: eventLoopLag.for,
      labels: { severity: 'warning' },
      annotations: {
        summary: 'A pod is at its limit: its event loop lags.',
        description:
          'In one of a hundred turns {{ $labels.pod }} in {{ $labels.namespace }} is {{ $value | humanizeDuration }} late. Everything it does waits as long.',
      },
    },
    {
      alert: 'TidegateConfigFileInvalid',
      expr: lines(
        `min by (namespace, pod, file) (tidegate_config_file_valid{${pods}}) == 0`,
        unlessDrained(place),
      ),
      for: configFileInvalid.for,
      labels: { severity: 'warning' },
      annotations: {
        summary: 'A file has changed and cannot be used: {{ $labels.file }}.',
        description:
          '{{ $labels.pod }} in {{ $labels.namespace }} goes on with what {{ $labels.file }} held before. A pod that starts now does not, and may not start at all.',
      },
    },
    {
      alert: 'TidegateSkewAfterScaleOut',
      expr: lines(
        `tidegate:connections:skew{${recorded}} > ${skew.ratio}`,
        `and on (namespace) avg by (namespace) (tidegate_connections{${pods}}) > ${skew.connections}`,
        `and tidegate:ready_pods:sum{${recorded}} > min_over_time(tidegate:ready_pods:sum{${recorded}}[2h])`,
        unlessDrained(place),
      ),
      for: skew.for,
      labels: { severity: 'warning' },
      annotations: {
        summary: 'New pods stay empty: the fullest has {{ $value | humanize }} times the mean.',
        description: 'Pods were added in {{ $labels.namespace }}, and connections have not moved to them.',
      },
    },
  ];
}

function busAlerts(tuning: Tuning, { pods }: Place): Alert[] {
  const { busDown, probeFailing, gaps, redisMemory } = tuning;
  return [
    {
      alert: 'TidegateBusDown',
      expr: `tidegate_bus_up{${pods}} == 0`,
      for: busDown.for,
      labels: { severity: 'critical' },
      annotations: {
        summary: 'Messages do not cross the bus.',
        description:
          '{{ $labels.pod }} in {{ $labels.namespace }} gets nothing through Redis. On all pods it is Redis, on one it is that pod.',
      },
    },
    {
      alert: 'TidegateProbeFailing',
      expr: lines(
        `sum by (namespace, pod, reason) (increase(tidegate_bus_probe_failures_total{${pods}}[5m]))`,
        `  > ${probeFailing.failures}`,
      ),
      labels: { severity: 'warning' },
      annotations: {
        summary: 'The way through Redis breaks again and again.',
        description:
          '{{ $value | humanize }} probes of {{ $labels.pod }} in {{ $labels.namespace }} failed within 5 minutes ({{ $labels.reason }}).',
      },
    },
    {
      alert: 'TidegateGapsDeclared',
      expr: lines(
        `sum by (namespace, reason) (increase(tidegate_gaps_total{${pods},reason=~"${LOST}"}[10m]))`,
        `  > ${gaps.connections}`,
      ),
      labels: { severity: 'warning' },
      annotations: {
        summary: 'Clients were told that messages are missing: {{ $labels.reason }}.',
        description:
          '{{ $value | humanize }} gaps with the reason {{ $labels.reason }} were told in {{ $labels.namespace }} within 10 minutes.',
      },
    },
    {
      alert: 'TidegateRedisMemory',
      expr: lines(
        `max by (namespace) (tidegate_redis_used_memory_bytes{${pods}} / (tidegate_redis_max_memory_bytes{${pods}} > 0))`,
        `  > ${redisMemory.percent} / 100`,
      ),
      for: redisMemory.for,
      labels: { severity: 'warning' },
      annotations: {
        summary: 'Redis is nearly full.',
        description:
          'Redis uses {{ $value | humanizePercentage }} of its maxmemory. When it is full, durable channels take nothing more.',
      },
    },
  ];
}

function hpaAtMax({ hpaAtMax: { for: lasts } }: Tuning, place: Place): Alert {
  return {
    alert: 'TidegateHpaAtMax',
    expr: lines(`tidegate:ready_pods:sum{${place.recorded}} >= ${place.maxPods}`, unlessDrained(place)),
    for: lasts,
    labels: { severity: 'warning' },
    annotations: {
      summary: 'There are as many pods as the autoscaler may make.',
      description:
        'All {{ $value }} pods that autoscaling.maxReplicas allows in {{ $labels.namespace }} are there. More load finds no new pod.',
    },
  };
}

function lines(...parts: string[]): string {
  return parts.join('\n');
}
