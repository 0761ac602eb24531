// npm itself, as the scripts run it.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const cwd = fileURLToPath(new URL('..', import.meta.url));

/** Runs npm in the project's root, the same one where npm runs this. */
export function npm(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const path = process.env.npm_execpath;
  const [program, first] = path?.endsWith('.js') ? [process.execPath, [path]] : ['npm', []];
  const { status, stdout, stderr } = spawnSync(program, [...first, ...args], {
    cwd,
    encoding: 'utf8',
    maxBuffer: 64 * 1_048_576,
    timeout: 120_000,
  });
  return { status, stdout: stdout ?? '', stderr: stderr ?? '' };
}
