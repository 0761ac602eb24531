// The chart's checks, and its README: every value documented, used, and in the schema; every setting of the gateway
// reachable; and, where helm is installed, lint, unit tests, a render as a subchart, and stable checksums.
// Writes what repeats values.yaml into README.md, or with --check says that it is stale.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { type Setting, settings } from '../src/platform/config.ts';
import { isRecord } from '../src/platform/records.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const chart = join(root, 'charts/tidegate');
const checkOnly = process.argv.includes('--check');

/** The Kubernetes that is rendered for: without a cluster, a helm takes the one that it was built for. */
const KUBE_VERSION = ['--kube-version', '1.35.0'];

/** Settings that are no value, and why. */
const UNSET: Readonly<Record<string, string>> = {
  PORT: 'the Service has the port that clients see',
  API_PORT: 'as PORT',
  ADMIN_PORT: 'as PORT',
  HOST: 'every address of the pod',
  CHANNELS: 'CHANNELS_FILE',
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'tracing.endpoint',
  OTEL_EXPORTER_OTLP_TRACES_HEADERS: 'tracing.headersSecret',
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'tracing.protocol',
  OTEL_TRACES_SAMPLER: 'tracing.ratio 0 and 1 are none and all',
  OTEL_TRACES_EXPORTER: 'tracing.endpoint',
  OTEL_SDK_DISABLED: 'tracing.endpoint',
  OTEL_BSP_MAX_QUEUE_SIZE: 'for extraEnv',
  OTEL_BSP_MAX_EXPORT_BATCH_SIZE: 'for extraEnv',
  OTEL_BSP_SCHEDULE_DELAY: 'for extraEnv',
  OTEL_BSP_EXPORT_TIMEOUT: 'for extraEnv',
};

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A value as values.yaml documents it. */
interface Value {
  /** As `redis.image.tag`. */
  readonly path: string;
  readonly text: string;
  readonly fallback: Json | undefined;
}

/** The root of what a template is given. */
const ROOT = Symbol('root');

/** Where a dot stands: a path of values, the root, or undefined where that cannot be told. */
type Place = readonly string[] | typeof ROOT | undefined;

const faults: string[] = [];
const fault = (text: string) => void faults.push(text);

const valuesText = readFileSync(join(chart, 'values.yaml'), 'utf8');
const defaults = parse(valuesText) as Json;
const values = documentedValues();
const templates = readTemplates();

checkSchema();
checkUse();
checkSettings();
checkVersion();
writeReadme();
runHelm();

for (const text of faults) console.error(`chart: ${text}`);
if (faults.length > 0) process.exitCode = 1;

// ── values.yaml ──────────────────────────────────────────────────────────────────────────────────────────

