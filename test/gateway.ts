// Gateways for tests: real processes on free ports, started as a user would start them.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { until } from './until.ts';
import { startWatchdog } from './watchdog.ts';

const entry = fileURLToPath(new URL('../src/gateway.ts', import.meta.url));

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A line of the gateway's log. */
export type LogLine = Record<string, unknown> & { msg?: string; level?: number };

/** A gateway process under test. */
export interface TestGateway {
  readonly process: ChildProcess;
  readonly ports: { readonly ws: number; readonly api: number; readonly admin: number };
  /** `ws://127.0.0.1:PORT` */
  readonly url: string;
  readonly apiUrl: string;
  readonly adminUrl: string;
  /** Everything it has logged so far, parsed. */
  readonly log: LogLine[];
  /** Everything it has written to standard output and standard error so far. */
  output(): string;
  /** Sends a signal (SIGTERM unless given), and resolves with the exit code when it has ended. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
  /** The value of a metric, summed over the labels that are not given; 0 where it does not exist. */
  metric(name: string, labels?: Record<string, string>): Promise<number>;
}

/** What every gateway under test is given unless the test says otherwise: ports of its own, no limits on rates, a
 * drain that a test need not wait for, and time for handshakes on a machine that is busy. */
export const gatewayDefaults = {
  AUTH: 'anonymous',
  HOST: '127.0.0.1',
  PORT: '0',
  API_PORT: '0',
  ADMIN_PORT: '0',
  MESSAGE_RATE: '0',
  UPGRADE_RATE: '0',
  DRAIN_SECONDS: '0',
  HANDSHAKE_TIMEOUT_SECONDS: '60',
};

/** Starts a gateway with these settings and resolves when it is ready. A setting of '' is unset.
 * @throws {Error} with its output where it ends instead. */
export async function startGateway(env: Record<string, string> = {}): Promise<TestGateway> {
  const { process: child, log, output } = spawnGateway({ ...gatewayDefaults, ...env });
  const isReady = () => log.find((line) => line.msg === 'ready');
  await until(() => isReady() ?? (child.exitCode !== null || child.signalCode !== null), {
    what: 'the gateway to be ready',
  });
  const ready = isReady();
  if (ready === undefined) throw new Error(`the gateway ended: ${output()}`);
  const ports = ready.ports as TestGateway['ports'];
  const adminUrl = `http://127.0.0.1:${ports.admin}`;
  return {
    process: child,
    ports,
    url: `ws://127.0.0.1:${ports.ws}`,
    apiUrl: `http://127.0.0.1:${ports.api}`,
    adminUrl,
    log,
    output,
    async stop(signal = 'SIGTERM') {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill(signal);
        await once(child, 'exit');
      }
      return child.exitCode;
    },
    metric: (name, labels) => readMetric(adminUrl, name, labels),
  };
}

/** The value of a metric at an admin listener, summed over the labels that are not given; 0 where it does not exist. */
export async function readMetric(
  adminUrl: string,
  name: string,
  labels: Record<string, string> = {},
): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const wanted = lines.filter((line) =>
    Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)),
  );
  return wanted.reduce(
    (sum, line) => sum + Number(line.slice(line.lastIndexOf(' ')).replace('Inf', 'Infinity')),
    0,
  );
}

/** Spawns a gateway with just these settings (and the PATH), without waiting for it: for tests of its start. */
export function spawnGateway(env: Record<string, string>, args: readonly string[] = []) {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const watchdog = startWatchdog();
  watchdog.watch(child.pid);
  child.once('exit', () => {
    running.delete(child);
    // Another process may soon have its number.
    watchdog.watch(undefined);
    void watchdog.end();
  });
  const log: LogLine[] = [];
  let stdout = '';
  let stderr = '';
  let partial = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    const lines = (partial + text).split('\n');
    partial = lines.pop() ?? '';
    for (const line of lines) {
      try {
        log.push(JSON.parse(line) as LogLine);
      } catch {
        // Not a log line, as with --help.
      }
    }
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return { process: child, log, output: () => stdout + stderr, stdout: () => stdout, stderr: () => stderr };
}
