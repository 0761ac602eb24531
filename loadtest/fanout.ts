// One publisher, many subscribers: how long a message takes to reach all of them, and whether it does.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/fanout.ts

import { closeAudience, openAudience } from './lib/audience.ts';
import { connect, opened } from './lib/connect.ts';
import { fleetScenario } from './lib/fleet.ts';
import { overApi, publishPaced, toChannel } from './lib/publisher.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { apiKey, namespaces, number, run, runner } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { latency, nothingLost, undisturbed } from './lib/thresholds.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 50, full: 1000 }),
  ratePerSecond: number('RATE', { ci: 10, full: 20 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  seconds: number('SECONDS', { ci: 5, full: 60 }),
  p99Ms: number('P99_MS', { ci: 1000, full: 250 }),
};
const channel = `${namespaces.ephemeral}:${run}-fanout`;
const publisher = `${runner}/publisher`;

export const options = {
  scenarios: {
    receivers: fleetScenario('receive', plan.connections, longestSeconds(plan)),
    publisher: fleetScenario('publish', 1, longestSeconds(plan)),
  },
  thresholds: {
    ...nothingLost(plan.connections, plan.connections * plan.ratePerSecond * plan.seconds),
    ...latency(plan.p99Ms),
    ...undisturbed,
  },
  summaryTrendStats,
};

export const setup = () => start(plan, [channel]);

export async function receive(times: Times): Promise<void> {
  const receivers = await openAudience(plan, times, channel, publisher);
  await closeAudience(receivers, times.giveUpAtMs);
}

export async function publish({ publishAtMs }: Times): Promise<void> {
  const connection = connect(`load-${runner}-publisher`);
  await opened(connection);
  const over = apiKey === undefined ? toChannel(connection, channel) : overApi(channel);
  await publishPaced(over, publisher, { ...plan, startAtMs: publishAtMs });
  await connection.client.close();
}

export const handleSummary = summaryOf('fanout', 'One publisher, many subscribers', plan);
