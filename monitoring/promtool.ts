// promtool: runs the rules over series that a test makes up, in no time.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { chartTuning, rulesFile, testPlace } from './chart.ts';
import { type Place, ruleGroups } from './rules.ts';

/** Whether it is installed. It comes with Prometheus. */
export const hasPromtool = spawnSync('promtool', ['--version']).status === 0;

/** For the names of tests: why they do not run. */
export const withPromtool = hasPromtool ? '' : ' (skipped: promtool is not installed)';

/** A series: its name and labels, and a value for each step, or undefined where it is not there. */
export interface Series {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly values: readonly (number | undefined)[];
}

/** What an expression gives at a time. */
export interface Expectation {
  readonly minute: number;
  readonly expr: string;
  readonly value: number;
}

/** The alert fires so many times at that minute. */
export function firing(alert: string, minute: number, times = 1, labels = ''): Expectation {
  const selector = `alertname="${alert}",alertstate="firing"${labels && `,${labels}`}`;
  return { minute, expr: `count(ALERTS{${selector}}) or vector(0)`, value: times };
}

/** Nothing fires at that minute. */
export function nothingFires(minute: number): Expectation {
  return { minute, expr: 'count(ALERTS{alertstate="firing"}) or vector(0)', value: 0 };
}

/** How a test runs, where it is not as usual. */
export interface RunOptions {
  readonly place?: Place;
  /** How often the rules are evaluated: rarely, where days are to pass in no time. */
  readonly everyMinutes?: number;
  /** A group of rules that has no part in it, and would take most of the time. */
  readonly without?: string;
}

/** Runs the rules over the series, one step after the other. Returns what promtool found wrong; empty: nothing. */
export function runPromtool(
  stepSeconds: number,
  series: readonly Series[],
  expectations: readonly Expectation[],
  { place = testPlace, everyMinutes = 1, without }: RunOptions = {},
): string {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-promtool-'));
  try {
    const groups = ruleGroups(chartTuning(), place).filter(({ name }) => name !== without);
    writeFileSync(join(folder, 'rules.yaml'), rulesFile(groups));
    const test = {
      rule_files: ['rules.yaml'],
      evaluation_interval: `${everyMinutes}m`,
      tests: [
        {
          interval: `${stepSeconds}s`,
          input_series: series.map(({ name, labels, values }) => ({
            series: `${name}{${labelsText(labels)}}`,
            values: valuesText(values),
          })),
          promql_expr_test: expectations.map(({ minute, expr, value }) => ({
            expr,
            eval_time: `${minute}m`,
            exp_samples: [{ labels: '{}', value }],
          })),
        },
      ],
    };
    writeFileSync(join(folder, 'test.yaml'), stringify(test, { lineWidth: 0 }));
    const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', 'test.yaml'], {
      cwd: folder,
      encoding: 'utf8',
    });
    return status === 0 ? '' : `${stdout}${stderr}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function labelsText(labels: Readonly<Record<string, string>> = {}): string {
  const all = { namespace: 'chat', pod: 'tidegate-7d9f8c6b5-aaaaa', ...labels };
  return Object.entries(all)
    .map(([name, value]) => `${name}="${value}"`)
    .join(',');
}

/** As promtool reads them. A target that is gone leaves a stale mark behind, as a scrape does. */
function valuesText(values: readonly (number | undefined)[]): string {
  const parts: string[] = [];
  for (const [at, value] of values.entries()) {
    if (value !== undefined) parts.push(String(value));
    else parts.push(at > 0 && values[at - 1] !== undefined ? 'stale' : '_');
  }
  return parts.join(' ');
}
