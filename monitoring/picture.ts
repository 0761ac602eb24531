// A picture of a dashboard: its panels with what Prometheus gave for them, drawn as a page of HTML and SVG.

import type { Exemplar, Line } from '../test/prometheus.ts';
import type { Dashboard, Panel, Unit } from './panel.ts';

/** A line with its name, as the panel's legend has it. */
export interface NamedLine extends Line {
  readonly name: string;
}

/** What is drawn of a panel. */
export interface PanelData {
  readonly lines: readonly NamedLine[];
  readonly exemplars: readonly Exemplar[];
}

/** The time that is shown, in seconds since 1970. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** Width of the page in CSS pixels. */
export const PAGE_WIDTH = 1400;

const GAP = 8;
const COLUMN = (PAGE_WIDTH - 2 * GAP - 23 * GAP) / 24;
const HEIGHTS = { number: 84, lines: 168, states: 168, heat: 168 } as const;
const LEFT = 54;
const BOTTOM = 18;
const TOP = 6;
const COLOURS = [
  '#73bf69',
  '#f2cc0c',
  '#5794f2',
  '#ff9830',
  '#f2495c',
  '#b877d9',
  '#8ab8ff',
  '#96d98d',
  '#ffa6b0',
  '#c4a000',
];
const MAX_LEGEND = 8;

/** The page. */
export function drawDashboard(dashboard: Dashboard, data: ReadonlyMap<Panel, PanelData>, span: Span): string {
  const rows = dashboard.rows.map(({ title, panels }) => {
    const drawn = panels.map((panel) =>
      drawPanel(panel, data.get(panel) ?? { lines: [], exemplars: [] }, span),
    );
    return `<h2>${escaped(title)}</h2><div class="row">${drawn.join('')}</div>`;
  });
  return `<!doctype html><meta charset="utf-8"><style>${STYLE}</style>
<header><b>${escaped(dashboard.title)}</b><span>Namespace <i>chat</i></span><span>Pod <i>All</i></span></header>
${rows.join('\n')}`;
}

const STYLE = `
* { box-sizing: border-box; margin: 0 }
body { width: ${PAGE_WIDTH}px; padding: ${GAP}px; background: #111217; color: #ccccdc; font: 12px/1.35 "DejaVu Sans", sans-serif }
header { padding: 4px 4px 8px; font-size: 15px; display: flex; gap: 18px; align-items: baseline }
header span { font-size: 11px; color: #8e8e9e }
header i { font-style: normal; color: #ccccdc; border: 1px solid #2f3037; padding: 2px 8px; border-radius: 2px }
h2 { font-size: 13px; font-weight: 500; padding: 8px 4px 6px }
.row { display: grid; grid-template-columns: repeat(24, ${COLUMN}px); gap: ${GAP}px }
.panel { background: #181b1f; border: 1px solid #25262c; border-radius: 2px; padding: 6px 8px; overflow: hidden }
.panel h3 { font-size: 12px; font-weight: 500; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; padding-bottom: 4px }
.value { font-size: 34px; text-align: center; padding-top: 6px }
.legend { font-size: 10.5px; line-height: 15px; height: 30px; overflow: hidden; color: #a9a9b8 }
.legend b { display: inline-block; width: 11px; height: 3px; border-radius: 2px; margin: 0 4px 3px 0 }
.legend span { margin-right: 11px; white-space: nowrap }
svg { display: block } text { font: 10px "DejaVu Sans", sans-serif; fill: #8e8e9e }
`;

function drawPanel(panel: Panel, data: PanelData, span: Span): string {
  const width = panel.width * (COLUMN + GAP) - GAP - 18;
  const body = {
    lines: () => drawLines(panel, data, span, width),
    number: () => drawNumber(panel, data),
    states: () => drawStates(data, span, width),
    heat: () => drawHeat(panel, data, span, width),
  }[panel.kind]();
  return `<div class="panel" style="grid-column: span ${panel.width}"><h3>${escaped(panel.title)}</h3>${body}</div>`;
}

// ── Kinds ────────────────────────────────────────────────────────────────────────────────────────────────

function drawNumber({ unit, bad }: Panel, { lines }: PanelData): string {
  const value = lines[0]?.points.at(-1)?.[1] ?? Number.NaN;
  const isBad = bad !== undefined && ('above' in bad ? value >= bad.above : value < bad.below);
  const colour = bad === undefined ? '#ccccdc' : isBad ? '#f2495c' : '#73bf69';
  return `<div class="value" style="color: ${colour}; height: ${HEIGHTS.number - 30}px">${written(value, unit)}</div>`;
}

