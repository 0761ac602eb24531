// A comeback: everybody hears one durable channel, whose publisher goes on while they lose their connections, and nothing
// may be missing in the end.

import { openAudience } from './audience.ts';
import { connect, opened } from './connect.ts';
import { fleetScenario, until } from './fleet.ts';
import { publishPaced, toChannel } from './publisher.ts';
import type { Receiver } from './receiver.ts';
import { type Durations, longestSeconds, start, summaryTrendStats, type Times } from './schedule.ts';
import { namespaces, run, runner } from './settings.ts';
import { atLeast, nothingLost } from './thresholds.ts';

interface Plan extends Durations {
  readonly connections: number;
  readonly ratePerSecond: number;
  readonly bytes: number;
}

/** What the script `name` runs. Everybody is to connect twice at least, or nothing was lost that could come back. */
export function comeback(name: string, plan: Plan, thresholds: Record<string, string[]> = {}) {
  const channel = `${namespaces.durable}:${run}-${name}`;
  /** A durable channel keeps the last run's messages; so a run needs publishers of its own. */
  const publisherOf = ({ startAtMs }: Times) => `${runner}/${startAtMs}`;
  return {
    /** With the functions `receive` and `publish` of the script. */
    options: {
      scenarios: {
        receivers: fleetScenario('receive', plan.connections, longestSeconds(plan)),
        publisher: fleetScenario('publish', 1, longestSeconds(plan)),
      },
      thresholds: {
        ...nothingLost(plan.connections, plan.connections * plan.ratePerSecond * plan.seconds),
        ...atLeast('connections_opened', 2 * plan.connections),
        gaps_told: ['count==0'],
        ...thresholds,
      },
      summaryTrendStats,
    },
    setup: () => start(plan, [channel]),
    open: (times: Times): Promise<Receiver[]> => openAudience(plan, times, channel, publisherOf(times)),
    /** Publishes all there is, from when everybody is there. */
    async publish(times: Times, begin = () => {}): Promise<void> {
      const connection = connect(`load-${runner}-publisher`);
      await opened(connection);
      await until(times.publishAtMs);
      begin();
      const pace = { ...plan, startAtMs: times.publishAtMs };
      await publishPaced(toChannel(connection, channel), publisherOf(times), pace);
      await connection.client.close();
    },
  };
}
