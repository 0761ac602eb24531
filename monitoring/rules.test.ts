import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { chartFolder, chartTuning, testPlace } from './chart.ts';
import {
  type Expectation,
  firing,
  hasPromtool,
  nothingFires,
  runPromtool,
  type Series,
  withPromtool,
} from './promtool.ts';
import { rollingRestart } from './rolling-restart.ts';
import { isAlert, ruleGroups } from './rules.ts';

// promtool is quick, but not on a machine that is busy with everything else.

const alerts = ruleGroups(chartTuning(), testPlace)
  .flatMap(({ rules }) => rules)
  .filter(isAlert);

const POD = 'tidegate-7d9f8c6b5-';
const PODS = ['aaaaa', 'bbbbb', 'ccccc'].map((end) => POD + end);

/** A counter that grows by so much a minute, or as a function of the minute says. */
function counter(
  name: string,
  perMinute: number | ((minute: number) => number),
  labels: Record<string, string> = {},
  minutes = 60,
): Series {
  let value = 0;
  const values = Array.from({ length: minutes }, (_, minute) => {
    value += typeof perMinute === 'number' ? perMinute : perMinute(minute);
    return value;
  });
  return { name: `tidegate_${name}`, labels, values };
}

/** A gauge that has the value of each minute. */
function gauge(
  name: string,
  value: number | ((minute: number) => number | undefined),
  labels: Record<string, string> = {},
  minutes = 60,
): Series {
  const values = Array.from({ length: minutes }, (_, minute) =>
    typeof value === 'number' ? value : value(minute),
  );
  return { name: `tidegate_${name}`, labels, values };
}

/** What a pod that is well tells, of what the rules ask. */
function well(minutes = 60, pod = PODS[0] ?? ''): Series[] {
  const room = { pod, channel_namespace: 'room' };
  return [
    gauge('ready', 1, { pod }, minutes),
    gauge('bus_up', 1, { pod }, minutes),
    gauge('connections', 1000, { pod }, minutes),
    gauge('nodejs_eventloop_lag_p99_seconds', 0.021, { pod }, minutes),
    gauge('drain_elapsed_seconds', 0, { pod }, minutes),
    gauge('drain_limit_seconds', 30, { pod }, minutes),
    gauge('drain_late_connections', 0, { pod }, minutes),
    gauge('redis_used_memory_bytes', 50e6, { pod }, minutes),
    gauge('redis_max_memory_bytes', 256e6, { pod }, minutes),
    counter('drain_cuts_total', 0, { pod }, minutes),
    gauge('config_file_valid', 1, { pod, file: 'CHANNELS_FILE' }, minutes),
    counter('messages_in_total', 6000, room, minutes),
    counter('publish_failures_total', 0, { ...room, reason: 'bus_unavailable' }, minutes),
    counter('deliveries_total', 600_000, room, minutes),
    counter('dropped_total', 0, room, minutes),
    counter('delivery_latency_seconds_count', 6000, room, minutes),
    counter('delivery_latency_seconds_bucket', 5990, { ...room, le: '0.25' }, minutes),
    counter('opens_total', 60, { pod, protocol: 'v1' }, minutes),
    counter('refusals_total', 0, { pod, reason: 'capacity' }, minutes),
    counter('gaps_total', 0, { pod, reason: 'bus' }, minutes),
    counter('slow_consumers_total', 0, { pod, action: 'drop' }, minutes),
    counter('bus_probe_failures_total', 0, { pod, reason: 'missed' }, minutes),
  ];
}

/** The series, with some replaced by those that have the same name and labels. */
function with_(changes: readonly Series[], series = well()): Series[] {
  const key = ({ name, labels = {} }: Series) =>
    JSON.stringify([name, labels.pod ?? PODS[0], labels.reason ?? labels.action ?? labels.le ?? '']);
  const changed = new Set(changes.map(key));
  return [...series.filter((it) => !changed.has(key(it))), ...changes];
}

/** From this minute on. */
const from =
  (minute: number, value: number, before = 0) =>
  (at: number) =>
    at >= minute ? value : before;

const room = { channel_namespace: 'room' };

