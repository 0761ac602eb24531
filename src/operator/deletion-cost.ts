// Deletion costs: what makes a ReplicaSet remove the pods with the fewest connections. They are annotations, and each
// write is a call to the API server, so they are written only when the order of the pods has clearly changed.

import type { Census } from './census.ts';
import type { Verdict } from './conditions.ts';
import type { DeletionCostOrder } from './decision.ts';
import type { Answer, Observation, Pod } from './observation.ts';
import type { Policy } from './policy.ts';

/** The costs to be written now, and whether the pods are in order. */
export interface DeletionCostDecision extends Verdict {
  readonly orders: readonly DeletionCostOrder[];
}

/** A pod is clearly fuller than another if it has this share more, and this many. */
const CLEARLY_SHARE = 0.15;
const CLEARLY_COUNT = 2;
/** Costs are quantised to steps of this share, so that equal pods stay equal and Kubernetes' other rules hold. */
const STEP_SHARE = 0.05;
/** What the removal of a connection costs more where its client cannot move without a gap. Small, so that the number of
 * connections stays what matters. */
const IMMOVABLE_SHARE = 0.25;
const MAX_COST = 2 ** 31 - 1;

/** Decides which pods get a new deletion cost, and says whether they are in order. */
export function deletionCosts(
  policy: Policy,
  { workload, pods: all }: Observation,
  census: Census,
): DeletionCostDecision {
  if (!policy.spec.scaleIn.protect) return unprotect(policy, all);
  const pods = [...census.members, ...census.silent].map(({ pod }) => pod);
  if (workload?.kind === 'StatefulSet') {
    const message = 'a StatefulSet removes its highest ordinal, whatever its pods hold';
    return { orders: [], status: 'False', reason: 'StatefulSet', message };
  }
  const weights = weigh(pods);
  if (weights.size === 0) {
    const [reason, message] =
      pods.length === 0
        ? (['NoPods', 'no pod of the workload is ready'] as const)
        : (['PodUnknown', 'no pod has told its connections yet'] as const);
    return { orders: [], status: 'Unknown', reason, message };
  }
  if (isOrdered(pods, weights)) {
    const message = 'a scale-in removes the pods with the fewest connections';
    return { orders: [], status: 'True', reason: 'Ordered', message };
  }
  const orders = pods
    .map((pod) => ({
      name: pod.name,
      uid: pod.uid,
      cost: costOf(weights.get(pod) ?? 0),
      was: pod.deletionCost,
    }))
    .filter(({ cost, was }) => cost !== was)
    .map(({ name, uid, cost }) => ({ name, uid, cost }));
  return {
    orders,
    status: 'True',
    reason: 'Writing',
    message: `the order of the pods has changed; ${orders.length} deletion costs are written`,
  };
}

/** What the removal of each pod costs, in connections. A pod that does not answer is taken for what it last had, and
 * one that never did for the mean: without a cost it would count as empty and be the first to go. */
function weigh(pods: readonly Pod[]): Map<Pod, number> {
  const known = new Map<Pod, number>();
  for (const pod of pods) {
    const answer = pod.heard.known ? pod.heard.answer : pod.heard.last;
    if (answer !== undefined) known.set(pod, weightOf(answer));
  }
  if (known.size === 0) return known;
  const mean = [...known.values()].reduce((sum, weight) => sum + weight, 0) / known.size;
  return new Map(pods.map((pod) => [pod, known.get(pod) ?? mean]));
}

function weightOf({ connections, immovable = 0 }: Answer): number {
  return connections + IMMOVABLE_SHARE * Math.min(connections, immovable);
}

/** Whether every pod has a cost, and none that is clearly fuller than another has a cost that is not higher. */
function isOrdered(pods: readonly Pod[], weights: ReadonlyMap<Pod, number>): boolean {
  const byWeight = pods.toSorted((one, other) => (weights.get(one) ?? 0) - (weights.get(other) ?? 0));
  // Among the pods up to `clear`, which all are clearly emptier, the highest cost must be below the pod's own.
  let clear = 0;
  let highest = Number.NEGATIVE_INFINITY;
  for (const pod of byWeight) {
    if (pod.deletionCost === undefined) return false;
    const weight = weights.get(pod) ?? 0;
    for (let emptier = byWeight[clear]; emptier !== undefined; emptier = byWeight[clear]) {
      if (weight <= (weights.get(emptier) ?? 0) * (1 + CLEARLY_SHARE) + CLEARLY_COUNT) break;
      highest = Math.max(highest, emptier.deletionCost ?? 0);
      clear += 1;
    }
    if (pod.deletionCost <= highest) return false;
  }
  return true;
}

/** A cost is about the number of connections, so that people can read it. */
export function costOf(weight: number): number {
  const step = Math.round(Math.log1p(weight) / Math.log1p(STEP_SHARE));
  return Math.min(MAX_COST, Math.round(Math.expm1(step * Math.log1p(STEP_SHARE))));
}

/** Takes away what the operator wrote, and nothing that somebody else did: as long as its condition is not False there
 * may be something left, since a write may fail. */
function unprotect({ status: told }: Policy, pods: readonly Pod[]): DeletionCostDecision {
  const mine = told?.conditions.some(({ type, status }) => type === 'ScaleInProtected' && status !== 'False');
  const marked = pods.filter(({ deleting, deletionCost }) => !deleting && deletionCost !== undefined);
  const orders = mine ? marked.map(({ name, uid }) => ({ name, uid, cost: undefined })) : [];
  return {
    orders,
    status: orders.length > 0 ? 'Unknown' : 'False',
    reason: 'Unprotected',
    message: 'scaleIn.protect is false',
  };
}
