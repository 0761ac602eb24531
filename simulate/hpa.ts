// The HorizontalPodAutoscaler: what its controller in Kubernetes 1.35 does at each sync, rule by rule
// (pkg/controller/podautoscaler: horizontal.go and replica_calculator.go), for metrics of pods and for CPU.

/** What it measures. Values are in thousandths, as the controller counts: 10 connections are 10,000. */
export type HpaMetric =
  | { readonly kind: 'pods'; readonly name: string; readonly targetMilli: number }
  /** CPU: the target is a percentage of the request. */
  | { readonly kind: 'cpu'; readonly targetPercent: number; readonly requestMilli: number };

/** `behavior.scaleUp` or `behavior.scaleDown`. */
export interface ScalingRules {
  readonly stabilizationWindowSeconds: number;
  readonly selectPolicy: 'Max' | 'Min' | 'Disabled';
  readonly policies: readonly ScalingPolicy[];
  readonly tolerance: number | undefined;
}

export interface ScalingPolicy {
  readonly type: 'Pods' | 'Percent';
  readonly value: number;
  readonly periodSeconds: number;
}

export interface HpaSettings {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly metrics: readonly HpaMetric[];
  /** Undefined: the HPA has no `behavior`, and the rules from before there was one hold. */
  readonly behavior: { readonly scaleUp: ScalingRules; readonly scaleDown: ScalingRules } | undefined;
  /** Flags of the controller manager. */
  readonly tolerance: number;
  readonly downscaleStabilizationSeconds: number;
}

/** What the API server fills in where `behavior` says nothing. */
export const defaultRules: { readonly scaleUp: ScalingRules; readonly scaleDown: ScalingRules } = {
  scaleUp: {
    stabilizationWindowSeconds: 0,
    selectPolicy: 'Max',
    policies: [
      { type: 'Pods', value: 4, periodSeconds: 15 },
      { type: 'Percent', value: 100, periodSeconds: 15 },
    ],
    tolerance: undefined,
  },
  scaleDown: {
    stabilizationWindowSeconds: 300,
    selectPolicy: 'Max',
    policies: [{ type: 'Percent', value: 100, periodSeconds: 15 }],
    tolerance: undefined,
  },
};

/** A pod as the controller sees it. */
export interface HpaPod {
  readonly name: string;
  /** Pending: not all its containers run yet. */
  readonly pending: boolean;
  readonly deleting: boolean;
  readonly ready: boolean;
  readonly startedAtMs: number;
  /** When it last became ready or unready. */
  readonly readinessAtMs: number;
}

/** The value of a metric for one pod. */
export interface Sample {
  readonly milli: number;
  readonly atMs: number;
  /** Over which time it was measured. 0 for a gauge. */
  readonly windowMs: number;
}

/** The samples of one metric by pod; undefined where the metrics API answers with an error. */
export type Samples = ReadonlyMap<string, Sample> | undefined;

/** What a sync came to. */
export interface HpaDecision {
  readonly desired: number;
  /** Before limits, rates and windows. Undefined: no metric could be read. */
  readonly recommended: number | undefined;
  /** Reason of the condition ScalingLimited, where it is true. */
  readonly limited: 'TooManyReplicas' | 'TooFewReplicas' | 'ScaleUpLimit' | 'ScaleDownLimit' | undefined;
}

interface Limited {
  readonly replicas: number;
  readonly limit: HpaDecision['limited'];
}

const CPU_INITIALIZATION_MS = 300_000;
const INITIAL_READINESS_MS = 30_000;

/** One autoscaler, with what it remembers. */
export class Hpa {
  readonly #settings: HpaSettings;
  readonly #scaleUps: { change: number; atMs: number }[] = [];
  readonly #scaleDowns: { change: number; atMs: number }[] = [];
  #recommendations: { replicas: number; atMs: number }[] = [];

  constructor(settings: HpaSettings) {
    this.#settings = settings;
  }

  /** What comes next. `current` is spec.replicas; `samplesOf` has the answer of the metrics API for each metric. */
  sync(
    current: number,
    pods: readonly HpaPod[],
    samplesOf: (metric: HpaMetric) => Samples,
    nowMs: number,
  ): HpaDecision {
    const { minReplicas, maxReplicas, behavior } = this.#settings;
    if (this.#recommendations.length === 0) this.#recommendations.push({ replicas: current, atMs: nowMs });
    if (current === 0 && minReplicas !== 0) return { desired: 0, recommended: undefined, limited: undefined };
    if (current > maxReplicas)
      return this.#scale(current, { replicas: maxReplicas, limit: undefined }, undefined, nowMs);
    if (current < minReplicas)
      return this.#scale(current, { replicas: minReplicas, limit: undefined }, undefined, nowMs);

    const recommended = this.#recommend(current, pods, samplesOf, nowMs);
    if (recommended === undefined) return { desired: current, recommended, limited: undefined };
    const next =
      behavior === undefined
        ? this.#limitWithoutBehavior(current, this.#stabilizeDown(recommended, nowMs))
        : this.#limitWithBehavior(
            current,
            this.#stabilize(current, recommended, behavior, nowMs),
            behavior,
            nowMs,
          );
    return this.#scale(current, next, recommended, nowMs);
  }