function drawLines(panel: Panel, { lines, exemplars }: PanelData, span: Span, width: number): string {
  const height = HEIGHTS.lines;
  const layers = panel.stacked ? stack(lines) : lines;
  const shown = layers.flatMap(({ points }) => points.map(([, value]) => value));
  const limit = panel.bad !== undefined && 'above' in panel.bad ? panel.bad.above : undefined;
  const highest = Math.max(...shown, ...exemplars.map(({ value }) => value), 0);
  // A limit that is far away would press everything to the ground.
  const isNear = limit !== undefined && limit <= highest * 2.5;
  const { top, ticks } = scale(isNear ? Math.max(highest, limit * 1.1) : highest, panel.unit);
  const x = (at: number) => LEFT + ((at - span.from) / (span.to - span.from)) * (width - LEFT - 4);
  const y = (value: number) => TOP + (1 - value / top) * (height - TOP - BOTTOM);
  const parts = [
    axes(
      span,
      width,
      height,
      ticks.map((tick) => [y(tick), written(tick, panel.unit)]),
      x,
    ),
  ];
  // From the top of the stack down, so that each area covers only what is its own.
  for (const [at, line] of [...layers.entries()].reverse()) {
    const colour = COLOURS[at % COLOURS.length] ?? '#fff';
    for (const piece of pieces(line)) {
      const path = piece.map(([when, value]) => `${x(when).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
      const ends = [piece[0], piece.at(-1)].map((point) => x(point?.[0] ?? span.from).toFixed(1));
      if (panel.stacked) {
        const ground = y(0).toFixed(1);
        parts.push(
          `<polygon points="${ends[0]},${ground} ${path} ${ends[1]},${ground}" fill="#181b1f"/>`,
          `<polygon points="${ends[0]},${ground} ${path} ${ends[1]},${ground}" fill="${colour}" fill-opacity=".3"/>`,
        );
      }
      parts.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.3"/>`);
    }
  }
  if (isNear) {
    parts.push(
      `<line x1="${LEFT}" x2="${width - 4}" y1="${y(limit)}" y2="${y(limit)}" stroke="#f2495c" stroke-dasharray="6 5"/>`,
    );
  }
  for (const { at, value } of exemplars) {
    if (at < span.from) continue;
    const [cx, cy] = [x(at), y(value)];
    parts.push(`<path d="M${cx} ${cy - 3.5}l3.5 3.5l-3.5 3.5l-3.5-3.5z" fill="#8ab8ff" fill-opacity=".75"/>`);
  }
  const names = lines.map(({ name }, at) => legendEntry(name, COLOURS[at % COLOURS.length] ?? '#fff'));
  if (exemplars.length > 0) names.push(legendEntry('◆ one message, with its trace', '#8ab8ff'));
  const more = names.length > MAX_LEGEND ? `<span>and ${names.length - MAX_LEGEND} more</span>` : '';
  return `<svg width="${width}" height="${height}">${parts.join('')}</svg><div class="legend">${names.slice(0, MAX_LEGEND).join('')}${more}</div>`;
}

function drawStates({ lines }: PanelData, span: Span, width: number): string {
  const height = HEIGHTS.states;
  const left = 158;
  const x = (at: number) => left + ((at - span.from) / (span.to - span.from)) * (width - left - 4);
  const tall = (height - BOTTOM) / Math.max(lines.length, 1);
  const parts = [axes(span, width, height, [], x)];
  for (const [at, { name, points }] of lines.entries()) {
    const top = at * tall + 4;
    parts.push(`<text x="${left - 6}" y="${top + tall / 2}" text-anchor="end">${escaped(name)}</text>`);
    const step = (points[1]?.[0] ?? 0) - (points[0]?.[0] ?? 0);
    for (const [when, value] of points) {
      const wide = Math.max(1, x(when + step) - x(when) + 0.6);
      parts.push(
        `<rect x="${x(when)}" y="${top}" width="${wide}" height="${tall - 8}" fill="${value === 1 ? '#73bf69' : '#f2495c'}"/>`,
      );
    }
  }
  return `<svg width="${width}" height="${height}">${parts.join('')}</svg><div class="legend">${legendEntry('yes', '#73bf69')}${legendEntry('no', '#f2495c')}</div>`;
}

/** Buckets are told as sums of all that are smaller, so each is what is added to the one before. */
function drawHeat({ unit }: Panel, { lines, exemplars }: PanelData, span: Span, width: number): string {
  const height = HEIGHTS.heat;
  const buckets = [...lines]
    .map((line) => ({ ...line, le: Number(line.metric.le === '+Inf' ? Infinity : line.metric.le) }))
    .sort((one, other) => one.le - other.le);
  const x = (at: number) => LEFT + ((at - span.from) / (span.to - span.from)) * (width - LEFT - 4);
  const tall = (height - TOP - BOTTOM) / Math.max(buckets.length, 1);
  const y = (index: number) => height - BOTTOM - (index + 1) * tall;
  const cells = buckets.flatMap(({ points }, index) => {
    const below = new Map(buckets[index - 1]?.points);
    return points.map(([at, value]) => ({ at, index, count: Math.max(0, value - (below.get(at) ?? 0)) }));
  });
  const most = Math.max(...cells.map(({ count }) => count), 1e-9);
  const step = (buckets[0]?.points[1]?.[0] ?? 0) - (buckets[0]?.points[0]?.[0] ?? 0);
  const ticks = buckets.flatMap(({ le }, index): [number, string][] =>
    index % 2 === 0 ? [[y(index), Number.isFinite(le) ? written(le, unit) : 'more']] : [],
  );
  const parts = [axes(span, width, height, ticks, x)];
  for (const { at, index, count } of cells) {
    if (count <= 0) continue;
    const wide = x(at + step) - x(at) + 0.5;
    const opacity = 0.12 + 0.88 * Math.sqrt(count / most);
    parts.push(
      `<rect x="${x(at)}" y="${y(index)}" width="${wide}" height="${tall - 0.5}" fill="#5794f2" fill-opacity="${opacity.toFixed(2)}"/>`,
    );
  }
  for (const { at, value } of exemplars) {
    const index = buckets.findIndex(({ le }) => value <= le);
    if (at < span.from || index === -1) continue;
    const [cx, cy] = [x(at), y(index) + tall / 2];
    parts.push(`<path d="M${cx} ${cy - 3}l3 3l-3 3l-3-3z" fill="#ff9830" fill-opacity=".8"/>`);
  }
  return `<svg width="${width}" height="${height}">${parts.join('')}</svg><div class="legend">${legendEntry('messages that took so long; more of them: brighter', '#5794f2')}${legendEntry('◆ one message, with its trace', '#ff9830')}</div>`;
}

// ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────

function axes(
  span: Span,
  width: number,
  height: number,
  ticks: readonly (readonly [number, string])[],
  x: (at: number) => number,
): string {
  const parts = ticks.map(
    ([y, text]) =>
      `<line x1="${LEFT}" x2="${width - 4}" y1="${y}" y2="${y}" stroke="#24262c"/><text x="${LEFT - 5}" y="${y + 3.5}" text-anchor="end">${text}</text>`,
  );
  const every = width > 500 ? 30 : 60;
  for (let at = Math.ceil(span.from / every) * every; at < span.to; at += every) {
    const text = new Date(at * 1000).toISOString().slice(11, every < 60 ? 19 : 16);
    if (x(at) < LEFT + 4 || x(at) > width - 24) continue;
    parts.push(
      `<line x1="${x(at)}" x2="${x(at)}" y1="${TOP}" y2="${height - BOTTOM}" stroke="#24262c"/><text x="${x(at)}" y="${height - 4}" text-anchor="middle">${text}</text>`,
    );
  }
  return parts.join('');
}

function legendEntry(name: string, colour: string): string {
  return `<span><b style="background: ${colour}"></b>${escaped(name)}</span>`;
}

/** Each line on top of those before. */
function stack(lines: readonly NamedLine[]): NamedLine[] {
  const heights = new Map<number, number>();
  return lines.map((line) => ({
    ...line,
    points: line.points.map(([at, value]) => {
      const height = (heights.get(at) ?? 0) + value;
      heights.set(at, height);
      return [at, height] as const;
    }),
  }));
}

/** A line where it is there: a pod that is gone leaves an end, and not a line to the next. */
function pieces({ points }: Line): (readonly [number, number])[][] {
  const step = Math.min(...points.slice(1).map(([at], index) => at - (points[index]?.[0] ?? at)));
  const found: (readonly [number, number])[][] = [];
  for (const point of points) {
    const last = found.at(-1)?.at(-1);
    if (last === undefined || point[0] - last[0] > step * 1.5) found.push([point]);
    else found.at(-1)?.push(point);
  }
  return found;
}

/** The end of the axis, and round numbers up to it. */
function scale(highest: number, unit: Unit): { top: number; ticks: number[] } {
  const base =
    unit === 'bytes' || unit === 'Bps'
      ? 1024 ** Math.floor(Math.log(Math.max(highest, 1)) / Math.log(1024))
      : 1;
  const most = highest > 0 ? (highest * 1.05) / base : 1;
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((it) => it * power >= rough) ?? 10) * power;
  const count = Math.ceil(most / step);
  const ticks = Array.from({ length: count + 1 }, (_, at) => at * step * base);
  return { top: count * step * base, ticks };
}

/** A value with its unit. */
function written(value: number, unit: Unit): string {
  if (Number.isNaN(value)) return '–';
  const short = (it: number) => String(Number(it.toPrecision(3)));
  const withPrefix = (base: number, names: readonly string[]) => {
    const power =
      value === 0
        ? 0
        : Math.max(0, Math.min(names.length - 1, Math.floor(Math.log(Math.abs(value)) / Math.log(base))));
    return `${short(value / base ** power)}${names[power]}`;
  };
  switch (unit) {
    case 's':
      if (value === 0) return '0';
      return value < 1e-3
        ? `${short(value * 1e6)} µs`
        : value < 1
          ? `${short(value * 1e3)} ms`
          : `${short(value)} s`;
    case 'bytes':
      return withPrefix(1024, [' B', ' KiB', ' MiB', ' GiB']);
    case 'Bps':
      return withPrefix(1024, [' B/s', ' KiB/s', ' MiB/s', ' GiB/s']);
    case 'percentunit':
      return `${Number((value * 100).toPrecision(4))}%`;
    case 'reqps':
      return `${withPrefix(1000, ['', 'k', 'M'])}/s`;
    case 'short':
    case 'none':
      return withPrefix(1000, ['', 'k', 'M']);
  }
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
