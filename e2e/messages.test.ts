// Messages between the pods of one release, and what becomes of them when pods come and go.

import { expect, test } from 'vitest';
import type { Message } from '../src/client/client.ts';
import { until } from '../test/until.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';
import { allOpen, expectToHear } from './talk.ts';

let release: Release;

useSpace('messages', async (space) => {
  release = await Release.install(space);
  await release.pods(2);
});

test('a message crosses from one pod to the other, and back', async () => {
  const [one, two] = await release.pods(2);
  await using ann = release.client('ann', { pod: one });
  await using bob = release.client('bob', { pod: two });
  await expectToHear(ann, bob);
  await expectToHear(bob, ann);
});

test('a message to a user reaches all of their connections, on every pod', async () => {
  const [one, two] = await release.pods(2);
  await using ann = release.client('ann', { pod: one });
  await using here = release.client('bob', { pod: one });
  await using there = release.client('bob', { pod: two });
  const heard: { at: string; message: Message }[] = [];
  here.on('direct', (message) => heard.push({ at: 'here', message }));
  there.on('direct', (message) => heard.push({ at: 'there', message }));
  await allOpen(here, there);
  await ann.sendTo('bob', 'hello');
  await until(() => heard.length >= 2, { what: 'both messages', timeoutMs: 30_000 });
  expect(heard.map(({ at }) => at).sort()).toEqual(['here', 'there']);
  for (const { message } of heard) expect(message).toMatchObject({ from: 'ann', data: 'hello' });
});
