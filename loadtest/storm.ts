// Everybody reconnects at once, as after a network failure or the restart of a load balancer: how long it takes until
// all are back, and whether they get what they missed. The channel is durable.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/storm.ts

import { closeAudience } from './lib/audience.ts';
import { comeback } from './lib/comeback.ts';
import { until } from './lib/fleet.ts';
import { returnTime } from './lib/metrics.ts';
import type { Times } from './lib/schedule.ts';
import { number } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { atLeast } from './lib/thresholds.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 50, full: 1000 }),
  ratePerSecond: number('RATE', { ci: 10, full: 10 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  seconds: number('SECONDS', { ci: 8, full: 60 }),
  /** Until everybody is back. */
  returnMs: number('RETURN_MS', { ci: 10_000, full: 30_000 }),
};
const load = comeback('storm', plan, {
  return_time: [`max<=${plan.returnMs}`],
  // Everybody was cut once, and came back.
  ...atLeast('connections_dropped', plan.connections),
});

export const { options, setup } = load;

export async function receive(times: Times): Promise<void> {
  const receivers = await load.open(times);
  await until(times.middleAtMs);
  for (const { connection } of receivers) {
    const cutAtMs = Date.now();
    connection.cut(() => returnTime.add(Date.now() - cutAtMs));
  }
  await closeAudience(receivers, times.giveUpAtMs);
}

export function publish(times: Times): Promise<void> {
  return load.publish(times);
}

export const handleSummary = summaryOf('storm', 'Everybody reconnects at once', plan);
