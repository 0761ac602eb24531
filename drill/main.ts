// `npm run drill`: proves that nothing is lost silently, with real Redis servers and gateways that are made to fail.

import { parseArgs } from 'node:util';
import { type KindName, kindNames, kinds } from './kinds.ts';
import { table, writePage } from './report.ts';
import { isClean, runTrial, type TrialResult } from './trial.ts';

const HELP = `npm run drill                                        every kind, 100 trials each; writes docs/reliability.md
npm run drill -- --kind failover --seed 123          one trial again
npm run drill -- --kinds restart,kill --trials 20    some kinds
  --kind, --kinds  ${kindNames.join(' ')}
  --trials N       of each kind: 100, or 1 with --seed
  --seed N         of the first trial; each one after it has one more (1)
  --parallel N     trials at a time (3)
  --write          write docs/reliability.md also where not everything was run
  --verbose        all findings of a trial, not only the first ones
`;

const TRIALS = 100;
const PARALLEL = 3;
const SHOWN_FINDINGS = 5;

/** Somebody does not want to wait for the rest. */
let cutShort = false;

interface Options {
  readonly names: readonly KindName[];
  readonly trials: number;
  readonly seed: number;
  readonly parallel: number;
  readonly write: boolean;
  readonly shownFindings: number;
}

/** @throws {Error} that says what is wrong. Undefined: help was asked for. */
function readOptions(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      kind: { type: 'string' },
      kinds: { type: 'string' },
      trials: { type: 'string' },
      seed: { type: 'string' },
      parallel: { type: 'string' },
      write: { type: 'boolean' },
      verbose: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) return undefined;
  const wanted = (values.kinds ?? values.kind)?.split(',');
  const strange = wanted?.find((name) => !isKind(name));
  if (strange !== undefined) throw new Error(`there is no kind ${strange}: ${kindNames.join(' ')}`);
  const number = (name: 'trials' | 'seed' | 'parallel', otherwise: number) => {
    const value = Number(values[name] ?? otherwise);
    if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name} must be a whole number`);
    return value;
  };
  const isFull = wanted === undefined && values.seed === undefined && values.trials === undefined;
  return {
    names: wanted?.filter(isKind) ?? kindNames,
    trials: number('trials', values.seed === undefined ? TRIALS : 1),
    seed: number('seed', 1),
    parallel: Math.max(1, number('parallel', PARALLEL)),
    write: values.write ?? isFull,
    shownFindings: values.verbose ? Number.POSITIVE_INFINITY : SHOWN_FINDINGS,
  };
}

function isKind(name: string): name is KindName {
  return Object.hasOwn(kinds, name);
}

async function run({ names, trials, seed, parallel, write, shownFindings }: Options): Promise<boolean> {
  // Kinds take turns, so that a run that is cut short has as many trials of each.
  const due = Array.from({ length: trials }, (_, at) =>
    names.map((name) => ({ name, seed: seed + at })),
  ).flat();
  const results: TrialResult[] = [];
  const count = due.length;
  const work = async () => {
    for (let next = due.shift(); next !== undefined && !cutShort; next = due.shift()) {
      const result = await runTrial(next.name, next.seed);
      results.push(result);
      tell(result, `${results.length}/${count}`, shownFindings);
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  const given = process.argv.slice(2);
  const order = (result: TrialResult) => names.indexOf(result.kind);
  results.sort((a, b) => order(a) - order(b) || a.seed - b.seed);
  process.stdout.write(`\n${table(results)}`);
  if (write) writePage(results, ['npm run drill', ...(given.length > 0 ? ['--', ...given] : [])].join(' '));
  return results.every(isClean);
}

function tell(result: TrialResult, progress: string, shownFindings: number): void {
  const { kind, seed, form, verdict, acknowledged, vanished, repairedMs, failures } = result;
  const { lost, doubled, disordered, altered, gaps, findings } = verdict;
  const faults = isClean(result)
    ? 'clean'
    : `LOST ${lost + altered} DOUBLED ${doubled} OUT OF ORDER ${disordered} FAILURES ${failures.length}`;
  const line = `${kind} --seed ${seed} (${form}): ${faults}; ${acknowledged} acknowledged, ${vanished} lost by Redis, ${gaps} gaps, repaired after ${Math.round(repairedMs)} ms`;
  const details = [...failures, ...findings].slice(0, shownFindings).map((text) => `    ${text}\n`);
  process.stderr.write(`${progress} ${line}\n${details.join('')}`);
}

async function main(args: readonly string[]): Promise<number> {
  let options: Options | undefined;
  try {
    options = readOptions(args);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${HELP}`);
    return 2;
  }
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  return (await run(options)) ? 0 : 1;
}

// The first signal ends the run after the trials that are under way. Gateways and Redis servers end with this process,
// however it ends.
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (cutShort) process.exit(1);
    cutShort = true;
    process.stderr.write('Ending after the trials that are under way…\n');
  });
}
process.exit(await main(process.argv.slice(2)));
