import { expect, test } from 'vitest';
import { anAnswer, anObservation, aPod, aPolicy, aSilentPod, NOW_MS } from '../../test/observation.ts';
import type { ConditionType } from './conditions.ts';
import { decide, decideInvalid } from './decide.ts';
import type { Decision } from './decision.ts';
import type { Observation, Pod } from './observation.ts';
import type { Policy } from './policy.ts';

const ROUND_MS = 5000;

/** Rounds on the same pods, each with its answers as of then. The policy's status is kept up to date. */
function rounds(policy: Policy, observe: (round: number) => Observation, count: number): Decision[] {
  const decisions: Decision[] = [];
  let current = policy;
  for (let round = 0; round < count; round += 1) {
    const atMs = NOW_MS + round * ROUND_MS;
    const decision = decide(current, observe(round), decisions.at(-1)?.memory, atMs);
    decisions.push(decision);
    current = { ...current, status: decision.status };
  }
  return decisions;
}

/** Two full pods and two empty ones, the second of which the load balancer brings a connection in each round. */
function uneven(round: number, fields: Partial<Observation> = {}): Observation {
  const atMs = NOW_MS + round * ROUND_MS;
  const moved = round * 10;
  return anObservation(
    [
      aPod('a', 2000 - moved, {}, { atMs, shed: { asked: moved, moved, stayed: 0, outstanding: 0 } }),
      aPod('b', 2000, {}, { atMs }),
      aPod('c', moved, {}, { atMs }),
      aPod('d', 0, {}, { atMs }),
    ],
    fields,
  );
}

const last = (decisions: readonly Decision[]): Decision => {
  const decision = decisions.at(-1);
  if (decision === undefined) throw new Error('there was no round');
  return decision;
};
const conditionOf = ({ status }: Decision, type: ConditionType) =>
  status.conditions.find((it) => it.type === type);

test('asks a few first, and the rest when they have arrived: down to a little above the fair share', () => {
  const decisions = rounds(aPolicy(), uneven, 4);
  expect(decisions.map(({ status }) => status.state)).toEqual(['Confirming', 'Probing', 'Moving', 'Moving']);
  expect(decisions[0]?.ceilings).toEqual([]);
  const probed = decisions[1]?.ceilings.map(({ name, ceiling }) => [name, ceiling.connections]);
  expect(probed).toEqual([
    ['a', 1990],
    ['b', 1992],
    ['c', 1040],
    ['d', 1040],
  ]);
  // Of four pods only one has been reached, so that no more is moved than it has room for.
  expect(decisions[2]?.ceilings[1]?.ceiling).toEqual({
    connections: expect.any(Number),
    expiresAfterMs: 15_000,
    shedPerSecond: expect.any(Number),
    order: 'random',
    minAgeSeconds: 30,
    plain: false,
  });
  const sum = (decisions[2]?.ceilings ?? []).reduce((total, { ceiling }) => total + ceiling.connections, 0);
  expect(sum).toBeGreaterThanOrEqual(2000 + 2000 - 1020 + 1040);
  expect(decisions.flatMap(({ events }) => events.map(({ reason }) => reason))).toEqual(['RebalanceStarted']);
  expect(last(decisions).status.lastRebalance).toMatchObject({ skewBefore: 2, asked: 20, moved: 20 });
});

