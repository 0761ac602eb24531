import { expect, test } from 'vitest';
import { anObservation, aPod, aPolicy, NOW_MS } from '../../test/observation.ts';
import { decide } from './decide.ts';
import type { Observation, Pod } from './observation.ts';

function withTimes(pods: readonly Pod[], graceSeconds: number, preStopSeconds: number): Observation {
  const seen = anObservation(pods);
  return { ...seen, workload: seen.workload && { ...seen.workload, graceSeconds, preStopSeconds } };
}

/** The condition after these rounds. */
function overrun(...seen: Observation[]) {
  let memory: ReturnType<typeof decide>['memory'] | undefined;
  let decision: ReturnType<typeof decide> | undefined;
  const events: string[] = [];
  for (const [round, observation] of seen.entries()) {
    decision = decide(aPolicy(), observation, memory, NOW_MS + round * 10_000);
    memory = decision.memory;
    events.push(...decision.events.map(({ reason }) => reason));
  }
  const condition = decision?.status.conditions.find(({ type }) => type === 'DrainOverrun');
  return { ...condition, events };
}

const told = [aPod('a', 9000, {}, { drainSeconds: 30 })];
const untold = (connections: number, atMs = NOW_MS) =>
  aPod('a', connections, {}, { drainSeconds: undefined, atMs });
const leaving = (connections: number, atMs: number) =>
  aPod('b', connections, { deleting: true }, { drainSeconds: undefined, atMs });

test('a pod that tells its drain is safe where preStop and drain fit into the grace period', () => {
  expect(overrun(withTimes(told, 60, 20))).toMatchObject({ status: 'False', reason: 'Fits' });
});

test('it is told once, with the grace period that would be needed, where they do not', () => {
  const short = withTimes(told, 45, 20);
  expect(overrun(short, short)).toMatchObject({
    status: 'True',
    reason: 'GraceTooShort',
    message: 'a: preStop 20 s and drain 30 s need a terminationGracePeriodSeconds of 52; it is 45',
    events: ['DrainWillOverrun'],
  });
});

test('pods that do not tell it are unknown until one was seen draining', () => {
  expect(overrun(withTimes([untold(500)], 60, 0))).toMatchObject({
    status: 'Unknown',
    reason: 'NotMeasured',
  });
});

test('at the pace of a pod that was seen draining, too many connections are told before they are lost', () => {
  // 50 connections a second: 2,000 take 40 s, and 5,000 take 100 s.
  const round = (connections: number, left: number, index: number) =>
    withTimes([untold(connections, NOW_MS + index * 10_000), leaving(left, NOW_MS + index * 10_000)], 60, 0);
  const draining = (connections: number) =>
    [1000, 1000, 500].map((left, index) => round(connections, left, index));
  expect(overrun(...draining(2000))).toMatchObject({ status: 'False', reason: 'Fits' });
  expect(overrun(...draining(5000))).toMatchObject({
    status: 'True',
    reason: 'TooManyConnections',
    message: expect.stringContaining('up to 5000 connections need 100 s'),
  });
});
