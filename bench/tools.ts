// Tools: what the bench needs beside Node, made ready once; what is missing is said with what to do.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundle } from '../scripts/bundle.ts';
import { findProgram } from './process.ts';

const here = dirname(fileURLToPath(import.meta.url));
export const root = dirname(here);
export const cache = join(here, '.cache');

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

/** Makes ready what there is. */
export async function prepareTools(): Promise<Tools> {
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
  const bundled = gateway === undefined ? undefined : await bundleGateway(missing);
  return { ...limit, redisServer, gateway, bundle: bundled, missing };
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

/** The gateway as the image has it. BENCH_GATEWAY is taken as one already. */
async function bundleGateway(missing: string[]): Promise<string | undefined> {
  const given = process.env.BENCH_GATEWAY;
  if (given !== undefined) return resolve(root, given);
  const folder = join(cache, 'dist');
  try {
    await bundle(folder);
    return join(folder, 'gateway.js');
  } catch (error) {
    missing.push(
      `The gateway could not be bundled, so its bundled start is not measured: ${firstLine(String(error))}`,
    );
    return undefined;
  }
}

const firstLine = (text: string | null): string | undefined =>
  text?.split('\n').find((line) => line.trim() !== '');
