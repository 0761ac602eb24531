// Real Prometheus servers for tests.

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, renameSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { freePort } from './ports.ts';
import { until } from './until.ts';
import { startWatchdog } from './watchdog.ts';

/** Whether it is installed. `npm test` brings it where it may. */
export const hasPrometheus = spawnSync('prometheus', ['--version']).status === 0;

/** For the names of tests: why they do not run. */
export const withPrometheus = hasPrometheus ? '' : ' (skipped: prometheus is not installed)';

/** A gateway that is scraped, and what it is called in its cluster. */
export interface Target {
  /** `http://127.0.0.1:PORT` of its admin listener. */
  readonly adminUrl: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A series of an answer. */
export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A line of an answer over time: seconds since 1970, and values. */
export interface Line {
  readonly metric: Readonly<Record<string, string>>;
  readonly points: readonly (readonly [number, number])[];
}

/** A single value, when it was observed (seconds since 1970), and the trace it is from. */
export interface Exemplar {
  readonly at: number;
  readonly value: number;
  readonly traceId: string;
}

export interface TestPrometheus {
  readonly url: string;
  /** Scrapes these from now on, and no others. */
  scrape(targets: readonly Target[]): void;
  /** @throws where the expression is not valid. */
  query(expr: string): Promise<Sample[]>;
  /** The same for each step of the last so many seconds. */
  queryRange(expr: string, seconds: number, stepSeconds: number): Promise<Line[]>;
  /** Examples that are attached to what an expression selects, of the last hour. */
  exemplars(expr: string): Promise<Exemplar[]>;
  /** Names of alerts that fire. */
  firing(): Promise<string[]>;
  /** What went wrong when rules were evaluated. */
  ruleErrors(): Promise<string[]>;
  stop(): Promise<void>;
}

/** Starts a Prometheus that scrapes and evaluates every two seconds, which is also how long a scrape may take. `rules` is a rules file. */
export async function startPrometheus(rules: string): Promise<TestPrometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-prometheus-'));
  const port = await freePort();
  const targetsFile = join(folder, 'targets.json');
  const config = {
    global: { scrape_interval: '2s', evaluation_interval: '2s' },
    rule_files: ['rules.yaml'],
    scrape_configs: [
      { job_name: 'tidegate', file_sd_configs: [{ files: [targetsFile], refresh_interval: '1s' }] },
    ],
  };
  writeFileSync(targetsFile, '[]');
  writeFileSync(join(folder, 'rules.yaml'), rules);
  writeFileSync(join(folder, 'prometheus.yaml'), stringify(config));
  const child = spawn(
    'prometheus',
    [
      `--config.file=${join(folder, 'prometheus.yaml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--enable-feature=exemplar-storage',
      '--log.level=error',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let complaints = '';
  child.stderr.on('data', (text: Buffer) => {
    complaints += text.toString();
  });
  const watchdog = startWatchdog(folder);
  watchdog.watch(child.pid);
  const url = `http://127.0.0.1:${port}`;

  async function api(path: string, parameters: Record<string, string> = {}): Promise<unknown> {
    const response = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const body = (await response.json()) as { status: string; error?: string; data: unknown };
    if (body.status !== 'success') throw new Error(`${body.error}\nin: ${parameters.query ?? path}`);
    return body.data;
  }

  await until(async () => child.exitCode !== null || (await fetch(`${url}/-/ready`)).ok, {
    what: 'Prometheus to be ready',
  });
  if (child.exitCode !== null) throw new Error(`Prometheus ended:\n${complaints}`);

  return {
    url,
    scrape(targets) {
      const groups = targets.map(({ adminUrl, labels }) => ({ targets: [new URL(adminUrl).host], labels }));
      // In one go, or it would read half of them.
      writeFileSync(`${targetsFile}.new`, JSON.stringify(groups));
      renameSync(`${targetsFile}.new`, targetsFile);
    },
    async query(expr) {
      type Result = { metric: Record<string, string>; value: [number, string] };
      const { result } = (await api('query', { query: expr })) as { result: Result[] };
      return result.map(({ metric, value }) => ({ metric, value: Number(value[1]) }));
    },
    async queryRange(expr, seconds, stepSeconds) {
      type Result = { metric: Record<string, string>; values: [number, string][] };
      const end = Date.now() / 1000;
      const times = { start: String(end - seconds), end: String(end), step: String(stepSeconds) };
      const { result } = (await api('query_range', { query: expr, ...times })) as { result: Result[] };
      return result.map(({ metric, values }) => ({
        metric,
        points: values.map(([at, value]) => [at, Number(value)] as const),
      }));
    },
    async exemplars(expr) {
      type Found = { labels: Record<string, string>; value: string; timestamp: number };
      const now = Date.now() / 1000;
      const times = { start: String(now - 3600), end: String(now) };
      const found = (await api('query_exemplars', { query: expr, ...times })) as { exemplars: Found[] }[];
      return found.flatMap(({ exemplars }) =>
        exemplars.map(({ labels, value, timestamp }) => ({
          at: timestamp,
          value: Number(value),
          traceId: labels.trace_id ?? '',
        })),
      );
    },
    async firing() {
      type Alert = { labels: { alertname: string }; state: string };
      const { alerts } = (await api('alerts')) as { alerts: Alert[] };
      return alerts.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname);
    },
    async ruleErrors() {
      type Rule = { name: string; lastError?: string };
      const { groups } = (await api('rules')) as { groups: { rules: Rule[] }[] };
      return groups.flatMap(({ rules }) =>
        rules.flatMap(({ name, lastError }) => (lastError ? [`${name}: ${lastError}`] : [])),
      );
    },
    async stop() {
      await watchdog.end();
    },
  };
}

/** The parts of an expression that select series, as `up{job="x"}`. */
export function selectorsOf(expr: string): string[] {
  return [...expr.matchAll(/[a-z_:][a-zA-Z0-9_:]*\{(?:[^"}]|"[^"]*")*\}/g)].map(([selector]) => selector);
}
