// The memory of a process, as the kernel counts it.

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

export const MIB = 1_048_576;

const SAMPLE_MS = 50;

/** Resident bytes of a process. */
export async function residentBytes(pid: number): Promise<number> {
  if (process.platform === 'linux') {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
  }
  const { stdout } = await promisify(execFile)('ps', ['-o', 'rss=', '-p', String(pid)]);
  return Number(stdout) * 1024;
}

/** Looks at a process again and again, until it is stopped, and keeps the most that it saw. */
export function watchMemory(pid: number): { readonly peakBytes: number; stop(): Promise<void> } {
  let peakBytes = 0;
  const stopping = new AbortController();
  const watching = (async () => {
    while (!stopping.signal.aborted) {
      peakBytes = Math.max(peakBytes, await residentBytes(pid));
      await delay(SAMPLE_MS, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();
  return {
    get peakBytes() {
      return peakBytes;
    },
    async stop() {
      stopping.abort();
      await watching;
    },
  };
}
