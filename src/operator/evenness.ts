// Evenness: how far pods are from their fair share, and whether that is more than chance.

import type { Member } from './census.ts';
import type { PolicySpec } from './policy.ts';

/** How far the pods of a round are from their fair share, in connections or in cores. */
export interface Evenness {
  /** What every pod would have if they were even: connections or cores. */
  readonly fair: number;
  /** The fullest pod divided by the mean. 1 where there is nothing. */
  readonly skew: number;
  readonly fullest: Member;
  /** `chance` and, by load, `little`: it is above maxSkew and all the same not worth a move. */
  readonly verdict: 'even' | 'uneven' | 'chance' | 'little';
  /** Whether little enough is left to call it even where clients come and go. */
  readonly nearlyEven: boolean;
  /** Above their fair share, all full pods together. */
  readonly surplus: number;
}

/** A load balancer that picks at random leaves pods this many standard deviations apart without any fault. */
const CHANCE_DEVIATIONS = 3;
const FEWEST_CONNECTIONS = 5;
/** Below this many cores above the fair share it is not worth a reconnect. */
const FEWEST_CORES = 0.1;

/** The share of what maxSkew allows that is left between pods when they have been made even. */
export const FLAT_SHARE = 0.2;
const NEARLY_FLAT_SHARE = 0.5;

/** What is made even, for one pod. Undefined: it is not known. */
export function weightOf({ answer, cores }: Member, by: PolicySpec['rebalance']['by']): number | undefined {
  return by === 'load' ? cores : answer.connections;
}

/** How even the pods are. Undefined where there is none, or not every weight is known. */
export function evennessOf(
  members: readonly Member[],
  { by, maxSkew }: Pick<PolicySpec['rebalance'], 'by' | 'maxSkew'>,
): Evenness | undefined {
  const [first] = members;
  if (first === undefined) return undefined;
  let [fullest, most, fewest, total] = [first, -1, Number.POSITIVE_INFINITY, 0];
  const weights: number[] = [];
  for (const member of members) {
    const weight = weightOf(member, by);
    if (weight === undefined) return undefined;
    weights.push(weight);
    total += weight;
    fewest = Math.min(fewest, weight);
    if (weight > most) [fullest, most] = [member, weight];
  }
  const fair = total / members.length;
  const allowed = fair * (maxSkew - 1);
  const deviation = by === 'load' ? FEWEST_CORES / CHANCE_DEVIATIONS : Math.sqrt(fair);
  const excess = most - fair;
  // A pod that is nearly empty among small ones is no chance, though none of the others has much too many.
  const isChance =
    (by === 'connections' && excess < FEWEST_CONNECTIONS) ||
    Math.max(excess, by === 'connections' ? fair - fewest : 0) < CHANCE_DEVIATIONS * deviation;
  return {
    fair,
    skew: fair === 0 ? 1 : most / fair,
    fullest,
    verdict: excess <= allowed ? 'even' : !isChance ? 'uneven' : by === 'load' ? 'little' : 'chance',
    nearlyEven: excess <= Math.max(NEARLY_FLAT_SHARE * allowed, 2 * deviation),
    surplus: weights.reduce((sum, weight) => sum + Math.max(0, weight - fair), 0),
  };
}

/** As people read it. */
export function hundredths(value: number): number {
  return Math.round(value * 100) / 100;
}
