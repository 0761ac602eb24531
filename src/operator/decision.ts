// A decision: what one round wants done, as plain data. Whoever applies it knows nothing of why.

import type { Memory } from './memory.ts';
import type { PolicyStatus } from './policy.ts';

/** What {@link decide} answers. */
export interface Decision {
  /** To be put to pods now. A pod that is not named gets none: what stands on it expires by itself. */
  readonly ceilings: readonly CeilingOrder[];
  /** Pods whose standing ceiling is to be taken away at once. */
  readonly lifts: readonly PodRef[];
  /** Deletion costs to be written now. Those that are not named stay as they are. */
  readonly deletionCosts: readonly DeletionCostOrder[];
  readonly status: PolicyStatus;
  /** For the workload. Told once, when something begins or ends. */
  readonly events: readonly PolicyEvent[];
  /** To be handed to the next round of this policy, by whoever leads. It may be lost: then the status is asked. */
  readonly memory: Memory;
}

/** Which pod. */
export interface PodRef {
  readonly name: string;
  readonly uid: string;
}

/** A ceiling, and the pod that is to have it. */
export interface CeilingOrder extends PodRef {
  readonly ceiling: Ceiling;
}

/** The body of `PUT /ceiling`. */
export interface Ceiling {
  readonly connections: number;
  readonly expiresAfterMs: number;
  /** May be a fraction: many pods share one rate. */
  readonly shedPerSecond: number;
  readonly order: 'random' | 'oldest';
  readonly minAgeSeconds: number;
  readonly plain: boolean;
}

/** A deletion cost, and the pod that is to have it. */
export interface DeletionCostOrder extends PodRef {
  /** Undefined: the annotation is removed. */
  readonly cost: number | undefined;
}

/** An event, as `kubectl describe` shows it. */
export interface PolicyEvent {
  readonly type: 'Normal' | 'Warning';
  readonly reason: EventReason;
  readonly message: string;
}

/** Every reason an event may have, and when it is told. */
export const eventReasons = {
  RebalanceStarted: 'The first ceilings are set.',
  RebalanceFinished: 'The pods are even.',
  RebalanceStopped: 'Something came up before the pods were even.',
  RebalanceIneffective: 'Moving did not make the pods more even, and was given up.',
  DrainWillOverrun: 'A pod would be killed before it has drained.',
  PolicyConflict: 'An older policy has the same workload.',
} as const satisfies Record<string, string>;

/** The word for one of them. */
export type EventReason = keyof typeof eventReasons;
