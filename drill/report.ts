// The report: a table of what became of all trials, and its place in docs/reliability.md.

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { KindName } from './kinds.ts';
import { isClean, type TrialResult } from './trial.ts';

const page = fileURLToPath(new URL('../docs/reliability.md', import.meta.url));
const BEGIN = '<!-- drill: begin -->';
const END = '<!-- drill: end -->';

/** The results as Markdown: a row for each kind, then the seeds. */
export function table(results: readonly TrialResult[]): string {
  const byKind = Map.groupBy(results, ({ kind }) => kind);
  const rows = [...byKind].map(([kind, trials]) => row(kind, trials));
  const heads = [
    'Kind',
    'Trials',
    'Acknowledged',
    'Lost by Redis',
    'Gaps told',
    '**Lost without a word**',
    '**Doubled**',
    '**Out of order**',
    'Repaired after: median',
    'at most',
    'Seeds',
  ];
  const lines = [heads, heads.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  const unclean = results.filter((result) => !isClean(result));
  const seeds = unclean.map(({ kind, seed, form }) => `\`${kind}\` ${seed}${form && ` (${form})`}`);
  const verdict = unclean.length === 0 ? 'No trial failed.' : `Trials that failed: ${seeds.join(', ')}.`;
  return `${lines.join('\n')}\n\n${verdict}\n`;
}

function row(kind: KindName, trials: readonly TrialResult[]): string[] {
  const total = (count: (trial: TrialResult) => number) =>
    trials.reduce((sum, trial) => sum + count(trial), 0).toLocaleString('en');
  const repaired = trials.map(({ repairedMs }) => repairedMs).sort((a, b) => a - b);
  const seeds = trials.map(({ seed }) => seed);
  return [
    `\`${kind}\``,
    String(trials.length),
    total(({ acknowledged }) => acknowledged),
    total(({ vanished }) => vanished),
    total(({ verdict }) => verdict.gaps),
    total(({ verdict }) => verdict.lost + verdict.altered),
    total(({ verdict }) => verdict.doubled),
    total(({ verdict }) => verdict.disordered),
    seconds(repaired[Math.floor(repaired.length / 2)] ?? 0),
    seconds(repaired.at(-1) ?? 0),
    `${Math.min(...seeds)} to ${Math.max(...seeds)}`,
  ];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

/** Puts the results on the page. `command` is what was run. */
export function writePage(results: readonly TrialResult[], command: string): void {
  const text = readFileSync(page, 'utf8');
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin === -1 || end === -1) throw new Error(`${page} has no place for the table`);
  const redis = /v=(\S+)/.exec(spawnSync('redis-server', ['--version'], { encoding: 'utf8' }).stdout)?.[1];
  const how = `\`${command}\`, with Redis ${redis} and Node ${process.versions.node}. The seed of a trial is the first of its kind and one more for each.`;
  writeFileSync(page, `${text.slice(0, begin)}${BEGIN}\n\n${how}\n\n${table(results)}\n${text.slice(end)}`);
}
