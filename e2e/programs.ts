// Programs: runs kubectl, helm and others, and says what they said when they fail.

import { spawn } from 'node:child_process';

export interface RunOptions {
  /** What it reads on standard input. */
  readonly input?: string;
  readonly cwd?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** How a program ended. */
export interface Ended {
  readonly code: number;
  /** Standard output and standard error, as they came. */
  readonly output: string;
  readonly stdout: string;
}

/** Runs a program to its end, whichever that is. @throws where there is no such program */
export async function runToEnd(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ended> {
  const { input = '', cwd, env } = options;
  const child = spawn(program, args, { cwd, env: { ...process.env, ...env }, stdio: 'pipe' });
  let output = '';
  let stdout = '';
  const take = (isStdout: boolean) => (chunk: string) => {
    output += chunk;
    if (isStdout) stdout += chunk;
  };
  child.stdout.setEncoding('utf8').on('data', take(true));
  child.stderr.setEncoding('utf8').on('data', take(false));
  child.stdin.on('error', () => {}); // it ended without reading
  child.stdin.end(input);
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve(status ?? 1));
  });
  return { code, output, stdout };
}

/** Runs a program and returns its standard output. @throws with all it said, where it fails */
export async function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, output, stdout } = await runToEnd(program, args, options);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}:\n${output}`);
  return stdout;
}

/** Runs kubectl and returns its standard output. */
export function kubectl(...args: string[]): Promise<string> {
  return run('kubectl', args);
}

/** Creates or updates these objects. */
export async function apply(...objects: readonly object[]): Promise<void> {
  const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
  await run('kubectl', ['apply', '--filename', '-'], { input });
}

/** Whether there is such a program. */
export async function exists(program: string, ...args: string[]): Promise<boolean> {
  try {
    return (await runToEnd(program, args)).code === 0;
  } catch {
    return false;
  }
}
