// Rebalancing: when connections are moved, from which pods, and when it is over or given up. One episode after
// another, each of which begins only above maxSkew and ends far below it, so that it never swings.

import type { Census, Member } from './census.ts';
import type { CeilingOrder, PodRef, PolicyEvent } from './decision.ts';
import { type Evenness, evennessOf, weightOf } from './evenness.ts';
import { type Level, levels, loadPlan, PROBE_PER_POD, probeLevels } from './levels.ts';
import type { Episode, Ineffective, Memory, RebalanceMemory } from './memory.ts';
import { type Observation, ROUND_MS } from './observation.ts';
import {
  inabilityObstacle,
  type Obstacle,
  passingObstacle,
  plainObstacle,
  silenceObstacle,
} from './obstacles.ts';
import { durationSeconds, type Policy, type Reason } from './policy.ts';

/** What this round does about moving. */
export interface RebalanceDecision {
  readonly ceilings: readonly CeilingOrder[];
  readonly lifts: readonly PodRef[];
  readonly events: readonly PolicyEvent[];
  readonly memory: RebalanceMemory;
  /** Undefined while it is unknown. */
  readonly evenness: Evenness | undefined;
  readonly state: Reason;
  readonly message: string;
}

/** A ceiling outlives two rounds that fail, and an operator that is gone by no more than that. */
export const CEILING_MS = 3 * ROUND_MS;
/** Uneven in one round may be a moment between two; uneven in two is a state. */
const CONFIRMING_ROUNDS = 2;
/** A pod that was brought a connection within this time is reached by the load balancer. */
const RECEIVING_MS = 60_000;
const PROBE_MS = 30_000;
/** Rests between probes double, so that load balancers that register targets for minutes are waited for. */
const PROBE_REST_MS = 30_000;
const PROBES = 5;
/** After an episode its effect is waited for: clients that came back, load that is measured. */
const SETTLE_MS = 60_000;
const NEARLY_EVEN_MS = 60_000;
/** How often it is looked at whether moving has an effect, and how often in a row it may have none. */
const CHECK_MS = 30_000;
const FAILURES = 3;
const IDLE_CHECKS = 4;
const IDLE_REST_MS = 300_000;
/** Of those who were asked, this share must have moved. */
const EFFECT_SHARE = 0.2;
const FEWEST_ASKED = 5;
/** In one round, so many times what has moved may be asked. */
const RAMP = 10;
/** After this many, so small a share that moved is doubtful. */
const DOUBTFUL_ASKED = 50;
const DOUBTFUL_SHARE = 0.1;
/** More than this of what was to be moved means that others come in where it was moved from. */
const TREADMILL = 1.5;
const TREADMILL_MIN = 50;
/** To move so much of it again so soon after an episode is a relapse. */
const RELAPSE_MS = 1_800_000;
const PROGRESS_SHARE = 0.7;
const RELAPSES = 3;
/** A load balancer that was mended does not tell anybody, so that what was given up is tried again. */
const GIVEN_UP_MS = 3_600_000;

/** Why moving is given up, and what may be wrong. */
const WHY_NOT = {
  NotReceiving: 'the load balancer brings no connection to the emptier pods: are they registered with it?',
  MovesFail: 'clients that were asked to move came back to full pods: is the load balancer sticky?',
  Relapsed: 'pods that were made even became uneven again: does the load balancer prefer some of them?',
} as const;

type GivenUp = keyof typeof WHY_NOT;

/** Decides what is moved in this round. */
export function rebalance(
  policy: Policy,
  observation: Observation,
  census: Census,
  memory: Memory,
  nowMs: number,
): RebalanceDecision {
  return new Round(policy, observation, census, memory.rebalance, nowMs).decide();
}

/** One round. The guards come first; each of them says why nothing is done. */
class Round {
  readonly #policy: Policy;
  readonly #observation: Observation;
  readonly #census: Census;
  readonly #before: RebalanceMemory;
  readonly #nowMs: number;
  readonly #members: readonly Member[];
  /** Names of all that count, those that are silent too. */
  readonly #pods: readonly string[];
  readonly #evenness: Evenness | undefined;

