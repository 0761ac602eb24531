// Rebalancing: when connections are moved, from which pods, and when it is over or given up. One episode after
// another, each of which begins only above maxSkew and ends far below it, so that it never swings.

import type { Census, Member } from './census.ts';
import type { Reason } from './conditions.ts';
import type { CeilingOrder, PodRef, PolicyEvent } from './decision.ts';
import {
  asKind,
  beginEpisode,
  checkEffect,
  count,
  type Facts,
  hasAskedNobody,
  hasLanded,
  planOf,
  rateOf,
  summaryOf,
} from './episode.ts';
import { type Evenness, evennessOf, hundredths, weightOf } from './evenness.ts';
import { failureOf, type GivenUp, isHopeless, isTriedAgain, relapsesSince, whyNot } from './giving-up.ts';
import { ceilingsOf, excessOf, type Level, levels, loadPlan, probeLevels } from './levels.ts';
import type { Episode, Ineffective, Memory, RebalanceMemory } from './memory.ts';
import type { Observation } from './observation.ts';
import {
  inabilityObstacle,
  loadObstacle,
  type Obstacle,
  passingObstacle,
  plainObstacle,
  silenceObstacle,
} from './obstacles.ts';
import type { Policy } from './policy.ts';

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

/** Uneven in one round may be a moment between two; uneven in two is a state. Load comes in bursts, which pass by
 * themselves: it must have been uneven for a minute. */
