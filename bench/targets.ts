// Targets: what the benchmark has to show (docs/performance.md has the table), and whether the medians meet it.

import type { FigureId, Samples } from './figures.ts';
import type { ServerId } from './servers.ts';

/** A median of one server against a number, or against another server's median. */
export interface Target {
  readonly title: string;
  readonly figure: FigureId;
  readonly server: ServerId;
  readonly against?: { readonly server: ServerId; readonly figure?: FigureId };
  readonly wanted: 'at least' | 'at most';
  readonly limit: number;
}

/** Disturbed: others were busy whenever one of the two was measured. */
export type Verdict = 'met' | 'MISSED' | 'disturbed' | 'not measured';

const c = { server: 'c' } as const;
const least = { server: 'tidegate', against: c, wanted: 'at least' } as const;
const most = { server: 'tidegate', against: c, wanted: 'at most' } as const;
const absolute = { wanted: 'at most' } as const;

export const targets: readonly Target[] = [
  { title: 'deliveries/s, 4 outstanding, of C', figure: 'rate4', ...least, limit: 0.85 },
  { title: 'deliveries/s, 16 outstanding, of C', figure: 'rate16', ...least, limit: 0.85 },
  { title: 'deliveries/s, 64 outstanding, of C', figure: 'rate64', ...least, limit: 0.65 },
  { title: 'p99 at 20k/s, of C', figure: 'p99At20k', ...most, limit: 2 },
  { title: 'p99 at 100k/s, of C', figure: 'p99At100k', ...most, limit: 2.5 },
  { title: 'p99 at 100k/s, of C (the goal)', figure: 'p99At100k', ...most, limit: 1.5 },
  { title: 'CPU at 100k/s, of C', figure: 'cpuAt100k', ...most, limit: 1.3 },
  { title: 'KiB an idle connection, few', figure: 'kibAtFew', server: 'tidegate', ...absolute, limit: 10 },
  { title: 'KiB an idle connection, many', figure: 'kibAtMany', server: 'tidegate', ...absolute, limit: 10 },
  {
    title: 'KiB an idle connection, many of few',
    figure: 'kibAtMany',
    server: 'tidegate',
    against: { server: 'tidegate', figure: 'kibAtFew' },
    ...absolute,
    limit: 1,
  },
  {
    title: 'connections accepted/s, of plain ws',
    figure: 'accepted',
    server: 'tidegate',
    against: { server: 'plain-ws' },
    wanted: 'at least',
    limit: 0.8,
  },
  { title: 'start to ready, ms', figure: 'ready', server: 'tidegate', ...absolute, limit: 200 },
  {
    title: 'start to ready, bundled with compile cache, ms',
    figure: 'readyBundled',
    server: 'tidegate',
    ...absolute,
    limit: 200,
  },
  tracesTarget('1 % traced: deliveries/s, 4 outstanding, of none', 'rate4'),
  tracesTarget('1 % traced: deliveries/s, 16 outstanding, of none', 'rate16'),
  tracesTarget('1 % traced: deliveries/s, 64 outstanding, of none', 'rate64'),
  tracesTarget('1 % traced: deliveries/s, 200 publishers, of none', 'publishersRate'),
  ...redisTargets('plain-ws', 'plain ws'),
  ...redisTargets('socket.io', 'Socket.IO'),
];

function tracesTarget(title: string, figure: FigureId): Target {
  return {
    title,
    figure,
    server: 'traces-1',
    against: { server: 'traces-off' },
    wanted: 'at least',
    limit: 0.97,
  };
}

/** Beside the peers that use Redis no number was asked for: being no worse is the least. */
function redisTargets(peer: ServerId, name: string): Target[] {
  const common = { server: 'tidegate+redis', against: { server: peer } } as const;
  return [
    {
      title: `Redis: deliveries/s, 16 outstanding, of ${name}`,
      figure: 'rate16',
      ...common,
      wanted: 'at least',
      limit: 1,
    },
    { title: `Redis: p99 at 20k/s, of ${name}`, figure: 'p99At20k', ...common, wanted: 'at most', limit: 1 },
    {
      title: `Redis: p99 at 100k/s, of ${name}`,
      figure: 'p99At100k',
      ...common,
      wanted: 'at most',
      limit: 1,
    },
    {
      title: `Redis: CPU at 100k/s, of ${name}`,
      figure: 'cpuAt100k',
      ...common,
      wanted: 'at most',
      limit: 1,
    },
  ];
}

/** What a target's servers measured, and the verdict. */
export function judge(target: Target, samples: Samples): { measured: number | undefined; verdict: Verdict } {
  const own = { figure: target.figure, server: target.server };
  const other = target.against && { figure: target.figure, ...target.against };
  const isDisturbed = [own, other].some((one) => one && samples.isDisturbed(one.figure, one.server));
  const measured = ratio(
    samples.median(own.figure, own.server),
    other ? samples.median(other.figure, other.server) : 1,
  );
  if (measured === undefined) return { measured, verdict: 'not measured' };
  if (isDisturbed) return { measured, verdict: 'disturbed' };
  const isMet = target.wanted === 'at least' ? measured >= target.limit : measured <= target.limit;
  return { measured, verdict: isMet ? 'met' : 'MISSED' };
}

const ratio = (own: number | undefined, other: number | undefined): number | undefined =>
  own === undefined || !other ? undefined : own / other;
