// What holds of rebalancing by load whatever connections cost: random histories in which they are dear on some pods and
// cheap on others, behind several load balancers.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { balancerNames } from '../../simulate/balancer.ts';
import type { Round } from '../../simulate/operator.ts';
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

const byLoad = { rebalance: { by: 'load', ratePerSecond: RATE, minAge: '0s' } };

/** Below this many cores above the fair share nothing is moved. */
const FEWEST_CORES = 0.1;

/** Cores that one connection costs on each of the first pods. */
const anyCosts = fc.array(fc.constantFrom(0.00002, 0.0001, 0.0002, 0.0005, 0.001), {
  minLength: 6,
  maxLength: 6,
});

const coresOf = ({ pods }: World) => pods.map(({ idleCores, cores }) => idleCores + cores);
const begun = (rounds: readonly Round[]) =>
  rounds.flatMap(({ decision }) => decision.events).filter(({ reason }) => reason === 'RebalanceStarted')
    .length;

/** Pods whose connections cost different amounts, all of which stay; more pods may come. */
const unequal = {
  seed: anySeed,
  pods: fc.integer({ min: 2, max: 6 }),
  added: fc.integer({ min: 0, max: 3 }),
  perPod: fc.integer({ min: 100, max: 1200 }),
  costs: anyCosts,
  idleCores: fc.constantFrom(0, 0.02),
  busyShare: fc.constantFrom(1, 0.2),
  balancer: fc.constantFrom(...unbiased),
};
const anyUnequal = fc.record(unequal);

type Unequal = typeof anyUnequal extends fc.Arbitrary<infer T> ? T : never;

function historyOf(
  { seed, pods, added, perPod, costs, idleCores, busyShare, balancer }: Unequal,
  seconds: number,
): History {
  return {
    seed,
    settings: { balancer, idleCores, busyShare },
    pods,
    connections: pods * perPod,
    churn: 0,
    seconds,
    mishaps: added === 0 ? [] : [{ kind: 'scale', at: 60, to: pods + added }],
    costs,
  };
}

test(
  'By load, too, ceilings come from complete data, at good times, at a bounded rate, and leave room for everybody',
  () => {
    let seen = 0;
    const check = ({ observation, decision }: Round) => {
      const { ceilings } = decision;
      if (ceilings.length === 0) return;
      seen += 1;
      const pods = counted(observation);
      expect(pods.every(({ heard }) => heard.known)).toBe(true);
      expect(observation.bus).not.toBe('down');
      expect(observation.workload?.rolling).toBe(false);
      expect(observation.hpa?.atLimit).toBe(false);
      expect(sum(ceilings.map(({ ceiling }) => ceiling.shedPerSecond))).toBeLessThanOrEqual(RATE + 0.1);
      const held = sum(pods.map(connectionsOf));
      expect(sum(ceilings.map(({ ceiling }) => ceiling.connections))).toBeGreaterThanOrEqual(held);
    };
    fc.assert(
      fc.property(anyHistory, anyCosts, (history, costs) => void live({ ...history, costs }, byLoad, check)),
      { numRuns: 300, seed: SEED },
    );
    expect(seen).toBeGreaterThan(300);
  },
  TIMEOUT_MS,
);

/** Load balancers that do not look at connections: one that picks the fewest sends whoever moves back to the hot pod, which
 * has given away some. */
const blind = unbiased.filter((name) => name !== 'least-connections');

/** What is made even, or why it is not worth it; nothing is under way any more. */
function expectRelieved(world: World, state: string): void {
  const cores = coresOf(world);
  const fair = sum(cores) / cores.length;
  const most = Math.max(...cores);
  expect(['Even', 'TooLittleLoad']).toContain(state);
  expect(most).toBeLessThanOrEqual(1.05 * Math.max(1.2 * fair, fair + FEWEST_CORES));
}

/** The fewest moves that make the load even, where all connections of a pod cost the same. */
function leastMoves({ pods, perPod, costs, idleCores }: Unequal): number {
  const each = Array.from({ length: pods }, (_, at) => costs[at] ?? 0);
  const fair = idleCores + (sum(each) * perPod) / pods;
  return sum(each.map((cost) => Math.max(0, idleCores + cost * perPod - fair) / cost));
}