/** The keys with a comment, in order. A key without one has to be a group of keys that have one. */
function documentedValues(): Value[] {
  const found: Value[] = [];
  const groups: string[] = [];
  let comment: string[] = [];
  let parents: { key: string; indent: number; documented: boolean }[] = [];
  for (const line of valuesText.split('\n')) {
    const [, indentText = '', rest = ''] = /^( *)(.*)$/.exec(line) ?? [];
    if (rest.startsWith('#')) comment.push(rest.replace(/^# ?/, ''));
    const key = /^([A-Za-z][A-Za-z0-9]*):/.exec(rest)?.[1];
    if (key === undefined) {
      if (!rest.startsWith('#')) comment = [];
      continue;
    }
    const indent = indentText.length;
    parents = parents.filter((parent) => parent.indent < indent);
    const isInside = parents.some((parent) => parent.documented);
    const path = [...parents.map((parent) => parent.key), key].join('.');
    parents.push({ key, indent, documented: isInside || comment.length > 0 });
    if (comment.length > 0) found.push({ path, text: comment.join(' '), fallback: at(defaults, path) });
    else if (!isInside) groups.push(path);
    comment = [];
  }
  for (const group of groups) {
    if (!found.some(({ path }) => path.startsWith(`${group}.`)))
      fault(`values.yaml: ${group} has no comment`);
  }
  return found;
}

function at(value: Json | undefined, path: string): Json | undefined {
  let current = value;
  for (const key of path.split('.')) current = isRecord(current) ? current[key] : undefined;
  return current;
}

// ── values.schema.json ───────────────────────────────────────────────────────────────────────────────────

/** Every value is in the schema, everything in the schema is a value, and no level lets in what it does not know. */
function checkSchema(): void {
  const schema = JSON.parse(readFileSync(join(chart, 'values.schema.json'), 'utf8')) as Json;
  const known = new Set(values.map(({ path }) => path));
  const seen = new Set<string>();
  const walk = (node: Json | undefined, path: string) => {
    const properties = at(node, 'properties');
    if (isRecord(properties) && at(node, 'additionalProperties') !== false) {
      fault(`values.schema.json: ${path || 'the root'} lets in keys that it does not know`);
    }
    if (known.has(path)) {
      seen.add(path); // what is below is one value, however it looks
      return;
    }
    if (!isRecord(properties)) {
      fault(`values.schema.json: ${path} is not in values.yaml`);
      return;
    }
    for (const [key, child] of Object.entries(properties)) {
      // What an umbrella chart adds to the values of a dependency.
      if (path === '' && (key === 'global' || key === 'enabled')) continue;
      walk(child, path === '' ? key : `${path}.${key}`);
    }
  };
  walk(schema, '');
  for (const path of known) if (!seen.has(path)) fault(`values.schema.json: ${path} is missing`);
}

// ── Templates ────────────────────────────────────────────────────────────────────────────────────────────

function readTemplates(): Map<string, string> {
  const folder = join(chart, 'templates');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /\.(yaml|tpl|txt)$/.test(name),
  );
  return new Map(files.map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

/** Every value is used in a template, and no template uses what is no value. */
function checkUse(): void {
  const used = new Set<string>();
  const groups = new Set(
    values.flatMap(({ path }) => path.split('.').map((_, at, all) => all.slice(0, at).join('.'))),
  );
  const known = new Set(values.map(({ path }) => path));
  for (const [file, text] of templates) {
    for (const { path, whole } of pathsUsed(text)) {
      const value = ancestors(path).find((it) => known.has(it));
      if (value !== undefined) used.add(value);
      else if (!groups.has(path)) fault(`templates/${file} uses ${path}, which is no value`);
      else if (whole) for (const it of known) if (it.startsWith(`${path}.`)) used.add(it);
    }
  }
  for (const path of known) if (!used.has(path)) fault(`values.yaml: ${path} is used in no template`);
}

function ancestors(path: string): string[] {
  const keys = path.split('.');
  return keys.map((_, at) => keys.slice(0, keys.length - at).join('.'));
}

/** The paths of values that a template's actions name. `whole`: with all that is below, as `toYaml` does. */
function pathsUsed(text: string): { path: string; whole: boolean }[] {
  const found: { path: string; whole: boolean }[] = [];
  const variables = new Map<string, Place>();
  const stack: { dot: Place; outer: Place }[] = [];
  let dot: Place = ROOT;
  for (const [, raw = ''] of text.matchAll(/\{\{-?\s*([\s\S]*?)\s*-?\}\}/g)) {
    if (raw.startsWith('/*')) continue;
    // Some helpers are given a list that begins with the root.
    const action = raw
      .replace(/"(\\.|[^"\\])*"/g, '""')
      .replace(/\(index [.$] 0\)|index [.$] 0(?=$|\s)/g, '$');
    const [, keyword = '', rest = ''] =
      /^(?:(define|with|range|if|else if|else|end)\b)?\s*([\s\S]*)$/.exec(action) ?? [];
    const [, name, assigned = rest] = /^(\$\w+)\s*:?=\s*([\s\S]*)$/.exec(rest) ?? [];
    const only = /^(\$\w*)?((?:\.\w+)*)$/.exec(assigned.trim());
    const place = only === null ? undefined : resolve(only[1], only[2] ?? '', dot, variables);
    const isHead = ['with', 'if', 'else if', 'range'].includes(keyword) || name !== undefined;
    for (const [, variable, path = ''] of assigned.matchAll(/(?<![\w.)])(\$\w*)?((?:\.[A-Za-z]\w*)+)/g)) {
      const target = resolve(variable, path, dot, variables);
      if (Array.isArray(target) && target.length > 0) {
        found.push({ path: target.join('.'), whole: !(isHead && place !== undefined) });
      }
    }
    if (name !== undefined) variables.set(name, place);
    if (keyword === 'end') dot = stack.pop()?.outer;
    else if (keyword === 'else') dot = stack.at(-1)?.outer;
    else if (['define', 'with', 'range', 'if'].includes(keyword)) {
      const inner: Place =
        keyword === 'define' ? ROOT : keyword === 'if' ? dot : keyword === 'with' ? place : undefined;
      stack.push({ dot: inner, outer: dot });
      dot = inner;
    }
  }
  return found;
}

function resolve(
  variable: string | undefined,
  path: string,
  dot: Place,
  variables: Map<string, Place>,
): Place {
  const start = variable === undefined ? dot : variable === '$' ? ROOT : variables.get(variable);
  const keys = path.split('.').filter((key) => key !== '');
  if (start !== ROOT) return start === undefined ? undefined : [...start, ...keys];
  if (keys[0] === 'root') keys.shift(); // as some helpers call it
  if (keys.length === 0) return ROOT;
  return keys[0] === 'Values' ? keys.slice(1) : undefined;
}

// ── The gateway's settings ───────────────────────────────────────────────────────────────────────────────

/** Every setting of the gateway is set by the chart, and a value's default is the setting's. */
function checkSettings(): void {
  const deployment = templates.get('deployment.yaml') ?? '';
  for (const [name, setting] of Object.entries(settings) as [string, Setting][]) {
    const file = `${name}_FILE` in settings ? '' : '(?:_FILE)?';
    const line = new RegExp(`name: ${name}${file}(?:,|\\n)(.*)`).exec(deployment);
    if ((line === null) !== name in UNSET) {
      fault(
        line === null
          ? `nothing sets ${name}: give it an env entry in templates/deployment.yaml and a value, or say in UNSET why not`
          : `${name} is set, though it need not be: ${UNSET[name]}`,
      );
    }
    const path = /\.Values\.([\w.]+)/.exec(line?.[1] ?? '')?.[1];
    if (path === undefined || typeof setting.default === 'object' || setting.default === undefined) continue;
    const value = at(defaults, path);
    if (value !== setting.default) {
      fault(
        `${path} is ${JSON.stringify(value)} by default, and ${name} is ${JSON.stringify(setting.default)}`,
      );
    }
  }
}

function checkVersion(): void {
  const { appVersion } = parse(readFileSync(join(chart, 'Chart.yaml'), 'utf8')) as { appVersion: string };
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  if (appVersion !== version)
    fault(`Chart.yaml: appVersion is ${appVersion}, and package.json has ${version}`);
}

// ── README.md ────────────────────────────────────────────────────────────────────────────────────────────

function writeReadme(): void {
  const file = join(chart, 'README.md');
  const text = readFileSync(file, 'utf8');
  const [start, end] = ['<!-- generated: values -->\n', '<!-- end of values -->'];
  const [from, to] = [text.indexOf(start), text.indexOf(end)];
  if (from === -1 || to < from) {
    fault(`README.md lacks the markers ${start.trim()} and ${end}`);
    return;
  }
  const cell = (it: string) => it.replaceAll('|', '\\|');
  const rows = values.map(
    ({ path, text, fallback }) =>
      `| \`${path}\` | \`${cell(JSON.stringify(fallback ?? null))}\` | ${cell(text)} |\n`,
  );
  const table = `\n| Value | Default | What it does |\n| --- | --- | --- |\n${rows.join('')}\n`;
  const wanted = text.slice(0, from + start.length) + table + text.slice(to);
  if (wanted === text) return;
  if (checkOnly) {
    fault('README.md is stale: run `npm run docs` and commit what it writes');
    return;
  }
  writeFileSync(file, wanted);
  console.log('written: charts/tidegate/README.md');
}

// ── helm ─────────────────────────────────────────────────────────────────────────────────────────────────

/** What only helm can tell, with each helm that is installed. */
function runHelm(): void {
  const helms = ['helm', 'helm3'].filter((program) => run(program, 'version').status === 0);
  const [first] = helms;
  if (first === undefined) {
    console.log('chart: helm is not installed: its lint and unit tests are skipped');
    return;
  }
  for (const helm of helms) {
    expectSuccess(`${helm} lint`, run(helm, 'lint', '--strict', chart, ...KUBE_VERSION));
    checkUmbrella(helm);
    checkGenerated(helm);
  }
  if (run(first, 'unittest', '--help').status !== 0) {
    console.log('chart: the plugin `helm unittest` is not installed: the unit tests are skipped');
    return;
  }
  const suites = readdirSync(join(chart, 'tests')).filter((name) => name.endsWith('_test.yaml'));
  for (const name of templates.keys()) {
    const suite = `${name
      .split('/')
      .at(-1)
      ?.replace(/\.(yaml|txt)$/, '')
      .toLowerCase()}_test.yaml`;
    if (!name.endsWith('.tpl') && !suites.includes(suite)) fault(`templates/${name} has no tests/${suite}`);
  }
  expectSuccess('helm unittest', run(first, 'unittest', chart));
}

/** The chart is a dependency with a condition, and its umbrella shares globals. */
function checkUmbrella(helm: string): void {
  const umbrella = mkdtempSync(join(tmpdir(), 'tidegate-umbrella-'));
  try {
    const dependency = {
      name: 'tidegate',
      version: '*',
      repository: `file://${chart}`,
      condition: 'tidegate.enabled',
    };
    const files = {
      'Chart.yaml': { apiVersion: 'v2', name: 'umbrella', version: '1.0.0', dependencies: [dependency] },
      'values.yaml': { global: { anything: true }, tidegate: { enabled: true, replicaCount: 3 } },
    };
    mkdirSync(join(umbrella, 'templates'));
    for (const [name, content] of Object.entries(files))
      writeFileSync(join(umbrella, name), JSON.stringify(content));
    expectSuccess(`${helm} dependency build`, run(helm, 'dependency', 'build', umbrella));
    const on = run(helm, 'template', 'prod', umbrella, ...KUBE_VERSION);
    expectSuccess(`${helm} template of an umbrella chart`, on);
    if (!/replicas: 3\n/.test(on.output))
      fault(`${helm}: an umbrella chart's values do not reach the Deployment`);
    const off = run(helm, 'template', 'prod', umbrella, ...KUBE_VERSION, '--set', 'tidegate.enabled=false');
    if (off.output.includes('kind:')) fault(`${helm}: the chart is rendered though its condition is false`);
  } finally {
    rmSync(umbrella, { recursive: true });
  }
}

/** The first install gives pods the checksums of what it generates, or the first upgrade would restart Redis. */
function checkGenerated(helm: string): void {
  const first = run(helm, 'template', 'tidegate', chart, ...KUBE_VERSION);
  expectSuccess(`${helm} template`, first);
  const secret = (key: string) =>
    Buffer.from(
      new RegExp(`^  ${key}: "?([^"\\n]+)`, 'm').exec(first.output)?.[1] ?? '',
      'base64',
    ).toString();
  const given = {
    auth: { jwtSecret: secret('jwt-secret'), apiKey: secret('api-key'), adminToken: secret('admin-token') },
    redis: { password: secret('redis-password') },
  };
  const second = run(
    helm,
    'template',
    'tidegate',
    chart,
    ...KUBE_VERSION,
    '--set-json',
    `auth=${JSON.stringify(given.auth)}`,
    '--set-json',
    `redis=${JSON.stringify(given.redis)}`,
  );
  const checksums = (text: string) => text.match(/checksum\/\w+: \w+/g)?.join();
  if (checksums(first.output) === undefined || checksums(first.output) !== checksums(second.output)) {
    fault(`${helm}: pods are not given the checksums of the secrets that are generated with them`);
  }
}

function run(program: string, ...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 64 * 1_048_576,
  });
  return { status, output: `${stdout}${stderr}` };
}

function expectSuccess(what: string, { status, output }: { status: number | null; output: string }): void {
  if (status !== 0) fault(`${what} failed:\n${output}`);
}
