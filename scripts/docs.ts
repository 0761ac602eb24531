// The generated docs: writes what repeats the code (`npm run docs`), or with --check says which files are stale, which
// links lead nowhere and which names are of nothing.
// Text between `<!-- generated: NAME -->` and `<!-- end of NAME -->` in docs/*.md is this script's, all else is
// written by hand; docs/openapi.json is what a running gateway serves, loadtest/lib/client.js the client for k6.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Registry } from '@prometheus-io/client';
import { z } from 'zod';
import { type Constant, choices, constants, type ThreadCost } from '../capacity/constants.ts';
import { planFor } from '../capacity/model.ts';
import { startGateway } from '../src/gateway.ts';
import { conditionTypes, reasons } from '../src/operator/conditions.ts';
import { eventReasons } from '../src/operator/decision.ts';
import { createOperatorMetrics } from '../src/operator/metrics.ts';
import { servedMetrics } from '../src/operator/metrics-api.ts';
import { specSchema } from '../src/operator/policy.ts';
import { defaultText, operatorSettings, readConfig, type Setting, settings } from '../src/platform/config.ts';
import { createLog } from '../src/platform/logs.ts';
import { createMetrics, labelValues } from '../src/platform/metrics.ts';
import { type Close, closes } from '../src/protocol/close.ts';
import { type ErrorKind, errorKinds } from '../src/protocol/errors.ts';
import { bundleForK6 } from './client.ts';
import { brokenLinks } from './links.ts';
import { unknownNames } from './names.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What can stand between markers, by name. */
const parts: Readonly<Record<string, () => string | undefined | Promise<string>>> = {
  settings: settingsTables,
  'close codes': closeCodesTable,
  'error codes': errorCodesTable,
  metrics: () => metricsTable(createMetrics('docs').registry),
  'operator metrics': () => metricsTable(createOperatorMetrics('docs').registry),
  // Other platforms lack some of them: there the page stays as it is.
  'runtime metrics': () =>
    process.platform === 'linux' ? metricsTable(createMetrics('docs').registry, true) : undefined,
  'label values': labelValuesTable,
  'capacity constants': capacityConstants,
  'capacity plans': capacityPlans,
  'operator settings': () => settingsTable(operatorSettings),
  'policy fields': policyFieldsTable,
  conditions: conditionsTable,
  'condition reasons': () => meanings('Reason', reasons),
  'policy events': () => meanings('Event', eventReasons),
  'served metrics': () => meanings('Metric', servedMetrics),
};

const checkOnly = process.argv.includes('--check');
const stale: string[] = [];
for (const [path, text] of await makeAll()) {
  if (read(path) === text) continue;
  stale.push(path);
  if (!checkOnly) writeFileSync(join(root, path), text);
}
if (stale.length > 0) console.log(`${checkOnly ? 'stale' : 'written'}: ${stale.join(', ')}`);
if (checkOnly && stale.length > 0) {
  console.error('Run `npm run docs` and commit what it writes.');
  process.exitCode = 1;
}
const broken = checkOnly ? brokenLinks(root) : [];
if (broken.length > 0) {
  console.error(`links that lead nowhere:\n${broken.join('\n')}`);
  process.exitCode = 1;
}
const unknown = checkOnly ? unknownNames(root) : [];
if (unknown.length > 0) {
  console.error(`names of settings, values or scripts that do not exist:\n${unknown.join('\n')}`);
  process.exitCode = 1;
}

/** Every file that has a generated part, as it should be. @throws where a part has no place, or a place no part. */
async function makeAll(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const placed = new Set<string>();
  const pages = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'));
  for (const path of pages.map((name) => `docs/${name}`)) {
    let text = read(path) ?? '';
    for (const [, name = ''] of text.matchAll(/^<!-- generated: (.+) -->$/gm)) {
      text = fill(path, text, name, await partOf(path, name));
      placed.add(name);
    }
    files.set(path, text);
  }
  const lost = Object.keys(parts).filter((name) => !placed.has(name));
  if (lost.length > 0) throw new Error(`no page of docs/ has markers for: ${lost.join(', ')}`);
  files.set('docs/openapi.json', await openApi());
  files.set('loadtest/lib/client.js', await bundleForK6());
  return files;
}

function partOf(path: string, name: string): string | undefined | Promise<string> {
  const make = parts[name];
  if (make === undefined) throw new Error(`${path} asks for "${name}", which nothing generates`);
  return make();
}

