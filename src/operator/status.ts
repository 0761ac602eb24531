// The status of a policy: its conditions, and what people want to see at a glance.

import type { Census } from './census.ts';
import type { Condition, ConditionType, Verdict } from './conditions.ts';
import type { DeletionCostDecision } from './deletion-cost.ts';
import { hundredths } from './evenness.ts';
import type { Observation } from './observation.ts';
import { namesOf, silenceObstacle } from './obstacles.ts';
import { MAX_STATUS_PODS, type PodStatus, type Policy, type PolicyStatus } from './policy.ts';
import type { RebalanceDecision } from './rebalance.ts';

/** Gives each verdict its time: that at which its status last changed. */
export function conditionsFrom(
  verdicts: Readonly<Record<ConditionType, Verdict>>,
  before: readonly Condition[],
  generation: number,
  nowMs: number,
): Condition[] {
  return (Object.entries(verdicts) as [ConditionType, Verdict][]).map(
    ([type, { status, reason, message }]) => {
      const was = before.find((condition) => condition.type === type);
      const lastTransitionTime =
        was?.status === status
          ? was.lastTransitionTime
          : new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z');
      return { type, status, reason, message, observedGeneration: generation, lastTransitionTime };
    },
  );
}

/** Whether the operator can work on it at all. */
export function readyVerdict(
  policy: Policy,
  { workload }: Observation,
  census: Census,
  nowMs: number,
): Verdict {
  if (workload === undefined) {
    const { kind, name } = policy.spec.targetRef;
    return {
      status: 'False',
      reason: 'TargetNotFound',
      message: `there is no ${kind} ${name} in ${policy.namespace}`,
    };
  }
  const silence = silenceObstacle(census, nowMs);
  if (silence === undefined) {
    const count = census.members.length;
    return { status: 'True', reason: 'Observing', message: `${count} ready pods tell their connections` };
  }
  const { reason, message, hiccup } = silence;
  return { status: hiccup || reason === 'PodUnknown' ? 'Unknown' : 'False', reason, message };
}

/** Whether the pods are even, whatever is done about it. */
export function balancedVerdict({ evenness, state, message }: RebalanceDecision, census: Census): Verdict {
  if (census.members.length + census.silent.length < 2) {
    return { status: 'Unknown', reason: 'TooFewPods', message: 'there are fewer than two ready pods' };
  }
  if (evenness === undefined) {
    const reason = state === 'NoLoadData' ? 'NoLoadData' : 'PodUnknown';
    return { status: 'Unknown', reason, message };
  }
  const skew = `skew ${evenness.skew.toFixed(2)}`;
  switch (evenness.verdict) {
    case 'even':
      return { status: 'True', reason: 'Even', message: skew };
    case 'chance':
      return { status: 'True', reason: 'TooFewConnections', message: `${skew}, which chance explains` };
    case 'little':
      return { status: 'True', reason: 'TooLittleLoad', message: `${skew} of little load` };
    case 'uneven':
      return { status: 'False', reason: 'Uneven', message: skew };
  }
}

/** Whether connections are being moved, and if not, why. */
export function rebalancingVerdict({ state, message }: RebalanceDecision): Verdict {
  const moving = state === 'Moving' || state === 'Probing';
  return { status: moving ? 'True' : 'False', reason: state, message };
}

/** Whether moving has been given up. */
export function ineffectiveVerdict({ memory, message }: RebalanceDecision): Verdict {
  if (memory.ineffective !== undefined) {
    return { status: 'True', reason: memory.ineffective.reason, message };
  }
  if (memory.last === undefined)
    return { status: 'Unknown', reason: 'NotTried', message: 'nothing was moved yet' };
  const { asked, moved } = memory.last;
  return { status: 'False', reason: 'MovesLand', message: `${moved} of ${asked} that were asked moved` };
}

/** Whether autoscalers get what they scale by. */
export function metricsServedVerdict({ spec }: Policy, { metricsApi }: Observation): Verdict {
  if (!spec.metrics.serve) return { status: 'False', reason: 'NotServed', message: 'metrics.serve is off' };
  if (metricsApi === undefined) {
    return { status: 'False', reason: 'NotServed', message: 'this operator serves no metrics' };
  }
  const { fault, foreign } = metricsApi;
  if (fault !== undefined) {
    return {
      status: 'False',
      reason: foreign.length > 0 ? 'ForeignProvider' : 'ApiUnavailable',
      message: fault,
    };
  }
  if (foreign.length > 0) {
    const message = `served all the same, as it was before ${namesOf(foreign)} came: remove that provider`;
    return { status: 'True', reason: 'ForeignProvider', message };
  }
  return { status: 'True', reason: 'Served', message: 'custom.metrics.k8s.io has the metrics of these pods' };
}

/** Everything else that people see in the status. */
export function statusOf(
  policy: Policy,
  { workload, hpa }: Observation,
  census: Census,
  rebalance: RebalanceDecision,
  costs: DeletionCostDecision,
  conditions: readonly Condition[],
): PolicyStatus {
  const { evenness, state, message, memory } = rebalance;
  const { members, silent } = census;
  const complete = silent.length === 0 && members.length > 0;
  return {
    observedGeneration: policy.generation,
    readyPods: members.length + silent.length,
    desiredPods: workload?.desired ?? 0,
    ...(complete && { connections: members.reduce((sum, { answer }) => sum + answer.connections, 0) }),
    ...(complete && evenness !== undefined && { skew: hundredths(evenness.skew) }),
    state,
    message,
    ...(hpa !== undefined && { hpa: { name: hpa.name, desired: hpa.desired, actual: hpa.current } }),
    pods: podsOf(census, rebalance, costs),
    ...(memory.last !== undefined && { lastRebalance: memory.last }),
    conditions,
  };
}

function podsOf(
  { members, silent }: Census,
  { ceilings }: RebalanceDecision,
  { orders }: DeletionCostDecision,
): PodStatus[] {
  const ceilingOf = new Map(ceilings.map(({ uid, ceiling }) => [uid, ceiling.connections]));
  const costOf = new Map(orders.map(({ uid, cost }) => [uid, cost]));
  const told = members
    .toSorted((one, other) => other.answer.connections - one.answer.connections)
    .map(({ pod, answer, cores }) => ({
      pod,
      seen: {
        connections: answer.connections,
        ...(cores !== undefined && { load: Math.round(cores * 1000) / 1000 }),
      },
    }));
  return [...silent.map(({ pod }) => ({ pod, seen: {} })), ...told]
    .slice(0, MAX_STATUS_PODS)
    .map(({ pod, seen }) => {
      const ceiling = ceilingOf.get(pod.uid);
      const deletionCost = costOf.has(pod.uid) ? costOf.get(pod.uid) : pod.deletionCost;
      return {
        name: pod.name,
        ...seen,
        ...(ceiling !== undefined && { ceiling }),
        ...(deletionCost !== undefined && { deletionCost }),
      };
    });
}
