// The picture of a simulation, as SVG: what happened with the operator, and the same without it.

import type { Moment, Recording } from './run.ts';
import type { Settings } from './settings.ts';

const WIDTH = 1200;
const LEFT = 76;
const RIGHT = 20;
const TOP = 100;
const GAP = 50;
const AXIS = 34;

const INK = '#1f2933';
const FAINT = '#7b8794';
const GRID = '#e4e7eb';
const BLUE = '#0b69a3';
const PALE_BLUE = '#b3d9f0';
const GREEN = '#c9ecd5';
const DARK_GREEN = '#2d8a4e';
const ORANGE = '#c2410c';
const GREY = '#9aa5b1';
const PALE_GREY = '#e4e7eb';

interface Line {
  readonly label: string;
  readonly color: string;
  readonly points: readonly Point[];
  readonly dashed?: boolean;
  readonly stepped?: boolean;
  /** Filled down to the axis, or to these points. */
  readonly fill?: { readonly color: string; readonly to?: readonly Point[] };
}

type Point = readonly [second: number, value: number];

interface Panel {
  readonly title: string;
  readonly height: number;
  readonly lines: readonly Line[];
  readonly least?: number;
  readonly most?: number;
  /** Values between two of which there is none. */
  readonly whole?: boolean;
}

/** Draws both recordings. `without` is undefined where there is no operator to compare with. */
export function draw(settings: Settings, recording: Recording, without: Recording | undefined): string {
  const panels = panelsOf(settings, recording.moments, without?.moments);
  const seconds = settings.history.seconds;
  const parts: string[] = [];
  let y = TOP;
  for (const panel of panels) {
    parts.push(drawPanel(panel, y, seconds));
    y += panel.height + GAP;
  }
  const height = y - GAP + AXIS + 12;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(LEFT, 28, `Autoscaling simulation: ${settings.history.name}`, { size: 19, weight: 600 }),
    text(LEFT, 48, subtitle(settings), { color: FAINT }),
    ...parts,
    timeAxis(y - GAP, seconds),
    '</svg>',
    '',
  ].join('\n');
}

function subtitle({ hpa, target, world, policy, sessionSeconds }: Settings): string {
  const by = target === undefined ? 'by CPU' : `${target.toLocaleString('en')} connections a pod`;
  return [
    `HPA ${hpa.minReplicas} to ${hpa.maxReplicas} pods, ${by}`,
    `pods ready after ${world.startSeconds} s`,
    `load balancer ${world.balancer}`,
    `sessions of ${Math.round(sessionSeconds / 60)} min`,
    policy === undefined ? 'no operator' : 'with the operator',
  ].join('  ·  ');
}

