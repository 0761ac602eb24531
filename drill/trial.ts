// A trial: one fault, under load, and what the checker says of it.

import { formatPosition } from '../src/protocol/positions.ts';
import { Random } from '../test/random.ts';
import { check, type Publication, reachedAtMs, type Verdict } from './checker.ts';
import { type KindName, kinds, positionsOf, type Struck } from './kinds.ts';
import { Load } from './load.ts';
import { Stage } from './stage.ts';

/** What became of a trial. */
export interface TrialResult {
  readonly kind: KindName;
  readonly seed: number;
  /** Which form of the fault it was; empty where it did not come to that. */
  readonly form: string;
  readonly verdict: Verdict;
  /** Messages that were acknowledged, and those of them that Redis lost. */
  readonly acknowledged: number;
  readonly vanished: number;
  /** From the end of the fault until every subscriber was up to date. */
  readonly repairedMs: number;
  /** What else was wrong: the trial did not end, or a client was told what it should never be. */
  readonly failures: readonly string[];
}

/** A swallowed last message has to be repaired within this. */
const REPAIR_WITHIN_MS = 10_000;

/** How often messages are so long that a gateway remembers only a few dozen of them. */
const LONG = 0.25;

/** So many messages after the fault, from and to. */
const AFTER = [20, 120] as const;

type Conclusion = Omit<TrialResult, 'kind' | 'seed' | 'form'>;

/** Of a trial that did not even begin. */
const NOTHING: Conclusion = {
  verdict: { lost: 0, doubled: 0, disordered: 0, altered: 0, gaps: 0, findings: [] },
  acknowledged: 0,
  vanished: 0,
  repairedMs: 0,
  failures: [],
};

/** Whether nothing is held against the gateway. */
export function isClean({ verdict, failures }: TrialResult): boolean {
  const { lost, doubled, disordered, altered } = verdict;
  return lost + doubled + disordered + altered + failures.length === 0;
}

/** Runs one trial, whose every choice follows from the seed. Never rejects. */
export async function runTrial(name: KindName, seed: number): Promise<TrialResult> {
  const kind = kinds[name];
  const random = new Random(seed);
  const stage = new Stage(`${kind.namespace}:${name}-${seed}`);
  let load: Load | undefined;
  let struck: Struck | undefined;
  let form = '';
  const failures: string[] = [];
  try {
    const strike = await kind.prepare(stage, random.fork());
    form = strike.form;
    load = new Load(stage, random.fork(), {
      publishers: random.integer(3, 5),
      subscribers: random.integer(3, 5),
      wanderer: strike.loses !== true,
      everyMs: random.integer(12, 30),
      padding: kind.padding + (random.chance(LONG) ? random.integer(1000, 4000) : random.integer(0, 300)),
    });
    const after = random.integer(...AFTER);
    await load.start();
    struck = await strike.strike(load);
    await load.goOn(after);
    await load.rest();
  } catch (error) {
    failures.push(textOf(error));
  }
  await load?.stop();
  let conclusion = NOTHING;
  if (load !== undefined && struck !== undefined) {
    // A trial that came to no end has its say too: who waits in vain for a message has lost it.
    conclusion = await conclude(stage, load, struck).catch((error) => {
      failures.push(textOf(error));
      return NOTHING;
    });
  }
  await stage.stop();
  return { kind: name, seed, form, ...conclusion, failures: [...failures, ...conclusion.failures] };
}

/** An error and what caused it, for people. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${textOf(error.cause)}`;
}

async function conclude(stage: Stage, load: Load, struck: Struck): Promise<Conclusion> {
  const { publications, publishers, subscribers } = load;
  const stored = positionsOf(await stage.master?.().xrange(stage.streamKey, '-', '+'));
  const kept = new Set([...stored, ...stage.removed]);
  const acknowledged = publications.filter((it) => it.acknowledged !== undefined);
  const vanished = acknowledged.filter((it) => it.acknowledged && !kept.has(formatPosition(it.acknowledged)));
  const failures = [...publishers, ...subscribers].flatMap(({ refusals }) => refusals);
  const repairedMs = repairTimeMs(load, struck, acknowledged);
  if (struck.probe !== undefined && repairedMs > REPAIR_WITHIN_MS)
    failures.push(`repaired only after ${Math.round(repairedMs)} ms`);
  return {
    verdict: check(publications, subscribers, kept),
    acknowledged: acknowledged.length,
    vanished: vanished.length,
    repairedMs,
    failures,
  };
}

/** From the end of the fault until every subscriber was up to date: infinite where one never was. */
function repairTimeMs(
  { subscribers }: Load,
  { overAtMs, probe }: Struck,
  acknowledged: readonly Publication[],
): number {
  const first = probe ?? firstAfter(overAtMs, acknowledged);
  const reached = subscribers.map(({ sights }) => first && reachedAtMs(sights, first));
  return Math.max(0, ...reached.map((atMs) => (atMs ?? Number.POSITIVE_INFINITY) - overAtMs));
}

function firstAfter(atMs: number, publications: readonly Publication[]): Publication | undefined {
  return publications.filter(({ sentAtMs }) => sentAtMs >= atMs).sort((a, b) => a.sentAtMs - b.sentAtMs)[0];
}
