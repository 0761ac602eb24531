// A fleet: the connections of one virtual user. Many to each, because a virtual user is a JavaScript engine of its
// own: ten with a hundred sockets take 130 MB, a thousand with one take gigabytes.

import exec from 'k6/execution';
import { number } from './settings.ts';

/** Connections that one virtual user holds. */
const perVu = number('PER_VU', { ci: 25, full: 100 });

/** The virtual users that so many connections take, as a scenario that runs once. */
export function fleetScenario(exec: string, connections: number, maxSeconds: number) {
  return {
    executor: 'per-vu-iterations',
    exec,
    vus: Math.max(1, Math.ceil(connections / perVu)),
    iterations: 1,
    maxDuration: `${Math.ceil(maxSeconds)}s`,
    gracefulStop: '5s',
  } as const;
}

/** The numbers of the connections that this virtual user holds, from 0 on over all of them. */
export function mine(connections: number): number[] {
  const vu = exec.scenario.iterationInTest;
  const from = vu * perVu;
  return Array.from({ length: Math.max(0, Math.min(perVu, connections - from)) }, (_, index) => from + index);
}

/** Calls `open` for every number, each at its time when all connections of the run are spread evenly over `seconds`. */
export async function openPaced<T>(
  numbers: readonly number[],
  connections: number,
  startAtMs: number,
  seconds: number,
  open: (number: number) => T,
): Promise<T[]> {
  const all: T[] = [];
  for (const number of numbers) {
    await until(startAtMs + (number / connections) * seconds * 1000);
    all.push(open(number));
  }
  return all;
}

/** Resolves at a time of day. */
export function until(atMs: number): Promise<void> {
  const waitMs = atMs - Date.now();
  return waitMs <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, waitMs));
}

/** Resolves when all do, whatever becomes of them, or at a time of day. */
export async function allOr(promises: readonly Promise<unknown>[], atMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, atMs - Date.now()));
  });
  await Promise.race([Promise.allSettled(promises), late]);
  clearTimeout(timer);
}
