// A restart of all pods under load: every client moves, and nothing is lost, doubled or out of order. The script holds
// the load; restart the pods while it publishes, as it says:
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/rolling.ts
//   kubectl rollout restart deployment tidegate

import { closeAudience, openAudience } from './lib/audience.ts';
import { connect, opened } from './lib/connect.ts';
import { fleetScenario, until } from './lib/fleet.ts';
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
  /** Long enough for all pods to be replaced, one after the other. */
  seconds: number('SECONDS', { ci: 60, full: 600 }),
};
const channel = `${namespaces.durable}:${run}-rolling`;
/** A durable channel keeps the last run's messages; so a run needs publishers of its own. */
const publisherOf = ({ startAtMs }: Times) => `${runner}/${startAtMs}`;

export const options = {
  scenarios: {
    receivers: fleetScenario('receive', plan.connections, longestSeconds(plan)),
    publisher: fleetScenario('publish', 1, longestSeconds(plan)),
  },
  thresholds: {
    ...nothingLost(plan.connections, plan.connections * plan.ratePerSecond * plan.seconds),
    // Each moved or came back once at least, or nothing was restarted.
    ...atLeast('connections_opened', 2 * plan.connections),
    gaps_told: ['count==0'],
  },
  summaryTrendStats,
};

export const setup = () => start(plan, [channel]);

export async function receive(times: Times): Promise<void> {
  const receivers = await openAudience(plan, times, channel, publisherOf(times));
  await closeAudience(receivers, times.giveUpAtMs);
}

export async function publish(times: Times): Promise<void> {
  const { publishAtMs } = times;
  const connection = connect(`load-${runner}-publisher`);
  await opened(connection);
  await until(publishAtMs);
  console.log('publishing: restart the pods now');
  await publishPaced(toChannel(connection, channel), publisherOf(times), {
    ...plan,
    startAtMs: publishAtMs,
  });
  await connection.client.close();
}

export const handleSummary = summaryOf('rolling', 'A restart of all pods', plan);
