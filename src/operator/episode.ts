// An episode: one rebalance from its first ceiling to its last. What is counted of it, whether moving has the effect
// that it should have, and how fast it may go.

import type { Census, Member } from './census.ts';
import type { Reason } from './conditions.ts';
import { type Evenness, hundredths } from './evenness.ts';
import { PROBE_PER_POD } from './levels.ts';
import type { Episode, RebalanceMemory } from './memory.ts';
import { ROUND_MS } from './observation.ts';

/** What of a round matters to an episode. */
export interface Facts {
  readonly nowMs: number;
  readonly members: readonly Member[];
  /** Names of all pods that count, those that are silent too. */
  readonly pods: readonly string[];
  /** Of the policy. */
  readonly generation: number;
  /** `rebalance.ratePerSecond`. */
  readonly ratePerSecond: number;
}

/** How often it is looked at whether moving has an effect. */
const CHECK_MS = 30_000;
/** Of those who were asked, this share must have moved. */
const EFFECT_SHARE = 0.2;
const FEWEST_ASKED = 5;
/** In one round, so many times what has moved may be asked. */
const RAMP = 10;
/** After this many, so small a share that moved is doubtful. */
const DOUBTFUL_ASKED = 50;
const DOUBTFUL_SHARE = 0.1;

/** Begins one, or goes on with what another leader has left open: `last`. */
export function beginEpisode(
  facts: Facts,
  { skew }: Evenness,
  plan: Episode['plan'],
  relapses: Pick<Episode, 'relapses' | 'leastUneven'>,
  last: RebalanceMemory['last'],
): Episode {
  const { nowMs, members } = facts;
  const { asked = 0, moved = 0, stayed = 0, skewBefore = skew, startedAt } = last ?? {};
  return {
    kind: 'probing',
    startedAtMs: startedAt === undefined ? nowMs : Date.parse(startedAt),
    kindSinceMs: nowMs,
    skewBefore,
    surplusBefore: surplusOf(members, plan) + moved,
    totalBefore: totalOf(members),
    asked,
    moved,
    stayed,
    nearlyEvenSinceMs: undefined,
    check: newCheck(facts, { asked, moved, plan }),
    plan,
    announced: last !== undefined,
    ...relapses,
  };
}

/** Adds what pods have counted since the round before. */
export function count(episode: Episode, { asked, moved, stayed }: Census['shed']): Episode {
  return {
    ...episode,
    asked: episode.asked + asked,
    moved: episode.moved + moved,
    stayed: episode.stayed + stayed,
  };
}

/** The episode as a probe, or as a move. Where that is new, its effect is looked at from now on. */
export function asKind(facts: Facts, episode: Episode, kind: Episode['kind']): Episode {
  if (episode.kind === kind) return episode;
  return { ...episode, kind, kindSinceMs: facts.nowMs, check: newCheck(facts, episode) };
}

/** The plan of an episode by load, grown as much as all pods have grown together. */
export function planOf({ members }: Facts, { plan, totalBefore }: Episode): Episode['plan'] {
  if (plan === undefined) return undefined;
  const growth = Math.max(1, totalOf(members) / Math.max(1, totalBefore));
  return Object.fromEntries(Object.entries(plan).map(([uid, target]) => [uid, Math.ceil(target * growth)]));
}

/** So many a second may be asked. At first a few, and never many times more than have moved: where hardly anybody
 * finds another pod, nobody is to look for one in vain. */
export function rateOf({ members, ratePerSecond }: Facts, { asked, moved }: Episode): number {
  if (!tellsShed(members)) return ratePerSecond;
  const doubtful = asked >= DOUBTFUL_ASKED && moved < DOUBTFUL_SHARE * asked;
  const perRound = Math.max(PROBE_PER_POD * members.length, doubtful ? 0 : RAMP * moved);
  return Math.min(ratePerSecond, (perRound * 1000) / ROUND_MS);
}

/** Whether somebody has moved, so that many may be asked. That others arrive on the emptier pods does not mean that
 * those who move do. */
export function hasLanded({ members }: Facts, { moved }: Episode): boolean {
  return moved > 0 || !tellsShed(members);
}

/** Whether nobody has been asked since it is of this kind. */
export function hasAskedNobody({ members }: Facts, { asked, check }: Episode): boolean {
  return tellsShed(members) && asked === check.asked;
}

/** Looks now and then whether those who were asked have moved. */
export function checkEffect(facts: Facts, episode: Episode): Episode {
  const { nowMs, members, ratePerSecond } = facts;
  const { check } = episode;
  if (nowMs - check.atMs < CHECK_MS) return episode;
  const surplus = surplusOf(members, episode.plan);
  const tells = tellsShed(members);
  const asked = tells
    ? episode.asked - check.asked
    : Math.min(check.surplus, (ratePerSecond * (nowMs - check.atMs)) / 1000);
  const moved = tells ? episode.moved - check.moved : check.surplus - surplus;
  const idle = asked < FEWEST_ASKED;
  const failed = !idle && moved < EFFECT_SHARE * asked;
  return {
    ...episode,
    check: {
      atMs: nowMs,
      asked: episode.asked,
      moved: episode.moved,
      surplus,
      failures: failed ? check.failures + 1 : idle ? check.failures : 0,
      idle: idle ? check.idle + 1 : 0,
    },
  };
}

/** What the status says of it. Without an outcome it is under way. */
export function summaryOf(
  { startedAtMs, skewBefore, asked, moved, stayed }: Episode,
  end?: { readonly outcome: Reason; readonly skewAfter: number | undefined; readonly atMs: number },
): RebalanceMemory['last'] {
  return {
    startedAt: new Date(startedAtMs).toISOString(),
    skewBefore: hundredths(skewBefore),
    // Who was asked while nobody led was not counted; they are counted when they have moved.
    asked: Math.max(asked, moved + stayed),
    moved,
    stayed,
    ...(end !== undefined && { outcome: end.outcome, finishedAt: new Date(end.atMs).toISOString() }),
    ...(end?.skewAfter !== undefined && { skewAfter: hundredths(end.skewAfter) }),
  };
}

/** Connections that full pods have above what is planned for them: their fair share, where there is no plan. */
function surplusOf(members: readonly Member[], plan: Episode['plan']): number {
  const fair = totalOf(members) / members.length;
  return members.reduce(
    (sum, { pod, answer }) => sum + Math.max(0, answer.connections - (plan?.[pod.uid] ?? fair)),
    0,
  );
}

/** Connections of all pods together. */
export function totalOf(members: readonly Member[]): number {
  return members.reduce((sum, { answer }) => sum + answer.connections, 0);
}

function tellsShed(members: readonly Member[]): boolean {
  return members.some(({ answer }) => answer.shed !== undefined);
}

function newCheck(
  { nowMs, members }: Facts,
  { asked, moved, plan }: Pick<Episode, 'asked' | 'moved' | 'plan'>,
): Episode['check'] {
  return { atMs: nowMs, asked, moved, surplus: surplusOf(members, plan), failures: 0, idle: 0 };
}
