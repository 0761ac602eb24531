// Giving up: how it is seen that moving is in vain, and when it is tried again. A load balancer that was mended tells
// nobody, so that nothing is given up for good.

import type { Reason } from './conditions.ts';
import { type Facts, totalOf } from './episode.ts';
import { type Evenness, weightOf } from './evenness.ts';
import type { Episode, Ineffective, Past } from './memory.ts';
import type { PolicySpec } from './policy.ts';

/** Why moving is given up, and what may be wrong. */
const WHY_NOT = {
  NotReceiving: 'the load balancer brings no connection to the emptier pods: are they registered with it?',
  MovesFail: 'clients that were asked to move came back to full pods: is the load balancer sticky?',
  Relapsed: 'pods that were made even became uneven again: does the load balancer prefer some of them?',
} as const satisfies Partial<Record<Reason, string>>;

/** The word for one of them. */
export type GivenUp = keyof typeof WHY_NOT;

/** By load there is one more cause for each: what moves follows connections, and load need not. */
const WHY_NOT_BY_LOAD: Readonly<Record<GivenUp, string>> = {
  NotReceiving: `${WHY_NOT.NotReceiving} One that picks the pod with the fewest connections works against this`,
  MovesFail: `${WHY_NOT.MovesFail} One that picks the pod with the fewest connections works against this`,
  Relapsed:
    'pods that were made even became uneven again: their load comes in bursts, or not from connections',
};

/** Checks in a row that saw no effect. */
const FAILURES = 3;
/** More than this of what was to be moved means that others come in where it was moved from. */
const TREADMILL = 1.5;
const TREADMILL_MIN = 50;
/** To move so much of it again so soon after an episode is a relapse. */
const RELAPSE_MS = 1_800_000;
const PROGRESS_SHARE = 0.7;
const RELAPSES = 3;
const TRIED_AGAIN_MS = 3_600_000;
/** Clocks of two leaders differ by less. What is from further in the future is from a clock that was wrong. */
const CLOCKS_DIFFER_MS = 60_000;

/** What people are told. */
export function whyNot(reason: GivenUp, by: PolicySpec['rebalance']['by']): string {
  return (by === 'load' ? WHY_NOT_BY_LOAD : WHY_NOT)[reason];
}

/** Why an episode is to be given up. Undefined: it is not. */
export function failureOf(
  { members }: Facts,
  { check, moved, surplusBefore, totalBefore }: Episode,
): GivenUp | undefined {
  if (check.failures >= FAILURES) return 'MovesFail';
  const allowed = TREADMILL * surplusBefore + Math.max(0, totalOf(members) - totalBefore) + TREADMILL_MIN;
  return moved > allowed ? 'Relapsed' : undefined;
}

/** How often there was about as much to move again soon after an episode, now included, and the least there ever was.
 * Only half an hour of quiet forgets it: load that comes in bursts is now more and now less, which is no progress. */
export function relapsesSince(
  facts: Facts,
  past: Past | undefined,
  { surplus }: Evenness,
): Pick<Past, 'relapses' | 'leastUneven'> {
  const isFirst = past === undefined || !isSameScene(facts, past) || facts.nowMs - past.atMs >= RELAPSE_MS;
  if (isFirst) return { relapses: 0, leastUneven: surplus };
  return {
    relapses: past.relapses + (surplus > PROGRESS_SHARE * past.leastUneven ? 1 : 0),
    leastUneven: Math.min(past.leastUneven, surplus),
  };
}

/** Whether it relapses so often that nothing more is tried. */
export function isHopeless({ relapses }: Pick<Past, 'relapses'>): boolean {
  return relapses >= RELAPSES;
}

/** What was given up is tried again when pods come or go, the spec changes, or an hour has passed; and, where no
 * emptier pod was reached, when the load balancer reaches one. */
export function isTriedAgain(
  facts: Facts,
  ineffective: Ineffective,
  evenness: Evenness | undefined,
  by: PolicySpec['rebalance']['by'],
): boolean {
  const { reason, sinceMs } = ineffective;
  const ageMs = facts.nowMs - sinceMs;
  if (ageMs >= TRIED_AGAIN_MS || ageMs < -CLOCKS_DIFFER_MS || !isSameScene(facts, ineffective)) return true;
  if (reason !== 'NotReceiving' || evenness === undefined) return false;
  return facts.members.some(
    (member) => (weightOf(member, by) ?? 0) < evenness.fair && (member.receivedAtMs ?? 0) > sinceMs,
  );
}

/** Whether it is about the same pods and the same spec. */
function isSameScene(
  facts: Facts,
  { pods, generation }: { readonly pods: readonly string[]; readonly generation: number },
): boolean {
  if (generation !== facts.generation || pods.length !== facts.pods.length) return false;
  const names = new Set(pods);
  return facts.pods.every((name) => names.has(name));
}
