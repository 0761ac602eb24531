// The autoscaler's arithmetic: the cases and numbers are those that the controller's own tests have.

import { expect, test } from 'vitest';
import {
  defaultRules,
  Hpa,
  type HpaMetric,
  type HpaPod,
  type HpaSettings,
  replicasFor,
  type Sample,
} from './hpa.ts';

const MINUTE = 60_000;
const NOW = Date.UTC(2026, 0, 1);
const tolerances = { up: 0.1, down: 0.1 };
const qps = (targetMilli: number) => ({ kind: 'pods', name: 'qps', targetMilli }) as const;
/** Two containers that request a core each, as there. */
const cpu = (targetPercent: number): HpaMetric => ({ kind: 'cpu', targetPercent, requestMilli: 2000 });

function pod(index: number, fields: Partial<HpaPod> = {}): HpaPod {
  const startedAtMs = NOW - 60 * MINUTE;
  const usual = { pending: false, deleting: false, ready: true, startedAtMs, readinessAtMs: startedAtMs };
  return { name: `pod-${index}`, ...usual, ...fields };
}

const pods = (count: number, ...special: Partial<HpaPod>[]) =>
  Array.from({ length: count }, (_, index) => pod(index, special[index]));

function samples(...levels: (number | undefined)[]): Map<string, Sample> {
  const known = levels.flatMap((milli, index): [string, Sample][] =>
    milli === undefined ? [] : [[`pod-${index}`, { milli, atMs: NOW, windowMs: 30_000 }]],
  );
  return new Map(known);
}

/** CPU of pods with two equal containers. */
const cores = (...levels: (number | undefined)[]) => samples(...levels.map((level) => level && level * 2));
const unready = { ready: false };
const hot = { ready: true, startedAtMs: NOW - MINUTE, readinessAtMs: NOW - 10_000 };

test.each([
  ['scales up by the mean', 3, 4, qps(15_000), pods(3), samples(20_000, 10_000, 30_000)],
  ['scales down by the mean', 5, 3, qps(20_000), pods(5), samples(12_000, 12_000, 12_000, 12_000, 12_000)],
  ['does nothing within a tenth', 3, 3, qps(20_000), pods(3), samples(20_000, 21_000, 21_000)],
  [
    'counts unready pods that have a value',
    3,
    6,
    qps(15_000),
    pods(3, {}, {}, { ...hot, ...unready }),
    samples(50_000, 10_000, 30_000),
  ],
  [
    'ignores pods that are being deleted',
    5,
    3,
    qps(20_000),
    pods(7, {}, {}, {}, {}, {}, { deleting: true }, { deleting: true }),
    samples(12_000, 12_000, 12_000, 12_000, 12_000, 90_000, 90_000),
  ],
  [
    'takes missing values for the target where it is met',
    5,
    5,
    qps(20_000),
    pods(5),
    samples(20_000, 19_000, 21_000),
  ],
  [
    'takes one missing of four for the target, and scales in all the same',
    4,
    2,
    qps(1000),
    pods(4),
    samples(100, 100, 100),
  ],
  [
    'does not scale up while a roll has more pods than wanted',
    2,
    2,
    qps(17_000),
    pods(3),
    samples(10_000, 10_000),
  ],
  [
    'takes pending pods for idle before it scales up',
    3,
    3,
    qps(15_000),
    pods(3, {}, { pending: true }, { pending: true }),
    samples(20_000),
  ],
  ['CPU: scales up by the mean', 3, 5, cpu(30), pods(3), cores(300, 500, 700)],
  [
    'CPU: takes unready pods for idle before it scales up',
    3,
    4,
    cpu(30),
    pods(3, unready, {}, {}),
    cores(300, 500, 700),
  ],
  [
    'CPU: does not scale up for one of three that is ready',
    3,
    3,
    cpu(30),
    pods(3, {}, unready, unready),
    cores(400, 500, 700),
  ],
  [
    'CPU: takes pods that have just become ready for idle',
    3,
    4,
    cpu(30),
    pods(3, {}, {}, hot),
    cores(500, 700, 300),
  ],
  [
    'CPU: leaves pods that have just become ready out before it scales down',
    5,
    2,
    cpu(50),
    pods(5, {}, {}, {}, hot, hot),
    cores(100, 300, 500, 250, 250),
  ],
  ['CPU: one missing of two stops a scale-up', 2, 2, cpu(100), pods(2), cores(1900)],
  ['CPU: one missing of two stops a scale-down', 2, 2, cpu(100), pods(2), cores(600)],
  [
    'CPU: scales up though one is unready and one missing',
    3,
    4,
    cpu(50),
    pods(3, unready, {}, {}),
    cores(100, 2000),
  ],
  [
    'CPU: scales down though one is unready and one missing',
    4,
    3,
    cpu(50),
    pods(4, unready, {}, {}, {}),
    cores(100, 100, 100),
  ],
])('%s', (_, current, expected, metric, those, values) => {
  // A pod that was never ready has been so since it started.
  expect(replicasFor(metric, current, those, values, tolerances, NOW)).toBe(expected);
});

test('without any value there is no recommendation', () => {
  expect(replicasFor(qps(1000), 3, pods(3), samples(), tolerances, NOW)).toBeUndefined();
  expect(replicasFor(qps(1000), 1, pods(1, { deleting: true }), samples(5), tolerances, NOW)).toBeUndefined();
});

