// Histories: how many clients want to be connected at each moment. Built-in shapes, or rows of a CSV file.

/** A history of one stretch of time. */
export interface History {
  readonly name: string;
  readonly seconds: number;
  /** Clients that want to be connected, so many seconds after the beginning. */
  clientsAt(second: number): number;
  /** Moments in which everybody who is connected to the same load balancer loses the connection: a share of all. */
  readonly cuts: readonly { readonly second: number; readonly share: number }[];
}

type Point = readonly [second: number, share: number];

const MINUTE = 60;
const HOUR = 3600;

interface Shape {
  readonly help: string;
  readonly seconds: number;
  readonly points: readonly Point[];
  readonly cuts?: History['cuts'];
}

/** The built-in shapes, as shares of their peak; what lies between two points is on a line. */
export const shapes = {
  launch: {
    help: 'nobody, then everybody within ten minutes, and a slow decline',
    seconds: 2 * HOUR,
    points: [
      [0, 0.02],
      [5 * MINUTE, 0.02],
      [15 * MINUTE, 1],
      [40 * MINUTE, 0.9],
      [80 * MINUTE, 0.45],
      [2 * HOUR, 0.3],
    ],
  },
  wave: {
    help: 'a day: few at night, a quick morning, a peak in the evening',
    seconds: 24 * HOUR,
    points: Array.from({ length: 97 }, (_, quarter): Point => {
      const hour = quarter / 4;
      const day = Math.exp(-(((hour - 13) / 4.5) ** 2)) * 0.55;
      const evening = Math.exp(-(((hour - 20) / 2.2) ** 2)) * 0.75;
      return [quarter * 15 * MINUTE, Math.min(1, 0.12 + day + evening)];
    }),
  },
  storm: {
    help: 'a steady hour in which the network is cut: half of all clients lose their connection and come back at once',
    seconds: HOUR,
    points: [
      [0, 1],
      [HOUR, 1],
    ],
    cuts: [{ second: 20 * MINUTE, share: 0.5 }],
  },
  spike: {
    help: 'four times as many within two minutes, for a quarter of an hour',
    seconds: 90 * MINUTE,
    points: [
      [0, 0.25],
      [15 * MINUTE, 0.25],
      [17 * MINUTE, 1],
      [32 * MINUTE, 1],
      [40 * MINUTE, 0.3],
      [90 * MINUTE, 0.25],
    ],
  },
  leak: {
    help: 'slow growth for hours, because clients forget to close, until a release ends it',
    seconds: 8 * HOUR,
    points: [
      [0, 0.25],
      [6.5 * HOUR, 1],
      [6.6 * HOUR, 0.3],
      [8 * HOUR, 0.25],
    ],
  },
} as const satisfies Record<string, Shape>;

export type ShapeName = keyof typeof shapes;

/** A built-in shape with so many clients at its peak. */
export function historyOf(name: ShapeName, peak: number): History {
  const shape: Shape = shapes[name];
  const points = shape.points.map(([second, share]): Point => [second, share * peak]);
  return { name, seconds: shape.seconds, clientsAt: between(points), cuts: shape.cuts ?? [] };
}

/**
 * A history from CSV: two columns, time and clients. The time is in seconds, or a date such as
 * `2026-11-22T14:00:00Z`; a first line with names is passed over, as are empty ones, those that begin with #, and further columns. Prometheus and Grafana export it.
 * @throws where a line cannot be read, with its number.
 */
export function historyFromCsv(name: string, text: string): History {
  const points: Point[] = [];
  let hasNames = false;
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const [time = '', clients = ''] = line.split(/[,;\t]/).map((cell) => cell.trim().replace(/^"|"$/g, ''));
    const second = /^\d+(\.\d+)?$/.test(time) ? Number(time) : Date.parse(time) / 1000;
    const count = clients === '' ? Number.NaN : Number(clients);
    if (Number.isNaN(second) || Number.isNaN(count)) {
      if (points.length === 0 && !hasNames) {
        hasNames = true;
        continue;
      }
      throw new Error(`${name}, line ${index + 1}: expected a time and a number of clients, not "${line}"`);
    }
    const last = points.at(-1);
    if (last !== undefined && second <= last[0]) {
      throw new Error(`${name}, line ${index + 1}: times must go up`);
    }
    if (count < 0) throw new Error(`${name}, line ${index + 1}: there cannot be fewer than no clients`);
    points.push([second, count]);
  }
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined || points.length < 2) {
    throw new Error(`${name}: there must be two lines with a time and a number of clients at least`);
  }
  const shifted = points.map(([second, count]): Point => [second - first[0], count]);
  return { name, seconds: Math.ceil(last[0] - first[0]), clientsAt: between(shifted), cuts: [] };
}

function between(points: readonly Point[]): (second: number) => number {
  let at = 0; // Histories are read forwards, so that the place is nearly always the same.
  return (second) => {
    if (second < (points[at]?.[0] ?? 0)) at = 0;
    while (at + 1 < points.length && (points[at + 1]?.[0] ?? 0) <= second) at += 1;
    const [from, to] = [points[at], points[at + 1]];
    if (from === undefined) return 0;
    if (to === undefined || second <= from[0]) return Math.round(from[1]);
    return Math.round(from[1] + ((to[1] - from[1]) * (second - from[0])) / (to[0] - from[0]));
  };
}
