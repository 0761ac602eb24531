// Processes: starts every server and client on its core, reads what it uses, and ends it by its pid.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Who runs where. The bench itself, Redis and the load client share a core, so that the server has one alone. */
export interface Cores {
  readonly server: number | undefined;
  readonly client: number | undefined;
  /** What to tell the reader when nothing could be pinned. */
  readonly note: string;
}

export interface Launch {
  /** What messages call it. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly core?: number | undefined;
  readonly env?: Readonly<Record<string, string>>;
  /** Gets each full line of stdout. Without it stdout goes to /dev/null, as a log nobody reads would. */
  readonly onLine?: (line: string) => void;
}

/** A started process. `ended` never rejects: it says how the process ended. */
export interface Started {
  readonly name: string;
  readonly pid: number;
  readonly ended: Promise<Ending>;
  isRunning(): boolean;
}

export interface Ending {
  readonly ok: boolean;
  /** Such as "ended with code 2: bind: Address already in use". */
  readonly reason: string;
}

const running = new Map<number, ChildProcess>();
const STDERR_KEPT = 4000;
const TICKS_PER_SECOND = 100;

// The limit on open files is raised as far as it goes, then `exec` keeps the pid, so that what is
// measured and ended is the program and not a shell.
const RAISE_FILES = 'ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"; ';

/** Starts a program with a clean environment, so that no setting of the caller's reaches a server. */
export function start(launch: Launch): Started {
  const pinned = launch.core === undefined ? [] : ['taskset', '-c', String(launch.core)];
  const child = spawn(
    'sh',
    ['-c', `${RAISE_FILES}exec "$@"`, 'sh', ...pinned, launch.command, ...launch.args],
    {
      stdio: ['ignore', launch.onLine ? 'pipe' : 'ignore', 'pipe'],
      env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '/', ...launch.env },
    },
  );
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${launch.name} did not start`);
  running.set(pid, child);

  let complaint = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, STDERR_KEPT);
  });
  if (launch.onLine) readLines(child, launch.onLine);

  const ended = new Promise<Ending>((resolve) => {
    child.on('error', (error) => resolve({ ok: false, reason: error.message }));
    child.on('close', (code, signal) => {
      running.delete(pid);
      const how = signal === null ? `ended with code ${code}` : `ended by ${signal}`;
      resolve({ ok: code === 0, reason: [how, ...gist(complaint)].join(': ') });
    });
  });
  return { name: launch.name, pid, ended, isRunning: () => running.has(pid) };
}

/** The line of a complaint that says most: the error's, without its stack. */
function gist(complaint: string): string[] {
  const lines = complaint.split('\n').filter((line) => line.trim() !== '');
  const line = lines.find((candidate) => /error/i.test(candidate)) ?? lines[0];
  return line === undefined ? [] : [line.trim()];
}

function readLines(child: ChildProcess, onLine: (line: string) => void): void {
  let rest = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
}

/** Ends one process that this run started and waits until it is gone. */
export async function end(started: Started, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  running.get(started.pid)?.kill(signal);
  await started.ended;
}

/** From now on whatever is left ends with this process, without waiting: at an exit, an error or Ctrl-C. */
export function endAllAtExit(): void {
  process.on('exit', () => {
    for (const child of running.values()) child.kill('SIGKILL');
  });
  process.on('SIGINT', () => process.exit(130));
  process.on('SIGTERM', () => process.exit(143));
}

/** The two cores to use, and moves this process to the client's. */
export function chooseCores(): Cores {
  const allowed = allowedCores();
  const [server, client] = allowed;
  if (findProgram('taskset') === undefined) {
    return {
      server: undefined,
      client: undefined,
      note: 'nothing is pinned: `taskset` (util-linux) is missing',
    };
  }
  if (server === undefined || client === undefined) {
    return {
      server: undefined,
      client: undefined,
      note: 'nothing is pinned: this process may use one core only',
    };
  }
  spawnSync('taskset', ['-acp', String(client), String(process.pid)]);
  return {
    server,
    client,
    note: `the server has core ${server} alone; the load client, Redis and the bench share core ${client}`,
  };
}

function allowedCores(): number[] {
  const list = statusField('self', 'Cpus_allowed_list');
  return list.split(',').flatMap((range) => {
    const [first, last] = range.split('-').map(Number);
    if (first === undefined || Number.isNaN(first)) return [];
    return Array.from({ length: (last ?? first) - first + 1 }, (_, index) => first + index);
  });
}

/** CPU seconds that a process has used so far, user and system, all threads. */
export function cpuSeconds(pid: number): number {
  const [user = 0, system = 0] = statTimes(String(pid));
  return user + system;
}

/** CPU seconds that the threads of a process have used so far, to the nanosecond: for who uses little. */
export function threadSeconds(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) =>
    Number.parseInt(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8'), 10),
  );
  return threads.reduce((total, nanoseconds) => total + nanoseconds, 0) / 1e9;
}

/** Seconds: user, system, and the same of the children that have ended. */
function statTimes(pid: string): number[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name in brackets may hold blanks: what follows the last bracket starts with field 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).map((ticks) => Number(ticks) / TICKS_PER_SECOND);
}

/** CPU seconds that this process and all it ever started have used so far. */
export function ownCpuSeconds(): number {
  const ended = statTimes('self').reduce((total, time) => total + time, 0);
  const alive = [...running.keys()].map((pid) => {
    try {
      return cpuSeconds(pid);
    } catch {
      // Just ended: it is in the sum of those that have.
      return 0;
    }
  });
  return alive.reduce((total, time) => total + time, ended);
}

/** CPU seconds that all processes of the machine have used so far, and what its host withheld from it. */
export function machineCpuSeconds(): number {
  const [, user, nice, system, , , , softirq, steal] = readFileSync('/proc/stat', 'utf8')
    .split(/\s+/)
    .map(Number);
  return ((user ?? 0) + (nice ?? 0) + (system ?? 0) + (softirq ?? 0) + (steal ?? 0)) / TICKS_PER_SECOND;
}

/** Resident memory of a process in KiB. */
export function rssKib(pid: number): number {
  return Number.parseInt(statusField(String(pid), 'VmRSS'), 10);
}

function statusField(pid: string, field: string): string {
  const line = readFileSync(`/proc/${pid}/status`, 'utf8')
    .split('\n')
    .find((candidate) => candidate.startsWith(`${field}:`));
  return line?.slice(field.length + 1).trim() ?? '';
}

/** How many files a process started here may open. */
export async function openFilesLimit(): Promise<number> {
  let limit = 0;
  const probe = start({
    name: 'ulimit',
    command: 'sh',
    args: ['-c', 'ulimit -n'],
    onLine: (line) => {
      limit = line === 'unlimited' ? Number.POSITIVE_INFINITY : Number(line);
    },
  });
  await probe.ended;
  return limit;
}

/** Full path of a program on PATH. */
export function findProgram(name: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