  constructor(
    policy: Policy,
    observation: Observation,
    census: Census,
    before: RebalanceMemory,
    nowMs: number,
  ) {
    this.#policy = policy;
    this.#observation = observation;
    this.#census = census;
    this.#nowMs = nowMs;
    this.#members = census.members;
    this.#pods = [...census.members, ...census.silent].map(({ pod }) => pod.name).toSorted();
    this.#before = this.#forgetGivenUp(before);
    this.#evenness = census.silent.length > 0 ? undefined : evennessOf(census.members, policy.spec.rebalance);
  }

  decide(): RebalanceDecision {
    const rules = this.#policy.spec.rebalance;
    const plain =
      plainObstacle(this.#policy, this.#observation, this.#nowMs) ??
      silenceObstacle(this.#census, this.#nowMs);
    if (plain !== undefined) return this.#stopFor(plain);

    const evenness = this.#evenness;
    if (evenness === undefined) {
      return this.#stopFor({
        reason: 'NoLoadData',
        message: 'the pods do not tell cpuSeconds, or not for long yet',
      });
    }
    if (this.#members.length < 2) {
      return this.#stopFor({
        reason: 'TooFewPods',
        message: 'there is one ready pod, and nowhere to move to',
      });
    }
    const { episode, resume } = this.#before;
    if (episode === undefined && !resume && evenness.verdict !== 'uneven') return this.#even(evenness);

    const obstacle =
      passingObstacle(this.#observation, this.#census, this.#nowMs) ??
      inabilityObstacle(this.#census, evenness, rules);
    if (obstacle !== undefined) return this.#stopFor(obstacle);

    if (episode !== undefined) return this.#goOn(evenness, this.#counted(episode));
    if (resume) return this.#begin(evenness, this.#before);
    return this.#mayBegin(evenness);
  }

  /** What was given up is tried again when pods come or go, the spec changes, or an hour has passed; and, where no
   * emptier pod was reached, when the load balancer reaches one. */
  #forgetGivenUp(memory: RebalanceMemory): RebalanceMemory {
    const { ineffective } = memory;
    if (ineffective === undefined) return memory;
    const fair = this.#total() / this.#members.length;
    const changed =
      ineffective.generation !== this.#policy.generation ||
      this.#nowMs - ineffective.sinceMs >= GIVEN_UP_MS ||
      !sameNames(ineffective.pods, this.#pods) ||
      (ineffective.reason === 'NotReceiving' &&
        this.#members.some(
          ({ answer, receivedAtMs }) =>
            answer.connections < fair && (receivedAtMs ?? 0) > ineffective.sinceMs,
        ));
    return changed ? { ...memory, ineffective: undefined, unevenRounds: 0, failedProbes: 0 } : memory;
  }

  // ── Between episodes ────────────────────────────────────────────────────────────────────────────────────

  #even(evenness: Evenness): RebalanceDecision {
    const reason: Reason = evenness.verdict === 'chance' ? 'TooFewConnections' : 'Even';
    const message =
      reason === 'Even'
        ? `${describe(evenness, this.#policy)}, which is within maxSkew`
        : `${describe(evenness, this.#policy)}, which chance explains`;
    return this.#idle(reason, message, { ...this.#before, unevenRounds: 0, failedProbes: 0 });
  }

  #mayBegin(evenness: Evenness): RebalanceDecision {
    const before = this.#before;
    const unevenRounds = before.unevenRounds + 1;
    const seen = { ...before, unevenRounds };
    const skew = describe(evenness, this.#policy);
    if (before.ineffective !== undefined) {
      return this.#idle(
        'Ineffective',
        `${skew}, but moving has not helped (${before.ineffective.reason})`,
        seen,
      );
    }
    if (before.rest !== undefined && this.#nowMs < before.rest.untilMs) {
      const seconds = Math.ceil((before.rest.untilMs - this.#nowMs) / 1000);
      return this.#idle(before.rest.reason, `${skew}; looked at again in ${seconds} s`, seen);
    }
    if (unevenRounds < CONFIRMING_ROUNDS)
      return this.#idle('Confirming', `${skew}; the next round confirms it`, seen);

    if (this.#relapses() >= RELAPSES) return this.#giveUp('Relapsed', undefined, seen);
    return this.#begin(evenness, seen);
  }

  /** How often in a row there was about as much to move again soon after an episode, this time included. */
  #relapses(): number {
    const { past } = this.#before;
    if (past === undefined || !sameNames(past.pods, this.#pods)) return 0;
    if (this.#nowMs - past.atMs >= RELAPSE_MS) return 0;
    return this.#connectionSurplus() > PROGRESS_SHARE * past.surplus ? past.relapses + 1 : 0;
  }

  // ── An episode ──────────────────────────────────────────────────────────────────────────────────────────

  #begin(evenness: Evenness, before: RebalanceMemory): RebalanceDecision {
    const { by, maxSkew } = this.#policy.spec.rebalance;
    const total = this.#total();
    const flat = total / this.#members.length;
    const plan = by === 'load' ? loadPlan(this.#members, evenness, maxSkew) : undefined;
    const surplus = this.#members.reduce(
      (sum, { pod, answer }) => sum + Math.max(0, answer.connections - (plan?.[pod.uid] ?? flat)),
      0,
    );
    // An episode that another leader began goes on under its first hour.
    const last = before.resume && before.last?.outcome === undefined ? before.last : undefined;
    const episode: Episode = {
      kind: 'probing',
      startedAtMs: last === undefined ? this.#nowMs : Date.parse(last.startedAt),
      kindSinceMs: this.#nowMs,
      skewBefore: last?.skewBefore ?? evenness.skew,
      surplusBefore: surplus + (last?.moved ?? 0),
      totalBefore: total,
      asked: last?.asked ?? 0,
      moved: last?.moved ?? 0,
      stayed: last?.stayed ?? 0,
      nearlyEvenSinceMs: undefined,
      check: this.#newCheck({ asked: last?.asked ?? 0, moved: last?.moved ?? 0 }),
      plan,
      announced: last !== undefined,
      relapses: this.#relapses(),
    };
    return this.#goOn(evenness, episode, { ...before, resume: false });
  }

  #goOn(evenness: Evenness, episode: Episode, before: RebalanceMemory = this.#before): RebalanceDecision {
    const rules = this.#policy.spec.rebalance;
    const plan = this.#planOf(episode);
    const all = levels(this.#members, new Set(this.#members), evenness, rules, plan);
    const emptier = all.filter(({ member, ceiling }) => member.answer.connections < ceiling).map(memberOf);
    const receiving = emptier.filter(({ receivedAtMs }) => this.#nowMs - (receivedAtMs ?? 0) < RECEIVING_MS);
    const now = this.#withNearlyEven(evenness, episode);
    if (this.#isDone(all, now)) return this.#finish(evenness, now, before);

    const reached = levels(this.#members, new Set(receiving), evenness, rules, plan);
    // Until somebody has moved, a few are asked: that others arrive there does not mean that those who move do.
    const landed = now.moved > 0 || !this.#tellsShed;
    if (landed && reached.some(({ excess }) => excess > 0)) {
      const moving = this.#asKind(now, 'moving');
      const checked = this.#checkEffect(moving);
      const failed = this.#hasFailed(checked);
      if (failed !== undefined) return this.#giveUp(failed, checked, before);
      if (checked.check.idle >= IDLE_CHECKS) return this.#endIdle(checked, before);
      // A connection or two that happened to move somewhere prove nothing.
      const works =
        checked.check !== moving.check && checked.check.failures === 0 && checked.check.idle === 0;
      const seen = works ? { ...before, failedProbes: 0 } : before;
      const events = checked.announced ? [] : [this.#started(evenness, checked)];
      return this.#act(evenness, reached, { ...checked, announced: true }, seen, events);
    }
    const probing = this.#asKind(now, 'probing');
    if (this.#nowMs - probing.kindSinceMs >= PROBE_MS) {
      return this.#endProbe(receiving.length > 0 ? 'MovesFail' : 'NotReceiving', probing, before);
    }
    return this.#act(evenness, probeLevels(this.#members, all), probing, before, []);
  }

  #started(evenness: Evenness, { surplusBefore }: Episode): PolicyEvent {
    const moves = Math.round(surplusBefore);
    const message = `${describe(evenness, this.#policy)}; about ${moves} connections are to move`;
    return { type: 'Normal', reason: 'RebalanceStarted', message };
  }

  #isDone(all: readonly Level[], { plan, nearlyEvenSinceMs }: Episode): boolean {
    if (all.every(({ excess }) => excess === 0)) return true;
    // Where clients come and go there is always one pod or another that is slightly above.
    const nearlyEvenMs = nearlyEvenSinceMs === undefined ? 0 : this.#nowMs - nearlyEvenSinceMs;
    return plan === undefined && nearlyEvenMs >= NEARLY_EVEN_MS;
  }

  /** The plan of an episode by load, grown as much as all pods have grown together. */
  #planOf({ plan, totalBefore }: Episode): Episode['plan'] {
    if (plan === undefined) return undefined;
    const growth = Math.max(1, this.#total() / Math.max(1, totalBefore));
    return Object.fromEntries(Object.entries(plan).map(([uid, target]) => [uid, Math.ceil(target * growth)]));
  }

  get #tellsShed(): boolean {
    return this.#members.some(({ answer }) => answer.shed !== undefined);
  }

  #total(): number {
    return this.#members.reduce((sum, { answer }) => sum + answer.connections, 0);
  }

  #withNearlyEven(evenness: Evenness, episode: Episode): Episode {
    return {
      ...episode,
      nearlyEvenSinceMs: evenness.nearlyEven ? (episode.nearlyEvenSinceMs ?? this.#nowMs) : undefined,
    };
  }

  #asKind(episode: Episode, kind: Episode['kind']): Episode {
    if (episode.kind === kind) return episode;
    return { ...episode, kind, kindSinceMs: this.#nowMs, check: this.#newCheck(episode) };
  }

  /** Adds what pods have counted since the round before. */
  #counted(episode: Episode): Episode {
    const { asked, moved, stayed } = this.#census.shed;
    return {
      ...episode,
      asked: episode.asked + asked,
      moved: episode.moved + moved,
      stayed: episode.stayed + stayed,
    };
  }

  #newCheck({ asked, moved }: { asked: number; moved: number }): Episode['check'] {
    return { atMs: this.#nowMs, asked, moved, surplus: this.#connectionSurplus(), failures: 0, idle: 0 };
  }

  #connectionSurplus(): number {
    const fair = this.#total() / this.#members.length;
    return this.#members.reduce((sum, { answer }) => sum + Math.max(0, answer.connections - fair), 0);
  }

  /** Whether those who were asked have moved, looked at now and then. */
  #checkEffect(episode: Episode): Episode {
    const { check } = episode;
    if (this.#nowMs - check.atMs < CHECK_MS) return episode;
    const surplus = this.#connectionSurplus();
    const rate = this.#policy.spec.rebalance.ratePerSecond;
    const asked = this.#tellsShed
      ? episode.asked - check.asked
      : Math.min(check.surplus, (rate * (this.#nowMs - check.atMs)) / 1000);
    const moved = this.#tellsShed ? episode.moved - check.moved : check.surplus - surplus;
    const idle = asked < FEWEST_ASKED;
    const failed = !idle && moved < EFFECT_SHARE * asked;
    return {
      ...episode,
      check: {
        atMs: this.#nowMs,
        asked: episode.asked,
        moved: episode.moved,
        surplus,
        failures: failed ? check.failures + 1 : idle ? check.failures : 0,
        idle: idle ? check.idle + 1 : 0,
      },
    };
  }

  #hasFailed({ check, moved, surplusBefore, totalBefore }: Episode): GivenUp | undefined {
    if (check.failures >= FAILURES) return 'MovesFail';
    const allowed = TREADMILL * surplusBefore + Math.max(0, this.#total() - totalBefore) + TREADMILL_MIN;
    return moved > allowed ? 'Relapsed' : undefined;
  }

  #act(
    evenness: Evenness,
    at: readonly Level[],
    episode: Episode,
    before: RebalanceMemory,
    events: readonly PolicyEvent[],
  ): RebalanceDecision {
    const rules = this.#policy.spec.rebalance;
    const excess = at.reduce((sum, level) => sum + level.excess, 0);
    const ratePerSecond = this.#rate(episode);
    const ceilings = at
      .filter(({ member }) => member.answer.movable !== undefined)
      .map((level) => ({
        name: level.member.pod.name,
        uid: level.member.pod.uid,
        ceiling: {
          connections: level.ceiling,
          expiresAfterMs: CEILING_MS,
          shedPerSecond: excess === 0 ? 0 : round((ratePerSecond * level.excess) / excess),
          order: rules.order,
          minAgeSeconds: durationSeconds(rules.minAge),
          plain: rules.plain,
        },
      }));
    const state = episode.kind === 'moving' ? 'Moving' : 'Probing';
    const skew = describe(evenness, this.#policy);
    const message =
      state === 'Moving'
        ? `${skew}; ${excess} connections are still to move, at most ${round(ratePerSecond)} a second`
        : `${skew}; a few connections show whether emptier pods are reached`;
    return {
      ceilings,
      lifts: [],
      events,
      evenness,
      state,
      message,
      memory: {
        ...before,
        episode,
        rest: undefined,
        last: summary(episode, undefined, undefined, this.#nowMs),
      },
    };
  }

  /** So many a second may be asked. At first a few, and never many times more than have moved: where hardly anybody
   * finds another pod, nobody is to look for one in vain. */
  #rate({ asked, moved }: Episode): number {
    const { ratePerSecond } = this.#policy.spec.rebalance;
    if (!this.#tellsShed) return ratePerSecond;
    const doubtful = asked >= DOUBTFUL_ASKED && moved < DOUBTFUL_SHARE * asked;
    const perRound = Math.max(PROBE_PER_POD * this.#members.length, doubtful ? 0 : RAMP * moved);
    return Math.min(ratePerSecond, (perRound * 1000) / ROUND_MS);
  }

  // ── The end of an episode ───────────────────────────────────────────────────────────────────────────────

  #finish(evenness: Evenness, episode: Episode, before: RebalanceMemory): RebalanceDecision {
    const message = `${describe(evenness, this.#policy)}; ${episode.moved} connections moved`;
    return {
      ...this.#idle('Settling', message, {
        ...before,
        episode: undefined,
        unevenRounds: 0,
        failedProbes: 0,
        rest: { untilMs: this.#nowMs + SETTLE_MS, reason: 'Settling' },
        past: this.#past(episode),
        last: summary(episode, 'Even', evenness.skew, this.#nowMs),
      }),
      events: [{ type: 'Normal', reason: 'RebalanceFinished', message }],
    };
  }

  #past({ announced, surplusBefore, relapses }: Episode): RebalanceMemory['past'] {
    if (!announced) return this.#before.past;
    return { atMs: this.#nowMs, pods: this.#pods, surplus: surplusBefore, relapses };
  }

  #endProbe(
    reason: 'NotReceiving' | 'MovesFail',
    episode: Episode,
    before: RebalanceMemory,
  ): RebalanceDecision {
    const failedProbes = before.failedProbes + 1;
    if (failedProbes >= PROBES) return this.#giveUp(reason, episode, { ...before, failedProbes });
    const untilMs = this.#nowMs + PROBE_REST_MS * 2 ** (failedProbes - 1);
    return this.#idle(reason, WHY_NOT[reason], {
      ...before,
      episode: undefined,
      failedProbes,
      past: this.#past(episode),
      rest: { untilMs, reason },
      last: summary(episode, reason, this.#evenness?.skew, this.#nowMs),
    });
  }

  #endIdle(episode: Episode, before: RebalanceMemory): RebalanceDecision {
    return this.#idle('NothingMovable', 'the full pods had nobody to ask for two minutes', {
      ...before,
      episode: undefined,
      past: this.#past(episode),
      rest: { untilMs: this.#nowMs + IDLE_REST_MS, reason: 'NothingMovable' },
      last: summary(episode, 'NothingMovable', this.#evenness?.skew, this.#nowMs),
    });
  }

  #giveUp(reason: GivenUp, episode: Episode | undefined, before: RebalanceMemory): RebalanceDecision {
    const ineffective: Ineffective = {
      sinceMs: this.#nowMs,
      reason,
      generation: this.#policy.generation,
      pods: this.#pods,
    };
    const why: Partial<Record<Reason, string>> = {
      NotReceiving:
        'the load balancer brings no connection to the emptier pods: are they registered with it?',
      MovesFail: 'clients that were asked to move came back to full pods: is the load balancer sticky?',
      Relapsed: 'pods that were made even became uneven again: does the load balancer prefer some of them?',
    };
    const message = why[reason] ?? reason;
    return {
      ...this.#idle('Ineffective', message, {
        ...before,
        episode: undefined,
        failedProbes: 0,
        past: undefined,
        ineffective,
        last:
          episode === undefined ? before.last : summary(episode, reason, this.#evenness?.skew, this.#nowMs),
      }),
      events: [{ type: 'Warning', reason: 'RebalanceIneffective', message }],
    };
  }

  /** Ends what is under way, for a reason that comes from outside; or says why nothing begins. */
  #stopFor({ reason, message, hiccup }: Obstacle): RebalanceDecision {
    const before = this.#before;
    const { episode } = before;
    if (hiccup && (episode !== undefined || before.resume)) {
      const state = episode === undefined ? reason : episode.kind === 'moving' ? 'Moving' : 'Probing';
      const counted = episode && this.#counted(episode);
      const memory = { ...before, episode: counted };
      return { ceilings: [], lifts: [], events: [], evenness: this.#evenness, state, message, memory };
    }
    const idle = this.#idle(reason, message, {
      ...before,
      episode: undefined,
      resume: false,
      unevenRounds: 0,
      last:
        episode === undefined
          ? closed(before, reason, this.#nowMs)
          : summary(this.#counted(episode), reason, this.#evenness?.skew, this.#nowMs),
    });
    if (!episode?.announced) return idle;
    return { ...idle, events: [{ type: 'Normal', reason: 'RebalanceStopped', message }] };
  }

  /** Nothing is moved: what stands on pods is taken away, also what another leader has set. */
  #idle(state: Reason, message: string, memory: RebalanceMemory): RebalanceDecision {
    const lifts = this.#members
      .filter(({ answer }) => answer.ceiling != null)
      .map(({ pod: { name, uid } }) => ({ name, uid }));
    return {
      ceilings: [],
      lifts,
      events: [],
      evenness: this.#evenness,
      state,
      message,
      memory: { ...memory, resume: false },
    };
  }
}

