// What the operator remembers of a policy from one round to the next. It is plain data and may be lost at any time,
// with the leader that held it: then the policy's own status says what matters.

import type { Condition, Reason } from './conditions.ts';
import type { Policy, RebalanceStatus } from './policy.ts';

/** What one round hands to the next. */
export interface Memory {
  /** The workload that it is about, as `kind/name`. */
  readonly target: string | undefined;
  /** By uid, of pods that were there in the last round. */
  readonly pods: Readonly<Record<string, PodMemory>>;
  readonly rebalance: RebalanceMemory;
  /** Connections a second that pods lose while they drain, as last seen. */
  readonly drainPacePerSecond: number | undefined;
  readonly conditions: readonly Condition[];
}

/** What a pod told last, so that its counters become rates. */
export interface PodMemory {
  readonly startedAtMs: number | undefined;
  readonly atMs: number;
  readonly connections: number;
  readonly accepted: number | undefined;
  readonly cpuSeconds: number | undefined;
  readonly asked: number;
  readonly moved: number;
  readonly stayed: number;
  /** CPU in cores, smoothed. */
  readonly cores: number | undefined;
  /** For how long `cores` has been measured. */
  readonly measuredMs: number;
  /** When the load balancer was last seen bringing it a connection. */
  readonly receivedAtMs: number | undefined;
  /** Since when it has been losing connections because it is being deleted. */
  readonly draining: { readonly sinceMs: number; readonly connections: number } | undefined;
}

/** How the moving of connections stands. */
export interface RebalanceMemory {
  readonly episode: Episode | undefined;
  /** Consecutive rounds in which the pods were uneven and nothing stood in the way. */
  readonly unevenRounds: number;
  /** No new episode before this, and why. */
  readonly rest: { readonly untilMs: number; readonly reason: Reason } | undefined;
  /** Probes in a row that brought nothing to the emptier pods. */
  readonly failedProbes: number;
  readonly past: Past | undefined;
  readonly ineffective: Ineffective | undefined;
  readonly last: RebalanceStatus | undefined;
  /** Whether the operator that led before was moving connections: this one then goes on. */
  readonly resume: boolean;
}

/** The last episode that moved anything, as one of several that came soon after another. */
export interface Past {
  /** When it ended. */
  readonly atMs: number;
  /** Names of the pods there were, and the spec that it went by. With others it says nothing. */
  readonly pods: readonly string[];
  readonly generation: number;
  readonly relapses: number;
  readonly leastUneven: number;
}

/** One rebalance, from its first ceiling to its last. */
export interface Episode {
  /** Probing asks a few, to see whether the load balancer brings them to the emptier pods. */
  readonly kind: 'probing' | 'moving';
  readonly startedAtMs: number;
  /** When it began to be of this kind. */
  readonly kindSinceMs: number;
  readonly skewBefore: number;
  /** Connections that were to be moved, and connections of all pods together, when it began. */
  readonly surplusBefore: number;
  readonly totalBefore: number;
  readonly asked: number;
  readonly moved: number;
  readonly stayed: number;
  /** Since when the pods have been nearly even. */
  readonly nearlyEvenSinceMs: number | undefined;
  /** What was asked and had moved when the effect was last looked at, and how often in a row there was none. */
  readonly check: {
    readonly atMs: number;
    readonly asked: number;
    readonly moved: number;
    readonly surplus: number;
    readonly failures: number;
    readonly idle: number;
  };
  /** By load, ceilings are made once: measured load follows what is moved too late to make them anew each round. */
  readonly plan: Readonly<Record<string, number>> | undefined;
  /** Whether its begin was told as an event: a probe that finds nothing is not. */
  readonly announced: boolean;
  /** How often, this time included, about as much was to be moved again soon after an episode. */
  readonly relapses: number;
  /** The least that full pods had above their fair share, connections or cores, when any of those began. */
  readonly leastUneven: number;
}

/** Why moving was given up, and for which pods and policy that holds. */
export interface Ineffective {
  readonly sinceMs: number;
  readonly reason: Reason;
  readonly generation: number;
  /** Names of the pods there were. With others it is tried again. */
  readonly pods: readonly string[];
}

/** What is remembered where it is about the workload that the policy has now. Of another one nothing is, but for the
 * conditions, which are the policy's. */
export function recall(policy: Policy, memory: Memory | undefined): Memory {
  const { kind, name } = policy.spec.targetRef;
  const target = `${kind}/${name}`;
  if (memory === undefined) return { ...memoryFrom(policy), target };
  if (memory.target === target) return memory;
  return { ...memoryFrom({ ...policy, status: undefined }), conditions: memory.conditions, target };
}

/** What a new leader knows: what the status of the policy says. */
export function memoryFrom({ status, generation }: Pick<Policy, 'status' | 'generation'>): Memory {
  const conditions = status?.conditions ?? [];
  const ineffective = conditions.find(
    ({ type, status: value }) => type === 'Ineffective' && value === 'True',
  );
  const moving = conditions.some(({ type, status: value }) => type === 'Rebalancing' && value === 'True');
  return {
    target: undefined,
    pods: {},
    drainPacePerSecond: undefined,
    conditions,
    rebalance: {
      episode: undefined,
      unevenRounds: 0,
      rest: undefined,
      failedProbes: 0,
      past: undefined,
      ineffective:
        ineffective === undefined || ineffective.observedGeneration !== generation
          ? undefined
          : {
              sinceMs: Date.parse(ineffective.lastTransitionTime),
              reason: ineffective.reason,
              generation,
              pods: (status?.pods ?? []).map(({ name }) => name),
            },
      last: status?.lastRebalance,
      resume: moving,
    },
  };
}