const CONFIRMING_ROUNDS = { connections: 2, load: 12 } as const;
/** A pod that was brought a connection within this time is reached by the load balancer. */
const RECEIVING_MS = 60_000;
const PROBE_MS = 30_000;
/** Rests between probes double, so that load balancers that register targets for minutes are waited for. */
const PROBE_REST_MS = 30_000;
const PROBES = 5;
/** After an episode its effect is waited for: clients that came back, load that is measured. */
const SETTLE_MS = 60_000;
const NEARLY_EVEN_MS = 60_000;
const IDLE_CHECKS = 4;
const IDLE_REST_MS = 300_000;

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
  readonly #evenness: Evenness | undefined;
  readonly #facts: Facts;

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
    const { ratePerSecond, by } = policy.spec.rebalance;
    this.#facts = {
      nowMs,
      members: census.members,
      pods: [...census.members, ...census.silent].map(({ pod }) => pod.name).toSorted(),
      generation: policy.generation,
      ratePerSecond,
    };
    this.#evenness = census.silent.length > 0 ? undefined : evennessOf(census.members, policy.spec.rebalance);
    const { ineffective } = before;
    const again = ineffective !== undefined && isTriedAgain(this.#facts, ineffective, this.#evenness, by);
    this.#before = again ? { ...before, ineffective: undefined, unevenRounds: 0, failedProbes: 0 } : before;
  }

  decide(): RebalanceDecision {
    const rules = this.#policy.spec.rebalance;
    const plain =
      plainObstacle(this.#policy, this.#observation, this.#nowMs) ??
      silenceObstacle(this.#census, this.#nowMs);
    if (plain !== undefined) return this.#stopFor(plain);

    const { episode, resume } = this.#before;
    const evenness = this.#evenness;
    if (evenness === undefined) return this.#stopFor(loadObstacle(this.#census, resume));
    if (this.#members.length < 2) {
      return this.#stopFor({
        reason: 'TooFewPods',
        message: 'there is one ready pod, and nowhere to move to',
      });
    }
    const isByLoad = rules.by === 'load';
    if (episode !== undefined && (episode.plan !== undefined) !== isByLoad) {
      return this.#stopFor({ reason: 'Confirming', message: `rebalance.by is ${rules.by} now` });
    }
    if (resume && isByLoad) {
      // What was measured so far is of pods that connections were just moved between.
      return this.#stopFor({ reason: 'Confirming', message: 'another leads now and measures the load anew' });
    }
    if (episode === undefined && !resume && evenness.verdict !== 'uneven') return this.#even(evenness);

    const passing = passingObstacle(this.#observation, this.#census, this.#nowMs);
    if (passing !== undefined) return this.#stopFor(passing);

    if (episode !== undefined) return this.#goOn(evenness, count(episode, this.#census.shed));
    if (resume) return this.#begin(evenness, this.#before);
    const inability = inabilityObstacle(this.#census, evenness, rules);
    if (inability !== undefined) return this.#stopFor(inability);
    return this.#mayBegin(evenness);
  }

  // ── Between episodes ────────────────────────────────────────────────────────────────────────────────────

  #even(evenness: Evenness): RebalanceDecision {
    const skew = describe(evenness, this.#policy);
    const [reason, why]: readonly [Reason, string] =
      evenness.verdict === 'little'
        ? ['TooLittleLoad', 'which is too little load to move anybody for']
        : evenness.verdict === 'chance'
          ? ['TooFewConnections', 'which chance explains']
          : ['Even', 'which is within maxSkew'];
    return this.#idle(reason, `${skew}, ${why}`, { ...this.#before, unevenRounds: 0, failedProbes: 0 });
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
    const confirming = CONFIRMING_ROUNDS[this.#policy.spec.rebalance.by];
    if (unevenRounds < confirming) {
      const rounds = confirming - unevenRounds;
      return this.#idle(
        'Confirming',
        `${skew}; ${rounds === 1 ? 'the next round confirms' : `${rounds} more rounds confirm`} it`,
        seen,
      );
    }
    if (isHopeless(relapsesSince(this.#facts, before.past, evenness))) {
      return this.#giveUp('Relapsed', undefined, seen);
    }
    return this.#begin(evenness, seen);
  }

  // ── An episode ──────────────────────────────────────────────────────────────────────────────────────────

  #begin(evenness: Evenness, before: RebalanceMemory): RebalanceDecision {
    const { by, maxSkew } = this.#policy.spec.rebalance;
    const plan = by === 'load' ? loadPlan(this.#members, evenness, maxSkew) : undefined;
    const all = levels(this.#members, new Set(this.#members), evenness, this.#policy.spec.rebalance, plan);
    if (excessOf(all) === 0 && !before.resume) {
      const message = `${describe(evenness, this.#policy)}, but it has no connection to give, or no other pod has room`;
      return this.#idle('NothingMovable', message, before);
    }
    // What another leader began goes on as one episode.
    const last = before.resume && before.last?.outcome === undefined ? before.last : undefined;
    const relapses = relapsesSince(this.#facts, before.past, evenness);
    const episode = beginEpisode(this.#facts, evenness, plan, relapses, last);
    return this.#goOn(evenness, episode, { ...before, resume: false });
  }

  #goOn(evenness: Evenness, episode: Episode, before: RebalanceMemory = this.#before): RebalanceDecision {
    const rules = this.#policy.spec.rebalance;
    const plan = planOf(this.#facts, episode);
    const all = levels(this.#members, new Set(this.#members), evenness, rules, plan);
    const receiving = all
      .filter(({ member, ceiling }) => member.answer.connections < ceiling)
      .map(({ member }) => member)
      .filter(({ receivedAtMs }) => this.#nowMs - (receivedAtMs ?? 0) < RECEIVING_MS);
    const now = this.#withNearlyEven(evenness, episode);
    if (this.#isDone(all, now)) return this.#finish(evenness, now, before);

    const reached = levels(this.#members, new Set(receiving), evenness, rules, plan);
    if (hasLanded(this.#facts, now) && reached.some(({ excess }) => excess > 0)) {
      const moving = asKind(this.#facts, now, 'moving');
      const checked = checkEffect(this.#facts, moving);
      const failed = failureOf(this.#facts, checked);
      if (failed !== undefined) return this.#giveUp(failed, checked, before);
      if (checked.check.idle >= IDLE_CHECKS) return this.#endIdle(checked, before, IDLE_REST_MS);
      // A connection or two that happened to move somewhere prove nothing.
      const works =
        checked.check !== moving.check && checked.check.failures === 0 && checked.check.idle === 0;
      const seen = works ? { ...before, failedProbes: 0 } : before;
      const events = checked.announced ? [] : [this.#started(evenness, checked)];
      return this.#act(evenness, reached, { ...checked, announced: true }, seen, events);
    }
    const probing = asKind(this.#facts, now, 'probing');
    if (this.#nowMs - probing.kindSinceMs >= PROBE_MS) {
      if (hasAskedNobody(this.#facts, probing)) return this.#endIdle(probing, before, PROBE_REST_MS);
      return this.#endProbe(receiving.length > 0 ? 'MovesFail' : 'NotReceiving', probing, before);
    }
    return this.#act(evenness, probeLevels(all), probing, before, []);
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

  #withNearlyEven(evenness: Evenness, episode: Episode): Episode {
    return {
      ...episode,
      nearlyEvenSinceMs: evenness.nearlyEven ? (episode.nearlyEvenSinceMs ?? this.#nowMs) : undefined,
    };
  }

  #act(
    evenness: Evenness,
    at: readonly Level[],
    episode: Episode,
    before: RebalanceMemory,
    events: readonly PolicyEvent[],
  ): RebalanceDecision {
    const excess = excessOf(at);
    const ratePerSecond = rateOf(this.#facts, episode);
    const state = episode.kind === 'moving' ? 'Moving' : 'Probing';
    const skew = describe(evenness, this.#policy);
    const message =
      state === 'Moving'
        ? `${skew}; ${excess} connections are still to move, at most ${hundredths(ratePerSecond)} a second`
        : `${skew}; a few connections show whether emptier pods are reached`;
    return {
      ceilings: ceilingsOf(at, ratePerSecond, this.#policy.spec.rebalance),
      lifts: [],
      events,
      evenness,
      state,
      message,
      memory: {
        ...before,
        episode,
        rest: undefined,
        last: summaryOf(episode),
      },
    };
  }

  // ── The end of an episode ───────────────────────────────────────────────────────────────────────────────

  #finish(evenness: Evenness, episode: Episode, before: RebalanceMemory): RebalanceDecision {
    const message = `${describe(evenness, this.#policy)}; ${episode.moved} connections moved`;
    const told: PolicyEvent = { type: 'Normal', reason: 'RebalanceFinished', message };
    return {
      ...this.#idle('Settling', message, {
        ...before,
        episode: undefined,
        unevenRounds: 0,
        failedProbes: 0,
        rest: { untilMs: this.#nowMs + SETTLE_MS, reason: 'Settling' },
        past: this.#past(episode),
        last: this.#ended(episode, 'Even'),
      }),
      events: episode.announced ? [told] : [],
    };
  }

  #ended(episode: Episode, outcome: Reason): RebalanceMemory['last'] {
    return summaryOf(episode, { outcome, skewAfter: this.#evenness?.skew, atMs: this.#nowMs });
  }

  #past({ announced, relapses, leastUneven }: Episode): RebalanceMemory['past'] {
    if (!announced) return this.#before.past;
    const { pods, generation } = this.#facts;
    return { atMs: this.#nowMs, pods, generation, relapses, leastUneven };
  }

  #endProbe(
    reason: 'NotReceiving' | 'MovesFail',
    episode: Episode,
    before: RebalanceMemory,
  ): RebalanceDecision {
    const failedProbes = before.failedProbes + 1;
    if (failedProbes >= PROBES) return this.#giveUp(reason, episode, { ...before, failedProbes });
    const untilMs = this.#nowMs + PROBE_REST_MS * 2 ** (failedProbes - 1);
    return this.#idle(reason, whyNot(reason, this.#policy.spec.rebalance.by), {
      ...before,
      episode: undefined,
      failedProbes,
      past: this.#past(episode),
      rest: { untilMs, reason },
      last: this.#ended(episode, reason),
    });
  }

  /** The full pods had nobody to ask. */
  #endIdle(episode: Episode, before: RebalanceMemory, restMs: number): RebalanceDecision {
    const message =
      'the full pods have only clients that cannot move, came a moment ago or were asked lately';
    return this.#idle('NothingMovable', message, {
      ...before,
      episode: undefined,
      past: this.#past(episode),
      rest: { untilMs: this.#nowMs + restMs, reason: 'NothingMovable' },
      last: episode.announced ? this.#ended(episode, 'NothingMovable') : before.last,
    });
  }

  #giveUp(reason: GivenUp, episode: Episode | undefined, before: RebalanceMemory): RebalanceDecision {
    const { pods, generation } = this.#facts;
    const ineffective: Ineffective = { sinceMs: this.#nowMs, reason, generation, pods };
    const message = whyNot(reason, this.#policy.spec.rebalance.by);
    return {
      ...this.#idle('Ineffective', message, {
        ...before,
        episode: undefined,
        failedProbes: 0,
        past: undefined,
        ineffective,
        last: episode === undefined ? before.last : this.#ended(episode, reason),
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
      const counted = episode && count(episode, this.#census.shed);
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
          : this.#ended(count(episode, this.#census.shed), reason),
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
  const amount = hundredths(weightOf(fullest, by) ?? 0);
  const unit = by === 'load' ? 'cores' : 'connections';
  return `${fullest.pod.name} has ${amount} ${unit} where ${hundredths(fair)} are fair (skew ${skew.toFixed(2)}, maxSkew ${maxSkew})`;
}

/** An episode that another leader left open is over. */
function closed({ last, resume }: RebalanceMemory, outcome: Reason, nowMs: number): RebalanceMemory['last'] {
  if (!resume || last === undefined || last.outcome !== undefined) return last;
  return { ...last, outcome, finishedAt: new Date(nowMs).toISOString() };
}
