// Talk: one client says something, and another hears it.

import { randomUUID } from 'node:crypto';
import { expect } from 'vitest';
import type { Client, Message } from '../src/client/client.ts';
import { until } from '../test/until.ts';

/** Expects that what one client publishes is heard by another, once. */
export async function expectToHear(from: Client, to: Client, channel = 'room:talk'): Promise<void> {
  const text = `hello ${randomUUID()}`;
  const heard: Message[] = [];
  const subscription = to.channel(channel).subscribe((message) => {
    if (message.data === text) heard.push(message);
  });
  await subscription.ready;
  await from.channel(channel).publish(text);
  await until(() => heard.length > 0, { what: `"${text}" at ${to.user}` });
  expect(heard).toHaveLength(1);
  expect(heard[0]).toMatchObject({ channel, from: from.user });
  subscription.unsubscribe();
}

/** Waits until clients are connected. */
export async function allOpen(...clients: readonly Client[]): Promise<void> {
  await until(() => clients.every(({ state }) => state === 'open'), {
    what: `${clients.length} clients to be connected`,
  });
}
