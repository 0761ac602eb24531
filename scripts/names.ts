// Names: finds settings, values of the chart and npm scripts that a page names and that do not exist.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { operatorSettings, settings } from '../src/platform/config.ts';

/** Where every name in capitals is a setting. The load tests and the end-to-end tests have their own, in pages of their own. */
const SETTINGS_IN = /^(README\.md|SECURITY\.md|docs\/(?!decisions\/)|charts\/|k8s\/README\.md)/;

/** Names in capitals that are none: a placeholder, a setting of the load tests, and what OpenTelemetry reads itself. */
const NO_SETTINGS = ['NAME_FILE', 'DURABLE_NAMESPACE', 'OTEL_EXPORTER_OTLP_TIMEOUT'];

/** What of the chart is passed on to Kubernetes as it is, and may hold more than `values.yaml` shows. */
const PASSED_ON = ['resources'];

/** Every name of every page that is of nothing, as `page: name`. What was decided or released once may be gone since. */
export function unknownNames(root: string): string[] {
  const values: unknown = parse(readFileSync(join(root, 'charts/tidegate/values.yaml'), 'utf8'));
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object };
  const pages = execFileSync('git', ['ls-files', '*.md'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((page) => page !== '' && existsSync(join(root, page)))
    .filter((page) => page !== 'CHANGELOG.md' && !page.startsWith('docs/decisions/'));
  return pages.flatMap((page) => {
    const text = readFileSync(join(root, page), 'utf8');
    const unknown = [
      ...found(text, /`([a-z]\w*(?:\.\w+)+)[`:=]/g).filter((name) => !isValue(values, name)),
      ...found(text, /npm run (?:-s )?([a-z][a-z0-9:]*)/g).filter((name) => !Object.hasOwn(scripts, name)),
      ...(SETTINGS_IN.test(page) ? found(text, /`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b/g) : []).filter(
        (name) => !isSetting(name) && !NO_SETTINGS.includes(name),
      ),
    ];
    return unknown.map((name) => `${page}: ${name}`);
  });
}

function found(text: string, pattern: RegExp): string[] {
  return [...new Set([...text.matchAll(pattern)].map(([, name = '']) => name))];
}

function isSetting(name: string): boolean {
  const of = name.replace(/_FILE$/, '');
  return [settings, operatorSettings].some((table) => Object.hasOwn(table, name) || Object.hasOwn(table, of));
}

/** A path whose first part is no value of the chart is something else, such as the name of a file. */
function isValue(values: unknown, path: string): boolean {
  const [first = '', ...more] = path.split('.');
  const isFile = /\.(ts|mjs|js|json|ya?ml|conf|tpl|md|png|svg)$/.test(path);
  if (isFile || !isRecord(values) || !Object.hasOwn(values, first)) return true;
  let value = values[first];
  if (PASSED_ON.includes(first)) return true;
  for (const key of more) {
    // A value that is empty by default may hold anything: the chart's schema says what.
    if (!isRecord(value) || Object.keys(value).length === 0) return typeof value === 'object';
    if (!Object.hasOwn(value, key)) return false;
    if (PASSED_ON.includes(key)) return true;
    value = value[key];
  }
  return true;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
