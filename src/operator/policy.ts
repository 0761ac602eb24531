// The ConnectionPolicy: what somebody asks of the operator for one workload, and what the operator says back. The
// custom resource in the chart is made from these schemas, so that the two cannot differ.

import { z } from 'zod';
import { isTimeZone } from './window.ts';

/** Group, version, kind and names of the custom resource. */
export const policyResource = {
  group: 'tidegate.dev',
  version: 'v1alpha1',
  kind: 'ConnectionPolicy',
  plural: 'connectionpolicies',
  singular: 'connectionpolicy',
  shortName: 'cpol',
} as const;

const time = z.string().regex(/^([01][0-9]|2[0-3]):[0-5][0-9]$/, 'a time is HH:MM, from 00:00 to 23:59');
const days = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'] as const;

/** The only times at which connections may be moved. One that ends before it starts goes on past midnight. */
const windowSchema = z.strictObject({
  start: time.describe('When it begins, as HH:MM.'),
  end: time.describe('When it is over, as HH:MM. The same as start: it lasts the whole day.'),
  timeZone: z
    .string()
    .max(64)
    .refine(isTimeZone, 'there is no such time zone')
    .default('UTC')
    .describe('Name of the time zone in the IANA database, such as Europe/Berlin.'),
  days: z
    .array(z.enum(days))
    .min(1)
    .max(7)
    .default([...days])
    .describe('Days on which it begins.'),
});

const rebalanceSchema = z.strictObject({
  by: z
    .enum(['connections', 'load'])
    .default('connections')
    .describe(
      'What is made even: connections, or the CPU that pods use. By load, pods must tell cpuSeconds in their admin contract.',
    ),
  maxSkew: z
    .number()
    .min(1.05)
    .max(10)
    .default(1.2)
    .describe(
      'Connections on the fullest pod divided by the mean. Above it connections are moved, until the pods are even to a fifth of what this allows.',
    ),
  ratePerSecond: z
    .number()
    .int()
    .min(1)
    .max(10_000)
    .default(100)
    .describe('How many connections of the whole workload are asked to move in a second, at most.'),
  minAge: z
    .string()
    .regex(/^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$/, 'a duration is written as 30s, 5m or 1h30m')
    .max(32)
    .default('30s')
    .describe('Connections younger than this are not moved, so that none is moved twice in a row.'),
  order: z
    .enum(['random', 'oldest'])
    .default('random')
    .describe('Which connections are asked first. Random spreads the unrest over all kinds of clients.'),
  plain: z
    .boolean()
    .default(false)
    .describe('Whether clients that cannot move without a gap may be moved too: they are closed.'),
  window: windowSchema.optional().describe('The only times at which connections may be moved. None: always.'),
  suspend: z
    .boolean()
    .default(false)
    .describe('Whether moving is paused. What is under way is ended at once; everything else goes on.'),
});

/** What the custom resource's `spec` may hold. */
export const specSchema = z.strictObject({
  targetRef: z
    .strictObject({
      apiVersion: z.literal('apps/v1').default('apps/v1').describe('API version of the workload.'),
      kind: z.enum(['Deployment', 'StatefulSet']).describe('Kind of the workload.'),
      name: z.string().min(1).max(253).describe('Name of the workload, in the same namespace.'),
    })
    .describe('The workload whose connections this is about. Its pods answer the admin contract.'),
  adminPort: z
    .number()
    .int()
    .min(1)
    .max(65_535)
    .default(9090)
    .describe('Port on which the pods answer the admin contract.'),
  adminTokenSecret: z
    .string()
    .min(1)
    .max(253)
    .optional()
    .describe(
      'Secret in the same namespace whose key admin-token holds what pods ask for on that port. None: the token of the operator, in its own namespace, and elsewhere none. The operator needs the right to read the Secret.',
    ),
  rebalance: rebalanceSchema.prefault({}).describe('How connections are moved where pods are uneven.'),
  scaleIn: z
    .strictObject({
      protect: z
        .boolean()
        .default(true)
        .describe(
          'Whether pods get a deletion cost, so that a scale-in removes those with the fewest connections. A StatefulSet ignores it.',
        ),
    })
    .prefault({})
    .describe('What is done before pods are removed.'),
  metrics: z
    .strictObject({
      serve: z
        .boolean()
        .default(true)
        .describe('Whether custom.metrics.k8s.io has the metrics of these pods.'),
    })
    .prefault({})
    .describe('What the autoscaler is told.'),
});

