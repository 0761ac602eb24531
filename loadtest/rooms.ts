// Many small channels: everybody in a room hears everybody else, as in chats, games and documents.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/rooms.ts

import { closeAudience } from './lib/audience.ts';
import { fleetScenario, mine, openPaced } from './lib/fleet.ts';
import { publishPaced, toChannel } from './lib/publisher.ts';
import { Receiver } from './lib/receiver.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { namespaces, number, run, runner } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { latency, nothingLost, undisturbed } from './lib/thresholds.ts';

const plan = {
  rooms: number('ROOMS', { ci: 10, full: 200 }),
  members: number('MEMBERS', { ci: 5, full: 5 }),
  /** Messages a second of each member. */
  ratePerSecond: number('RATE', { ci: 2, full: 1 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  seconds: number('SECONDS', { ci: 5, full: 60 }),
  p99Ms: number('P99_MS', { ci: 1000, full: 250 }),
};
const connections = plan.rooms * plan.members;

const roomOf = (number: number) => `${namespaces.ephemeral}:${run}-${runner}-room-${number % plan.rooms}`;
const publisherOf = (number: number) => `${runner}/${number}`;
/** Everybody whose number leaves the same rest is in the same room; so the members are spread over virtual users. */
const membersOf = (number: number) =>
  Array.from({ length: plan.members }, (_, index) => publisherOf((number % plan.rooms) + index * plan.rooms));

export const options = {
  scenarios: { members: fleetScenario('member', connections, longestSeconds(plan)) },
  thresholds: {
    ...nothingLost(connections, connections * plan.members * plan.ratePerSecond * plan.seconds),
    ...latency(plan.p99Ms),
    ...undisturbed,
  },
  summaryTrendStats,
};

export const setup = () => start(plan, [roomOf(0)]);

export async function member({ startAtMs, publishAtMs, giveUpAtMs }: Times): Promise<void> {
  const numbers = mine(connections);
  const members = await openPaced(numbers, connections, startAtMs, plan.connectSeconds, (number) => {
    const receiver = new Receiver({
      user: `load-${runner}-${number}`,
      channel: roomOf(number),
      expect: membersOf(number),
      publishers: plan.members,
      publishAtMs,
    });
    return { number, receiver };
  });
  await Promise.all(
    members.map(({ number, receiver }) =>
      publishPaced(toChannel(receiver.connection, roomOf(number)), publisherOf(number), {
        ...plan,
        // Not all at once: members do not wait for each other.
        startAtMs: publishAtMs + (1000 / plan.ratePerSecond) * (number / connections),
      }),
    ),
  );
  await closeAudience(
    members.map(({ receiver }) => receiver),
    giveUpAtMs,
  );
}

export const handleSummary = summaryOf('rooms', 'Many small rooms', plan);
