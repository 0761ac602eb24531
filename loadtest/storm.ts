// Everybody reconnects at once, as after a network failure or the restart of a load balancer: how long it takes until
// all are back, and whether they get what they missed. The channel is durable.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/storm.ts

import { closeAudience, openAudience } from './lib/audience.ts';
import { connect, opened } from './lib/connect.ts';
import { fleetScenario, until } from './lib/fleet.ts';
import { returnTime } from './lib/metrics.ts';
import { publishPaced, toChannel } from './lib/publisher.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { namespaces, number, run, runner } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { atLeast, nothingLost } from './lib/thresholds.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 50, full: 1000 }),
  ratePerSecond: number('RATE', { ci: 10, full: 10 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  seconds: number('SECONDS', { ci: 8, full: 60 }),
  /** Until everybody is back. */
  returnMs: number('RETURN_MS', { ci: 10_000, full: 30_000 }),
};
const channel = `${namespaces.durable}:${run}-storm`;
/** A durable channel keeps the last run's messages; so a run needs publishers of its own. */
const publisherOf = ({ startAtMs }: Times) => `${runner}/${startAtMs}`;

export const options = {
  scenarios: {
    receivers: fleetScenario('receive', plan.connections, longestSeconds(plan)),
    publisher: fleetScenario('publish', 1, longestSeconds(plan)),
  },
  thresholds: {
    ...nothingLost(plan.connections, plan.connections * plan.ratePerSecond * plan.seconds),
    return_time: [`max<=${plan.returnMs}`],
    // Everybody was cut once, and came back.
    ...atLeast('connections_dropped', plan.connections),
    ...atLeast('connections_opened', 2 * plan.connections),
    gaps_told: ['count==0'],
  },
  summaryTrendStats,
};

export const setup = () => start(plan, [channel]);

export async function receive(times: Times): Promise<void> {
  const receivers = await openAudience(plan, times, channel, publisherOf(times));
  await until(times.middleAtMs);
  for (const { connection } of receivers) {
    const cutAtMs = Date.now();
    connection.cut(() => returnTime.add(Date.now() - cutAtMs));
  }
  await closeAudience(receivers, times.giveUpAtMs);
}

export async function publish(times: Times): Promise<void> {
  const connection = connect(`load-${runner}-publisher`);
  await opened(connection);
  const pace = { ...plan, startAtMs: times.publishAtMs };
  await publishPaced(toChannel(connection, channel), publisherOf(times), pace);
  await connection.client.close();
}

export const handleSummary = summaryOf('storm', 'Everybody reconnects at once', plan);
