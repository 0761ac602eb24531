// A watchdog: ends what this process has started, however this process ends.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Watches over one process, and a folder if there is one. */
export interface Watchdog {
  /** The process to kill, in the place of the last one; undefined: there is none any more. */
  watch(pid: number | undefined): void;
  /** Kills and removes now. */
  end(): Promise<void>;
}

/** Starts a shell that waits for its input to end, which it does however this process ends, also by SIGKILL: then it
 * kills the process that it was last told of, and removes the folder. */
export function startWatchdog(folder = ''): Watchdog {
  const script = `
    trap '' INT TERM HUP
    while read -r line; do pid=$line; done
    [ -z "$pid" ] || kill -9 "$pid"
    [ -z "$1" ] || rm -rf "$1"`;
  const shell = spawn('sh', ['-c', script, 'watchdog', folder], {
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
  });
  return {
    watch: (pid) => void shell.stdin.write(`${pid ?? ''}\n`),
    async end() {
      const ended = once(shell, 'exit');
      shell.stdin.end();
      await ended;
    },
  };
}
