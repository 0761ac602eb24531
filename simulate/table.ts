// The table of a simulation: the figures that somebody tunes by, with the operator and without it.

import { clock } from './picture.ts';
import type { Moment, Recording } from './run.ts';
import type { Settings } from './settings.ts';

/** One row, made from one recording. */
interface Row {
  readonly label: string;
  readonly read: (recording: Recording, settings: Settings) => string;
}

const rows: readonly Row[] = [
  { label: 'Most connections', read: ({ moments }) => count(most(moments, ({ connected }) => connected)) },
  { label: 'Most pods', read: ({ moments }) => String(most(moments, ({ desired }) => desired)) },
  { label: 'Pod hours', read: ({ podHours }) => podHours.toFixed(1) },
  { label: 'Times scaled up, down', read: ({ scaleUps, scaleDowns }) => `${scaleUps}, ${scaleDowns}` },
  {
    label: 'Mean above the target by more than a tenth',
    read: ({ secondsAboveTarget }, { target }) => (target === undefined ? '-' : minutes(secondsAboveTarget)),
  },
  { label: 'Fullest pod', read: ({ moments }) => count(most(moments, ({ fullest }) => fullest)) },
  { label: 'Skew above maxSkew', read: ({ secondsSkewed }) => minutes(secondsSkewed) },
  { label: 'Connections dropped by removing pods', read: ({ moments }) => count(last(moments).dropped) },
  { label: 'of these, killed when the grace period ended', read: ({ killed }) => count(killed) },
  { label: 'Connections moved without a gap', read: ({ moments }) => count(last(moments).moved) },
  {
    label: 'Refused for lack of room (each tries again)',
    read: ({ moments }) => count(last(moments).refused),
  },
];

/** The table, as Markdown. */
export function tableOf(settings: Settings, recording: Recording, without: Recording | undefined): string {
  const heads = without === undefined ? ['', ''] : ['', 'with the operator', 'without'];
  const cells = rows.map(({ label, read }) => [
    label,
    ...[recording, ...(without === undefined ? [] : [without])].map((it) => read(it, settings)),
  ]);
  const widths = heads.map((head, column) =>
    Math.max(head.length, ...cells.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => `${'-'.repeat(width + 1)}${column === 0 ? '-' : ':'}`).join('|')}|`;
  return [line(heads), rule, ...cells.map(line)].join('\n');
}

/** When the number of pods changed, and what held the autoscaler back. */
export function changesOf({ moments }: Recording): string {
  const lines: string[] = [];
  let before: Moment | undefined;
  for (const moment of moments) {
    if (before !== undefined && before.desired !== moment.desired) {
      const limit = moment.limited === undefined ? '' : `  ${moment.limited}`;
      const pods = `${String(before.desired).padStart(3)} → ${String(moment.desired).padEnd(3)} pods`;
      lines.push(
        `${clock(moment.second).padStart(6)}  ${pods}  at ${count(moment.connected)} connections${limit}`,
      );
    }
    before = moment;
  }
  return lines.join('\n');
}

function most(moments: readonly Moment[], read: (moment: Moment) => number): number {
  return Math.max(...moments.map(read));
}

function last(moments: readonly Moment[]): Moment {
  const moment = moments.at(-1);
  if (moment === undefined) throw new Error('the history has no moment');
  return moment;
}

function count(value: number): string {
  return Math.round(value).toLocaleString('en');
}

function minutes(seconds: number): string {
  return seconds < 600 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