function fill(path: string, text: string, name: string, part: string | undefined): string {
  const [start, end] = [`<!-- generated: ${name} -->\n`, `<!-- end of ${name} -->`];
  const from = text.indexOf(start) + start.length;
  const to = text.indexOf(end, from);
  if (to === -1) throw new Error(`${path} lacks the marker ${end}`);
  return part === undefined ? text : `${text.slice(0, from)}\n${part}\n${text.slice(to)}`;
}

function capacityConstants(): string {
  const rows = Object.values({ ...constants, ...choices } as Record<string, Constant | ThreadCost>);
  return table(
    ['Constant', 'Value', 'Busy', 'From'],
    rows.map((row) => {
      const { meaning, unit, source } = row;
      const text = (value: number) => `${value.toLocaleString('en')} ${unit}`.trim();
      const busy = 'busy' in row ? text(row.busy) : '';
      return [`${meaning[0]?.toUpperCase()}${meaning.slice(1)}`, text(row.value), busy, source];
    }),
  );
}

/** What three sizes take, for three kinds of applications. */
function capacityPlans(): string {
  const kinds = [
    { kind: 'Rooms of 10, a message a minute each', recipients: 10, publishesPer: 1 / 60, durable: 0 },
    { kind: 'The same, durable', recipients: 10, publishesPer: 1 / 60, durable: 1 },
    {
      kind: 'News to everybody, one in 10 s',
      recipients: Number.POSITIVE_INFINITY,
      publishesPer: 0,
      durable: 0,
    },
  ];
  const rows = kinds.flatMap(({ kind, recipients, publishesPer, durable }) =>
    [10_000, 100_000, 1_000_000].map((connections) => {
      const plan = planFor({
        connections,
        publishesPerSecond: publishesPer === 0 ? 0.1 : connections * publishesPer,
        recipients: Math.min(recipients, connections),
        messageBytes: 200,
        durableShare: durable,
      });
      const [first] = plan.nearest;
      return [
        kind,
        connections.toLocaleString('en'),
        Math.round(plan.deliveriesPerSecond).toLocaleString('en'),
        String(plan.pods),
        plan.sweepMs.toFixed(1),
        `${Math.round(plan.podLoad * 100)} %`,
        plan.podCpuCores.toFixed(2),
        `${plan.podMemoryMib.toLocaleString('en')} MiB`,
        String(plan.redisMasters),
        `${(plan.redisLoadPerMaster * 100).toFixed(1)} %`,
        plan.redisCpuCoresPerMaster.toFixed(2),
        `${first?.limit} (${Math.round((first?.share ?? 0) * 100)} %)`,
      ];
    }),
  );
  const heads = [
    'Application',
    'Connections',
    'Deliveries/s',
    'Pods',
    'Sweep, ms',
    'Load',
    'Cores a pod',
    'Memory a pod',
  ];
  return table([...heads, 'Redis', 'Load', 'Cores', 'Breaks first'], rows);
}

function settingsTables(): string {
  const byGroup = Map.groupBy(
    Object.entries(settings) as [string, Setting][],
    ([, setting]) => setting.group,
  );
  const tables = [...byGroup].map(
    ([group, rows]) => `### ${group}\n\n${settingsTable(Object.fromEntries(rows))}`,
  );
  return tables.join('\n');
}

function settingsTable(rows: object): string {
  const cells = (Object.entries(rows) as [string, Setting][]).map(([name, setting]) => [
    `\`${name}\``,
    setting.defaultText === undefined && setting.default !== undefined
      ? `\`${defaultText(setting)}\``
      : defaultText(setting),
    setting.kind.allowed,
    setting.help,
  ]);
  return table(['Name', 'Default', 'Allowed', 'What it does'], cells);
}

/** Words with what each means. */
function meanings(title: string, words: Readonly<Record<string, string>>): string {
  return table(
    [title, 'Meaning'],
    Object.entries(words).map(([word, meaning]) => [`\`${word}\``, meaning]),
  );
}

function conditionsTable(): string {
  return table(
    ['Condition', 'True', 'False', 'Unknown'],
    Object.entries(conditionTypes).map(([type, it]) => [`\`${type}\``, it.true, it.false, it.unknown]),
  );
}

/** A JSON schema, as far as the table reads it. */
interface Schema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
}

