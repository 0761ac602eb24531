// The pods of one release: messages between them, and what becomes of clients when pods come and go.

import { ApiException } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import type { Message } from '../src/client/client.ts';
import { until } from '../test/until.ts';
import { core, eventually } from './cluster.ts';
import { Counting } from './counting.ts';
import { type Pod, patientValues, Release } from './release.ts';
import { useSpace } from './space.ts';
import { allOpen, expectToHear } from './talk.ts';

let release: Release;

useSpace('pods', async (space) => {
  release = await Release.install(space, { values: patientValues });
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
  await until(() => heard.length >= 2, { what: 'both messages' });
  expect(heard.map(({ at }) => at).sort()).toEqual(['here', 'there']);
  for (const { message } of heard) expect(message).toMatchObject({ from: 'ann', data: 'hello' });
});

test('scaled to four pods, every pod hears every other; scaled back, clients move and miss nothing', async () => {
  const four = await release.scale(4);
  const clients = four.map((pod, at) => release.client(`user-${at}`, { pod }));
  try {
    for (const from of clients) for (const to of clients) await expectToHear(from, to);
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }

  await using load = await Counting.start(release, { subscribers: 12, channels: 2, everyMs: 50 });
  await release.scale(2);
  await load.expectEverything();
  load.expectNoneLost();
  // With twelve on four pods, it would take a coin a long time to show none on two of them.
  expect(load.moves.length).toBeGreaterThan(0);
});

test('a pod that is deleted with no grace costs its clients a reconnect, and nothing on durable channels', async () => {
  const [first, second] = await release.scale(2);
  await using load = await Counting.start(release, { subscribers: 8, channels: 2, everyMs: 50 });
  const counts = [await release.connectionsOf(first), await release.connectionsOf(second)] as const;
  const [victim, connections] = counts[0] > counts[1] ? [first, counts[0]] : [second, counts[1]];
  await release.kubectl('delete', 'pod', victim.name, '--grace-period=0', '--force');
  await eventually(`${connections} clients to leave ${victim.name}`, 60, () => {
    return load.moves.length + load.lost.length >= connections;
  });
  await load.expectEverything();
  await release.pods(2);
});

test('an eviction drains a pod, and the next one has to wait until another has taken its place', async () => {
  const [first, second] = await release.scale(2);
  await using load = await Counting.start(release, { subscribers: 8, channels: 2, everyMs: 50 });
  await eventually('the budget to know that both are ready', 60, async () => (await allowance()) === '1');
  expect(await evict(first)).toBe(201);
  expect(await evict(second)).toBe(429);
  await release.pods(2);
  await eventually('the second eviction to be allowed', 60, async () => (await evict(second)) === 201);
  await eventually('both to be gone', 60, async () => {
    const pods = await release.allPods();
    return pods.every(({ metadata }) => ![first.name, second.name].includes(metadata?.name ?? ''));
  });
  await load.expectEverything();
  load.expectNoneLost();
});

/** How many pods may be evicted now. */
function allowance(): Promise<string> {
  const path = 'jsonpath={.status.disruptionsAllowed}';
  return release.kubectl('get', 'poddisruptionbudget', release.fullname, '--output', path);
}

/** Asks for an eviction, as `kubectl drain` does, and returns the status of the answer. */
async function evict({ name }: Pod): Promise<number> {
  const { namespace } = release;
  const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } };
  try {
    const { httpStatusCode } = await core.createNamespacedPodEvictionWithHttpInfo({ name, namespace, body });
    return httpStatusCode;
  } catch (error) {
    if (error instanceof ApiException && error.code === 429) return 429;
    throw error;
  }
}
