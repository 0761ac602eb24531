// Obstacles: everything that forbids moving connections now, in the order in which people should be told.

import type { Census, Silent } from './census.ts';
import type { Reason } from './conditions.ts';
import type { Evenness } from './evenness.ts';
import type { Observation } from './observation.ts';
import { durationSeconds, type Policy } from './policy.ts';
import { isOpen } from './window.ts';

/** Why nothing is moved, in one word and for people. */
export interface Obstacle {
  readonly reason: Reason;
  readonly message: string;
  /** A hiccup: no new ceilings, and those that stand go on until they expire. */
  readonly hiccup?: true;
}

/** A pod that missed one answer or two has a hiccup; one that is silent for longer is unknown. */
const SILENCE_GRACE_MS = 12_000;
/** A pod that is not ready by then may never be, and is not waited for. */
const STARTING_MS = 120_000;
/** What a gateway takes for `minAgeSeconds` where no ceiling stands. */
const OWN_MIN_AGE_SECONDS = 30;

/** What the person who wrote the policy forbids, or what is not there to act on. */
export function plainObstacle(
  policy: Policy,
  { workload }: Observation,
  nowMs: number,
): Obstacle | undefined {
  const { targetRef, rebalance } = policy.spec;
  if (workload === undefined) {
    return {
      reason: 'TargetNotFound',
      message: `there is no ${targetRef.kind} ${targetRef.name} in ${policy.namespace}`,
    };
  }
  if (rebalance.suspend) return { reason: 'Suspended', message: 'rebalance.suspend is true' };
  if (rebalance.window !== undefined && !isOpen(rebalance.window, nowMs)) {
    const { start, end, timeZone, days } = rebalance.window;
    return {
      reason: 'OutsideWindow',
      message: `connections are moved from ${start} to ${end} (${timeZone}) on ${days.join(', ')}`,
    };
  }
  return undefined;
}

/** What keeps the operator from knowing how things are. */
export function silenceObstacle(
  { members, silent }: Pick<Census, 'members' | 'silent'>,
  nowMs: number,
): Obstacle | undefined {
  if (members.length === 0 && silent.length === 0) {
    return { reason: 'NoPods', message: 'no pod of the workload is ready' };
  }
  const longest = silent.toSorted((one, other) => one.heard.sinceMs - other.heard.sinceMs)[0];
  if (longest === undefined) return undefined;
  const { fault, sinceMs } = longest.heard;
  const seconds = Math.max(0, Math.round((nowMs - sinceMs) / 1000));
  const names = namesOf(silent.map(({ pod }) => pod.name));
  const fix: Record<Silent['heard']['fault'], string> = {
    unreachable: 'is its admin port open to the operator (NetworkPolicy, spec.adminPort)?',
    unauthorized: 'give the operator and the pods the same ADMIN_TOKEN',
    'no-contract': 'the pods must answer GET /connections: see docs/operator.md',
    'not-asked': 'it is being asked',
  };
  const reasons: Record<Silent['heard']['fault'], Reason> = {
    unreachable: 'PodUnknown',
    unauthorized: 'Unauthorized',
    'no-contract': 'NoContract',
    'not-asked': 'PodUnknown',
  };
  return {
    reason: reasons[fault],
    message: `${names}: ${fault === 'not-asked' ? 'not asked yet' : `${fault} for ${seconds} s`}; ${fix[fault]}`,
    ...(nowMs - sinceMs < SILENCE_GRACE_MS && { hiccup: true }),
  };
}

/** What of their load is not known. A new leader measures it anew, while the ceilings of the last one stand: those who
 * are on their way must not land on full pods. */
export function loadObstacle({ members }: Pick<Census, 'members'>, resume: boolean): Obstacle {
  const mute = members.filter(({ answer }) => answer.cpuSeconds === undefined);
  if (mute.length > 0) {
    return {
      reason: 'NoLoadData',
      message: `${namesOf(mute.map(({ pod }) => pod.name))}: the answer lacks cpuSeconds; see docs/operator.md`,
    };
  }
  const message = 'the load of the pods is still being measured';
  return { reason: 'NoLoadData', message, ...(resume && { hiccup: true }) };
}

/** What goes on around the pods that makes it a bad time to move connections. */
export function passingObstacle(
  { workload, hpa, pods, bus }: Observation,
  { members }: Pick<Census, 'members'>,
  nowMs: number,
): Obstacle | undefined {
  if (bus === 'down') return { reason: 'BusDown', message: 'pods say that their bus is down' };
  if (workload?.rolling) return { reason: 'Rolling', message: `${workload.name} is being rolled out` };
  const draining = pods.filter(
    ({ ready, deleting, heard }) =>
      heard.known &&
      heard.answer.connections > 0 &&
      (deleting || (ready && heard.answer.phase === 'draining')),
  );
  if (draining.length > 0) {
    return {
      reason: 'Draining',
      message: `${namesOf(draining.map(({ name }) => name))} is draining; its clients are on their way`,
    };
  }
  const starting = pods.filter(
    ({ ready, deleting, createdAtMs }) => !ready && !deleting && nowMs - createdAtMs < STARTING_MS,
  );
  if (starting.length > 0) {
    return {
      reason: 'Starting',
      message: `${namesOf(starting.map(({ name }) => name))} is starting; shares are made when it is ready`,
    };
  }
  if (hpa?.atLimit) {
    return {
      reason: 'AtLimit',
      message: `${hpa.name} wants more than its ${hpa.max} pods: raise maxReplicas`,
    };
  }
  if (hpa !== undefined && hpa.desired < members.length) {
    return {
      reason: 'ScalingIn',
      message: `${hpa.name} goes from ${members.length} pods to ${hpa.desired}`,
    };
  }
  return undefined;
}

/** What the full pods lack to be asked. */
export function inabilityObstacle(
  { members }: Pick<Census, 'members'>,
  { fair }: Evenness,
  { by, plain, minAge }: Policy['spec']['rebalance'],
): Obstacle | undefined {
  const full = members.filter(
    ({ answer, cores }) => (by === 'load' ? (cores ?? 0) : answer.connections) > fair,
  );
  if (full.every(({ answer }) => answer.movable === undefined)) {
    return {
      reason: 'NoCeiling',
      message: 'the pods take no ceilings: their answer lacks `movable`; see docs/operator.md',
    };
  }
  // Before a ceiling tells it the terms of the policy, a pod counts by its own: older than half a minute, not plain.
  const ownTerms = !plain && durationSeconds(minAge) >= OWN_MIN_AGE_SECONDS;
  const cannotMove = ({ answer }: Census['members'][number]) =>
    (ownTerms && answer.movable === 0) || (!plain && (answer.immovable ?? 0) >= answer.connections);
  if (full.every(cannotMove)) {
    return {
      reason: 'NothingMovable',
      message: 'the full pods have only clients that cannot move, or that came a moment ago',
    };
  }
  return undefined;
}

/** At most three of them. */
export function namesOf(names: readonly string[]): string {
  const more = names.length - 3;
  return more > 0 ? `${names.slice(0, 3).join(', ')} and ${more} more` : names.join(', ');
}
