// Histories: what may happen to a workload in the simulated world, and the operator beside it that lives through it.
// A failing one is printed with its seed, and happens again in the same way.

import fc from 'fast-check';
import { type BalancerName, balancerNames } from '../simulate/balancer.ts';
import { Operator, type Round } from '../simulate/operator.ts';
import { type SimPod, World, type WorldSettings } from '../simulate/world.ts';
import type { Hpa, Observation } from '../src/operator/observation.ts';
import { Random } from './random.ts';

/** `rebalance.ratePerSecond` in every history. */
export const RATE = 100;

/** The same histories at each run, so that a failure is the change's. Others: HISTORIES_SEED=7 npm test -- histories */
export const SEED = Number(process.env.HISTORIES_SEED ?? 20_261_122);

/** A busy machine takes its time. */
export const TIMEOUT_MS = 300_000;

/** Something that goes wrong, or is done to the pods, at some second. */
export type Mishap =
  | { readonly kind: 'leader'; readonly at: number; readonly gapSeconds: number }
  | { readonly kind: 'silent'; readonly at: number; readonly seconds: number; readonly pod: number }
  | { readonly kind: 'bus' | 'rolling' | 'limit'; readonly at: number; readonly seconds: number }
  | { readonly kind: 'kill'; readonly at: number; readonly pod: number }
  | {
      readonly kind: 'burst';
      readonly at: number;
      readonly seconds: number;
      readonly pod: number;
      readonly times: number;
    }
  | { readonly kind: 'scale'; readonly at: number; readonly to: number };

export interface History {
  readonly seed: number;
  readonly settings: Partial<WorldSettings>;
  readonly pods: number;
  readonly connections: number;
  /** Share of the clients that goes in a second; as many come. */
  readonly churn: number;
  readonly seconds: number;
  readonly mishaps: readonly Mishap[];
  /** Cores that a connection costs, by the pod on which it is at first; none: all cost the same. */
  readonly costs?: readonly number[];
  /** Cores that the first pod uses for something else. */
  readonly otherCores?: number;
}

export const anySeed = fc.integer({ min: 1, max: 2 ** 31 });
const second = (to: number) => fc.integer({ min: 1, max: to });
/** Load balancers that send a client that moves to every pod now and then. */
export const unbiased: readonly BalancerName[] = [
  'random',
  'round-robin',
  'least-connections',
  'two-choices',
];

const anyMishap = (seconds: number): fc.Arbitrary<Mishap> =>
  fc.oneof(
    fc.record({
      kind: fc.constant('leader'),
      at: second(seconds),
      gapSeconds: fc.integer({ min: 0, max: 30 }),
    }),
    fc.record({ kind: fc.constant('silent'), at: second(seconds), seconds: second(60), pod: fc.nat(5) }),
    fc.record({
      kind: fc.constantFrom('bus' as const, 'rolling' as const, 'limit' as const),
      at: second(seconds),
      seconds: second(60),
    }),
    fc.record({ kind: fc.constant('kill'), at: second(seconds), pod: fc.nat(5) }),
    fc.record({ kind: fc.constant('scale'), at: second(seconds), to: fc.integer({ min: 1, max: 7 }) }),
  ) as fc.Arbitrary<Mishap>;

export const anyHistory: fc.Arbitrary<History> = fc.record({
  seed: anySeed,
  settings: fc.record({
    balancer: fc.constantFrom(...balancerNames),
    registrationSeconds: fc.constantFrom(0, 20, 150, Number.POSITIVE_INFINITY),
    startSeconds: fc.integer({ min: 1, max: 40 }),
    preStopSeconds: fc.integer({ min: 0, max: 20 }),
    drainSeconds: fc.integer({ min: 0, max: 30 }),
    movableShare: fc.constantFrom(1, 1, 0.5, 0),
    maxConnections: fc.constantFrom(20_000, 1500),
  }),
  pods: fc.integer({ min: 1, max: 6 }),
  connections: fc.integer({ min: 0, max: 4000 }),
  churn: fc.constantFrom(0, 0, 0.0005, 0.003),
  seconds: fc.constant(420),
  mishaps: fc.array(anyMishap(400), { maxLength: 6 }),
});

/** Lives through a history; `look` sees every round before the next second begins. */
export function live(
  history: History,
  spec: Readonly<Record<string, unknown>> = {},
  look: (round: Round, world: World) => void = () => {},
): { world: World; operator: Operator; rounds: Round[] } {
  const { settings, pods, connections, churn, seconds, mishaps, costs, otherCores = 0 } = history;
  const random = new Random(history.seed);
  const world = new World(settings, random);
  world.scaleTo(pods);
  const warmUp = (settings.startSeconds ?? 5) + 1;
  for (let passed = 0; passed < warmUp; passed += 1) world.step();
  world.arrive(connections);
  for (const pod of world.pods) {
    pod.cores = pod.connections * (costs?.[pod.index] ?? world.settings.coresPerConnection);
    if (pod.index === 0) pod.idleCores += otherCores;
  }
  const operator = new Operator(world, { rebalance: { ratePerSecond: RATE, minAge: '0s' }, ...spec });
  const until = { bus: 0, rolling: 0, limit: 0 };
  const rounds: Round[] = [];
  for (let passed = 0; passed < seconds; passed += 1) {
    for (const mishap of mishaps) if (mishap.at === passed) befall(mishap, world, operator, until, passed);
    world.busUp = passed >= until.bus;
    world.rolling = passed < until.rolling;
    if (churn > 0) world.arrive(random.poisson(world.churn(churn)));
    world.step();
    const atLimit = passed < until.limit;
    const hpa: Hpa = {
      name: 'hpa',
      min: 1,
      max: 7,
      desired: world.desired,
      current: world.pods.length,
      atLimit,
    };
    const round = operator.step(hpa);
    if (round === undefined) continue;
    rounds.push(round);
    look(round, world);
  }
  return { world, operator, rounds };
}

function befall(
  mishap: Mishap,
  world: World,
  operator: Operator,
  until: { bus: number; rolling: number; limit: number },
  passed: number,
): void {
  switch (mishap.kind) {
    case 'leader':
      operator.changeLeader(mishap.gapSeconds * 1000);
      return;
    case 'scale':
      world.scaleTo(mishap.to);
      return;
    case 'bus':
    case 'rolling':
    case 'limit':
      until[mishap.kind] = passed + mishap.seconds;
      return;
    case 'burst':
    case 'kill':
    case 'silent': {
      const pod = world.pods[mishap.pod % Math.max(1, world.pods.length)];
      if (pod !== undefined) befallPod(mishap, world, pod);
    }
  }
}

function befallPod(
  mishap: Extract<Mishap, { kind: 'burst' | 'kill' | 'silent' }>,
  world: World,
  pod: SimPod,
): void {
  if (mishap.kind === 'kill') {
    world.kill(pod);
    return;
  }
  const untilMs = world.nowMs + mishap.seconds * 1000;
  if (mishap.kind === 'burst') {
    pod.burst = { untilMs, times: mishap.times };
    return;
  }
  pod.silentSinceMs = world.nowMs;
  pod.silentUntilMs = untilMs;
}

/** Pods that a load balancer may send clients to. */
export function counted({ pods }: Observation) {
  return pods.filter(
    ({ ready, deleting, heard }) => ready && !deleting && !(heard.known && heard.answer.phase === 'draining'),
  );
}

/** What a pod said; 0 where it said nothing. */
export const connectionsOf = ({ heard }: Observation['pods'][number]) =>
  heard.known ? heard.answer.connections : 0;
export const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
