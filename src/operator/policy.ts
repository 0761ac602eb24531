// The ConnectionPolicy: what somebody asks of the operator for one workload, and what the operator says back. The
// custom resource in the chart is made from these schemas, so that the two cannot differ.

import { z } from 'zod';
import type { Condition, Reason } from './conditions.ts';
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
