// Tools: what the bench needs beside Node, made ready once; what is missing is said with what to do.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram } from './process.ts';

const here = dirname(fileURLToPath(import.meta.url));
export const root = dirname(here);
export const cache = join(here, '.cache');

// Some dependencies are CommonJS and call `require` for Node's own modules.
const BANNER =
  "--banner:js=import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);";

/** A file that can be run, or undefined and a line in `missing` that says why and what helps. */
export interface Tools {
  readonly loadClient: string | undefined;
  readonly limitServer: string | undefined;
  readonly redisServer: string | undefined;
  /** The gateway to start: its source, unless BENCH_GATEWAY names a bundle. */
  readonly gateway: string | undefined;
  readonly bundle: string | undefined;
  readonly missing: readonly string[];
}

export function prepareTools(): Tools {
  mkdirSync(cache, { recursive: true });
  const missing: string[] = [];
  const limit = compileLimit(missing);
  const redisServer = findProgram('redis-server');
  if (redisServer === undefined) {
    missing.push(
      'redis-server is not installed: no server that uses Redis is measured. Install it: `apt-get install -y redis-server`.',
    );
  }
  const gateway = findGateway(missing);
  const bundle = gateway === undefined ? undefined : bundleGateway(missing);
  return { ...limit, redisServer, gateway, bundle, missing };
}

function compileLimit(missing: string[]): Pick<Tools, 'loadClient' | 'limitServer'> {
  const folder = resolve(root, process.env.LIMIT_DIR ?? '../shared/limit');
  const compiler = process.env.CC ?? findProgram('cc') ?? findProgram('gcc') ?? findProgram('clang');
  const consequence = 'only the rows `start` and `rooms` can be measured, and there is no C server';
  if (!existsSync(join(folder, 'wsload.c'))) {
    missing.push(
      `${folder} has no wsload.c (the load client): ${consequence}. Set LIMIT_DIR to the folder that has it.`,
    );
    return { loadClient: undefined, limitServer: undefined };
  }
  if (compiler === undefined) {
    missing.push(
      `There is no C compiler: ${consequence}. Install one: \`apt-get install -y gcc libc6-dev\`.`,
    );
    return { loadClient: undefined, limitServer: undefined };
  }
  return {
    loadClient: compile(compiler, join(folder, 'wsload.c'), missing),
    limitServer: compile(compiler, join(folder, 'wslimit.c'), missing),
  };
}

function compile(compiler: string, source: string, missing: string[]): string | undefined {
  const target = join(cache, source.endsWith('wsload.c') ? 'wsload' : 'wslimit');
  if (!existsSync(source)) {
    missing.push(`${source} does not exist.`);
    return undefined;
  }
  if (existsSync(target) && statSync(target).mtimeMs > statSync(source).mtimeMs) return target;
  const made = spawnSync(compiler, ['-O2', '-o', target, source], { encoding: 'utf8' });
  if (made.status === 0) return target;
  missing.push(`${source} does not compile: ${firstLine(made.stderr) ?? made.error?.message}`);
  return undefined;
}

function findGateway(missing: string[]): string | undefined {
  const path = resolve(root, process.env.BENCH_GATEWAY ?? 'src/gateway.ts');
  if (existsSync(path)) return path;
  missing.push(`${path} does not exist: tidegate is not measured.`);
  return undefined;
}

/** The gateway as the image has it: one file. BENCH_GATEWAY is taken as one already. */
function bundleGateway(missing: string[]): string | undefined {
  const given = process.env.BENCH_GATEWAY;
  if (given !== undefined) return resolve(root, given);
  const outfile = join(cache, 'dist/gateway.js');
  const made = spawnSync(
    join(root, 'node_modules/.bin/esbuild'),
    [
      join(root, 'src/gateway.ts'),
      `--outfile=${outfile}`,
      ...['--bundle', '--platform=node', '--format=esm', '--log-level=error', BANNER],
    ],
    { encoding: 'utf8' },
  );
  if (made.status === 0) return outfile;
  missing.push(
    `The gateway could not be bundled, so its bundled start is not measured: ${firstLine(made.stderr) ?? made.error?.message}`,
  );
  return undefined;
}

const firstLine = (text: string | null): string | undefined =>
  text?.split('\n').find((line) => line.trim() !== '');
