// Churn: subscribers that come and go while messages flow, and the check that each got just what was its.

import { until } from './until.ts';
import { type Json, TestClient } from './websocket.ts';

export type ChurnOptions = {
  /** Where the publisher connects. It is a subscriber too, and asks for no echo of every third message. */
  publisherUrl: string;
  /** Where each of the subscribers connects. */
  subscriberUrls: string[];
  channel: string;
  /** How often each subscriber comes and goes. */
  rounds: number;
};

/** What a subscriber saw, in order, with marks of its own. */
type Seen =
  | { kind: 'joined'; sentBefore: number }
  | { kind: 'leaving'; ackedBefore: number }
  | { kind: 'left' }
  | { kind: 'message'; n: number };

/** How many commands of the publisher are under way at once. */
const window = 16;

/**
 * Publishes numbers while subscribers come and go. Resolves with every fault that was found, which should be
 * none, and how many messages were checked.
 */
export async function churn({ publisherUrl, subscriberUrls, channel, rounds }: ChurnOptions) {
  const publisher = await TestClient.v1(`${publisherUrl}/ws/publisher`);
  await publisher.call({ type: 'subscribe', channel });
  const subscribers = await Promise.all(
    subscriberUrls.map((url, n) => TestClient.v1(`${url}/ws/subscriber${n}`)),
  );
  let sent = 0;
  let acked = 0;
  let stopping = false;
  const faults: string[] = [];
  const echoed: number[] = [];
  const isEchoed = (n: number) => n % 3 !== 0;
  const publishNext = () => {
    sent += 1;
    publisher.send({ type: 'publish', channel, data: sent, ref: sent, echo: isEchoed(sent) });
  };
  publisher.ws.on('message', (bytes) => {
    const frame = JSON.parse(bytes.toString()) as Json;
    if (frame.type === 'message') echoed.push(Number(frame.data));
    else if (frame.type !== 'ok') faults.push(`the publisher got ${bytes.toString()}`);
    else {
      // Answers may overtake each other; only what has been answered without a hole counts.
      acked = Math.max(acked, Number(frame.ref) - window);
      if (!stopping) publishNext();
    }
  });
  for (let n = 0; n < window; n += 1) publishNext();

  const seen = await Promise.all(
    subscribers.map(async (client, index) => {
      const mine: Seen[] = [];
      let messages = 0;
      client.ws.on('message', (bytes) => {
        const frame = JSON.parse(bytes.toString()) as Json;
        if (frame.type === 'message') {
          mine.push({ kind: 'message', n: Number(frame.data) });
          messages += 1;
        } else if (frame.type !== 'ok') faults.push(`subscriber ${index} got ${bytes.toString()}`);
        else mine.push(frame.ref === 'join' ? { kind: 'joined', sentBefore: sent } : { kind: 'left' });
      });
      const count = (kind: Seen['kind']) => mine.filter((it) => it.kind === kind).length;
      for (let round = 1; round <= rounds; round += 1) {
        client.send({ type: 'subscribe', channel, ref: 'join' });
        await until(() => count('joined') === round, { what: 'a subscription' });
        const enough = messages + 1 + ((index + round) % 40);
        await until(() => messages >= enough, { what: 'messages' });
        mine.push({ kind: 'leaving', ackedBefore: acked });
        client.send({ type: 'unsubscribe', channel, ref: 'leave' });
        await until(() => count('left') === round, { what: 'the end of a subscription' });
        const then = sent;
        await until(() => acked > then, { what: 'messages that it must not get' });
      }
      return mine;
    }),
  );
  stopping = true;
  const expected = () => Array.from({ length: sent }, (_, n) => n + 1).filter(isEchoed);
  await until(() => echoed.length >= expected().length, {
    what: 'the echo of the last message',
  });
  if (echoed.join() !== expected().join()) faults.push(`the publisher's own came as ${echoed}`);
  for (const [index, mine] of seen.entries()) {
    faults.push(...faultsOf(mine).map((fault) => `subscriber ${index}: ${fault}`));
  }
  await Promise.all([publisher, ...subscribers].map((client) => client.leave()));
  return { faults, checked: seen.flat().filter((it) => it.kind === 'message').length };
}

function faultsOf(seen: readonly Seen[]): string[] {
  const faults: string[] = [];
  let isIn = false;
  let mustBegin = 0;
  let mustReach = 0;
  let last: number | undefined;
  for (const it of seen) {
    switch (it.kind) {
      case 'joined':
        isIn = true;
        last = undefined;
        // What was sent after the answer had arrived is surely its.
        mustBegin = it.sentBefore + 1;
        break;
      case 'message':
        if (!isIn) faults.push(`${it.n} came while it was not subscribed`);
        else if (last === undefined && it.n > mustBegin)
          faults.push(`began with ${it.n} instead of ${mustBegin}`);
        else if (last !== undefined && it.n !== last + 1) faults.push(`${it.n} came after ${last}`);
        last = it.n;
        break;
      case 'leaving':
        mustReach = it.ackedBefore;
        break;
      case 'left':
        if (last === undefined || last < mustReach) faults.push(`ended with ${last} instead of ${mustReach}`);
        isIn = false;
        break;
    }
  }
  return faults;
}