test('tolerances can differ for up and down', () => {
  const wide = { up: 0.5, down: 0.01 };
  expect(replicasFor(qps(10_000), 4, pods(4), samples(...Array(4).fill(14_000)), wide, NOW)).toBe(4);
  expect(replicasFor(qps(10_000), 40, pods(40), samples(...Array(40).fill(9700)), wide, NOW)).toBe(39);
});

const settings: HpaSettings = {
  minReplicas: 1,
  maxReplicas: 100,
  metrics: [qps(10_000)],
  behavior: defaultRules,
  tolerance: 0.1,
  downscaleStabilizationSeconds: 300,
};

/** An autoscaler whose workload always has as many pods as it wants, at a total load. */
function follow(fields: Partial<HpaSettings>, first: number) {
  const hpa = new Hpa({ ...settings, ...fields });
  let [replicas, nowMs] = [first, NOW];
  return (totalMilli: number | undefined, seconds = 15) => {
    nowMs += seconds * 1000;
    const each =
      totalMilli === undefined ? undefined : samples(...Array(replicas).fill(totalMilli / replicas));
    const decision = hpa.sync(replicas, pods(replicas), () => each, nowMs);
    replicas = decision.desired;
    return decision;
  };
}

test('it grows at most by four pods or to the double in 15 s, whichever is more', () => {
  const sync = follow({}, 1);
  expect(sync(1_000_000)).toEqual({ desired: 5, recommended: 100, limited: 'ScaleUpLimit' });
  expect(sync(1_000_000).desired).toBe(10);
  expect(sync(1_000_000).desired).toBe(20);
  expect(sync(1_000_000, 5).desired).toBe(20);
  expect(sync(1_000_000, 10).desired).toBe(40);
  expect(sync(5_000_000).desired).toBe(80);
  expect(sync(5_000_000)).toEqual({ desired: 100, recommended: 500, limited: 'TooManyReplicas' });
});

test('it shrinks only to the highest wish of the last five minutes', () => {
  const sync = follow({ minReplicas: 2 }, 10);
  for (let passed = 15; passed <= 300; passed += 15) expect(sync(10_000).desired).toBe(10);
  expect(sync(10_000)).toEqual({ desired: 2, recommended: 1, limited: 'TooFewReplicas' });
});

test('policies count what was done within their period, and Min picks the smaller change', () => {
  const rules = {
    ...defaultRules.scaleDown,
    stabilizationWindowSeconds: 0,
    selectPolicy: 'Min' as const,
    policies: [
      { type: 'Pods' as const, value: 1, periodSeconds: 60 },
      { type: 'Percent' as const, value: 50, periodSeconds: 60 },
    ],
  };
  const sync = follow({ behavior: { ...defaultRules, scaleDown: rules } }, 10);
  expect(sync(10_000)).toEqual({ desired: 9, recommended: 1, limited: 'ScaleDownLimit' });
  for (const _ of [1, 2, 3]) expect(sync(10_000).desired).toBe(9);
  expect(sync(10_000).desired).toBe(8);
});

test('Disabled keeps it as it is', () => {
  const scaleDown = {
    ...defaultRules.scaleDown,
    stabilizationWindowSeconds: 0,
    selectPolicy: 'Disabled' as const,
  };
  const sync = follow({ behavior: { ...defaultRules, scaleDown } }, 10);
  expect(sync(10_000)).toEqual({ desired: 10, recommended: 1, limited: 'ScaleDownLimit' });
});

test('without behavior it grows to the double or to four, whichever is more', () => {
  const sync = follow({ behavior: undefined }, 1);
  expect(sync(1_000_000)).toEqual({ desired: 4, recommended: 100, limited: 'ScaleUpLimit' });
  expect(sync(1_000_000).desired).toBe(8);
});

test('a metric that cannot be read holds it, and only forbids to shrink where another can be', () => {
  const sync = follow({}, 4);
  expect(sync(undefined)).toEqual({ desired: 4, recommended: undefined, limited: undefined });
  const two: HpaSettings = { ...settings, metrics: [qps(10_000), { ...qps(1000), name: 'broken' }] };
  const at = (milli: number) =>
    new Hpa(two).sync(
      4,
      pods(4),
      (metric) =>
        metric.kind === 'pods' && metric.name === 'broken' ? undefined : samples(milli, milli, milli, milli),
      NOW,
    );
  expect(at(20_000).desired).toBe(8);
  expect(at(1000)).toEqual({ desired: 4, recommended: undefined, limited: undefined });
});

test('the highest of several metrics counts, and limits hold without any metric', () => {
  const two: HpaSettings = { ...settings, metrics: [qps(10_000), { ...qps(5000), name: 'other' }] };
  const each = samples(10_000, 10_000);
  expect(new Hpa(two).sync(2, pods(2), () => each, NOW).desired).toBe(4);
  expect(new Hpa(settings).sync(120, pods(120), () => undefined, NOW).desired).toBe(100);
  expect(new Hpa({ ...settings, minReplicas: 3 }).sync(1, pods(1), () => undefined, NOW).desired).toBe(3);
  expect(new Hpa(settings).sync(0, [], () => undefined, NOW).desired).toBe(0);
});