/** How each alert comes about, and what proves it. */
const cases: Record<string, { series: Series[]; expectations: Expectation[] }> = {
  TidegateNoPodReady: {
    series: with_([gauge('ready', from(30, 0, 1))]),
    expectations: [
      firing('TidegateNoPodReady', 29, 0),
      firing('TidegateNoPodReady', 31, 0),
      firing('TidegateNoPodReady', 33),
    ],
  },
  'TidegateNoPodReady where nothing can be scraped': {
    series: well(20),
    expectations: [firing('TidegateNoPodReady', 15, 0), firing('TidegateNoPodReady', 40)],
  },
  TidegateBusDown: {
    series: with_([gauge('bus_up', from(30, 0, 1))]),
    expectations: [
      firing('TidegateBusDown', 30, 0),
      firing('TidegateBusDown', 32),
      firing('TidegateBusDown', 32, 1, `pod="${PODS[0]}",severity="critical"`),
    ],
  },
  TidegateProbeFailing: {
    series: with_([counter('bus_probe_failures_total', from(30, 6), { reason: 'missed' })]),
    expectations: [
      firing('TidegateProbeFailing', 30, 0),
      firing('TidegateProbeFailing', 33, 1, 'reason="missed"'),
    ],
  },
  TidegateSlowConsumers: {
    series: with_([counter('slow_consumers_total', from(30, 5), { action: 'drop' })]),
    expectations: [
      firing('TidegateSlowConsumers', 32, 0),
      firing('TidegateSlowConsumers', 42),
      nothingFires(29),
    ],
  },
  'TidegateSlowConsumers not for the few that there always are': {
    series: with_([counter('slow_consumers_total', 0.5, { action: 'disconnect' })]),
    expectations: [firing('TidegateSlowConsumers', 59, 0)],
  },
  TidegateRefusals: {
    series: with_([counter('refusals_total', from(30, 20), { reason: 'capacity' })]),
    expectations: [firing('TidegateRefusals', 31, 0), firing('TidegateRefusals', 40, 1, 'reason="capacity"')],
  },
  'TidegateRefusals not for pods that stop, clients that move and strangers': {
    series: with_(
      ['draining', 'moving', 'path', 'bad_request', 'user'].map((reason) =>
        counter('refusals_total', 500, { reason }),
      ),
    ),
    expectations: [firing('TidegateRefusals', 59, 0)],
  },
  TidegateGapsDeclared: {
    series: with_([counter('gaps_total', (at) => (at === 30 ? 400 : 0), { reason: 'bus' })]),
    expectations: [
      firing('TidegateGapsDeclared', 29, 0),
      firing('TidegateGapsDeclared', 31, 1, 'reason="bus"'),
      firing('TidegateGapsDeclared', 45, 0),
    ],
  },
  'TidegateGapsDeclared not for clients that were away for too long': {
    series: with_(['trimmed', 'limit', 'slow'].map((reason) => counter('gaps_total', 50, { reason }))),
    expectations: [firing('TidegateGapsDeclared', 59, 0)],
  },
  'TidegateDrainOverrun for a drain behind its pace': {
    series: with_([gauge('drain_late_connections', (at) => (at === 30 ? 300 : 0))]),
    expectations: [
      firing('TidegateDrainOverrun', 29, 0),
      firing('TidegateDrainOverrun', 30, 1, `pod="${PODS[0]}"`),
      firing('TidegateDrainOverrun', 40, 0),
    ],
  },
  'TidegateDrainOverrun for a stop that hangs, though the pod is killed over it': {
    series: with_([
      gauge('drain_elapsed_seconds', (at) => (at < 30 ? 0 : at < 31 ? 20 : at < 32 ? 41 : undefined)),
      gauge('drain_limit_seconds', (at) => (at < 32 ? 30 : undefined)),
    ]),
    expectations: [
      firing('TidegateDrainOverrun', 30, 0),
      firing('TidegateDrainOverrun', 31),
      firing('TidegateDrainOverrun', 33),
    ],
  },
  TidegateEventLoopLag: {
    series: with_([gauge('nodejs_eventloop_lag_p99_seconds', from(30, 0.3, 0.02))]),
    expectations: [
      firing('TidegateEventLoopLag', 34, 0),
      firing('TidegateEventLoopLag', 36, 1, `pod="${PODS[0]}"`),
    ],
  },
  TidegateConfigFileInvalid: {
    series: with_([gauge('config_file_valid', from(30, 0, 1), { file: 'CHANNELS_FILE' })]),
    expectations: [
      firing('TidegateConfigFileInvalid', 34, 0),
      firing('TidegateConfigFileInvalid', 36, 1, `file="CHANNELS_FILE",pod="${PODS[0]}"`),
    ],
  },
  'TidegateConfigFileInvalid not for a change that is taken back': {
    series: with_([
      gauge('config_file_valid', (at) => (at >= 30 && at < 33 ? 0 : 1), { file: 'CHANNELS_FILE' }),
    ]),
    expectations: [30, 32, 36, 59].map(nothingFires),
  },
  TidegateSkewAfterScaleOut: {
    series: [
      ...with_([gauge('connections', 2000)], well(120)),
      ...['ready', 'connections', 'drain_elapsed_seconds'].map((name) =>
        gauge(name, (at) => (at < 40 ? undefined : name === 'ready' ? 1 : 0), { pod: PODS[1] ?? '' }, 120),
      ),
    ],
    expectations: [
      firing('TidegateSkewAfterScaleOut', 39, 0),
      firing('TidegateSkewAfterScaleOut', 45, 0),
      firing('TidegateSkewAfterScaleOut', 52),
    ],
  },
  'TidegateSkewAfterScaleOut not while there are hardly any connections': {
    series: [
      ...with_([gauge('connections', 20)], well(120)),
      ...['ready', 'connections', 'drain_elapsed_seconds'].map((name) =>
        gauge(name, (at) => (at < 40 ? undefined : name === 'ready' ? 1 : 0), { pod: PODS[1] ?? '' }, 120),
      ),
    ],
    expectations: [firing('TidegateSkewAfterScaleOut', 60, 0)],
  },
  TidegateHpaAtMax: {
    series: Array.from({ length: 10 }, (_, at) => `${POD}${String(at).repeat(5)}`).flatMap((pod, at) => [
      gauge('ready', at < 9 ? 1 : from(20, 1), { pod }),
      gauge('drain_elapsed_seconds', 0, { pod }),
    ]),
    expectations: [
      firing('TidegateHpaAtMax', 19, 0),
      firing('TidegateHpaAtMax', 33, 0),
      firing('TidegateHpaAtMax', 36),
    ],
  },
  TidegateRedisMemory: {
    series: with_([gauge('redis_used_memory_bytes', from(30, 240e6, 50e6))]),
    expectations: [firing('TidegateRedisMemory', 34, 0), firing('TidegateRedisMemory', 36)],
  },
  'TidegateRedisMemory not for a Redis without a limit': {
    series: with_([gauge('redis_max_memory_bytes', 0)]),
    expectations: [firing('TidegateRedisMemory', 59, 0)],
  },
  'TidegateDeliveryErrorBudgetBurn, fast, when the bus refuses what is published': {
    series: with_([
      counter('publish_failures_total', from(30, 3000), { ...room, reason: 'bus_unavailable' }),
    ]),
    expectations: [
      firing('TidegateDeliveryErrorBudgetBurn', 29, 0),
      firing('TidegateDeliveryErrorBudgetBurn', 34, 1, 'severity="critical",window="1h"'),
    ],
  },
  'TidegateDeliveryErrorBudgetBurn, fast, when deliveries are dropped': {
    series: with_([counter('dropped_total', from(10, 60_000), room)]),
    expectations: [firing('TidegateDeliveryErrorBudgetBurn', 30, 1, 'severity="critical",window="1h"')],
  },
  'TidegateDeliveryErrorBudgetBurn, and is over soon after the failures are': {
    series: with_([
      counter('publish_failures_total', (at) => (at >= 10 && at < 30 ? 3000 : 0), {
        ...room,
        reason: 'overloaded',
      }),
    ]),
    expectations: [
      firing('TidegateDeliveryErrorBudgetBurn', 28, 1, 'window="1h"'),
      firing('TidegateDeliveryErrorBudgetBurn', 37, 0, 'window="1h"'),
    ],
  },
  'TidegateDeliveryErrorBudgetBurn not for single failures at night': {
    series: with_([
      counter('messages_in_total', 0, room),
      counter('deliveries_total', 0, room),
      counter('publish_failures_total', (at) => (at === 30 ? 1 : 0), { ...room, reason: 'internal' }),
    ]),
    expectations: [30, 31, 33, 36, 59].map(nothingFires),
  },
  'TidegateDeliveryLatencyBudgetBurn, fast': {
    series: with_([
      counter('delivery_latency_seconds_bucket', from(20, 3000, 5990), { ...room, le: '0.25' }),
    ]),
    expectations: [
      firing('TidegateDeliveryLatencyBudgetBurn', 19, 0),
      firing('TidegateDeliveryLatencyBudgetBurn', 45, 1, 'severity="critical",window="1h"'),
    ],
  },
};