const ways: [string, (round: number) => Observation, Parameters<typeof aPolicy>[0]][] = [
  ['Suspended', uneven, { rebalance: { suspend: true } }],
  ['OutsideWindow', uneven, { rebalance: { window: { start: '02:00', end: '05:00' } } }],
  ['TargetNotFound', (round) => uneven(round, { workload: undefined }), {}],
  ['BusDown', (round) => uneven(round, { bus: 'down' }), {}],
  [
    'AtLimit',
    (round) => uneven(round, { hpa: { name: 'hpa', min: 2, max: 4, desired: 4, current: 4, atLimit: true } }),
    {},
  ],
  [
    'ScalingIn',
    (round) =>
      uneven(round, { hpa: { name: 'hpa', min: 2, max: 4, desired: 3, current: 4, atLimit: false } }),
    {},
  ],
  [
    'Rolling',
    (round) => {
      const seen = uneven(round);
      return { ...seen, workload: seen.workload && { ...seen.workload, rolling: true } };
    },
    {},
  ],
  ['Starting', withPod(aPod('e', 0, { ready: false, createdAtMs: NOW_MS - 1000 })), {}],
  ['Draining', withPod(aPod('e', 700, { deleting: true })), {}],
  ['PodUnknown', withPod(aSilentPod('e', 60)), {}],
  ['Unauthorized', withPod(aSilentPod('e', 60, 'unauthorized')), {}],
  ['NoContract', withPod(aSilentPod('e', 60, 'no-contract')), {}],
  ['NoPods', () => anObservation([]), {}],
  ['TooFewPods', () => anObservation([aPod('a', 5000)]), {}],
  ['Even', () => anObservation([aPod('a', 1000), aPod('b', 900)]), {}],
  ['TooFewConnections', () => anObservation([aPod('a', 14), aPod('b', 8)]), {}],
  ['NoCeiling', () => anObservation([aPod('a', 900, {}, { movable: undefined }), aPod('b', 0)]), {}],
  ['NothingMovable', () => anObservation([aPod('a', 900, {}, { movable: 0 }), aPod('b', 0)]), {}],
  [
    'NoLoadData',
    () => anObservation([aPod('a', 900, {}, { cpuSeconds: undefined }), aPod('b', 0)]),
    { rebalance: { by: 'load' } },
  ],
];

function withPod(pod: Pod): (round: number) => Observation {
  return (round) => {
    const seen = uneven(round);
    return { ...seen, pods: [...seen.pods, pod] };
  };
}

test.each(ways)('moves nothing and says so: %s', (reason, observe, spec) => {
  const decisions = rounds(aPolicy(spec), observe, 6);
  for (const { ceilings } of decisions) expect(ceilings).toEqual([]);
  const { status } = last(decisions);
  expect(status.state).toBe(reason);
  expect(conditionOf(last(decisions), 'Rebalancing')).toMatchObject({
    status: 'False',
    reason,
    message: status.message,
  });
  expect(decisions.flatMap(({ events }) => events)).toEqual([]);
});

test.each(ways.slice(0, 10))(
  'ends what is under way, and takes its ceilings away: %s',
  (reason, observe, spec) => {
    const begun = rounds(aPolicy(), uneven, 4);
    const standing = (seen: Observation): Observation => ({
      ...seen,
      pods: seen.pods.map((pod) =>
        pod.heard.known
          ? {
              ...pod,
              heard: {
                known: true,
                answer: { ...pod.heard.answer, ceiling: { connections: 1040, expiresInMs: 9000 } },
              },
            }
          : pod,
      ),
    });
    const decision = decide(aPolicy(spec), standing(observe(4)), last(begun).memory, NOW_MS + 4 * ROUND_MS);
    expect(decision.ceilings).toEqual([]);
    expect(decision.lifts.map(({ name }) => name)).toEqual(expect.arrayContaining(['a', 'b', 'c', 'd']));
    expect(decision.events).toMatchObject([{ type: 'Normal', reason: 'RebalanceStopped' }]);
    expect(decision.status.lastRebalance).toMatchObject({ outcome: reason, finishedAt: expect.any(String) });
  },
);

test('a pod that misses one answer ends nothing: the ceilings that stand go on, and no new ones are made', () => {
  const begun = rounds(aPolicy(), uneven, 4);
  const hiccup = { ...uneven(4), pods: [...uneven(4).pods.slice(0, 3), aSilentPod('d', -18)] };
  const decision = decide(aPolicy(), hiccup, last(begun).memory, NOW_MS + 4 * ROUND_MS);
  expect(decision).toMatchObject({ ceilings: [], lifts: [], events: [], status: { state: 'Moving' } });
  const next = decide(aPolicy(), uneven(5), decision.memory, NOW_MS + 5 * ROUND_MS);
  expect(next.ceilings).toHaveLength(4);
});