  /** The highest of what the metrics ask for. A metric that fails is left out when scaling up, and forbids to scale
   * down. */
  #recommend(
    current: number,
    pods: readonly HpaPod[],
    samplesOf: (metric: HpaMetric) => Samples,
    nowMs: number,
  ): number | undefined {
    let highest = 0;
    let failed = 0;
    for (const metric of this.#settings.metrics) {
      const samples = samplesOf(metric);
      const replicas = samples && replicasFor(metric, current, pods, samples, this.#tolerances, nowMs);
      if (replicas === undefined) failed += 1;
      else if (highest === 0 || replicas > highest) highest = replicas;
    }
    if (failed >= this.#settings.metrics.length || (failed > 0 && highest < current)) return undefined;
    return highest;
  }

  get #tolerances(): Tolerances {
    const { behavior, tolerance } = this.#settings;
    return { up: behavior?.scaleUp.tolerance ?? tolerance, down: behavior?.scaleDown.tolerance ?? tolerance };
  }

  #scale(
    current: number,
    { replicas, limit }: Limited,
    recommended: number | undefined,
    nowMs: number,
  ): HpaDecision {
    if (replicas > current) this.#scaleUps.push({ change: replicas - current, atMs: nowMs });
    if (replicas < current) this.#scaleDowns.push({ change: current - replicas, atMs: nowMs });
    return { desired: replicas, recommended, limited: limit };
  }

  // ── Stabilization windows ───────────────────────────────────────────────────────────────────────────────

  #remember(replicas: number, windowMs: number, nowMs: number): void {
    this.#recommendations = this.#recommendations.filter(({ atMs }) => atMs > nowMs - windowMs);
    this.#recommendations.push({ replicas, atMs: nowMs });
  }

  #stabilizeDown(recommended: number, nowMs: number): number {
    const windowMs = this.#settings.downscaleStabilizationSeconds * 1000;
    const recent = this.#recommendations.filter(({ atMs }) => atMs > nowMs - windowMs);
    this.#remember(recommended, windowMs, nowMs);
    return Math.max(recommended, ...recent.map(({ replicas }) => replicas));
  }

  #stabilize(
    current: number,
    recommended: number,
    { scaleUp, scaleDown }: NonNullable<HpaSettings['behavior']>,
    nowMs: number,
  ): number {
    const [upMs, downMs] = [scaleUp, scaleDown].map((rules) => rules.stabilizationWindowSeconds * 1000) as [
      number,
      number,
    ];
    const within = (windowMs: number) =>
      this.#recommendations.filter(({ atMs }) => atMs > nowMs - windowMs).map(({ replicas }) => replicas);
    const up = Math.min(recommended, ...within(upMs));
    const down = Math.max(recommended, ...within(downMs));
    this.#remember(recommended, Math.max(upMs, downMs), nowMs);
    return Math.min(Math.max(current, up), down);
  }

  // ── Limits ──────────────────────────────────────────────────────────────────────────────────────────────

  #limitWithoutBehavior(current: number, wanted: number): Limited {
    const { minReplicas, maxReplicas } = this.#settings;
    const upLimit = Math.max(2 * current, 4);
    if (wanted < minReplicas) return { replicas: minReplicas, limit: 'TooFewReplicas' };
    if (wanted <= Math.min(maxReplicas, upLimit)) return { replicas: wanted, limit: undefined };
    return maxReplicas > upLimit
      ? { replicas: upLimit, limit: 'ScaleUpLimit' }
      : { replicas: maxReplicas, limit: 'TooManyReplicas' };
  }

  #limitWithBehavior(
    current: number,
    wanted: number,
    { scaleUp, scaleDown }: NonNullable<HpaSettings['behavior']>,
    nowMs: number,
  ): Limited {
    const { minReplicas, maxReplicas } = this.#settings;
    if (wanted > current) {
      const limit = Math.max(current, this.#rateLimit(current, scaleUp, 1, nowMs));
      if (wanted > Math.min(limit, maxReplicas)) {
        return maxReplicas > limit
          ? { replicas: limit, limit: 'ScaleUpLimit' }
          : { replicas: maxReplicas, limit: 'TooManyReplicas' };
      }
    } else if (wanted < current) {
      const limit = Math.min(current, this.#rateLimit(current, scaleDown, -1, nowMs));
      if (wanted < Math.max(limit, minReplicas)) {
        return minReplicas < limit
          ? { replicas: limit, limit: 'ScaleDownLimit' }
          : { replicas: minReplicas, limit: 'TooFewReplicas' };
      }
    }
    return { replicas: wanted, limit: undefined };
  }

  /** How far the policies let it go now. `Max` is the policy with the largest change, `Min` that with the smallest. */
  #rateLimit(
    current: number,
    { selectPolicy, policies }: ScalingRules,
    direction: 1 | -1,
    nowMs: number,
  ): number {
    if (selectPolicy === 'Disabled') return current;
    const proposals = policies.map(({ type, value, periodSeconds }) => {
      const within = (events: readonly { change: number; atMs: number }[]) =>
        events
          .filter(({ atMs }) => atMs > nowMs - periodSeconds * 1000)
          .reduce((sum, { change }) => sum + change, 0);
      const atStart = current - within(this.#scaleUps) + within(this.#scaleDowns);
      if (type === 'Pods') return atStart + direction * value;
      // Adding is rounded up, or few pods would never become more; removing is cut off, which removes more.
      const scaled = atStart * (1 + (direction * value) / 100);
      return direction === 1 ? Math.ceil(scaled) : Math.trunc(scaled);
    });
    const largest = selectPolicy === 'Max';
    return (direction === 1) === largest ? Math.max(...proposals) : Math.min(...proposals);
  }
}

// ── Arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────

export interface Tolerances {
  readonly up: number;
  readonly down: number;
}

/** How many replicas one metric asks for. Undefined: no pod that counts has a value. */
export function replicasFor(
  metric: HpaMetric,
  current: number,
  pods: readonly HpaPod[],
  samples: ReadonlyMap<string, Sample>,
  tolerances: Tolerances,
  nowMs: number,
): number | undefined {
  const groups = groupPods(metric, pods, samples, nowMs);
  const left = new Set([...groups.ignored, ...groups.unready]);
  const values = new Map(
    [...samples].filter(([name]) => !left.has(name)).map(([name, { milli }]) => [name, milli]),
  );
  if (values.size === 0) return undefined;

  const ratio = ratioOf(metric, values, pods);
  const upWithUnready = groups.unready.size > 0 && ratio > 1;
  if (!upWithUnready && groups.missing.size === 0) {
    return isWithin(ratio, tolerances) ? current : ceil(ratio * groups.readyCount);
  }
  // Pods without a value count so that they hold back whatever is about to be done.
  const fill = missingValue(metric, ratio);
  if (fill !== undefined) for (const name of groups.missing) values.set(name, fill);
  if (upWithUnready) for (const name of groups.unready) values.set(name, 0);

  const careful = ratioOf(metric, values, pods);
  const turns = (ratio < 1 && careful > 1) || (ratio > 1 && careful < 1);
  if (isWithin(careful, tolerances) || turns) return current;
  const replicas = ceil(careful * values.size);
  const contradicts = (careful < 1 && replicas > current) || (careful > 1 && replicas < current);
  return contradicts ? current : replicas;
}

/** Going down a pod without a value counts as if it were on target (CPU: at its request, if that is more); going up as
 * if it did nothing. */
function missingValue(metric: HpaMetric, ratio: number): number | undefined {
  if (ratio > 1) return 0;
  if (ratio === 1) return undefined;
  if (metric.kind === 'pods') return metric.targetMilli;
  return Math.trunc((metric.requestMilli * Math.max(100, metric.targetPercent)) / 100);
}

function ratioOf(metric: HpaMetric, values: ReadonlyMap<string, number>, pods: readonly HpaPod[]): number {
  if (metric.kind === 'pods') {
    const total = [...values.values()].reduce((sum, milli) => sum + milli, 0);
    return Math.trunc(total / values.size) / metric.targetMilli;
  }
  const known = pods.filter(({ name }) => values.has(name));
  const total = known.reduce((sum, { name }) => sum + (values.get(name) ?? 0), 0);
  return Math.trunc((total * 100) / (known.length * metric.requestMilli)) / metric.targetPercent;
}

interface Groups {
  readonly readyCount: number;
  readonly unready: ReadonlySet<string>;
  readonly missing: ReadonlySet<string>;
  readonly ignored: ReadonlySet<string>;
}

function groupPods(
  metric: HpaMetric,
  pods: readonly HpaPod[],
  samples: ReadonlyMap<string, Sample>,
  nowMs: number,
): Groups {
  const [unready, missing, ignored] = [new Set<string>(), new Set<string>(), new Set<string>()];
  for (const pod of pods) {
    const sample = samples.get(pod.name);
    if (pod.deleting) ignored.add(pod.name);
    else if (pod.pending) unready.add(pod.name);
    else if (sample === undefined) missing.add(pod.name);
    else if (metric.kind === 'cpu' && isTooYoung(pod, sample, nowMs)) unready.add(pod.name);
  }
  return { readyCount: pods.length - unready.size - missing.size - ignored.size, unready, missing, ignored };
}

/** CPU of pods that start says nothing: they load code. Other metrics count from the first value, ready or not. */
function isTooYoung({ ready, startedAtMs, readinessAtMs }: HpaPod, sample: Sample, nowMs: number): boolean {
  if (startedAtMs + CPU_INITIALIZATION_MS > nowMs)
    return !ready || sample.atMs < readinessAtMs + sample.windowMs;
  return !ready && startedAtMs + INITIAL_READINESS_MS > readinessAtMs;
}

function isWithin(ratio: number, { up, down }: Tolerances): boolean {
  return 1 - down <= ratio && ratio <= 1 + up;
}

/** As the controller computes: in doubles, rounded up. */
function ceil(replicas: number): number {
  return Math.min(2 ** 31 - 1, Math.ceil(replicas));
}
