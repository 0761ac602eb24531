// What holds of the operator whatever happens to it: thousands of random histories on simulated gateways, behind load
// balancers of every kind. By load, see load.histories.test.ts.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { balancerNames } from '../../simulate/balancer.ts';
import { Operator, type Round } from '../../simulate/operator.ts';
import type { World } from '../../simulate/world.ts';
import {
  anyHistory,
  anySeed,
  connectionsOf,
  counted,
  type History,
  live,
  RATE,
  SEED,
  sum,
  TIMEOUT_MS,
  unbiased,
} from '../../test/histories.ts';
import { conditionTypes, reasons } from './conditions.ts';
import { decide } from './decide.ts';

test(
  'Ceilings come from complete data, at good times, never below the fair share, and at a bounded rate',
  () => {
    let seen = 0;
    const check = ({ observation, decision, atMs }: Round) => {
      const { ceilings } = decision;
      if (ceilings.length === 0) return;
      seen += 1;
      const pods = counted(observation);
      expect(pods.every(({ heard }) => heard.known)).toBe(true);
      expect(pods.length).toBeGreaterThan(1);
      expect(observation.bus).not.toBe('down');
      expect(observation.workload?.rolling).toBe(false);
      expect(observation.hpa?.atLimit).toBe(false);
      const starting = observation.pods.filter(
        (it) => !it.ready && !it.deleting && atMs - it.createdAtMs < 120_000,
      );
      expect(starting).toEqual([]);
      const draining = observation.pods.filter((it) => it.deleting && connectionsOf(it) > 0);
      expect(draining).toEqual([]);

      const fair = sum(pods.map(connectionsOf)) / pods.length;
      const names = new Set(pods.map(({ uid }) => uid));
      for (const { uid, ceiling } of ceilings) {
        expect(names.has(uid)).toBe(true);
        expect(ceiling.connections).toBeGreaterThanOrEqual(fair);
        expect(ceiling.expiresAfterMs).toBe(15_000);
      }
      expect(sum(ceilings.map(({ ceiling }) => ceiling.shedPerSecond))).toBeLessThanOrEqual(RATE + 0.1);
    };
    fc.assert(
      fc.property(anyHistory, (history) => void live(history, {}, check)),
      { numRuns: 1000, seed: SEED },
    );
    expect(seen).toBeGreaterThan(1000);
  },
  TIMEOUT_MS,
);

