// Levels: how many connections each pod may keep while others are emptier. Never fewer than its fair share, and
// never so few that what is moved would find no room on pods that the load balancer reaches.

import type { Member } from './census.ts';
import type { CeilingOrder } from './decision.ts';
import { type Evenness, FLAT_SHARE, hundredths } from './evenness.ts';
import { ROUND_MS } from './observation.ts';
import { durationSeconds, type PolicySpec } from './policy.ts';

/** What a pod may keep, and what it has above that. */
export interface Level {
  readonly member: Member;
  readonly ceiling: number;
  readonly excess: number;
}

/** A probe asks this many connections for every pod. */
export const PROBE_PER_POD = 2;

/** A ceiling outlives two rounds that fail, and an operator that is gone by no more than that. */
const CEILING_MS = 3 * ROUND_MS;
/** What a pod takes as a rate. */
const MAX_POD_RATE = 1000;

/** The level at which connections are even, but for a fifth of what maxSkew allows. That rest costs the most: the
 * last clients would try many pods to find one with room. */
function flatLevel(fair: number, maxSkew: number): number {
  return Math.max(Math.ceil(fair * (1 + (maxSkew - 1) * FLAT_SHARE)), Math.ceil(fair) + 1);
}

/** By load: what each pod would have if the load were even and each connection kept costing what it costs now. */
export function loadPlan(
  members: readonly Member[],
  { fair, surplus }: Evenness,
  maxSkew: number,
): Record<string, number> {
  const level = fair * (1 + (maxSkew - 1) * FLAT_SHARE);
  const cost = new Map(members.map((it) => [it, (it.cores ?? 0) / Math.max(1, it.answer.connections)]));
  // Those that move cost what they cost on the pods they come from.
  const moving = members.reduce(
    (sum, it) => sum + Math.max(0, (it.cores ?? 0) - fair) * (cost.get(it) ?? 0),
    0,
  );
  const costOfMoving = surplus === 0 ? 0 : moving / surplus;
  return Object.fromEntries(
    members.map((it) => {
      const { connections } = it.answer;
      const above = (it.cores ?? 0) - level;
      const own = cost.get(it) ?? 0;
      const change = above > 0 ? -above / own : costOfMoving === 0 ? 0 : -above / costOfMoving;
      return [it.pod.uid, Math.max(0, Math.ceil(connections + change))];
    }),
  );
}

/** Levels towards which everything is moved that has room: on pods that the load balancer reaches. */
export function levels(
  members: readonly Member[],
  receiving: ReadonlySet<Member>,
  evenness: Evenness,
  { maxSkew }: Pick<PolicySpec['rebalance'], 'maxSkew'>,
  plan: Readonly<Record<string, number>> | undefined,
): Level[] {
  const flat = flatLevel(evenness.fair, maxSkew);
  const targets = members.map((member) => {
    const target = plan === undefined ? flat : (plan[member.pod.uid] ?? member.answer.connections);
    return { member, target, excess: Math.max(0, member.answer.connections - target) };
  });
  const room = targets
    .filter(({ member }) => receiving.has(member))
    .reduce((sum, { member, target }) => sum + Math.max(0, roomOf(member, target)), 0);
  const surplus = targets.reduce((sum, { excess }) => sum + excess, 0);
  return share(targets, Math.min(room, surplus));
}

/** Levels that ask a few connections of the fullest pods to move. */
export function probeLevels(all: readonly Level[]): Level[] {
  const targets = all.map(({ member, ceiling, excess }) => ({ member, target: ceiling, excess }));
  return share(targets, Math.min(excessOf(all), PROBE_PER_POD * all.length));
}

/** The levels as ceilings: pods share the rate by what each has to give. A pod that takes no ceiling gets none. */
export function ceilingsOf(
  all: readonly Level[],
  ratePerSecond: number,
  { order, minAge, plain }: PolicySpec['rebalance'],
): CeilingOrder[] {
  const together = excessOf(all);
  return all
    .filter(({ member }) => member.answer.movable !== undefined)
    .map(({ member: { pod }, ceiling, excess }) => ({
      name: pod.name,
      uid: pod.uid,
      ceiling: {
        connections: ceiling,
        expiresAfterMs: CEILING_MS,
        shedPerSecond:
          together === 0 ? 0 : Math.min(MAX_POD_RATE, hundredths((ratePerSecond * excess) / together)),
        order,
        minAgeSeconds: durationSeconds(minAge),
        plain,
      },
    }));
}

/** What all pods together have above their levels. */
export function excessOf(all: readonly Level[]): number {
  return all.reduce((sum, { excess }) => sum + excess, 0);
}

/** Gives `moves` to the fullest pods: those furthest above their target come down to one level above it first. */
function share(
  targets: readonly { readonly member: Member; readonly target: number; readonly excess: number }[],
  moves: number,
): Level[] {
  const above = aboveTarget(
    targets.map(({ excess }) => excess),
    moves,
  );
  return targets.map(({ member, target, excess }) => {
    const left = Math.min(excess, above);
    // A pod above its target that has nothing to give takes in nobody either.
    return { member, ceiling: target + left, excess: excess - left };
  });
}

/** The smallest height that can be left above every target so that no more than `moves` are given together. */
function aboveTarget(excesses: readonly number[], moves: number): number {
  let [low, high] = [0, Math.max(0, ...excesses)];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const given = excesses.reduce((sum, excess) => sum + Math.max(0, excess - middle), 0);
    if (given <= moves) high = middle;
    else low = middle + 1;
  }
  return low;
}

function roomOf({ answer }: Member, target: number): number {
  return Math.min(target, answer.maxConnections ?? Number.POSITIVE_INFINITY) - answer.connections;
}
