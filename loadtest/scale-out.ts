// Pods double midway: what the step does to latency, loss and the spread of connections. The script holds the load;
// scale when it says so, in its middle:
//
//   k6 run -e URL=ws://127.0.0.1:8080 -e ADMIN_URLS=http://pod-1:9090,http://pod-2:9090 loadtest/scale-out.ts
//   kubectl scale deployment tidegate --replicas 4
//
// With ADMIN_URLS of all pods, those to come included, it also measures how evenly connections are spread at the end.

import { closeAudience, openAudience } from './lib/audience.ts';
import { connect, opened } from './lib/connect.ts';
import { fleetScenario, until } from './lib/fleet.ts';
import { skew } from './lib/metrics.ts';
import { metricOfPods } from './lib/pods.ts';
import { publishPaced, toChannel } from './lib/publisher.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { adminUrls, namespaces, number, run, runner } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { latency, nothingLost } from './lib/thresholds.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 100, full: 2000 }),
  ratePerSecond: number('RATE', { ci: 5, full: 10 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 30 }),
  seconds: number('SECONDS', { ci: 60, full: 300 }),
  p99Ms: number('P99_MS', { ci: 1000, full: 500 }),
  /** Connections of the fullest pod, divided by the mean. */
  maxSkew: number('MAX_SKEW', { ci: 1.3, full: 1.2 }),
};
const channel = `${namespaces.ephemeral}:${run}-scale-out`;
const publisher = `${runner}/publisher`;
const SAMPLE_MS = 2000;

export const options = {
  scenarios: {
    receivers: fleetScenario('receive', plan.connections, longestSeconds(plan)),
    publisher: fleetScenario('publish', 1, longestSeconds(plan)),
    ...(adminUrls.length > 0 && { observer: fleetScenario('observe', 1, longestSeconds(plan)) }),
  },
  thresholds: {
    ...nothingLost(plan.connections, plan.connections * plan.ratePerSecond * plan.seconds),
    ...latency(plan.p99Ms),
    gaps_told: ['count==0'],
    // The gauge's last value is the one at the end. Unless it was sampled it is 0, which is no skew.
    ...(adminUrls.length > 0 && { skew: [`value<=${plan.maxSkew}`, 'value>=1'] }),
  },
  summaryTrendStats,
};

export const setup = () => start(plan, [channel]);

export async function receive(times: Times): Promise<void> {
  const receivers = await openAudience(plan, times, channel, publisher);
  await closeAudience(receivers, times.giveUpAtMs);
}

export async function publish({ publishAtMs, middleAtMs }: Times): Promise<void> {
  const connection = connect(`load-${runner}-publisher`);
  await opened(connection);
  void until(middleAtMs).then(() => console.log('the middle: double the pods now'));
  await publishPaced(toChannel(connection, channel), publisher, { ...plan, startAtMs: publishAtMs });
  await connection.client.close();
}

/** Samples until shortly before the end, when connections begin to leave. */
export async function observe({ publishAtMs, endAtMs }: Times): Promise<void> {
  for (let atMs = publishAtMs; atMs < endAtMs; atMs += SAMPLE_MS) {
    await until(atMs);
    const connections = await metricOfPods('tidegate_connections');
    const mean = connections.reduce((sum, value) => sum + value, 0) / connections.length;
    if (mean > 0) skew.add(Math.max(...connections) / mean);
  }
}

export const handleSummary = summaryOf('scale-out', 'Pods double midway', plan);
