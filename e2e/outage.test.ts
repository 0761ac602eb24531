// Redis is away for two minutes: connections stay, the load balancer sees nothing, and messages come back by themselves.

import type { V1EndpointSlice } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import type { Client } from '../src/client/client.ts';
import type { TestClient } from '../test/websocket.ts';
import { core, during, eventually, watch } from './cluster.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';
import { allOpen, expectToHear } from './talk.ts';
import { call } from './tunnel.ts';

const OUTAGE_SECONDS = 120;

let release: Release;

const space = useSpace('outage', async (space) => {
  release = await Release.install(space);
  await release.pods(2);
});

test('an outage of Redis closes no connection and changes no endpoint, and delivery comes back', async () => {
  const pods = await release.pods(2);
  const clients: Client[] = [];
  const connections: TestClient[] = [];
  const changes: string[] = [];
  const gaps: string[] = [];
  const kept: unknown[][] = [];
  for (const [at, pod] of pods.entries()) {
    for (const name of ['ann', 'bob']) {
      const client = release.client(`${name}-${at}`, { pod });
      clients.push(client);
      const heard: unknown[] = [];
      kept.push(heard);
      await client.channel('doc:1').subscribe(({ data }) => heard.push(data)).ready;
      await client.channel('room:1').subscribe(() => {}).ready;
      client.on('state', ({ state }) => changes.push(`${client.user}: ${state}`));
      client.on('gap', ({ channel, reason }) => gaps.push(`${channel} ${reason}`));
    }
    connections.push(await release.connection(`plain-${at}`, pod, { isPlain: true }));
  }
  const bare = await release.connection('bare', pods[0]);
  connections.push(bare);
  await allOpen(...clients);
  const [ann, , , bob] = clients as [Client, Client, Client, Client];
  await expectToHear(ann, bob);
  await ann.channel('doc:1').publish('before');

  const everything = pods
    .map(({ address }) => address)
    .sort()
    .join();
  /** Each state that the endpoints have been in since they were complete. */
  const endpoints = new Set<string>();
  const stopWatching = await watch<V1EndpointSlice>(
    `/apis/discovery.k8s.io/v1/namespaces/${release.namespace}/endpointslices`,
    `kubernetes.io/service-name=${release.fullname}`,
    ({ object }) => {
      const ready = (object.endpoints ?? [])
        .filter(({ conditions }) => conditions?.ready)
        .flatMap(({ addresses }) => addresses)
        .sort()
        .join();
      if (endpoints.size > 0 || ready === everything) endpoints.add(ready);
    },
  );
  await eventually('the endpoints to be complete', 60, () => endpoints.size > 0);

  await release.kubectl('scale', `statefulset/${release.fullname}-redis`, '--replicas=0');
  await eventually('every gateway to see that Redis is away', 60, async () => {
    const answers = await Promise.all(pods.map((pod) => call(`${release.httpUrl(9090, pod)}/readyz`)));
    return answers.every(({ status, text }) => status === 200 && JSON.parse(text).bus === 'down');
  });
  space.say(`Redis is away, for ${OUTAGE_SECONDS} s`);
  // Not by the client, which would try again for as long as a publisher cares to wait.
  expect(await bare.call({ type: 'publish', channel: 'doc:1', data: 'during' })).toMatchObject({
    type: 'error',
    code: 'bus_unavailable',
    retryable: true,
  });
  await during(OUTAGE_SECONDS, async () => {
    expect(changes).toEqual([]);
    expect(connections.map(({ ended }) => ended)).toEqual(connections.map(() => undefined));
    expect([...endpoints]).toEqual([everything]);
    const found = await release.allPods();
    expect(found.flatMap(({ status }) => status?.containerStatuses?.map((it) => it.restartCount))).toEqual([
      0, 0,
    ]);
  });

  await release.kubectl('scale', `statefulset/${release.fullname}-redis`, '--replicas=1');
  space.say('Redis comes back');
  await eventually('publishing to work again', 120, async () => {
    await ann.channel('doc:1').publish('after', { key: 'after' });
    return true;
  });
  await eventually('everybody to have what was published', 60, () => {
    return kept.every((heard) => heard.includes('after'));
  });
  await expectToHear(ann, bob);
  // The durable channel goes on where it was. Of the other, clients are told that they may have missed something.
  expect(kept).toEqual(kept.map(() => ['before', 'after']));
  expect([...new Set(gaps)].sort()).toEqual(['room:1 bus', 'undefined bus']);
  expect(changes).toEqual([]);
  expect(connections.map(({ ended }) => ended)).toEqual(connections.map(() => undefined));
  expect([...endpoints]).toEqual([everything]);
  stopWatching();
  await Promise.all([...clients.map((it) => it.close()), ...connections.map((it) => it.leave())]);
  expect((await core.listNamespacedPod({ namespace: release.namespace })).items).toHaveLength(3);
});