test(
  'A decision is a function: the same again gives the same, every condition has a known reason, and nothing is changed',
  () => {
    const check = ({ observation, decision, atMs }: Round, world: World) => {
      const { conditions, state, message } = decision.status;
      expect(conditions.map(({ type }) => type)).toEqual(Object.keys(conditionTypes));
      for (const { reason } of conditions) expect(reasons).toHaveProperty(reason);
      expect(reasons).toHaveProperty(state);
      expect(message).not.toBe('');
      const operator = new Operator(world, {});
      const frozen = deepFreeze(
        structuredClone({ policy: operator.policy, observation, memory: decision.memory }),
      );
      const again = () => decide(frozen.policy, frozen.observation, frozen.memory, atMs + 5000);
      expect(again()).toEqual(again());
    };
    fc.assert(
      fc.property(anyHistory, (history) => {
        live({ ...history, seconds: 120 }, {}, check);
      }),
      { numRuns: 60, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}

/** Pods are added to an even workload that nobody else changes. */
const anyScaleOut = fc
  .record({
    seed: anySeed,
    pods: fc.integer({ min: 1, max: 5 }),
    added: fc.integer({ min: 1, max: 5 }),
    perPod: fc.integer({ min: 50, max: 1200 }),
    balancer: fc.constantFrom(...unbiased),
    registrationSeconds: fc.constantFrom<number[]>(0, 20, 120),
  })
  .filter(({ pods, added }) => (pods + added) / pods > 1.3);

type ScaleOut = typeof anyScaleOut extends fc.Arbitrary<infer T> ? T : never;

function scaleOut(
  { seed: from, pods, added, perPod, balancer, registrationSeconds }: ScaleOut,
  seconds: number,
): History {
  return {
    seed: from,
    settings: { balancer, registrationSeconds },
    pods,
    connections: pods * perPod,
    churn: 0,
    seconds,
    mishaps: [{ kind: 'scale', at: 20, to: pods + added }],
  };
}

/** The fewest moves that make these pods even. */
function leastMoves(counts: readonly number[]): number {
  const fair = sum(counts) / counts.length;
  return sum(counts.map((count) => Math.max(0, count - fair)));
}

test(
  'After a scale-out pods become even, with hardly more moves than are needed and few attempts',
  () => {
    const ratios: number[] = [];
    fc.assert(
      fc.property(anyScaleOut, (chosen) => {
        const { world, operator } = live(scaleOut(chosen, 420));
        const { pods, added, perPod, registrationSeconds } = chosen;
        const least = leastMoves([...Array(pods).fill(perPod), ...Array(added).fill(0)]);
        // What the load balancer's chance leaves uneven between the old pods has to be moved as well.
        const chance = pods * 2 * Math.sqrt(perPod);
        const tries = (pods + added) / added;
        const fair = (pods * perPod) / (pods + added);
        expect(world.skew).toBeLessThanOrEqual(Math.max(1.15, (fair + 2) / fair));
        expect(world.counts.moved).toBeLessThanOrEqual(1.2 * least + chance);
        // Probes before the load balancer knows the new pods are in vain: two a pod, for fifteen seconds each.
        const probes = registrationSeconds === 0 ? 0 : 200 * (pods + added);
        expect(world.counts.attempts).toBeLessThanOrEqual(1.25 * tries * (least + chance) + 150 + probes);
        expect(operator.status?.state).toBe('Even');
        expect(world.counts.dropped).toBe(0);
        ratios.push(world.counts.moved / least);
      }),
      { numRuns: 300, seed: SEED },
    );
    expect(sum(ratios) / ratios.length).toBeLessThan(1.05);
  },
  TIMEOUT_MS,
);

test(
  'A new leader goes on where the old one was: whatever changes of leaders there are, nothing is moved twice',
  () => {
    const changes = fc.array(
      fc.record({
        kind: fc.constant('leader' as const),
        at: fc.integer({ min: 22, max: 120 }),
        gapSeconds: fc.integer({ min: 0, max: 25 }),
      }),
      { minLength: 1, maxLength: 6 },
    );
    fc.assert(
      fc.property(anyScaleOut, changes, (chosen, leaders) => {
        const history = scaleOut({ ...chosen, registrationSeconds: 0 }, 420);
        const { world } = live({ ...history, mishaps: [...history.mishaps, ...leaders] });
        const { pods, added, perPod } = chosen;
        const least = leastMoves([...Array(pods).fill(perPod), ...Array(added).fill(0)]);
        expect(world.counts.moved).toBeLessThanOrEqual(1.2 * least + pods * 2 * Math.sqrt(perPod));
        expect(world.skew).toBeLessThanOrEqual(1.2);
      }),
      { numRuns: 150, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

test(
  'It never swings: with pods that stay, what is made even stays so, behind any load balancer',
  () => {
    fc.assert(
      fc.property(
        fc.record({
          seed: anySeed,
          balancer: fc.constantFrom(...balancerNames),
          registrationSeconds: fc.constantFrom(0, 20, Number.POSITIVE_INFINITY),
          pods: fc.integer({ min: 2, max: 6 }),
          added: fc.integer({ min: 0, max: 3 }),
          connections: fc.integer({ min: 0, max: 5000 }),
          churn: fc.constantFrom(0, 0.0005, 0.002, 0.01),
        }),
        ({ balancer, registrationSeconds, added, ...chosen }) => {
          const history: History = {
            ...chosen,
            settings: { balancer, registrationSeconds },
            seconds: 3600,
            mishaps: added === 0 ? [] : [{ kind: 'scale', at: 30, to: chosen.pods + added }],
          };
          const { world, rounds } = live(history);
          const begun = rounds
            .flatMap(({ decision }) => decision.events)
            .filter((it) => it.reason === 'RebalanceStarted');
          expect(begun.length).toBeLessThanOrEqual(5);
          expect(world.counts.moved).toBeLessThanOrEqual(2.5 * chosen.connections + 200);
          if (unbiased.includes(balancer) && Number.isFinite(registrationSeconds))
            expect(begun.length).toBeLessThanOrEqual(2);
        },
      ),
      { numRuns: 60, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

test(
  'Where the load balancer never picks the new pods it says so and stops, having asked only a few',
  () => {
    fc.assert(
      fc.property(anyScaleOut, (chosen) => {
        const never = { ...chosen, registrationSeconds: Number.POSITIVE_INFINITY };
        const { world, operator, rounds } = live(scaleOut(never, 900));
        expect(operator.status?.conditions.find(({ type }) => type === 'Ineffective')).toMatchObject({
          status: 'True',
          reason: 'NotReceiving',
        });
        expect(operator.status?.state).toBe('Ineffective');
        expect(world.counts.asked).toBeLessThanOrEqual(5 * 6 * 2 * (chosen.pods + chosen.added));
        expect(rounds.at(-1)?.decision.ceilings).toEqual([]);
      }),
      { numRuns: 60, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

test(
  'Where clients always come back to their pod it says so and stops',
  () => {
    fc.assert(
      fc.property(
        anySeed,
        fc.integer({ min: 400, max: 1500 }),
        fc.constantFrom(0, 0.001),
        (from, perPod, churn) => {
          const { world, operator } = live({
            seed: from,
            settings: { balancer: 'sticky' },
            pods: 2,
            connections: 2 * perPod,
            churn,
            seconds: 900,
            mishaps: [{ kind: 'scale', at: 20, to: 4 }],
          });
          expect(operator.status?.conditions.find(({ type }) => type === 'Ineffective')?.status).toBe('True');
          expect(world.counts.moved).toBeLessThan(100);
          expect(world.counts.asked).toBeLessThan(300);
        },
      ),
      { numRuns: 30, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

test(
  'Deletion costs have the order of connections but for what is nearly equal, and are written once',
  () => {
    let writes = 0;
    let roundsSeen = 0;
    const check = ({ observation, decision, atMs }: Round, world: World) => {
      writes += decision.deletionCosts.length;
      roundsSeen += 1;
      const uids = new Set(counted(observation).map(({ uid }) => uid));
      const pods = world.pods.filter(({ uid, silentUntilMs }) => uids.has(uid) && silentUntilMs <= atMs);
      for (const one of pods) {
        expect(one.deletionCost).toBeTypeOf('number');
        for (const other of pods) {
          if (one.connections > 1.15 * other.connections + 2)
            expect(one.deletionCost).toBeGreaterThan(other.deletionCost ?? 0);
        }
      }
    };
    fc.assert(
      fc.property(anyHistory, (history) => void live(history, {}, check)),
      { numRuns: 400, seed: SEED },
    );
    // Every round could write for every pod: it is less than one write in ten rounds.
    expect(writes).toBeLessThan(roundsSeen / 2);
  },
  TIMEOUT_MS,
);
