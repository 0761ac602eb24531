// Runs the attacks, and writes what they came to into docs/reliability.md, if none has failed.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Figure } from './stage.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const page = join(root, 'docs/reliability.md');
const BEGIN = '<!-- hostile: begin -->';
const END = '<!-- hostile: end -->';

const folder = mkdtempSync(join(tmpdir(), 'tidegate-hostile-'));
const file = join(folder, 'figures');
writeFileSync(file, '');
const vitest = join(root, 'node_modules/vitest/vitest.mjs');
const { status } = spawnSync(process.execPath, [vitest, 'run', 'hostile', ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, HOSTILE_FIGURES: file },
});
const lines = readFileSync(file, 'utf8').trim().split('\n');
rmSync(folder, { recursive: true });
// A part of them is no table.
if (status === 0 && process.argv.length === 2) write(lines.map((line) => JSON.parse(line) as Figure));
process.exitCode = status ?? 1;

function write(figures: readonly Figure[]): void {
  const text = readFileSync(page, 'utf8');
  const [before, after] = [text.split(BEGIN)[0], text.split(END)[1]];
  if (before === undefined || after === undefined) throw new Error(`${page} has no place for the figures`);
  const rows = figures
    .toSorted((one, other) => one.theme.localeCompare(other.theme)) // stable: attacks stay in their order
    .map(({ theme, does, answer, beforeMib, peakMib, afterMib, exchanged }) =>
      [theme, does, answer, mib(beforeMib), mib(peakMib), mib(afterMib), exchanged, 0].join(' | '),
    );
  const heads = ['Theme', 'Attack', 'Answer', 'MiB before', 'at most', 'after', 'Exchanged', '**Disturbed**'];
  const table = [heads.join(' | '), heads.map(() => '---').join(' | '), ...rows].map((row) => `| ${row} |`);
  writeFileSync(page, `${before}${BEGIN}\n\n${table.join('\n')}\n\n${END}${after}`);
}

function mib(value: number): string {
  return value.toFixed(0);
}
