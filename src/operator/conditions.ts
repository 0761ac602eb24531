// Conditions: everything that a policy can say of itself, and what each word of it means. The docs and the custom
// resource have their tables from here.

/** As in metav1.Condition. */
export type ConditionStatus = 'True' | 'False' | 'Unknown';

/** Every condition of a policy, and what each of its values means. */
export const conditionTypes = {
  Ready: {
    true: 'The workload was found and all its ready pods tell their connections.',
    false: 'The operator cannot work on it. The reason says what is missing.',
    unknown: 'Not every ready pod has answered lately.',
  },
  Balanced: {
    true: 'No pod has more than maxSkew times its fair share.',
    false: 'At least one pod has.',
    unknown: 'Not every ready pod has answered lately, or there are fewer than two.',
  },
  Rebalancing: {
    true: 'Full pods have a ceiling, and their connections are asked to move.',
    false: 'Nothing is moved. The reason says why.',
    unknown: 'It has not been decided yet.',
  },
  Ineffective: {
    true: 'Moving did not make the pods more even, so it was given up until something changes.',
    false: 'Moving has had the expected effect, or there was nothing to move.',
    unknown: 'Nothing has been moved yet.',
  },
  ScaleInProtected: {
    true: 'The deletion costs of the pods are in the order of their connections.',
    false: 'Pods are removed in an order that knows nothing of connections.',
    unknown: 'No ready pod has answered yet, or deletion costs are being taken away.',
  },
  DrainOverrun: {
    true: 'At least one pod would be killed before it has drained, if it were removed now.',
    false: 'Every pod can drain within its grace period.',
    unknown: 'Too little is known of how long a drain takes.',
  },
  MetricsServed: {
    true: 'Autoscalers can ask this operator for the metrics of these pods.',
    false: 'They cannot. The reason says why.',
    unknown: 'It has not been looked at yet.',
  },
  Conflict: {
    true: 'An older policy has the same workload, and this one does nothing.',
    false: 'No older policy has the same workload.',
    unknown: 'It has not been looked at yet.',
  },
} as const satisfies Record<string, { true: string; false: string; unknown: string }>;

/** The name of one of them. */
export type ConditionType = keyof typeof conditionTypes;

/** Every reason a condition may have, and what it means. */
export const reasons = {
  // Ready
  Observing: 'Every ready pod tells its connections.',
  TargetNotFound: 'There is no workload of this kind and name in the namespace.',
  NoPods: 'The workload has no ready pod.',
  NoContract: 'Ready pods answer, but not the admin contract: see docs/operator.md.',
  Unauthorized: 'Ready pods refuse the token of the operator.',
  PodUnknown: 'A ready pod has not answered for longer than a hiccup lasts. Unknown is never taken for zero.',
  InvalidSpec: 'The spec holds what this version of the operator does not know.',
  // Balanced
  Even: 'No pod has more than maxSkew times its fair share.',
  Uneven: 'A pod has more than maxSkew times its fair share.',
  TooFewPods: 'There are fewer than two ready pods.',
  TooFewConnections: 'The difference is so small that chance makes it.',
  TooLittleLoad: 'The difference is less than a tenth of a core, and not worth a move.',
  NoLoadData: 'Pods do not tell cpuSeconds, so that their load is unknown, or have not told it for long yet.',
  // Rebalancing
  Moving: 'Connections are asked to move.',
  Probing:
    'A few connections are asked to move, to see whether the load balancer brings them to the empty pods.',
  Settling: 'Connections have been moved, and what that did is waited for.',
  Confirming: 'Pods are uneven, and the next round must confirm it.',
  Suspended: 'rebalance.suspend is set.',
  OutsideWindow: 'It is outside of rebalance.window.',
  BusDown: 'The bus is down: moved clients could not catch up on what they missed.',
  Rolling: 'The workload is being rolled out.',
  Draining: 'A pod is being removed, and its connections are on their way to others.',
  Starting: 'A pod is starting, and the shares will be others when it is ready.',
  ScalingIn: 'The autoscaler is about to remove pods.',
  AtLimit: 'The autoscaler wants more pods than it may have: moving would be work on top.',
  NotReceiving: 'The load balancer has not brought a connection to any of the emptier pods yet.',
  NothingMovable: 'The full pods have no connection that may be moved, or no other pod has room.',
  NoCeiling: 'Pods do not tell what may be moved, so that they cannot be asked to.',
  Ineffective:
    'Moving did not make the pods more even. It is tried again when pods come or go, or the spec changes.',
  // Ineffective
  MovesLand: 'Connections that were asked to move arrived on emptier pods.',
  MovesFail: 'Connections that were asked to move found no emptier pod, several times in a row.',
  Relapsed: 'Pods were made even several times in a row and became uneven again soon after.',
  NotTried: 'Nothing has been moved yet.',
  // ScaleInProtected
  Ordered: 'The deletion costs are in the order of connections.',
  Writing: 'Deletion costs are being written.',
  Unprotected: 'scaleIn.protect is off.',
  StatefulSet: 'A StatefulSet removes its highest ordinal, whatever its pods hold.',
  // DrainOverrun
  Fits: 'preStop and drain are shorter than the grace period.',
  GraceTooShort: 'preStop and drain together are longer than the grace period.',
  TooManyConnections: 'At the pace measured, the connections do not drain within the grace period.',
  NotMeasured: 'Pods do not tell drainSeconds, and none has been seen draining.',
  // MetricsServed
  Served: 'custom.metrics.k8s.io has the metrics of these pods.',
  NotServed: 'metrics.serve is off, or the operator does not serve metrics.',
  ForeignProvider: 'Another provider has custom.metrics.k8s.io, or a version of it.',
  ApiUnavailable: 'The metrics API of the operator cannot be asked yet.',
  // Conflict
  OlderPolicy: 'An older policy has the same workload.',
  YoungerPolicies: 'Younger policies have the same workload and do nothing.',
  Alone: 'No other policy has the same workload.',
} as const satisfies Record<string, string>;

/** The word for one of them. */
export type Reason = keyof typeof reasons;

/** What a condition says, before it is known since when. */
export interface Verdict {
  readonly status: ConditionStatus;
  readonly reason: Reason;
  readonly message: string;
}

/** As in metav1.Condition. */
export interface Condition extends Verdict {
  readonly type: ConditionType;
  readonly observedGeneration: number;
  /** RFC 3339. Changes only with `status`. */
  readonly lastTransitionTime: string;
}
