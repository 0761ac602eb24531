// A simulation: one history, lived through by clients, pods, the autoscaler and, where there is one, the operator.

import type { Hpa as SeenHpa } from '../src/operator/observation.ts';
import { Random } from '../test/random.ts';
import { Hpa, type HpaDecision, type HpaMetric, type Sample } from './hpa.ts';
import { Operator } from './operator.ts';
import type { Settings } from './settings.ts';
import { World } from './world.ts';

/** What was at one moment. */
export interface Moment {
  readonly second: number;
  /** Clients that want to be connected. */
  readonly wanted: number;
  readonly connected: number;
  /** spec.replicas. */
  readonly desired: number;
  readonly ready: number;
  readonly fullest: number;
  readonly emptiest: number;
  readonly skew: number;
  /** Since the beginning. */
  readonly dropped: number;
  readonly moved: number;
  readonly refused: number;
  readonly limited: HpaDecision['limited'];
}

export interface Recording {
  readonly moments: readonly Moment[];
  /** Pods at work, summed over time, in hours. */
  readonly podHours: number;
  readonly killed: number;
  /** Seconds in which the mean of all pods was above the target and its tolerance. */
  readonly secondsAboveTarget: number;
  readonly secondsSkewed: number;
  readonly scaleUps: number;
  readonly scaleDowns: number;
}

/** metrics-server measures CPU over this time. */
const CPU_WINDOW_MS = 15_000;
/** A client that lost its connection with many others comes back within this time. */
const RETURN_SECONDS = 20;

/** Lives through it. A moment is kept every `everySeconds`. */
export function simulate(settings: Settings, everySeconds: number): Recording {
  const { history, hpa: rules, syncSeconds, metricsSeconds, sessionSeconds, seed, target } = settings;
  const random = new Random(seed);
  const world = new World(settings.world, random);
  const hpa = new Hpa(rules);
  const operator = settings.policy === undefined ? undefined : new Operator(world, settings.policy);
  const metrics = new Metrics(world);
  begin(world, settings);
  metrics.poll();

  const moments: Moment[] = [];
  let decision: HpaDecision = { desired: world.desired, recommended: undefined, limited: undefined };
  let [podSeconds, above, skewed, ups, downs] = [0, 0, 0, 0, 0];
  let away = 0;
  for (let second = 0; second <= history.seconds; second += 1) {
    for (const cut of history.cuts) {
      if (cut.second !== second) continue;
      away = Math.round(world.connections * cut.share);
      world.depart(away);
    }
    away = Math.max(0, away - Math.ceil(away / RETURN_SECONDS));
    const wanted = history.clientsAt(second);
    if (second > 0) {
      world.churn(1 / sessionSeconds);
      const missing = wanted - away - world.clients;
      if (missing > 0) world.arrive(missing);
      else world.depart(-missing);
      world.step();
    }
    if (second % metricsSeconds === 0) metrics.poll();
    if (second % syncSeconds === 0) {
      decision = hpa.sync(world.desired, metrics.pods(), (metric) => metrics.samplesOf(metric), world.nowMs);
      if (decision.desired > world.desired) ups += 1;
      if (decision.desired < world.desired) downs += 1;
      if (decision.desired !== world.desired) world.scaleTo(decision.desired);
    }
    operator?.step(seenHpa(settings, world, decision));

    const serving = world.serving;
    const counts = serving.map(({ connections }) => connections);
    const total = counts.reduce((sum, count) => sum + count, 0);
    podSeconds += world.pods.length;
    if (target !== undefined && total > 1.1 * target * counts.length) above += 1;
    if (world.skew > settings.maxSkew && total > 50 * counts.length) skewed += 1;
    if (second % everySeconds === 0) {
      moments.push({
        second,
        wanted,
        connected: world.connections,
        desired: world.desired,
        ready: serving.length,
        fullest: Math.max(0, ...counts),
        emptiest: counts.length === 0 ? 0 : Math.min(...counts),
        skew: world.skew,
        dropped: world.counts.dropped,
        moved: world.counts.moved,
        refused: world.counts.refused,
        limited: decision.limited,
      });
    }
  }
  return {
    moments,
    podHours: podSeconds / 3600,
    killed: world.counts.killed,
    secondsAboveTarget: above,
    secondsSkewed: skewed,
    scaleUps: ups,
    scaleDowns: downs,
  };
}

/** As many pods as the autoscaler would have for what is there at first, all of them even. */
function begin(world: World, { history, hpa, target }: Settings): void {
  const clients = history.clientsAt(0);
  const needed = Math.ceil(
    clients / Math.min(target ?? Number.POSITIVE_INFINITY, world.settings.maxConnections),
  );
  world.scaleTo(Math.min(hpa.maxReplicas, Math.max(hpa.minReplicas, needed, 1)));
  for (let second = 0; second <= world.settings.startSeconds; second += 1) world.step();
  world.arrive(clients);
}

function seenHpa({ hpa }: Settings, world: World, { limited, desired }: HpaDecision): SeenHpa {
  return {
    name: 'gateway',
    min: hpa.minReplicas,
    max: hpa.maxReplicas,
    desired,
    current: world.pods.filter(({ deleting }) => !deleting).length,
    atLimit: limited === 'TooManyReplicas',
  };
}

/** What the metrics API answers: gauges as of the last poll, and CPU over the window before it. */
class Metrics {
  readonly #world: World;
  #gauges = new Map<string, Sample>();
  #cpu = new Map<string, Sample>();
  #cpuBefore = new Map<string, { cpuSeconds: number; atMs: number }>();

  constructor(world: World) {
    this.#world = world;
  }

  poll(): void {
    const { nowMs, pods } = this.#world;
    const running = pods.filter(({ ready }) => ready);
    this.#gauges = new Map(
      running.map(({ name, connections }) => [name, { milli: connections * 1000, atMs: nowMs, windowMs: 0 }]),
    );
    const oldest = [...this.#cpuBefore.values()][0];
    if (oldest !== undefined && nowMs - oldest.atMs < CPU_WINDOW_MS) return;
    this.#cpu = new Map(
      running.flatMap(({ name, cpuSeconds }): [string, Sample][] => {
        const before = this.#cpuBefore.get(name);
        if (before === undefined) return [];
        const windowMs = nowMs - before.atMs;
        return [
          [
            name,
            { milli: Math.round(((cpuSeconds - before.cpuSeconds) * 1e6) / windowMs), atMs: nowMs, windowMs },
          ],
        ];
      }),
    );
    this.#cpuBefore = new Map(running.map(({ name, cpuSeconds }) => [name, { cpuSeconds, atMs: nowMs }]));
  }

  samplesOf(metric: HpaMetric): ReadonlyMap<string, Sample> {
    return metric.kind === 'cpu' ? this.#cpu : this.#gauges;
  }

  pods() {
    return this.#world.pods.map(({ name, ready, deleting, createdAtMs, readyAtMs }) => ({
      name,
      pending: !ready,
      deleting,
      ready,
      startedAtMs: createdAtMs,
      readinessAtMs: ready ? readyAtMs : createdAtMs,
    }));
  }
}
