// The summary: what a run has shown, as a text for the terminal, as JSON for programs and as a page for people.

import { summaryTrendStats } from './schedule.ts';
import { out, run, size, url } from './settings.ts';

/** The part of k6's data that is used. */
interface Data {
  readonly metrics: Record<string, Metric>;
  readonly state: { readonly testRunDurationMs: number };
}

interface Metric {
  readonly type: string;
  readonly contains: string;
  readonly values: Record<string, number>;
  readonly thresholds?: Record<string, { readonly ok: boolean }>;
}

type Plan = Readonly<Record<string, number>>;

/** Makes a script's `handleSummary`. It writes `loadtest-NAME.json` and `loadtest-NAME.html` into OUT. */
export function summaryOf(name: string, title: string, plan: Plan) {
  return (data: Data) => {
    const seconds = data.state.testRunDurationMs / 1000;
    const metrics = Object.entries(data.metrics)
      .filter(([metric]) => !/^(http_|vus|data_|iteration|ws_|group_|checks)/.test(metric))
      .sort(([a], [b]) => a.localeCompare(b));
    const rules = metrics.flatMap(([metric, { thresholds = {}, values }]) =>
      Object.entries(thresholds).map(([rule, { ok }]) => ({ metric, rule, ok, values })),
    );
    const passed = rules.length > 0 && rules.every(({ ok }) => ok);
    const report = {
      name,
      title,
      url,
      run,
      size,
      passed,
      seconds,
      plan,
      rules,
      metrics: Object.fromEntries(metrics),
    };
    return {
      stdout: asText(report),
      [`${out}/loadtest-${name}.json`]: `${JSON.stringify(report, undefined, 2)}\n`,
      [`${out}/loadtest-${name}.html`]: asPage(report),
    };
  };
}

interface Report {
  readonly name: string;
  readonly title: string;
  readonly url: string;
  readonly size: string;
  readonly passed: boolean;
  readonly seconds: number;
  readonly plan: Plan;
  readonly rules: readonly { metric: string; rule: string; ok: boolean; values: Record<string, number> }[];
  readonly metrics: Record<string, Metric>;
}

function asText({ title, url, size, passed, seconds, rules, metrics }: Report): string {
  const lines = [
    '',
    `  ${title} (${size}, ${seconds.toFixed(0)} s) on ${url}: ${passed ? 'passed' : 'FAILED'}`,
    '',
    ...Object.entries(metrics).map(
      ([name, { contains, values }]) => `    ${name.padEnd(32)} ${shown(values, contains)}`,
    ),
    '',
    ...rules.map(({ metric, rule, ok }) => `    ${ok ? 'ok    ' : 'FAILED'}  ${metric} ${rule}`),
    '',
    '',
  ];
  return lines.join('\n');
}

function shown(values: Record<string, number>, contains: string): string {
  const unit = contains === 'time' ? ' ms' : '';
  const names = Object.keys(values).filter((name) => !(name === 'rate' && 'count' in values));
  return names.map((name) => `${name}=${round(values[name] ?? 0)}${name === 'count' ? '' : unit}`).join('  ');
}

const round = (value: number): string => String(Math.round(value * 100) / 100);

function asPage({ title, url, size, passed, seconds, plan, rules, metrics }: Report): string {
  const rows = (cells: readonly (readonly string[])[]) =>
    cells.map((row) => `<tr>${row.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`).join('\n');
  const trends = Object.entries(metrics).filter(([, { type }]) => type === 'trend');
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${escaped(title)}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b2733; }
  table { border-collapse: collapse; margin: 1rem 0; }
  td, th { border-bottom: 1px solid #d8dee4; padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; }
  .ok { color: #12703c; } .failed { color: #b3261e; font-weight: 600; }
  .bar { fill: #2f6fde; } .label { font-size: 12px; fill: #1b2733; }
</style>
<h1>${escaped(title)}: <span class="${passed ? 'ok' : 'failed'}">${passed ? 'passed' : 'failed'}</span></h1>
<p>${escaped(url)}, size <code>${escaped(size)}</code>, ${seconds.toFixed(0)} seconds.</p>
<h2>What had to hold</h2>
<table>${rules.map(({ metric, rule, ok }) => `<tr><td class="${ok ? 'ok' : 'failed'}">${ok ? 'held' : 'did not hold'}</td><td><code>${escaped(metric)}</code></td><td><code>${escaped(rule)}</code></td></tr>`).join('\n')}</table>
<h2>Times</h2>
${trends.map(([name, { values }]) => `<h3><code>${escaped(name)}</code>, ms</h3>${bars(values)}`).join('\n')}
<h2>Everything measured</h2>
<table>${rows(Object.entries(metrics).map(([name, { values, contains }]) => [name, shown(values, contains)]))}</table>
<h2>The plan</h2>
<table>${rows(Object.entries(plan).map(([name, value]) => [name, String(value)]))}</table>
</html>
`;
}

/** One bar for each figure of a trend. */
function bars(values: Record<string, number>): string {
  // k6 gives them in any order.
  const entries = summaryTrendStats.map((name): [string, number] => [name, values[name] ?? 0]);
  const most = Math.max(...entries.map(([, value]) => value), Number.MIN_VALUE);
  const [left, width, step] = [60, 500, 22];
  const lines = entries.map(([name, value], index) => {
    const y = index * step;
    return `<text class="label" x="0" y="${y + 14}">${escaped(name)}</text><rect class="bar" x="${left}" y="${y + 3}" width="${((value / most) * width).toFixed(1)}" height="14"/><text class="label" x="${left + 6 + (value / most) * width}" y="${y + 14}">${round(value)}</text>`;
  });
  return `<svg width="680" height="${entries.length * step}" role="img">${lines.join('')}</svg>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
