// Hours of everyday load: rooms, in which people come and go. What is looked for is what short tests cannot show:
// memory that grows and latency that creeps up.
//
//   k6 run -e URL=ws://127.0.0.1:8080 -e ADMIN_URLS=http://127.0.0.1:9090 loadtest/soak.ts
//
// Without ADMIN_URLS it cannot see the gateways' memory, and says so.

import { closeAudience } from './lib/audience.ts';
import { fleetScenario, mine, openPaced, until } from './lib/fleet.ts';
import { memorySamples, memorySlope } from './lib/metrics.ts';
import { metricOfPods } from './lib/pods.ts';
import { publishPaced, toChannel } from './lib/publisher.ts';
import { Receiver } from './lib/receiver.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { adminUrls, namespaces, number, run, runner, size } from './lib/settings.ts';
import { slopeOf } from './lib/slope.ts';
import { summaryOf } from './lib/summary.ts';
import { atLeast, latency, nothingLost, undisturbed } from './lib/thresholds.ts';

const plan = {
  rooms: number('ROOMS', { ci: 5, full: 100 }),
  members: number('MEMBERS', { ci: 4, full: 5 }),
  /** Messages a second of each member. */
  ratePerSecond: number('RATE', { ci: 2, full: 1 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 30 }),
  seconds: number('SECONDS', { ci: 10, full: 4 * 3600 }),
  /** How long each connection stays before somebody else comes in its place. */
  staySeconds: number('STAY_SECONDS', { ci: 3, full: 120 }),
  p99Ms: number('P99_MS', { ci: 1000, full: 250 }),
  /** Memory that a pod may gain; heaps breathe, so a slope means something after an hour. */
  maxSlopeMibPerHour: number('MAX_SLOPE_MIB_PER_HOUR', { ci: 0, full: 2 }),
};
const connections = plan.rooms * plan.members;
const SAMPLE_MS = size === 'ci' ? 1000 : 10_000;
/** Of the samples, those of the beginning, when memory rightly grows, are left out. */
const WARM_UP_SHARE = 0.2;

export const options = {
  scenarios: {
    members: fleetScenario('member', connections, longestSeconds(plan)),
    visitors: fleetScenario('visit', connections, longestSeconds(plan)),
    ...(adminUrls.length > 0 && { observer: fleetScenario('observe', 1, longestSeconds(plan)) }),
  },
  thresholds: {
    ...nothingLost(connections, connections * plan.members * plan.ratePerSecond * plan.seconds),
    ...latency(plan.p99Ms),
    ...undisturbed,
    ...(adminUrls.length > 0 && atLeast('memory_samples', Math.floor((plan.seconds * 500) / SAMPLE_MS))),
    // Ten seconds have no slope that means anything.
    ...(adminUrls.length > 0 &&
      size === 'full' && { memory_slope_mib_per_hour: [`value<=${plan.maxSlopeMibPerHour}`] }),
  },
  summaryTrendStats,
};

const roomOf = (number: number) => `${namespaces.ephemeral}:${run}-${runner}-soak-${number % plan.rooms}`;
const publisherOf = (number: number) => `${runner}/${number}`;
const membersOf = (number: number) =>
  Array.from({ length: plan.members }, (_, index) => publisherOf((number % plan.rooms) + index * plan.rooms));

export function setup(): Promise<Times> {
  if (adminUrls.length === 0) console.warn('memory is not looked at: pass -e ADMIN_URLS=http://HOST:9090');
  return start(plan, [roomOf(0)]);
}

/** Those who stay, and talk. */
export async function member({ startAtMs, publishAtMs, giveUpAtMs }: Times): Promise<void> {
  const members = await openPaced(
    mine(connections),
    connections,
    startAtMs,
    plan.connectSeconds,
    (number) => {
      const [channel, expect] = [roomOf(number), membersOf(number)];
      const receiver = new Receiver({
        user: `load-${runner}-${number}`,
        channel,
        expect,
        publishers: plan.members,
        publishAtMs,
      });
      return { number, receiver };
    },
  );
  await Promise.all(
    members.map(({ number, receiver }) => {
      const publishFromMs = publishAtMs + (1000 / plan.ratePerSecond) * (number / connections);
      const over = toChannel(receiver.connection, roomOf(number));
      return publishPaced(over, publisherOf(number), { ...plan, startAtMs: publishFromMs });
    }),
  );
  await closeAudience(
    members.map(({ receiver }) => receiver),
    giveUpAtMs,
  );
}

/** Those who come, listen for a while and go, each time as somebody else. */
export async function visit({ publishAtMs, endAtMs }: Times): Promise<void> {
  const stayMs = plan.staySeconds * 1000;
  await Promise.all(
    mine(connections).map(async (number) => {
      await until(publishAtMs + (number / connections) * stayMs);
      for (let visits = 0; Date.now() + stayMs < endAtMs; visits++) {
        const user = `load-${runner}-visitor-${number}-${visits}`;
        const visitor = new Receiver({ user, channel: roomOf(number), publishers: 0, publishAtMs });
        await until(Date.now() + stayMs);
        await visitor.close();
      }
    }),
  );
}

export async function observe({ publishAtMs, endAtMs }: Times): Promise<void> {
  const samples: [hours: number, mib: number][] = [];
  for (let atMs = publishAtMs; atMs < endAtMs; atMs += SAMPLE_MS) {
    await until(atMs);
    const bytes = await metricOfPods('tidegate_process_resident_memory_bytes');
    if (bytes.length === 0) continue;
    memorySamples.add(1);
    const mean = bytes.reduce((sum, value) => sum + value, 0) / bytes.length;
    samples.push([(atMs - publishAtMs) / 3_600_000, mean / 1_048_576]);
    const slope = slopeOf(samples.slice(Math.floor(samples.length * WARM_UP_SHARE)));
    if (slope !== undefined) memorySlope.add(slope);
  }
}

export const handleSummary = summaryOf('soak', 'Hours of everyday load', plan);