describe(`the rules${withPromtool}`, () => {
  it.skipIf(!hasPromtool)('are quiet where all is well', () => {
    const series = PODS.flatMap((pod) => well(90, pod));
    expect(runPromtool(60, series, [10, 60, 89].map(nothingFires))).toBe('');
  });

  for (const [name, { series, expectations }] of Object.entries(cases)) {
    it.skipIf(!hasPromtool)(`fire ${name}`, () => {
      const options = name.includes('Budget') ? {} : { without: 'tidegate.slo' };
      expect(runPromtool(60, series, expectations, options)).toBe('');
    });
  }

  it('are proven to fire, each of them', () => {
    const proven = new Set(Object.keys(cases).map((name) => name.split(/[ ,]/)[0]));
    expect(new Set(alerts.map(({ alert }) => alert))).toEqual(proven);
  });

  // Three days of series, at five minutes a step.
  const days = 4 * 24 * 12;
  for (const [window, factor, minutes] of [
    ['6h', 6, 7 * 60],
    ['1d', 3, 26 * 60],
    ['3d', 1, 80 * 60],
  ] as const) {
    for (const [alert, budget, slow] of [
      ['TidegateDeliveryErrorBudgetBurn', 0.001, false],
      ['TidegateDeliveryLatencyBudgetBurn', 0.01, true],
    ] as const) {
      it.skipIf(!hasPromtool)(
        `fire ${alert} for a slow burn over ${window}, and not for a slower one`,
        () => {
          const at = (share: number) =>
            with_(
              slow
                ? [
                    counter(
                      'delivery_latency_seconds_bucket',
                      6000 * (1 - share),
                      { ...room, le: '0.25' },
                      days,
                    ),
                  ]
                : [counter('publish_failures_total', 6000 * share, { ...room, reason: 'overloaded' }, days)],
              well(days).map((series) =>
                series.name.endsWith('latency_seconds_bucket')
                  ? counter('delivery_latency_seconds_bucket', 6000, { ...room, le: '0.25' }, days)
                  : series,
              ),
            );
          const labels = `window="${window}"`;
          const rarely = { everyMinutes: 60 };
          const [above, below] = [at(factor * budget * 1.2), at(factor * budget * 0.8)];
          expect(runPromtool(300, above, [firing(alert, minutes, 1, labels)], rarely)).toBe('');
          expect(runPromtool(300, below, [firing(alert, minutes, 0, labels)], rarely)).toBe('');
        },
      );
    }
  }

  it.skipIf(!hasPromtool)('stay quiet in a rolling restart, at every minute of it', () => {
    const { series, minutes, stepSeconds } = rollingRestart({ pods: 3, connections: 3000 });
    const everyMinute = Array.from({ length: minutes }, (_, minute) => nothingFires(minute));
    expect(runPromtool(stepSeconds, series, everyMinute)).toBe('');
  });

  it.skipIf(!hasPromtool)(
    'stay quiet in a rolling restart of eighteen pods, which is one below the most there may be',
    () => {
      const { series, minutes, stepSeconds } = rollingRestart({ pods: 18, connections: 72_000 });
      const everyMinute = Array.from({ length: minutes }, (_, minute) => nothingFires(minute));
      expect(runPromtool(stepSeconds, series, everyMinute, { place: { ...testPlace, maxPods: 19 } })).toBe(
        '',
      );
    },
  );
});

