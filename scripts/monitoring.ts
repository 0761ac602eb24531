// What is made of monitoring/: the chart's dashboards and its PrometheusRule. Writes them (`npm run docs`), or with
// --check says which are stale. Checks names, too: every metric that is named anywhere exists, every alert has its
// runbook, every runbook its alert, and what a runbook sends to is there.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chartFolder, chartTuning, ruleTemplate, testPlace } from '../monitoring/chart.ts';
import { dashboards } from '../monitoring/dashboards/all.ts';
import { grafanaDashboard } from '../monitoring/grafana.ts';
import { isAlert, ruleGroups } from '../monitoring/rules.ts';
import { createOperatorMetrics } from '../src/operator/metrics.ts';
import { servedMetrics } from '../src/operator/metrics-api.ts';
import { createMetrics } from '../src/platform/metrics.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const checkOnly = process.argv.includes('--check');
const faults: string[] = [];

/** What a runbook answers, in this order. */
const RUNBOOK_PARTS = ['## What it means', '## What to look at', '## What to do'];

/** What looks like a metric and is none: the cookie that may hold a token. */
const NO_METRICS = ['tidegate_token'];

/** Where metrics are named: what people read, and what programs query. */
const NAMED_IN = ['README.md', 'docs', 'charts', 'k8s', 'monitoring', 'loadtest', 'demo', 'e2e'];

/** What a histogram or summary tells beside its own name. */
const SERIES = ['_bucket', '_sum', '_count'];

writeGenerated();
checkRunbooks();
await checkNames();

for (const fault of faults) console.error(`monitoring: ${fault}`);
if (faults.length > 0) process.exitCode = 1;

// ── What is generated ────────────────────────────────────────────────────────────────────────────────────

function writeGenerated(): void {
  const folder = join(chartFolder, 'dashboards');
  const wanted = new Map([[join(chartFolder, 'templates/prometheusrule.yaml'), ruleTemplate()]]);
  for (const dashboard of dashboards) {
    const json = `${JSON.stringify(grafanaDashboard(dashboard), null, 2)}\n`;
    wanted.set(join(folder, `${dashboard.uid}.json`), json);
  }
  mkdirSync(folder, { recursive: true });
  const left = readdirSync(folder).map((name) => join(folder, name));
  for (const file of new Set([...wanted.keys(), ...left])) {
    const text = wanted.get(file);
    if (read(file) === text) continue;
    const name = relative(root, file);
    if (checkOnly) faults.push(`${name} is stale: run \`npm run docs\` and commit what it writes`);
    else if (text === undefined) rmSync(file);
    else writeFileSync(file, text);
    if (!checkOnly) console.log(`${text === undefined ? 'removed' : 'written'}: ${name}`);
  }
}

// ── Runbooks ─────────────────────────────────────────────────────────────────────────────────────────────

function checkRunbooks(): void {
  const rules = ruleGroups(chartTuning(), testPlace).flatMap((group) => group.rules);
  const alerts = new Set(rules.filter(isAlert).map(({ alert }) => alert));
  const folder = join(root, 'docs/runbooks');
  const books = readdirSync(folder).filter((name) => name !== 'README.md');
  for (const alert of alerts) {
    if (!books.includes(`${alert}.md`)) faults.push(`docs/runbooks/${alert}.md is missing`);
  }
  const index = read(join(folder, 'README.md')) ?? '';
  const titles = new Set(
    dashboards.flatMap(({ title, rows }) => [
      title.replace(/^Tidegate \/ /, ''),
      ...rows.flatMap((row) => [row.title, ...row.panels.map((panel) => panel.title)]),
    ]),
  );
  for (const name of books) {
    const alert = name.replace(/\.md$/, '');
    if (!alerts.has(alert)) faults.push(`docs/runbooks/${name} is for no alert`);
    if (!index.includes(`(${name})`)) faults.push(`docs/runbooks/README.md does not lead to ${name}`);
    const text = read(join(folder, name)) ?? '';
    const parts = text.split('\n').filter((line) => line.startsWith('## '));
    if (parts.join() !== RUNBOOK_PARTS.join()) {
      faults.push(`docs/runbooks/${name} has to have the parts ${RUNBOOK_PARTS.join(', ')}`);
    }
    for (const [, shown = ''] of text.matchAll(/(?<!\*)\*([A-Z][^*]*)\*(?!\*)/g)) {
      if (!titles.has(shown.replace(/\s+/g, ' ')))
        faults.push(`docs/runbooks/${name} sends to *${shown}*, which is no dashboard, row or panel`);
    }
  }
  for (const { title, rows } of dashboards) {
    for (const panel of rows.flatMap((row) => row.panels)) {
      if (panel.alert !== undefined && !alerts.has(panel.alert)) {
        faults.push(
          `"${panel.title}" in "${title}" leads to the runbook of ${panel.alert}, which is no alert`,
        );
      }
    }
  }
}

// ── Names of metrics ─────────────────────────────────────────────────────────────────────────────────────

async function checkNames(): Promise<void> {
  // What the autoscaler asks the operator for has names of its own, which no scrape finds.
  const names = new Set<string>(Object.keys(servedMetrics));
  const documented = read(join(root, 'docs/metrics.md')) ?? '';
  for (const { registry } of [createMetrics('check'), createOperatorMetrics('check')]) {
    for (const { name, type } of await registry.getMetricsAsJSON()) {
      names.add(name);
      if (`${type}` === 'histogram') for (const suffix of SERIES) names.add(name + suffix);
      // The runtime's are those of the gateway, once more with the operator's prefix.
      const isOperatorsRuntime = /^tidegate_operator_(process|nodejs)_/.test(name);
      if (!isOperatorsRuntime && !documented.includes(`\`${name}\``))
        faults.push(`${name} is not in docs/metrics.md: run \`npm run docs\``);
    }
  }
  for (const file of NAMED_IN.flatMap(filesIn)) {
    const text = read(file) ?? '';
    const found = new Set(text.match(/(?<![\w/.-])tidegate_[a-z0-9_]+/g));
    for (const name of found) {
      // `tidegate_nodejs_` and such stand for all that begin so.
      const exists = names.has(name) || (name.endsWith('_') && [...names].some((it) => it.startsWith(name)));
      if (!exists && !NO_METRICS.includes(name))
        faults.push(`${relative(root, file)} names ${name}, which is no metric`);
    }
  }
}

function filesIn(path: string): string[] {
  try {
    return readdirSync(join(root, path), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.(md|ts|js|mjs|json|ya?ml|tpl|txt)$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name));
  } catch {
    return read(join(root, path)) === undefined ? [] : [join(root, path)];
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
