// Waiting: until a moment, a port or an HTTP answer is there.

import { get } from 'node:http';
import { connect } from 'node:net';
import type { Started } from './process.ts';

const POLL_MS = 2;

/** Resolves when the time is over. */
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks every 2 ms. @throws {Error} when the process ends first or the time is over. */
export async function waitUntil(
  started: Started,
  isReady: () => Promise<boolean>,
  limitMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await isReady())) {
    if (!started.isRunning()) throw new Error(`${started.name} ${(await started.ended).reason}`);
    if (performance.now() > deadline) throw new Error(`${started.name} was not ready within ${limitMs} ms`);
    await sleep(POLL_MS);
  }
}

/** Whether something accepts TCP connections at the port. */
export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => resolve(false));
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}

/** Whether a GET is answered with 200. */
export function answersOk(port: number, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on('error', () => resolve(false));
  });
}