test('of two policies on one workload the older acts, and the younger says why it does not', () => {
  const rival = (name: string, ageMs: number) => ({
    rivals: [{ name, createdAtMs: aPolicy().createdAtMs - ageMs }],
  });
  const younger = rounds(aPolicy(), (round) => uneven(round, rival('first', 1000)), 3);
  for (const { ceilings, deletionCosts } of younger) expect([...ceilings, ...deletionCosts]).toEqual([]);
  expect(conditionOf(last(younger), 'Conflict')).toMatchObject({ status: 'True', reason: 'OlderPolicy' });
  expect(conditionOf(last(younger), 'Ready')).toMatchObject({ status: 'False', reason: 'OlderPolicy' });
  expect(younger.flatMap(({ events }) => events.map(({ reason }) => reason))).toEqual(['PolicyConflict']);

  const older = rounds(aPolicy(), (round) => uneven(round, rival('second', -1000)), 3);
  expect(last(older).ceilings).toHaveLength(4);
  expect(conditionOf(last(older), 'Conflict')).toMatchObject({ status: 'False', reason: 'YoungerPolicies' });
  // Made in the same moment, they are told apart by name, by both of them alike.
  expect(last(rounds(aPolicy(), (round) => uneven(round, rival('a', 0)), 1)).status.state).toBe(
    'OlderPolicy',
  );
  expect(last(rounds(aPolicy(), (round) => uneven(round, rival('z', 0)), 1)).status.state).toBe('Confirming');
});

test.each([
  [undefined, 'False', 'NotServed', 'this operator serves no metrics'],
  [{ fault: undefined, foreign: [] }, 'True', 'Served', 'has the metrics'],
  [{ fault: 'no certificate yet', foreign: [] }, 'False', 'ApiUnavailable', 'no certificate yet'],
  [{ fault: 'it is theirs', foreign: ['v1beta1 (x)'] }, 'False', 'ForeignProvider', 'it is theirs'],
  [{ fault: undefined, foreign: ['v1beta1 (x)'] }, 'True', 'ForeignProvider', 'v1beta1 (x)'],
] as const)(
  'of a metrics API as in %j autoscalers are told %s, %s',
  (metricsApi, status, reason, message) => {
    const decision = decide(aPolicy(), uneven(0, { metricsApi }), undefined, NOW_MS);
    expect(conditionOf(decision, 'MetricsServed')).toMatchObject({ status, reason });
    expect(conditionOf(decision, 'MetricsServed')?.message).toContain(message);
  },
);

test('a spec that it cannot read is told, and nothing is done', () => {
  const { spec: _, ...policy } = aPolicy();
  const decision = decideInvalid(policy, 'spec.targetRef: is missing', NOW_MS);
  expect(decision).toMatchObject({
    ceilings: [],
    deletionCosts: [],
    events: [],
    status: { state: 'InvalidSpec' },
  });
  expect(conditionOf(decision, 'Ready')).toMatchObject({
    status: 'False',
    message: 'spec.targetRef: is missing',
  });
  expect(conditionOf(decision, 'Conflict')).toMatchObject({ status: 'Unknown' });
});

test('the status tells every pod, the fullest first, and no sum while one is unknown', () => {
  const pods = [aPod('a', 10), aPod('b', 30, { deletionCost: 7 }), aPod('gone', 90, { deleting: true })];
  const whole = decide(aPolicy(), anObservation(pods), undefined, NOW_MS);
  expect(whole.status).toMatchObject({ connections: 40, skew: 1.5, readyPods: 2, desiredPods: 3 });
  expect(whole.status.pods.map(({ name }) => name)).toEqual(['b', 'a']);
  const partial = decide(aPolicy(), anObservation([...pods, aSilentPod('c', 30)]), undefined, NOW_MS);
  expect(partial.status).not.toHaveProperty('connections');
  expect(partial.status).not.toHaveProperty('skew');
  expect(partial.status.pods[0]).toEqual({ name: 'c', deletionCost: expect.any(Number) });
  expect(conditionOf(partial, 'Balanced')).toMatchObject({ status: 'Unknown', reason: 'PodUnknown' });
});

