// A rolling restart under load: one pod drains at a time, clients move before they are cut, and nothing is lost.

import type { V1Pod } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import { apps, eventually, hasLeft, watch } from './cluster.ts';
import { Counting } from './counting.ts';
import { patientValues, Release } from './release.ts';
import { useSpace } from './space.ts';
import { call } from './tunnel.ts';

const PODS = 3;
const SUBSCRIBERS = 45;
const DRAIN_SECONDS = 50;

let release: Release;

const space = useSpace('roll', async (space) => {
  const values = { ...patientValues, replicaCount: PODS, drainSeconds: DRAIN_SECONDS };
  release = await Release.install(space, { values });
  await release.pods(PODS);
});

test('a rolling restart drains one pod at a time, and clients move at a pace and miss nothing', async () => {
  const old = await release.pods(PODS);
  // Nodes hear of pods one after the other. Whoever connects before they know of all leaves one without clients.
  const reached = new Set<string>();
  await eventually('the Service to lead to every pod', 60, async () => {
    const { text } = await call(`${release.httpUrl(9090)}/connections`);
    reached.add((JSON.parse(text) as { startedAt: string }).startedAt);
    return reached.size === PODS;
  });
  await using load = await Counting.start(release, { subscribers: SUBSCRIBERS, channels: 3, everyMs: 100 });

  const leaving = new Map<string, { readonly atMs: number; goneAtMs: number }>();
  let atOnce = 0;
  const stopWatching = await watch<V1Pod>(
    `/api/v1/namespaces/${release.namespace}/pods`,
    release.selector,
    (change) => {
      const { metadata } = change.object;
      const name = metadata?.name ?? '';
      const known = leaving.get(name);
      if (known !== undefined && hasLeft(change)) {
        if (known.goneAtMs === Number.POSITIVE_INFINITY) space.say(`${name} is gone`);
        known.goneAtMs = Math.min(known.goneAtMs, performance.now());
      } else if (metadata?.deletionTimestamp !== undefined && known === undefined) {
        leaving.set(name, { atMs: performance.now(), goneAtMs: Number.POSITIVE_INFINITY });
        space.say(`${name} is leaving`);
      }
      const now = performance.now();
      atOnce = Math.max(atOnce, [...leaving.values()].filter(({ goneAtMs }) => goneAtMs > now).length);
    },
  );

  await release.kubectl('rollout', 'restart', `deployment/${release.fullname}`);
  await eventually('every old pod to be replaced', 360, async () => {
    const pods = await release.allPods();
    const isReplaced = pods.every(({ metadata }) => !old.some(({ name }) => name === metadata?.name));
    return isReplaced && pods.length === PODS;
  });
  stopWatching();
  await load.expectEverything();
  load.expectNoneLost();
  space.say(`${load.moves.length} moves, ${load.published} messages to ${SUBSCRIBERS} subscribers each`);

  // One at a time, and each of them once.
  expect([...leaving.keys()].sort()).toEqual(old.map(({ name }) => name).sort());
  expect(atOnce).toBe(1);
  // Everybody who was asked to move did it over most of the time that there was, and not at once. Later only makes
  // this time longer, so that a slow machine fails nothing.
  for (const [name, { atMs, goneAtMs }] of leaving) {
    const times = load.moves
      .filter((move) => move.atMs >= atMs && move.atMs <= goneAtMs)
      .map((it) => it.atMs);
    expect(times.length, `clients that moved from ${name}`).toBeGreaterThanOrEqual(5);
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(0.3 * DRAIN_SECONDS * 1000);
  }

  const { status } = await apps.readNamespacedDeployment({
    name: release.fullname,
    namespace: release.namespace,
  });
  expect(status?.conditions?.find(({ type }) => type === 'Progressing')?.status).toBe('True');
});