const hasHelm = spawnSync('helm', ['version']).status === 0;

describe(`the chart's PrometheusRule${hasHelm ? '' : ' (skipped: helm is not installed)'}`, () => {
  it.skipIf(!hasHelm)('has the very rules that are tested here', () => {
    const args = ['template', 'tidegate', chartFolder, '-n', 'chat', '--kube-version', '1.35.0'];
    const set = ['monitoring.rules.enabled=true', 'autoscaling.enabled=true'].flatMap((it) => ['--set', it]);
    const show = ['-s', 'templates/prometheusrule.yaml'];
    const { stdout, stderr } = spawnSync('helm', [...args, ...set, ...show], { encoding: 'utf8' });
    expect(stderr).toBe('');
    type Rule = { alert?: string; expr: string; annotations?: Record<string, string> };
    const { spec } = parse(stdout) as { spec: { groups: { name: string; rules: Rule[] }[] } };
    const rendered = spec.groups.map(({ name, rules }) => ({
      name,
      rules: rules.map((rule) => {
        const { runbook_url, ...annotations } = rule.annotations ?? {};
        if (rule.alert !== undefined) expect(runbook_url).toMatch(new RegExp(`/${rule.alert}\\.md$`));
        const expr = rule.expr.replaceAll('{ ', '{');
        return { ...rule, expr, ...(rule.annotations !== undefined && { annotations }) };
      }),
    }));
    const written = ruleGroups(chartTuning(), testPlace).map(({ name, rules }) => ({ name, rules }));
    expect(rendered).toEqual(JSON.parse(JSON.stringify(written)));
  });
});
