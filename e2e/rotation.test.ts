// Rotation: keys, secrets and channels change under pods that go on running.

import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { token } from '../test/tokens.ts';
import { TestClient } from '../test/websocket.ts';
import { core, eventually } from './cluster.ts';
import { Counting } from './counting.ts';
import { type Pod, Release } from './release.ts';
import { useSpace } from './space.ts';
import { agent, call } from './tunnel.ts';

/** Longer than the kubelet may take by itself, though it is asked to look at once. */
const TIMEOUT_SECONDS = 120;

let release: Release;

useSpace('rotation', async (space) => {
  release = await Release.install(space);
  await release.pods(2);
});

test('a secret and an API key rotate in two steps, without a restart and without losing a connection', async () => {
  const pods = await release.pods(2);
  const containers = await containersOf();
  const [oldSecret, oldKey] = await Promise.all([release.secret('jwt-secret'), release.secret('api-key')]);
  const [newSecret, newKey] = [random(), random()];
  const held = await Promise.all(pods.map((pod) => release.connection('ann', pod)));

  await change({ 'jwt-secret': `${newSecret}\n${oldSecret}\n`, 'api-key': `${newKey}\n${oldKey}\n` });
  await onEvery('new secret and key to be accepted', async (pod) =>
    accepts(pod, { secret: newSecret, key: newKey }),
  );
  for (const pod of pods) expect(await accepts(pod, { secret: oldSecret, key: oldKey })).toBe(true);

  await change({ 'jwt-secret': `${newSecret}\n`, 'api-key': `${newKey}\n` });
  await onEvery('old secret and key to be refused', async (pod) => {
    return !(await takesSecret(pod, oldSecret)) && !(await takesKey(pod, oldKey));
  });
  for (const pod of pods) expect(await accepts(pod, { secret: newSecret, key: newKey })).toBe(true);

  for (const client of held) expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  expect(await containersOf()).toEqual(containers);

  async function accepts(pod: Pod, { secret, key }: { secret: string; key: string }): Promise<boolean> {
    return (await takesSecret(pod, secret)) && (await takesKey(pod, key));
  }
});

test('a change of channels rolls no pod, and closes only who is in a channel that was taken away', async () => {
  const pods = await release.pods(2);
  const containers = await containersOf();
  const connect = (pod: Pod) => release.connection('bob', pod);
  const inRoom = await Promise.all(pods.map(connect));
  const inDoc = await Promise.all(pods.map(connect));
  for (const client of inRoom) await client.call({ type: 'subscribe', channel: 'room:1' });
  for (const client of inDoc) await client.call({ type: 'subscribe', channel: 'doc:1' });

  const { channels, ...values } = release.values as { channels: { namespaces: Record<string, unknown> } };
  const { room: _takenAway, ...others } = channels.namespaces;
  await release.upgrade({ ...values, channels: { ...channels, namespaces: others } });
  await release.bringFiles();
  await eventually('the connections in the room to end', TIMEOUT_SECONDS, () =>
    inRoom.every(({ ended }) => ended !== undefined),
  );
  for (const client of inRoom) expect(client.ended).toMatchObject({ code: 4407 });
  for (const client of inDoc) expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  expect(await containersOf()).toEqual(containers);
});

test('a new password costs an outage of Redis, which no connection and no durable channel notices', async () => {
  const containers = await containersOf();
  await using load = await Counting.start(release, { subscribers: 6, channels: 1, everyMs: 200 });
  await change({ 'redis-password': random() }, 'redis');
  await release.kubectl('rollout', 'restart', `statefulset/${release.fullname}-redis`);
  await release.kubectl('rollout', 'status', `statefulset/${release.fullname}-redis`, '--timeout=600s');
  const { published } = load;
  await eventually('messages to cross again', TIMEOUT_SECONDS, () => load.published > published + 5);
  await load.expectEverything();
  load.expectNoneLost();
  expect(await containersOf()).toEqual(containers);
});

/** Changes one of the release's Secrets. */
async function change(stringData: Record<string, string>, name: 'auth' | 'redis' = 'auth'): Promise<void> {
  const patch = JSON.stringify({ stringData });
  await release.kubectl('patch', 'secret', `${release.fullname}-${name}`, '--patch', patch);
  await release.bringFiles();
}

async function onEvery(what: string, condition: (pod: Pod) => Promise<boolean>): Promise<void> {
  const pods = await release.pods(2);
  await eventually(`the ${what} on every pod`, TIMEOUT_SECONDS, async () => {
    return (await Promise.all(pods.map(condition))).every(Boolean);
  });
}

async function takesSecret(pod: Pod, secret: string): Promise<boolean> {
  const client = await TestClient.open(release.url(pod), {
    protocols: ['tidegate.v1', `bearer.${token({ sub: 'eve' }, secret)}`],
    agent,
  });
  try {
    await client.json(({ type }) => type === 'welcome');
    await client.leave();
    return true;
  } catch (error) {
    if (client.ended?.code === 1008) return false;
    throw error;
  }
}

async function takesKey(pod: Pod, key: string): Promise<boolean> {
  const headers = { authorization: `Bearer ${key}` };
  const { status } = await call(`${release.httpUrl(8081, pod)}/v1/channels`, { headers });
  expect([200, 401]).toContain(status);
  return status === 200;
}

/** Which containers run, and since when: a restart or a roll would change it. */
async function containersOf(): Promise<unknown> {
  const { items } = await core.listNamespacedPod({
    namespace: release.namespace,
    labelSelector: release.selector,
  });
  return items
    .map(({ metadata, status }) => ({
      pod: metadata?.name,
      container: status?.containerStatuses?.map(({ containerID }) => containerID),
    }))
    .sort((one, other) => String(one.pod).localeCompare(String(other.pod)));
}

function random(): string {
  return randomBytes(24).toString('hex');
}
