// Figures: every line of the table, the measurement it comes from, and how its values are written.

import { DISTURBED_CORES } from './noise.ts';
import type { ServerId } from './servers.ts';

export type FigureId =
  | 'rate4'
  | 'rate16'
  | 'rate64'
  | 'microsADelivery'
  | 'microsADeliveryToFew'
  | 'microsAtOnce'
  | 'p50At20k'
  | 'p99At20k'
  | 'lossAt20k'
  | 'p50At100k'
  | 'p99At100k'
  | 'lossAt100k'
  | 'cpuAt100k'
  | 'kibAtFew'
  | 'kibAtMany'
  | 'accepted'
  | 'ready'
  | 'readyBundled'
  | 'roomsRate'
  | 'roomsP99'
  | 'roomsLoss'
  | 'roomsCpu'
  | 'publishersRate'
  | 'publishersP99'
  | 'ephemeralPublishes'
  | 'ephemeralDeliveries'
  | 'durablePublishes'
  | 'durableDeliveries'
  | 'durableP99'
  | 'returnMs'
  | 'returnPeakMib'
  | 'returnCalmP99'
  | 'returnStormP99'
  | 'returnLost';

export interface Figure {
  readonly title: string;
  readonly digits: number;
  /** Counts of what should be zero have no ratio. */
  readonly hasRatio: boolean;
}

const rate = (title: string): Figure => ({ title, digits: 0, hasRatio: true });
const amount = (title: string, digits: number): Figure => ({ title, digits, hasRatio: true });
const loss = (title: string): Figure => ({ title, digits: 0, hasRatio: false });

/** In the order of the table. `idle` are the numbers of connections of the two memory rows. */
export function figuresFor(idle: { few: number; many: number }): ReadonlyMap<FigureId, Figure> {
  return new Map<FigureId, Figure>([
    ['rate4', rate('deliveries/s, 4 outstanding')],
    ['rate16', rate('deliveries/s, 16 outstanding')],
    ['rate64', rate('deliveries/s, 64 outstanding')],
    ['microsADelivery', amount('CPU a delivery to one of 1000, 100 messages/s, µs', 3)],
    [
      'microsADeliveryToFew',
      amount('CPU a delivery to one of 100, 1000 messages/s of 100 publishers, µs', 3),
    ],
    ['microsAtOnce', amount('the same at saturation, 64 messages outstanding, µs', 3)],
    ['p50At20k', amount('p50 at 20k/s, ms', 1)],
    ['p99At20k', amount('p99 at 20k/s, ms', 1)],
    ['lossAt20k', loss('lost at 20k/s')],
    ['p50At100k', amount('p50 at 100k/s, ms', 1)],
    ['p99At100k', amount('p99 at 100k/s, ms', 1)],
    ['lossAt100k', loss('lost at 100k/s')],
    ['cpuAt100k', amount('CPU at 100k/s, cores', 2)],
    ['kibAtFew', amount(`KiB an idle connection, ${idle.few.toLocaleString('en')}`, 2)],
    ['kibAtMany', amount(`KiB an idle connection, ${idle.many.toLocaleString('en')}`, 2)],
    ['accepted', rate('connections accepted/s')],
    ['ready', amount('start to ready, ms', 0)],
    ['readyBundled', amount('start to ready, bundled with compile cache, ms', 0)],
    ['roomsRate', rate('100 rooms of 10, 10k publishes/s: deliveries/s')],
    ['roomsP99', amount('100 rooms of 10, 10k publishes/s: p99, ms', 1)],
    ['roomsLoss', loss('100 rooms of 10, 10k publishes/s: lost')],
    ['roomsCpu', amount('100 rooms of 10, 10k publishes/s: CPU, cores', 2)],
    ['publishersRate', rate('200 publishers, 64 outstanding: deliveries/s')],
    ['publishersP99', amount('200 publishers, 64 outstanding: p99, ms', 1)],
    ['ephemeralPublishes', rate('ephemeral channel, 64 unanswered: publishes/s')],
    ['ephemeralDeliveries', rate('ephemeral channel, 10 subscribers: deliveries/s')],
    ['durablePublishes', rate('durable channel, 64 unanswered: publishes/s')],
    ['durableDeliveries', rate('durable channel, 10 subscribers: deliveries/s')],
    ['durableP99', amount('durable channel: p99 of an answer, ms', 1)],
    ['returnMs', amount('10,000 return with 100 missed each: all live after, ms', 0)],
    ['returnPeakMib', amount('10,000 return: peak memory above before, MiB', 0)],
    ['returnCalmP99', amount('10,000 return: p99 of those who stayed, before, ms', 1)],
    ['returnStormP99', amount('10,000 return: p99 of those who stayed, meanwhile, ms', 1)],
    ['returnLost', loss('10,000 return: who did not get everything')],
  ]);
}

/** One value of one run. */
export interface Sample {
  readonly figure: FigureId;
  readonly server: ServerId;
  readonly round: number;
  readonly value: number;
  /** The share of its core that the client used. */
  readonly clientCpu: number | undefined;
  /** The cores that other processes used meanwhile. */
  readonly othersCpu: number;
}

const FULL_CORE = 0.95;

/** All values of a run. */
export class Samples {
  readonly all: Sample[] = [];

  /** Undefined where nothing was measured. */
  median(figure: FigureId, server: ServerId): number | undefined {
    const values = this.#of(figure, server)
      .map(({ value }) => value)
      .sort((a, b) => a - b);
    const middle = values.length >> 1;
    const upper = values[middle];
    const lower = values[middle - 1];
    if (values.length % 2 === 1 || upper === undefined || lower === undefined) return upper;
    return (lower + upper) / 2;
  }

  /** The client's own core was full in most rounds, so that the server may be faster than the values say. */
  isClientBound(figure: FigureId, server: ServerId): boolean {
    const samples = this.#of(figure, server);
    return samples.filter(({ clientCpu = 0 }) => clientCpu >= FULL_CORE).length * 2 > samples.length;
  }

  /** Others were busy in every round, so that the value says little. */
  isDisturbed(figure: FigureId, server: ServerId): boolean {
    const samples = this.#of(figure, server);
    return samples.length > 0 && samples.every(isDisturbed);
  }

  /** The undisturbed ones, where there are any. */
  #of(figure: FigureId, server: ServerId): Sample[] {
    const samples = this.all.filter((sample) => sample.figure === figure && sample.server === server);
    const quiet = samples.filter((sample) => !isDisturbed(sample));
    return quiet.length > 0 ? quiet : samples;
  }
}

const isDisturbed = ({ othersCpu }: Sample): boolean => othersCpu > DISTURBED_CORES;