function policyFieldsTable(): string {
  const rows: string[][] = [];
  const walk = (schema: Schema, path: string) => {
    for (const [key, child] of Object.entries(schema.properties ?? {})) {
      const name = `${path}${key}`;
      const isGroup = child.properties !== undefined;
      const fallback = child.default === undefined || isGroup ? '' : `\`${JSON.stringify(child.default)}\``;
      rows.push([`\`${name}\``, isGroup ? '' : allowedOf(child), fallback, child.description ?? '']);
      walk(child, `${name}.`);
    }
  };
  walk(z.toJSONSchema(specSchema, { io: 'input' }) as Schema, '');
  return table(['Field', 'Allowed', 'Default', 'What it does'], rows);
}

function allowedOf({ type = '', enum: words, const: only, minimum, maximum }: Schema): string {
  if (only !== undefined) return `\`${only}\``;
  if (words !== undefined) return words.map((word) => `\`${word}\``).join(', ');
  return minimum === undefined ? type : `${type}, ${minimum} to ${maximum}`;
}

function closeCodesTable(): string {
  const rows = (Object.values(closes) as Close[]).sort((one, other) => one.code - other.code);
  return table(
    ['Code', 'Reason', 'What a client must do', 'Why'],
    rows.map(({ code, reason, action, help }) => [String(code), reason, `**${action}**`, help]),
  );
}

function errorCodesTable(): string {
  return table(
    ['Code', 'Retryable', 'HTTP status', 'Meaning'],
    (Object.entries(errorKinds) as [string, ErrorKind][]).map(([code, { retryable, status, help }]) => [
      `\`${code}\``,
      retryable ? 'yes' : 'no',
      String(status),
      help,
    ]),
  );
}

/** The metrics of a registry: its own, or those that the library has of the process and of Node. */
async function metricsTable(registry: Registry, ofRuntime = false): Promise<string> {
  const described = await registry.getMetricsAsJSON();
  return table(
    ['Name', 'Type', 'Unit', 'Labels', 'Meaning'],
    described
      .filter(({ name }) => /^tidegate_(operator_)?(process|nodejs)_/.test(name) === ofRuntime)
      .map(({ name, type, help }) => {
        const labels = labelsOf(registry.getSingleMetric(name)).map((label) => `\`${label}\``);
        return [`\`${name}\``, String(type), unitOf(name), labels.join(', '), help.replace(/\.?$/, '.')];
      }),
  );
}

/** The unit, which Prometheus wants in the name. */
function unitOf(name: string): string {
  const base = name.replace(/_total$/, '');
  if (/_seconds$/.test(base)) return 'seconds';
  if (/_bytes$/.test(base)) return 'bytes';
  if (/_utilization_/.test(base)) return 'share of time';
  if (/_ratio$/.test(base)) return 'ratio';
  return /_(ready|up|leader)$/.test(base) ? '0 or 1' : 'count';
}

function labelValuesTable(): string {
  const metrics = createMetrics('docs');
  const rows = Object.entries(labelValues).map(([key, labels]) => {
    const [[label, values] = ['', []]] = Object.entries<readonly string[]>(labels);
    const { name } = metrics[key as keyof typeof labelValues] as unknown as { name: string };
    return [`\`${name}\``, `\`${label}\``, values.map((value) => `\`${value}\``).join(', ')];
  });
  return table(['Metric', 'Label', 'Values'], rows);
}

/** A metric knows its labels, but the library's types do not say so. */
function labelsOf(metric: object | undefined): string[] {
  const labels = metric !== undefined && 'labelNames' in metric ? metric.labelNames : [];
  return Array.isArray(labels) ? labels.map(String) : [];
}

/** The description of the HTTP API as a gateway serves it: a real one, on free ports and the memory bus. */
async function openApi(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-docs-'));
  try {
    const keys = join(folder, 'api-keys');
    writeFileSync(keys, 'docs\n');
    const ports = { HOST: '127.0.0.1', PORT: '0', API_PORT: '0', ADMIN_PORT: '0' };
    const config = readConfig({ ...ports, AUTH: 'anonymous', API_KEYS_FILE: keys, DRAIN_SECONDS: '0' });
    const gateway = await startGateway(config, createLog('silent', 'docs').log);
    try {
      const response = await fetch(`http://127.0.0.1:${gateway.ports.api}/v1/openapi.json`);
      if (!response.ok) throw new Error(`${response.url} answered ${response.status}`);
      return `${JSON.stringify(await response.json(), null, 2)}\n`;
    } finally {
      await gateway.stop();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`;
  return [header, header.map(() => '---'), ...rows].map(line).join('');
}

function read(path: string): string | undefined {
  try {
    return readFileSync(join(root, path), 'utf8');
  } catch {
    return undefined;
  }
}
