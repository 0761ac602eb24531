// The report: the medians as Markdown tables, and every raw value as JSON.

import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import type { Figure, FigureId, Samples } from './figures.ts';
import type { Server, ServerId } from './servers.ts';
import { judge, targets } from './targets.ts';

export interface Run {
  readonly rounds: number;
  readonly quick: boolean;
  readonly servers: readonly Server[];
  readonly figures: ReadonlyMap<FigureId, Figure>;
  readonly samples: Samples;
  /** What the reader must know: pins, limits, what is missing, what failed. */
  readonly notes: readonly string[];
  readonly seconds: number;
}

interface Ratio {
  readonly title: string;
  readonly of: ServerId;
  readonly to: ServerId;
}

const ratios: readonly Ratio[] = [
  { title: 'memory / C', of: 'tidegate', to: 'c' },
  { title: 'Redis / plain ws', of: 'tidegate+redis', to: 'plain-ws' },
  { title: 'Redis / Socket.IO', of: 'tidegate+redis', to: 'socket.io' },
  { title: '0 % / off', of: 'traces-0', to: 'traces-off' },
  { title: '1 % / off', of: 'traces-1', to: 'traces-off' },
  { title: 'all / off', of: 'traces-100', to: 'traces-off' },
];

const NONE = '-';

const marks = {
  clientBound: { sign: '†', meaning: 'The client’s core was full: the server may be faster than this.' },
  disturbed: {
    sign: '‡',
    meaning: 'Other processes used the machine in every round: measure again when it is idle.',
  },
} as const;

export function markdown(run: Run): string {
  const medians = medianTable(run);
  const legend = Object.values(marks)
    .filter(({ sign }) => medians.some((line) => line.includes(sign)))
    .flatMap(({ sign, meaning }) => ['', `${sign} ${meaning}`]);
  return [
    `Measured ${new Date().toISOString().slice(0, 10)} on ${machine()}, in ${duration(run.seconds)}: medians of`,
    `${run.rounds} interleaved ${run.rounds === 1 ? 'round' : 'rounds'}${run.quick ? ' (the quick form: shorter windows, for a first look)' : ''}.`,
    '1000 connections and frames of 200 bytes, unless the line says otherwise.',
    '',
    ...medians,
    ...legend,
    '',
    ...targetTable(run),
    '',
    ...run.notes.map((note) => `- ${note}`),
    '',
  ].join('\n');
}

function medianTable({ servers, figures, samples }: Run): string[] {
  const shown = ratios.filter(({ of, to }) =>
    [of, to].every((id) => servers.some((server) => server.id === id)),
  );
  const rows: string[][] = [];
  for (const [id, figure] of figures) {
    const medians = servers.map((server) => samples.median(id, server.id));
    if (medians.every((median) => median === undefined)) continue;
    rows.push([
      figure.title,
      ...servers.map((server, index) => {
        const signs = [
          samples.isClientBound(id, server.id) ? ` ${marks.clientBound.sign}` : '',
          samples.isDisturbed(id, server.id) ? ` ${marks.disturbed.sign}` : '',
        ];
        return `${number(medians[index], figure.digits)}${signs.join('')}`;
      }),
      ...shown.map(({ of, to }) => {
        const [own, other] = [samples.median(id, of), samples.median(id, to)];
        return !figure.hasRatio || own === undefined || !other ? NONE : number(own / other, 2);
      }),
    ]);
  }
  return table(['', ...servers.map(({ title }) => title), ...shown.map(({ title }) => title)], rows);
}

function targetTable({ samples }: Run): string[] {
  const rows = targets.flatMap((target) => {
    const { measured, verdict } = judge(target, samples);
    if (verdict === 'not measured') return [];
    return [[target.title, `${target.wanted} ${target.limit}`, number(measured, 2), verdict]];
  });
  return rows.length === 0 ? [] : table(['target', 'wanted', 'measured', ''], rows);
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, index) => (index === 0 ? '---' : '---:'));
  return [line(head), line(rule), ...rows.map(line)];
}

function number(value: number | undefined, digits: number): string {
  if (value === undefined || Number.isNaN(value)) return NONE;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const duration = (seconds: number): string =>
  seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;

export function machine(): string {
  const [first] = cpus();
  return `${first?.model.trim() ?? 'an unknown CPU'}, ${cpus().length} cores, Linux ${release()}, Node ${process.version}`;
}

/** Every raw value, for whoever wants to see how much they scatter. */
export function json(run: Run): string {
  const { rounds, quick, samples, notes, seconds } = run;
  const load = readFileSync('/proc/loadavg', 'utf8').trim();
  return `${JSON.stringify({ at: new Date(), machine: machine(), load, rounds, quick, seconds, notes, samples: samples.all }, null, 2)}\n`;
}