function panelsOf(
  settings: Settings,
  moments: readonly Moment[],
  without: readonly Moment[] | undefined,
): Panel[] {
  const { target, world, maxSkew, hpa } = settings;
  const line = (read: (moment: Moment) => number, from = moments): Point[] =>
    from.map((moment) => [moment.second, read(moment)]);
  const flat = (value: number): Point[] => [
    [0, value],
    [settings.history.seconds, value],
  ];
  const room = Math.min(target ?? world.maxConnections, world.maxConnections);
  const fullest = Math.max(...[...moments, ...(without ?? [])].map((moment) => moment.fullest));
  const skewOf = ({ skew, fullest: most }: Moment) => (most < 20 ? 1 : skew);
  return [
    {
      title: 'Connections',
      height: 190,
      lines: [
        {
          label: target === undefined ? 'room at maxConnections' : 'room at the target',
          color: DARK_GREEN,
          points: line(({ ready }) => ready * room),
          stepped: true,
          fill: { color: GREEN },
        },
        { label: 'clients', color: INK, points: line(({ wanted }) => wanted), dashed: true },
        { label: 'connected', color: BLUE, points: line(({ connected }) => connected) },
      ],
    },
    {
      title: 'Pods',
      height: 120,
      whole: true,
      lines: [
        {
          label: `min ${hpa.minReplicas}, max ${hpa.maxReplicas}`,
          color: FAINT,
          points: flat(hpa.maxReplicas),
          dashed: true,
        },
        { label: '', color: FAINT, points: flat(hpa.minReplicas), dashed: true },
        { label: 'wanted by the HPA', color: ORANGE, points: line(({ desired }) => desired), stepped: true },
        { label: 'ready', color: BLUE, points: line(({ ready }) => ready), stepped: true },
      ],
    },
    {
      title: 'Connections on a pod, from the emptiest to the fullest',
      height: 150,
      lines: [
        ...band('without the operator', GREY, PALE_GREY, without, line),
        ...band(
          settings.policy === undefined ? 'emptiest to fullest' : 'with the operator',
          BLUE,
          PALE_BLUE,
          moments,
          line,
        ),
        ...(target === undefined
          ? []
          : [{ label: 'target', color: DARK_GREEN, points: flat(target), dashed: true }]),
        ...(fullest > 0.7 * world.maxConnections
          ? [{ label: 'maxConnections', color: ORANGE, points: flat(world.maxConnections), dashed: true }]
          : []),
      ],
    },
    {
      title: 'Skew: the fullest pod divided by the mean',
      height: 120,
      least: 1,
      lines: [
        ...(without === undefined
          ? []
          : [{ label: 'without the operator', color: GREY, points: line(skewOf, [...without]) }]),
        { label: `maxSkew ${maxSkew}`, color: ORANGE, points: flat(maxSkew), dashed: true },
        {
          label: settings.policy === undefined ? 'skew' : 'with the operator',
          color: BLUE,
          points: line(skewOf),
        },
      ],
    },
    {
      title: 'Connections dropped by removing pods, and moved without a gap, so far',
      height: 120,
      lines: [
        ...(without === undefined
          ? []
          : [
              {
                label: 'dropped without the operator',
                color: GREY,
                points: line(({ dropped }) => dropped, [...without]),
              },
            ]),
        { label: 'dropped', color: ORANGE, points: line(({ dropped }) => dropped) },
        ...(settings.policy === undefined
          ? []
          : [{ label: 'moved', color: BLUE, points: line(({ moved }) => moved) }]),
      ],
    },
  ];
}

function band(
  label: string,
  color: string,
  pale: string,
  moments: readonly Moment[] | undefined,
  line: (read: (moment: Moment) => number, from?: readonly Moment[]) => Point[],
): Line[] {
  if (moments === undefined) return [];
  const to = line(({ emptiest }) => emptiest, moments);
  return [{ label, color, points: line(({ fullest }) => fullest, moments), fill: { color: pale, to } }];
}

function drawPanel(
  { title, height, lines, least = 0, most, whole = false }: Panel,
  top: number,
  seconds: number,
): string {
  const highest =
    most ?? Math.max(least + 0.1, ...lines.flatMap(({ points }) => points.map(([, value]) => value)));
  const steps = ticks(least, highest, 4, whole);
  const ceiling = Math.max(highest, steps.at(-1) ?? highest);
  const x = (second: number) => LEFT + ((WIDTH - LEFT - RIGHT) * second) / seconds;
  const y = (value: number) => top + height - (height * (value - least)) / (ceiling - least);
  const parts = [text(LEFT, top - 12, title, { weight: 600 })];
  for (const step of steps) {
    parts.push(
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${num(y(step))}" y2="${num(y(step))}" stroke="${GRID}"/>`,
      text(LEFT - 10, y(step) + 4, short(step), { color: FAINT, anchor: 'end' }),
    );
  }
  for (const { points, fill, stepped } of lines) {
    if (fill === undefined) continue;
    const back = (
      fill.to ?? [
        [points.at(-1)?.[0] ?? 0, least],
        [points[0]?.[0] ?? 0, least],
      ]
    ).toSorted((one, other) => other[0] - one[0]);
    const outline = `${path(points, x, y, stepped)} ${path(back, x, y, false).replace('M', 'L')} Z`;
    parts.push(`<path d="${outline}" fill="${fill.color}" fill-opacity="0.75"/>`);
  }
  for (const { points, color, dashed, stepped } of lines) {
    const dash = dashed ? ' stroke-dasharray="5 4"' : '';
    const width = dashed ? 1.2 : 1.8;
    parts.push(
      `<path d="${path(points, x, y, stepped)}" fill="none" stroke="${color}" stroke-width="${width}" stroke-linejoin="round"${dash}/>`,
    );
  }
  parts.push(legend(lines, top - 12));
  return parts.join('\n');
}

