// An observation: what one round saw of a workload, as plain data. Nothing here knows of Kubernetes or of HTTP, so
// that a simulator can make it and a test can write it down.

/** What one round saw. Rounds come every {@link ROUND_MS}, and times are in milliseconds since 1970. */
export interface Observation {
  /** Undefined: there is no such workload. */
  readonly workload: Workload | undefined;
  /** The autoscaler of the workload. Undefined: it has none. */
  readonly hpa: Hpa | undefined;
  /** Every pod of the workload that is not finished, those being deleted included. */
  readonly pods: readonly Pod[];
  /** What the pods say of the bus between them: `down` where any ready pod says so, `unknown` where none tells. */
  readonly bus: 'up' | 'down' | 'unknown';
  /** Other policies with the same target. */
  readonly rivals: readonly Rival[];
  /** Of the operator itself. Undefined: it serves no metrics. */
  readonly metricsApi: MetricsApiState | undefined;
}

/** Whether autoscalers can ask the operator. */
export interface MetricsApiState {
  /** Why they cannot; undefined: they can. */
  readonly fault: string | undefined;
  /** Versions of the group that lead to others, each as `v1beta1 (Service monitoring/prometheus-adapter)`. */
  readonly foreign: readonly string[];
}

/** Time between two rounds. */
export const ROUND_MS = 5000;

/** The Deployment or StatefulSet that a policy is about. */
export interface Workload {
  readonly kind: 'Deployment' | 'StatefulSet';
  readonly namespace: string;
  readonly name: string;
  /** `spec.replicas`. */
  readonly desired: number;
  /** `status.replicas`. */
  readonly actual: number;
  /** Whether pods of more than one revision are there, or a revision is not rolled out to its end. */
  readonly rolling: boolean;
  /** `terminationGracePeriodSeconds` of the pod template. */
  readonly graceSeconds: number;
  /** What preStop waits: its `sleep`. 0 where there is none or it cannot be told. */
  readonly preStopSeconds: number;
}

/** The autoscaler of the workload. All numbers but `atLimit` are replicas. */
export interface Hpa {
  readonly name: string;
  readonly min: number;
  readonly max: number;
  /** `status.desiredReplicas`; `current` until it has wanted anything. */
  readonly desired: number;
  /** `status.currentReplicas`. */
  readonly current: number;
  /** Whether it wants more pods than `max`: condition ScalingLimited with reason TooManyReplicas. */
  readonly atLimit: boolean;
}

/** A pod of the workload, ready or not. */
export interface Pod {
  readonly name: string;
  readonly uid: string;
  /** Its condition Ready. */
  readonly ready: boolean;
  /** Whether it has a deletion timestamp. */
  readonly deleting: boolean;
  readonly createdAtMs: number;
  /** `controller.kubernetes.io/pod-deletion-cost` as it stands on the pod. Undefined: not set, or no number. */
  readonly deletionCost: number | undefined;
  readonly heard: Heard;
}

/** What a pod told when it was last asked, or why it is unknown. Unknown is never taken for zero. */
export type Heard =
  | { readonly known: true; readonly answer: Answer }
  | {
      readonly known: false;
      /** Since when it has not answered: the first failed poll after the last good one. */
      readonly sinceMs: number;
      readonly fault: SilenceFault;
      /** Its last good answer, with its own time. */
      readonly last: Answer | undefined;
    };

/**
 * Why there is no answer: `unreachable` (no connection, time-out, 5xx), `unauthorized` (401 or 403), `no-contract`
 * (404, or no JSON object with `connections`), `not-asked` (the first poll is still under way).
 */
export type SilenceFault = 'unreachable' | 'unauthorized' | 'no-contract' | 'not-asked';

/**
 * One good answer of the admin contract. Only `connections` is a must; what a workload does not tell is undefined,
 * and what needs it is not done. Counters begin anew with `startedAtMs`.
 */
export interface Answer {
  /** When it came. */
  readonly atMs: number;
  readonly connections: number;
  readonly maxConnections: number | undefined;
  readonly phase: 'starting' | 'serving' | 'draining' | undefined;
  readonly startedAtMs: number | undefined;
  /** Counter: connections accepted. */
  readonly accepted: number | undefined;
  /** Counter: connections refused, of all reasons but `moving`. */
  readonly refused: number | undefined;
  /** Counter: clients that were sent on because this pod is at its ceiling. */
  readonly refusedMoving: number | undefined;
  /** Counter: messages written to connections. */
  readonly deliveries: number | undefined;
  /** Counter: CPU used by the process. */
  readonly cpuSeconds: number | undefined;
  /** Connections that a ceiling may ask to move. Undefined: the pod knows no ceilings. */
  readonly movable: number | undefined;
  /** Connections whose clients cannot move without a gap, however old they are. */
  readonly immovable: number | undefined;
  /** How long its drain takes at the most, as configured. */
  readonly drainSeconds: number | undefined;
  /** The ceiling that stands. Null: none does. Undefined: it does not tell. */
  readonly ceiling: { readonly connections: number; readonly expiresInMs: number } | null | undefined;
  /** Counters of clients asked to move, and how many are on their way. */
  readonly shed: Shed | undefined;
}

/** Of clients asked to move: counters since the start of the pod, and how many are `outstanding` now. */
export interface Shed {
  readonly asked: number;
  readonly moved: number;
  readonly stayed: number;
  readonly outstanding: number;
}

/** Another policy that has the same target. */
export interface Rival {
  readonly name: string;
  readonly createdAtMs: number;
}