test('a condition keeps its time for as long as its status stays', () => {
  const [first, second, third] = rounds(
    aPolicy(),
    (round) =>
      anObservation(round < 2 ? [aPod('a', 10), aPod('b', 10)] : [aPod('a', 10), aSilentPod('b', 60)]),
    3,
  );
  expect(first && conditionOf(first, 'Ready')?.lastTransitionTime).toBe('2026-11-22T12:00:00Z');
  expect(second && conditionOf(second, 'Ready')?.lastTransitionTime).toBe('2026-11-22T12:00:00Z');
  expect(third && conditionOf(third, 'Ready')).toMatchObject({
    status: 'Unknown',
    lastTransitionTime: '2026-11-22T12:00:10Z',
  });
});

test('what was given up stays given up with a new leader, until pods change, the spec does or an hour has passed', () => {
  const never = (round: number) => {
    const atMs = NOW_MS + round * ROUND_MS;
    const shed = { asked: round, moved: 0, stayed: round, outstanding: 0 };
    return anObservation([aPod('a', 900, {}, { atMs, shed }), aPod('b', 0, {}, { atMs })]);
  };
  const decision = last(rounds(aPolicy(), never, 160));
  expect(decision.status.state).toBe('Ineffective');
  const policy = aPolicy({}, { status: decision.status });
  const later = (hours: number) => NOW_MS + hours * 3_600_000;
  const asNewLeader = (it: Policy, observation: Observation, atMs: number) =>
    decide(it, observation, undefined, atMs).status.state;
  expect(asNewLeader(policy, never(160), later(0.5))).toBe('Ineffective');
  expect(asNewLeader(policy, never(160), later(2))).toBe('Confirming');
  // A clock that was far ahead when it was given up does not make it wait for longer.
  expect(asNewLeader(policy, never(160), later(-24))).toBe('Confirming');
  expect(asNewLeader({ ...policy, generation: 2 }, never(160), later(0.5))).toBe('Confirming');
  const more = anObservation([...never(160).pods, aPod('c', 0)]);
  expect(asNewLeader(policy, more, later(0.5))).toBe('Confirming');
});

test('by load, hot pods give away as many connections as make the load even, and cold ones take them in', () => {
  const hot = (round: number) => {
    const atMs = NOW_MS + round * ROUND_MS;
    const shed = { asked: round, moved: round, stayed: 0, outstanding: 0 };
    return anObservation([
      aPod('hot', 1000, {}, { atMs, cpuSeconds: round * 4, shed }), // 0.8 cores
      aPod('cold', 1000, {}, { atMs, cpuSeconds: round, accepted: 1000 + round }), // 0.2 cores
    ]);
  };
  const decisions = rounds(aPolicy({ rebalance: { by: 'load' } }), hot, 18);
  const decision = last(decisions);
  // A burst passes by itself: it must have been so for a minute.
  expect(decisions.filter(({ status }) => status.state === 'Confirming')).toHaveLength(11);
  expect(decision.status).toMatchObject({ state: 'Moving', skew: 1.6 });
  const [hotter, colder] = decision.ceilings.map(({ ceiling }) => ceiling.connections);
  // At 0.0008 cores each, 0.52 cores are left with 650 connections; the other has room for the 400 that cost as much.
  expect(hotter).toBe(650);
  expect(colder).toBe(1400);
  expect(decide(aPolicy(), hot(0), undefined, NOW_MS).status.state).toBe('Even');
});

test('a probe in which nobody could be asked is no sign of the load balancer, and is made again soon', () => {
  const young = (round: number) => {
    const atMs = NOW_MS + round * ROUND_MS;
    return anObservation([aPod('a', 900, {}, { atMs, movable: 0 }), aPod('b', 0, {}, { atMs })]);
  };
  const states = rounds(aPolicy({ rebalance: { minAge: '5s' } }), young, 100).map(
    ({ status }) => status.state,
  );
  expect(new Set(states)).toEqual(new Set(['Confirming', 'Probing', 'NothingMovable']));
  expect(states.at(-1)).not.toBe('Ineffective');
});

test('where plain clients may be closed, pods that cannot count them as movable are asked all the same', () => {
  const plain = (round: number) => {
    const atMs = NOW_MS + round * ROUND_MS;
    return anObservation([aPod('a', 900, {}, { atMs, movable: 0 }), aPod('b', round, {}, { atMs })]);
  };
  const decision = last(
    rounds(aPolicy({ rebalance: { plain: true, order: 'oldest', minAge: '2m' } }), plain, 2),
  );
  expect(decision.ceilings[0]?.ceiling).toMatchObject({ plain: true, order: 'oldest', minAgeSeconds: 120 });
});