/** A spec with every default filled in. */
export type PolicySpec = z.infer<typeof specSchema>;
/** When connections may be moved. */
export type Window = z.infer<typeof windowSchema>;

/** A ConnectionPolicy as the operator works with it. */
export interface Policy {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
  readonly createdAtMs: number;
  readonly spec: PolicySpec;
  /** As last written by whichever operator led then: what a new leader knows of what went before. */
  readonly status: PolicyStatus | undefined;
}

/** The spec with its defaults, or what is wrong with it. Total: the cluster may hold what an older schema let in. */
export function decodeSpec(raw: unknown): { spec: PolicySpec } | { fault: string } {
  const result = specSchema.safeParse(raw);
  if (result.success) return { spec: result.data };
  const faults = result.error.issues.map(({ path, message }) => `spec.${path.join('.')}: ${message}`);
  return { fault: faults.slice(0, 5).join('; ') };
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600 };

/** Seconds of a duration such as `1h30m`. What is no duration has none. */
export function durationSeconds(text: string): number {
  let seconds = 0;
  for (const [, amount, unit = ''] of text.matchAll(/([0-9.]+)(ms|s|m|h)/g)) {
    seconds += Number(amount) * (UNIT_SECONDS[unit] ?? 0);
  }
  return seconds;
}

// ── Status ──────────────────────────────────────────────────────────────────────────────────────────────────

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

export type Reason = keyof typeof reasons;

/** As in metav1.Condition. */
export interface Condition {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  readonly reason: Reason;
  readonly message: string;
  readonly observedGeneration: number;
  /** RFC 3339. Changes only with `status`. */
  readonly lastTransitionTime: string;
}

/** One pod in the status. */
export interface PodStatus {
  readonly name: string;
  /** Absent while it is unknown. */
  readonly connections?: number;
  /** CPU in cores, where pods tell it. */
  readonly load?: number;
  readonly ceiling?: number;
  readonly deletionCost?: number;
}

/** What one rebalance did, from its first ceiling to its last. */
export interface RebalanceStatus {
  readonly startedAt: string;
  readonly finishedAt?: string;
  readonly skewBefore: number;
  readonly skewAfter?: number;
  /** Counted by the pods. */
  readonly asked: number;
  readonly moved: number;
  readonly stayed: number;
  /** Why it ended: Even, or the reason that stopped it. Absent while it is under way. */
  readonly outcome?: Reason;
}

/** What the custom resource's `status` holds. */
export interface PolicyStatus {
  readonly observedGeneration: number;
  readonly readyPods: number;
  readonly desiredPods: number;
  /** On all ready pods. Absent while one of them is unknown. */
  readonly connections?: number;
  /** The fullest pod divided by the mean, by what `rebalance.by` says. Absent while a pod is unknown. */
  readonly skew?: number;
  /** One word for people: why things are as they are now. The reason of the condition Rebalancing. */
  readonly state: Reason;
  /** The same in a sentence. */
  readonly message: string;
  readonly hpa?: { readonly name: string; readonly desired: number; readonly actual: number };
  /** The fullest first, at most {@link MAX_STATUS_PODS}. */
  readonly pods: readonly PodStatus[];
  readonly lastRebalance?: RebalanceStatus;
  readonly conditions: readonly Condition[];
}

/** Pods in the status: more would only make the object large. */
export const MAX_STATUS_PODS = 100;
