// User to user: each pair has one who sends and one who hears. Behind a load balancer most pairs are on two pods.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/direct.ts

import { closeAudience } from './lib/audience.ts';
import { connect, opened } from './lib/connect.ts';
import { fleetScenario, mine, openPaced } from './lib/fleet.ts';
import { publishPaced, toUser } from './lib/publisher.ts';
import { Receiver } from './lib/receiver.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { number, runner } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { latency, nothingLost, undisturbed } from './lib/thresholds.ts';

const plan = {
  pairs: number('PAIRS', { ci: 25, full: 500 }),
  /** Messages a second of each pair. */
  ratePerSecond: number('RATE', { ci: 2, full: 2 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  seconds: number('SECONDS', { ci: 5, full: 60 }),
  p99Ms: number('P99_MS', { ci: 1000, full: 250 }),
};

export const options = {
  // One connection of a pair each: a virtual user holds `PER_VU` of them.
  scenarios: {
    receivers: fleetScenario('receive', plan.pairs, longestSeconds(plan)),
    senders: fleetScenario('send', plan.pairs, longestSeconds(plan)),
  },
  thresholds: {
    ...nothingLost(plan.pairs, plan.pairs * plan.ratePerSecond * plan.seconds),
    ...latency(plan.p99Ms),
    ...undisturbed,
  },
  summaryTrendStats,
};

const receiverOf = (number: number) => `load-${runner}-to-${number}`;
const senderOf = (number: number) => `load-${runner}-from-${number}`;

export const setup = () => start(plan, []);

export async function receive({ startAtMs, publishAtMs, giveUpAtMs }: Times): Promise<void> {
  const receivers = await openPaced(
    mine(plan.pairs),
    plan.pairs,
    startAtMs,
    plan.connectSeconds,
    (number) => {
      return new Receiver({
        user: receiverOf(number),
        expect: [senderOf(number)],
        publishers: 1,
        publishAtMs,
      });
    },
  );
  await closeAudience(receivers, giveUpAtMs);
}

export async function send({ startAtMs, publishAtMs }: Times): Promise<void> {
  const senders = await openPaced(mine(plan.pairs), plan.pairs, startAtMs, plan.connectSeconds, (number) => {
    return { number, connection: connect(senderOf(number)) };
  });
  await Promise.all(
    senders.map(async ({ number, connection }) => {
      await opened(connection);
      const pace = {
        ...plan,
        startAtMs: publishAtMs + (1000 / plan.ratePerSecond) * (number / plan.pairs),
      };
      await publishPaced(toUser(connection, receiverOf(number)), senderOf(number), pace);
      await connection.client.close();
    }),
  );
}

export const handleSummary = summaryOf('direct', 'User to user', plan);
