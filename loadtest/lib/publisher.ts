// A publisher: a series of numbered messages at an even pace, and at its end a word on how many there were.

import http from 'k6/http';
import { nowMs } from './clock.ts';
import type { Connection } from './connect.ts';
import { until } from './fleet.ts';
import { messagesPublished, publishesFailed } from './metrics.ts';
import { padding, type Stamp } from './protocol.ts';
import { apiKey, apiUrl, runner } from './settings.ts';

/** Hands one message over; resolves when the gateway has it. */
export type Publish = (stamp: Stamp) => Promise<unknown>;

/** Publishes to a channel over the connection. */
export const toChannel = ({ client }: Connection, channel: string): Publish => {
  const target = client.channel(channel);
  return (stamp) => target.publish(stamp);
};

/** Sends to a user over the connection. */
export const toUser =
  ({ client }: Connection, user: string): Publish =>
  (stamp) =>
    client.sendTo(user, stamp);

/** Publishes over the HTTP API, as an application's backend does. */
export const overApi =
  (channel: string): Publish =>
  async (data) => {
    const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' };
    const { status, body } = await http.asyncRequest(
      'POST',
      `${apiUrl}/v1/publish`,
      JSON.stringify({ channel, data }),
      {
        headers,
      },
    );
    if (status !== 200) throw new Error(`the HTTP API answered ${status}: ${body}`);
  };

/** How long between two looks at the clock. More messages than one are published at once where they are due. */
const TICK_MS = 5;

/** The end is said more than once: on a channel that keeps nothing, it may be lost like any other. */
const ENDS = 3;
const BETWEEN_ENDS_MS = 300;

/** Publishes so many messages a second for so long, and then says how many there were. Where it was held up it catches
 * up, so that their number is certain. A failed publish is counted as one, and as lost by every receiver: a run with one
 * proves nothing about loss. */
export async function publishPaced(
  publish: Publish,
  by: string,
  plan: { ratePerSecond: number; startAtMs: number; seconds: number; bytes: number },
): Promise<void> {
  const pad = padding(plan.bytes);
  const pending = new Set<Promise<void>>();
  const total = Math.floor(plan.ratePerSecond * plan.seconds);
  let seq = 0;
  await until(plan.startAtMs);
  while (seq < total) {
    const due = Math.ceil(((Date.now() - plan.startAtMs) / 1000) * plan.ratePerSecond);
    while (seq < Math.min(due, total)) {
      seq++;
      const publishing = publish({ by, seq, atMs: nowMs(), runner, pad }).then(
        () => messagesPublished.add(1),
        (error: Error) => {
          publishesFailed.add(1);
          console.warn(`${by}: message ${seq} was not published: ${error.message}`);
        },
      ) as Promise<void>;
      pending.add(publishing);
      void publishing.then(() => pending.delete(publishing));
    }
    await until(Date.now() + TICK_MS);
  }
  await Promise.allSettled(pending);
  for (let sent = 0; sent < ENDS; sent++) {
    await publish({ by, seq, atMs: nowMs(), runner, end: true }).catch(() => publishesFailed.add(1));
    await until(Date.now() + BETWEEN_ENDS_MS);
  }
}
