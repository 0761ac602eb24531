// A restart of all pods under load: every client moves, and nothing is lost, doubled or out of order. The script holds
// the load; restart the pods while it publishes, as it says:
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/rolling.ts
//   kubectl rollout restart deployment tidegate

import { closeAudience } from './lib/audience.ts';
import { comeback } from './lib/comeback.ts';
import type { Times } from './lib/schedule.ts';
import { number } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 50, full: 1000 }),
  ratePerSecond: number('RATE', { ci: 10, full: 10 }),
  bytes: number('BYTES', { ci: 200, full: 200 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  /** Long enough for all pods to be replaced, one after the other. */
  seconds: number('SECONDS', { ci: 60, full: 600 }),
};
const load = comeback('rolling', plan);

export const { options, setup } = load;

export async function receive(times: Times): Promise<void> {
  await closeAudience(await load.open(times), times.giveUpAtMs);
}

export function publish(times: Times): Promise<void> {
  return load.publish(times, () => console.log('publishing: restart the pods now'));
}

export const handleSummary = summaryOf('rolling', 'A restart of all pods', plan);
