// What the operator does, decided: a pure function of a policy, what one round saw, and what was remembered. Nothing
// here reads a clock or rolls dice, so that a simulator can put it through years of bad days.

import { takeCensus } from './census.ts';
import type { Condition, ConditionType, Verdict } from './conditions.ts';
import type { Decision, PolicyEvent } from './decision.ts';
import { deletionCosts } from './deletion-cost.ts';
import { drainGuard } from './drain-guard.ts';
import { type Memory, memoryFrom, recall } from './memory.ts';
import type { Observation, Rival } from './observation.ts';
import { namesOf } from './obstacles.ts';
import type { Policy } from './policy.ts';
import { rebalance } from './rebalance.ts';
import {
  balancedVerdict,
  conditionsFrom,
  ineffectiveVerdict,
  metricsServedVerdict,
  readyVerdict,
  rebalancingVerdict,
  statusOf,
} from './status.ts';

/**
 * Decides one round. `memory` is what the last round of this policy answered, or undefined for an operator that has
 * just begun to lead.
 *
 * @example
 * const { ceilings, deletionCosts, status, memory: next } = decide(policy, observation, memory, Date.now());
 */
export function decide(
  policy: Policy,
  observation: Observation,
  memory: Memory | undefined,
  nowMs: number,
): Decision {
  const before = recall(policy, memory);
  const older = observation.rivals.filter((rival) => isOlder(rival, policy));
  if (older.length > 0) return decideConflict(policy, older, before, nowMs);

  const census = takeCensus(observation, before);
  // A ceiling that stands before anything is remembered was set by the operator that led before.
  const inherited = memory === undefined && census.members.some(({ answer }) => answer.ceiling != null);
  const known = inherited ? { ...before, rebalance: { ...before.rebalance, resume: true } } : before;

  const moves = rebalance(policy, observation, census, known, nowMs);
  const costs = deletionCosts(policy, observation, census);
  const drain = drainGuard(observation, census);
  const conditions = conditionsFrom(
    {
      Ready: readyVerdict(policy, observation, census, nowMs),
      Balanced: balancedVerdict(moves, census),
      Rebalancing: rebalancingVerdict(moves),
      Ineffective: ineffectiveVerdict(moves),
      ScaleInProtected: costs,
      DrainOverrun: drain,
      MetricsServed: metricsServedVerdict(policy, observation),
      Conflict: youngerRivals(observation.rivals),
    },
    before.conditions,
    policy.generation,
    nowMs,
  );
  const overrun: PolicyEvent = { type: 'Warning', reason: 'DrainWillOverrun', message: drain.message };
  return {
    ceilings: moves.ceilings,
    lifts: moves.lifts,
    deletionCosts: costs.orders,
    status: statusOf(policy, observation, census, moves, costs, conditions),
    events: [...moves.events, ...(begins('DrainOverrun', conditions, before.conditions) ? [overrun] : [])],
    memory: {
      target: before.target,
      pods: census.pods,
      drainPacePerSecond: census.drainPacePerSecond,
      rebalance: moves.memory,
      conditions,
    },
  };
}

/** What a policy says whose spec this version of the operator cannot read. It does nothing. */
export function decideInvalid(policy: Omit<Policy, 'spec'>, fault: string, nowMs: number): Decision {
  const verdict: Verdict = { status: 'False', reason: 'InvalidSpec', message: fault };
  return standAside(policy, verdict, unknown(verdict), memoryFrom(policy), nowMs);
}

function decideConflict(policy: Policy, older: readonly Rival[], before: Memory, nowMs: number): Decision {
  const message = `${namesOf(older.map(({ name }) => name))} is older and has the same workload`;
  const verdict: Verdict = { status: 'False', reason: 'OlderPolicy', message };
  return standAside(policy, verdict, { ...verdict, status: 'True' }, before, nowMs);
}

/** Neither moves nor writes anything; what stands on the pods is somebody else's, or expires. */
function standAside(
  policy: Omit<Policy, 'spec'>,
  verdict: Verdict,
  conflict: Verdict,
  before: Memory,
  nowMs: number,
): Decision {
  const not = unknown(verdict);
  const conditions = conditionsFrom(
    {
      Ready: verdict,
      Balanced: not,
      Rebalancing: verdict,
      Ineffective: not,
      ScaleInProtected: not,
      DrainOverrun: not,
      MetricsServed: not,
      Conflict: conflict,
    },
    before.conditions,
    policy.generation,
    nowMs,
  );
  const told: PolicyEvent = { type: 'Warning', reason: 'PolicyConflict', message: verdict.message };
  return {
    ceilings: [],
    lifts: [],
    deletionCosts: [],
    status: {
      observedGeneration: policy.generation,
      readyPods: 0,
      desiredPods: 0,
      state: verdict.reason,
      message: verdict.message,
      pods: [],
      conditions,
    },
    events: begins('Conflict', conditions, before.conditions) ? [told] : [],
    memory: { ...memoryFrom({ ...policy, status: undefined }), conditions },
  };
}

function unknown(verdict: Verdict): Verdict {
  return { ...verdict, status: 'Unknown' };
}

/** Two that were made in the same moment are told apart by their names, by both in the same way. */
function isOlder(rival: Rival, policy: Policy): boolean {
  if (rival.createdAtMs !== policy.createdAtMs) return rival.createdAtMs < policy.createdAtMs;
  return rival.name < policy.name;
}

function youngerRivals(rivals: readonly Rival[]): Verdict {
  if (rivals.length === 0) {
    return { status: 'False', reason: 'Alone', message: 'no other policy has the same workload' };
  }
  const message = `${namesOf(rivals.map(({ name }) => name))} has the same workload, is younger and does nothing`;
  return { status: 'False', reason: 'YoungerPolicies', message };
}

function begins(type: ConditionType, now: readonly Condition[], before: readonly Condition[]): boolean {
  const isTrue = (conditions: readonly Condition[]) =>
    conditions.some((condition) => condition.type === type && condition.status === 'True');
  return isTrue(now) && !isTrue(before);
}