/** Right-aligned, in the order in which the lines are drawn. */
function legend(lines: readonly Line[], y: number): string {
  const parts: string[] = [];
  let right = WIDTH - RIGHT;
  for (const { label, color, dashed } of lines.filter((line) => line.label !== '').toReversed()) {
    const width = widthOf(label);
    parts.push(
      text(right, y, label, { color: INK, size: 12, anchor: 'end' }),
      `<line x1="${num(right - width - 26)}" x2="${num(right - width - 6)}" y1="${y - 4}" y2="${y - 4}" stroke="${color}" stroke-width="2.5"${dashed ? ' stroke-dasharray="5 4"' : ''}/>`,
    );
    right -= width + 44;
  }
  return parts.join('\n');
}

/** Roughly, as nobody measures text here: letters are narrow, usual or wide. */
function widthOf(label: string): number {
  return [...label].reduce(
    (sum, letter) => sum + (/[mwMW]/.test(letter) ? 11 : /[ijltf.,: 1]/.test(letter) ? 4.2 : 7.3),
    0,
  );
}

function path(
  points: readonly Point[],
  x: (second: number) => number,
  y: (value: number) => number,
  stepped = false,
): string {
  let drawn = '';
  let lastY = '';
  for (const [index, [second, value]] of points.entries()) {
    const [atX, atY] = [num(x(second)), num(y(value))];
    // What lies on a level line between its neighbours needs no point of its own.
    const next = points[index + 1];
    if (drawn !== '' && atY === lastY && next !== undefined && num(y(next[1])) === atY) continue;
    if (drawn === '') drawn = `M${atX} ${atY}`;
    else if (stepped) drawn += atY === lastY ? '' : `H${atX}V${atY}`;
    else drawn += `L${atX} ${atY}`;
    lastY = atY;
  }
  const end = points.at(-1);
  return stepped && end !== undefined ? `${drawn}H${num(x(end[0]))}` : drawn;
}

function timeAxis(y: number, seconds: number): string {
  const steps = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 7 * 86_400];
  const step = steps.find((it) => seconds / it <= 12) ?? 7 * 86_400;
  const parts: string[] = [];
  for (let second = 0; second <= seconds; second += step) {
    const x = LEFT + ((WIDTH - LEFT - RIGHT) * second) / seconds;
    parts.push(
      `<line x1="${num(x)}" x2="${num(x)}" y1="${num(y)}" y2="${num(y + 5)}" stroke="${FAINT}"/>`,
      text(x, y + 20, clock(second), { color: FAINT, anchor: second === seconds ? 'end' : 'middle' }),
    );
  }
  return parts.join('\n');
}

/** Hours and minutes since the beginning. */
export function clock(second: number): string {
  const [hours, minutes] = [Math.floor(second / 3600), Math.floor((second % 3600) / 60)];
  return `${hours}:${String(minutes).padStart(2, '0')}`;
}

function ticks(least: number, most: number, count: number, whole: boolean): number[] {
  const rough = Math.max(whole ? 1 : 0, (most - least) / count);
  const scale = 10 ** Math.floor(Math.log10(rough));
  const step =
    [1, 2, ...(whole ? [] : [2.5]), 5, 10].map((it) => it * scale).find((it) => it >= rough) ?? rough;
  const found: number[] = [];
  for (let at = 0; least + (at - 1) * step < most; at += 1)
    found.push(Number((least + at * step).toFixed(6)));
  return found;
}

function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toFixed(1))}M`;
  return value >= 10_000 ? `${Number((value / 1000).toFixed(1))}k` : String(value);
}

interface TextStyle {
  readonly color?: string;
  readonly size?: number;
  readonly weight?: number;
  readonly anchor?: 'end' | 'middle';
}

function text(
  x: number,
  y: number,
  content: string,
  { color = INK, size, weight, anchor }: TextStyle = {},
): string {
  const style = [
    ...(size === undefined ? [] : [`font-size="${size}"`]),
    ...(weight === undefined ? [] : [`font-weight="${weight}"`]),
    ...(anchor === undefined ? [] : [`text-anchor="${anchor}"`]),
  ];
  return `<text x="${num(x)}" y="${num(y)}" fill="${color}" ${style.join(' ')}>${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function num(value: number): string {
  return String(Math.round(value * 10) / 10);
}