test(
  'A hot pod is relieved by few moves where connections of a pod are alike, whatever changes of leaders there are',
  () => {
    let moving = 0;
    const leaders = fc.array(
      fc.record({
        kind: fc.constant('leader' as const),
        at: fc.integer({ min: 60, max: 240 }),
        gapSeconds: fc.nat(25),
      }),
      { maxLength: 3 },
    );
    const alike = fc.record({ ...unequal, balancer: fc.constantFrom(...blind), busyShare: fc.constant(1) });
    fc.assert(
      fc.property(alike, leaders, (chosen, mishaps) => {
        const { world, operator, rounds } = live(
          { ...historyOf({ ...chosen, added: 0 }, 1200), mishaps },
          byLoad,
        );
        expectRelieved(world, operator.status?.state ?? '');
        const least = leastMoves(chosen);
        if (begun(rounds) > 0) moving += 1;
        expect(world.counts.moved).toBeLessThanOrEqual(1.2 * least + 2 * world.pods.length);
        expect(begun(rounds)).toBeLessThanOrEqual(1 + mishaps.length);
      }),
      { numRuns: 150, seed: SEED },
    );
    expect(moving).toBeGreaterThan(50);
  },
  TIMEOUT_MS,
);

test(
  'An empty pod lowers the average while an old one stays hot: after a scale-out, too, the load becomes even',
  () => {
    const more = fc.record({
      ...unequal,
      balancer: fc.constantFrom(...blind),
      added: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(more, (chosen) => {
        const { world, operator, rounds } = live(historyOf(chosen, 1800), byLoad);
        const { status } = operator;
        if (status?.state !== 'Ineffective') expectRelieved(world, status?.state ?? '');
        else expect(chosen.busyShare).toBeLessThan(1);
        expect(begun(rounds)).toBeLessThanOrEqual(4);
        expect(world.counts.moved).toBeLessThanOrEqual(chosen.pods * chosen.perPod);
      }),
      { numRuns: 100, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

test(
  'By load, too, it never swings: neither behind any load balancer, nor where load is not of connections or comes in bursts',
  () => {
    const burst = fc.record({
      kind: fc.constant('burst' as const),
      at: fc.integer({ min: 1, max: 7200 }),
      seconds: fc.integer({ min: 10, max: 300 }),
      pod: fc.nat(5),
      times: fc.integer({ min: 2, max: 10 }),
    });
    const restless = fc.record({
      ...unequal,
      balancer: fc.constantFrom(...balancerNames),
      churn: fc.constantFrom(0, 0, 0.0005, 0.002, 0.01),
      otherCores: fc.constantFrom(0, 0, 0.2, 1),
    });
    fc.assert(
      fc.property(restless, fc.array(burst, { maxLength: 40 }), (chosen, bursts) => {
        const history = historyOf(chosen, 7200);
        const { churn, otherCores } = chosen;
        const mishaps = [...history.mishaps, ...bursts];
        const { world, rounds } = live({ ...history, churn, otherCores, mishaps }, byLoad);
        const events = rounds.flatMap(({ decision }) => decision.events);
        expect(begun(rounds)).toBeLessThanOrEqual(12);
        expect(events.length).toBeLessThanOrEqual(2 * begun(rounds) + 6);
        expect(world.counts.moved).toBeLessThanOrEqual(2.5 * chosen.pods * chosen.perPod);
      }),
      { numRuns: 50, seed: SEED },
    );
  },
  TIMEOUT_MS,
);

test(
  'Where the load balancer picks the pod with the fewest connections it moves as far as that lets it, or says why not',
  () => {
    const against = fc.record({ ...unequal, balancer: fc.constant('least-connections' as const) });
    const states = new Set<string>();
    fc.assert(
      fc.property(against, (chosen) => {
        const { world, operator } = live(historyOf({ ...chosen, added: 0 }, 1800), byLoad);
        const { state = '', message = '', conditions = [] } = operator.status ?? {};
        states.add(state);
        if (state === 'Even' || state === 'TooLittleLoad') return expectRelieved(world, state);
        expect(state).toBe('Ineffective');
        expect(conditions.find(({ type }) => type === 'Ineffective')).toMatchObject({ status: 'True' });
        expect(message).toContain('moving has not helped');
        expect(world.counts.asked).toBeLessThanOrEqual(5 * 6 * 2 * chosen.pods);
      }),
      { numRuns: 60, seed: SEED },
    );
    expect(states).toContain('Ineffective');
  },
  TIMEOUT_MS,
);