test('answers that are not whole make nothing else than unknown: a workload without counters is still kept even', () => {
  const bare = (round: number) => {
    const nothing = {
      atMs: NOW_MS + round * ROUND_MS,
      accepted: undefined,
      shed: undefined,
      phase: undefined,
      startedAtMs: undefined,
      maxConnections: undefined,
      cpuSeconds: undefined,
    };
    return anObservation([
      aPod('a', 900 - round * 20, { heard: { known: true, answer: anAnswer(900 - round * 20, nothing) } }),
      aPod('b', round * 20, { heard: { known: true, answer: anAnswer(round * 20, nothing) } }),
    ]);
  };
  expect(last(rounds(aPolicy(), bare, 3)).status.state).toBe('Moving');
});

/** Two pods with as many connections, of which the first uses so many cores; all moved counters stay where they are. */
function loaded(cores: number, connections: number): (round: number) => Observation {
  return (round) => {
    const atMs = NOW_MS + round * ROUND_MS;
    return anObservation([
      aPod('busy', connections, {}, { atMs, cpuSeconds: round * 5 * cores }),
      aPod('idle', 500, {}, { atMs, cpuSeconds: round * 0.5, accepted: round }),
    ]);
  };
}

test('by load, a pod that is hot without connections has none to give: it says so, and tells no event', () => {
  const decisions = rounds(aPolicy({ rebalance: { by: 'load' } }), loaded(0.9, 1), 60);
  expect(last(decisions).status.state).toBe('NothingMovable');
  expect(decisions.flatMap(({ events, ceilings }) => [...events, ...ceilings])).toEqual([]);
});

test('by load, a difference that is not worth a move is not blamed on chance', () => {
  const { status } = last(rounds(aPolicy({ rebalance: { by: 'load' } }), loaded(0.18, 500), 8));
  expect(status.state).toBe('TooLittleLoad');
  expect(
    conditionOf(last(rounds(aPolicy({ rebalance: { by: 'load' } }), loaded(0.18, 500), 8)), 'Balanced'),
  ).toMatchObject({
    status: 'True',
    reason: 'TooLittleLoad',
  });
});

test('what is under way ends when the policy wants something else to be even', () => {
  const begun = last(rounds(aPolicy(), uneven, 4));
  expect(begun.status.state).toBe('Moving');
  const policy = aPolicy({ rebalance: { by: 'load' } }, { generation: 2 });
  const cpu = (round: number): Observation => {
    const seen = uneven(round);
    const pods = seen.pods.map((pod) =>
      pod.heard.known
        ? { ...pod, heard: { known: true as const, answer: { ...pod.heard.answer, cpuSeconds: round } } }
        : pod,
    );
    return { ...seen, pods };
  };
  const decisions = [begun];
  for (let round = 4; round < 12; round += 1) {
    decisions.push(decide(policy, cpu(round), last(decisions).memory, NOW_MS + round * ROUND_MS));
  }
  expect(decisions.flatMap(({ events }) => events.map(({ reason }) => reason))).toEqual(['RebalanceStopped']);
  expect(decisions.slice(1).flatMap(({ ceilings }) => ceilings)).toEqual([]);
  expect(last(decisions).status.state).toBe('Even');
});

test('what was remembered of one workload says nothing of another: a policy that gets a new target begins anew', () => {
  const begun = last(rounds(aPolicy(), uneven, 4));
  const moved = aPolicy(
    { targetRef: { kind: 'Deployment', name: 'other' } },
    { generation: 2, status: begun.status },
  );
  const seen = uneven(4);
  const others = seen.pods.map((pod) => ({ ...pod, uid: `${pod.uid}-other`, name: `${pod.name}-other` }));
  const decision = decide(moved, { ...seen, pods: others }, begun.memory, NOW_MS + 4 * ROUND_MS);
  expect(decision.ceilings).toEqual([]);
  expect(decision.status).toMatchObject({ state: 'Confirming' });
  expect(decision.status).not.toHaveProperty('lastRebalance');
});
