import fc from 'fast-check';
import { expect, test } from 'vitest';
import { anAnswer, anObservation, aPod, aPolicy, aSilentPod, NOW_MS } from '../../test/observation.ts';
import { takeCensus } from './census.ts';
import { costOf, deletionCosts } from './deletion-cost.ts';
import { memoryFrom } from './memory.ts';
import type { Pod } from './observation.ts';
import type { Policy } from './policy.ts';

function decided(
  pods: readonly Pod[],
  policy: Policy = aPolicy(),
  kind: 'Deployment' | 'StatefulSet' = 'Deployment',
) {
  const seen = anObservation(pods);
  const observation = { ...seen, workload: seen.workload && { ...seen.workload, kind } };
  return deletionCosts(policy, observation, takeCensus(observation, memoryFrom(policy)));
}

const costs = (...args: Parameters<typeof decided>) =>
  Object.fromEntries(decided(...args).orders.map(({ name, cost }) => [name, cost]));

test('every pod gets a cost about as high as its connections', () => {
  expect(costs([aPod('a', 1000), aPod('b', 10), aPod('c', 0)])).toEqual({ a: 1020, b: 10, c: 0 });
});

test('nothing is written while the order is right, however far the numbers have moved', () => {
  const pods = (factor: number) => [
    aPod('a', 1000 * factor, { deletionCost: 1020 }),
    aPod('b', 100 * factor, { deletionCost: 101 }),
  ];
  expect(decided(pods(1))).toMatchObject({ orders: [], status: 'True', reason: 'Ordered' });
  expect(decided(pods(7)).orders).toEqual([]);
});

test('pods that are nearly equal may be in any order; those that are clearly not are put in order', () => {
  const pods = (a: number) => [aPod('a', a, { deletionCost: 100 }), aPod('b', 1000, { deletionCost: 200 })];
  expect(decided(pods(1100)).orders).toEqual([]);
  expect(decided(pods(1200))).toMatchObject({ reason: 'Writing', orders: [{ name: 'a' }, { name: 'b' }] });
});

test('whatever connections pods have, what is written is in order, and is not written again', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(50_000), { minLength: 1, maxLength: 12 }), (counts) => {
      const pods = counts.map((connections, index) => aPod(`pod-${index}`, connections));
      const written = costs(pods);
      const after = pods.map((pod) => ({ ...pod, deletionCost: written[pod.name] }));
      expect(decided(after).orders).toEqual([]);
      for (const [one, index] of counts.map((count, at) => [count, at] as const)) {
        for (const [other, at] of counts.map((count, place) => [count, place] as const)) {
          if (one > other * 1.15 + 2)
            expect(written[`pod-${index}`]).toBeGreaterThan(written[`pod-${at}`] ?? 0);
        }
      }
    }),
  );
});

test('a pod that does not answer is never taken for empty: it counts as what it last had, or as the mean', () => {
  const pods = [
    aPod('a', 900),
    aPod('b', 100),
    aSilentPod('was-full', 30, 'unreachable', anAnswer(2000)),
    aSilentPod('new', 30),
  ];
  const written = costs(pods);
  expect(written['was-full']).toBe(costOf(2000));
  expect(written.new).toBe(costOf(1000));
});

test('clients that cannot move make a pod dearer, but not more than their number does', () => {
  const pods = (immovable: number) => [aPod('plain', 1000, {}, { immovable }), aPod('other', 1000)];
  const written = costs(pods(1000));
  expect(written.plain).toBe(costOf(1250));
  expect(written.other).toBe(costOf(1000));
});

test('unprotected, only what the operator wrote is taken away', () => {
  const pods = [aPod('a', 900, { deletionCost: 5 }), aPod('b', 100)];
  const off = aPolicy({ scaleIn: { protect: false } });
  expect(decided(pods, off)).toMatchObject({ orders: [], status: 'False', reason: 'Unprotected' });
  const condition = {
    type: 'ScaleInProtected',
    status: 'True',
    reason: 'Ordered',
    message: '',
    observedGeneration: 1,
  } as const;
  const lastTransitionTime = new Date(NOW_MS).toISOString();
  const conditions = [{ ...condition, lastTransitionTime }];
  const status = {
    observedGeneration: 1,
    readyPods: 2,
    desiredPods: 2,
    state: 'Even',
    message: '',
    pods: [],
    conditions,
  } as const;
  const told = decided(pods, { ...off, status });
  expect(told.orders).toEqual([{ name: 'a', uid: 'uid-a', cost: undefined }]);
  // A write may fail. What is left is taken away in the next round, and then it is done.
  const next = { ...status, conditions: [{ ...condition, status: told.status, lastTransitionTime }] };
  expect(decided(pods, { ...off, status: next }).orders).toHaveLength(1);
  const bare = pods.map((pod) => ({ ...pod, deletionCost: undefined }));
  expect(decided(bare, { ...off, status: next })).toMatchObject({ orders: [], status: 'False' });
});

test('a StatefulSet ignores costs, and no pod at all has none', () => {
  expect(decided([aPod('a', 900)], aPolicy(), 'StatefulSet')).toMatchObject({
    orders: [],
    reason: 'StatefulSet',
  });
  expect(decided([])).toMatchObject({ orders: [], status: 'Unknown', reason: 'NoPods' });
  expect(decided([aSilentPod('a', 3)])).toMatchObject({
    orders: [],
    status: 'Unknown',
    reason: 'PodUnknown',
  });
});

test('costs fit into what Kubernetes takes', () => {
  expect(costOf(0)).toBe(0);
  expect(costOf(1e12)).toBe(2 ** 31 - 1);
});
