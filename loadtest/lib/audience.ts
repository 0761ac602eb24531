// An audience: the receivers of one publisher's channel that a virtual user holds, from their coming to their going.

import { allOr, mine, openPaced } from './fleet.ts';
import { Receiver } from './receiver.ts';
import type { Durations, Times } from './schedule.ts';
import { runner } from './settings.ts';

/** Opens this virtual user's share of the connections. */
export function openAudience(
  plan: Durations & { readonly connections: number },
  { startAtMs, publishAtMs }: Times,
  channel: string,
  publisher: string,
): Promise<Receiver[]> {
  const numbers = mine(plan.connections);
  return openPaced(numbers, plan.connections, startAtMs, plan.connectSeconds, (number) => {
    const user = `load-${runner}-${number}`;
    return new Receiver({ user, channel, expect: [publisher], publishers: 1, publishAtMs });
  });
}

/** Waits until every receiver has everything, or time is up, and closes them all. */
export async function closeAudience(receivers: readonly Receiver[], giveUpAtMs: number): Promise<void> {
  await allOr(
    receivers.map(({ done }) => done),
    giveUpAtMs,
  );
  await Promise.all(receivers.map((receiver) => receiver.close()));
}