function describe({ fair, skew, fullest }: Evenness, { spec }: Policy): string {
  const { by, maxSkew } = spec.rebalance;
  const amount = round(weightOf(fullest, by) ?? 0);
  const unit = by === 'load' ? 'cores' : 'connections';
  return `${fullest.pod.name} has ${amount} ${unit} where ${round(fair)} are fair (skew ${skew.toFixed(2)}, maxSkew ${maxSkew})`;
}

function summary(
  { startedAtMs, skewBefore, asked, moved, stayed }: Episode,
  outcome: Reason | undefined,
  skewAfter: number | undefined,
  nowMs: number,
): RebalanceMemory['last'] {
  return {
    startedAt: new Date(startedAtMs).toISOString(),
    skewBefore: round(skewBefore),
    asked,
    moved,
    stayed,
    ...(outcome !== undefined && { outcome, finishedAt: new Date(nowMs).toISOString() }),
    ...(skewAfter !== undefined && { skewAfter: round(skewAfter) }),
  };
}

/** An episode that another leader left open is over. */
function closed({ last, resume }: RebalanceMemory, outcome: Reason, nowMs: number): RebalanceMemory['last'] {
  if (!resume || last === undefined || last.outcome !== undefined) return last;
  return { ...last, outcome, finishedAt: new Date(nowMs).toISOString() };
}

function memberOf({ member }: Level): Member {
  return member;
}

function sameNames(one: readonly string[], other: readonly string[]): boolean {
  const names = new Set(one);
  return one.length === other.length && other.every((name) => names.has(name));
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
