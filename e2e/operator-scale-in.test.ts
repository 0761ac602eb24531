// A scale-in removes the pods with the fewest connections, where the order of Kubernetes would remove the fullest.

import { afterAll, expect, test } from 'vitest';
import type { TestClient } from '../test/websocket.ts';
import { eventually } from './cluster.ts';
import { operatedValues, operatorReady, statusOf } from './operated.ts';
import { type Pod, Release } from './release.ts';
import { useSpace } from './space.ts';

/** How often each is tried. 20 show that it holds in 95 of 100. */
const TRIALS = Number(process.env.E2E_TRIALS || 20);
/** Releases at which they are tried side by side: most of a trial is waiting. */
const LANES = Math.min(4, TRIALS);
const FULL = 8;
const values = { ...operatedValues, connectionPolicy: { rebalance: { suspend: true } } };

/** The first has the operator that serves all. */
const lanes: Release[] = [];

const space = useSpace('operator-scale-in', async (space) => {
  const first = await Release.install(space, { values });
  lanes.push(first);
  const served = {
    ...values,
    operator: { enabled: false, servedBy: { name: `${first.fullname}-operator` } },
  };
  for (let at = 1; at < LANES; at += 1) {
    lanes.push(await Release.install(space, { name: `tidegate-${at}`, values: served }));
  }
  await Promise.all(lanes.map((lane) => lane.pods(2)));
  await operatorReady(first);
});

afterAll(() => Promise.all(lanes.map((lane) => lane.helm(['uninstall', lane.name, '--ignore-not-found']))));

/** Fills the youngest of four pods, scales to two, and returns whether the emptiest went. */
async function trial(release: Release, isProtected: boolean): Promise<boolean> {
  const before = await release.scale(2);
  const pods = await release.scale(4);
  // Kubernetes removes the youngest first.
  const young = pods.filter(({ name }) => !before.some((it) => it.name === name));
  const clients: TestClient[] = [];
  for (const pod of young) {
    for (let count = 0; count < FULL; count += 1) clients.push(await release.connection('ann', pod));
  }
  await eventually('the operator to know, and to have written what it wants to', 60, async () => {
    const { connections, pods: said = [] } = await statusOf(release.namespace, release.fullname);
    if (connections !== undefined && said.length === 4 && !isProtected) return true;
    const costs = await costsOf(release);
    const isYoung = (name: string) => young.some((it) => it.name === name);
    const old = pods.filter(({ name }) => !isYoung(name)).map(({ name }) => costs.get(name) ?? 0);
    return Math.min(...young.map(({ name }) => costs.get(name) ?? 0)) > Math.max(...old);
  });
  await release.kubectl('scale', `deployment/${release.fullname}`, '--replicas=2');
  const left = await eventually('two pods to be chosen', 60, async () => {
    const found = (await release.allPods()).filter(
      ({ metadata }) => metadata?.deletionTimestamp === undefined,
    );
    return found.length === 2 && found.map(({ metadata }) => metadata?.name ?? '');
  });
  await Promise.all(clients.map((client) => client.leave()));
  return young.every(({ name }: Pod) => left.includes(name));
}

/** Tries it so often, and returns how often the emptiest pods went. */
async function trials(count: number, isProtected: boolean): Promise<number> {
  let [begun, right] = [0, 0];
  const lane = async (release: Release) => {
    while (begun < count) {
      begun += 1;
      if (await trial(release, isProtected)) right += 1;
    }
  };
  const stopping = (error: unknown) => {
    begun = count;
    throw error;
  };
  // Where one fails the others come to their end: what follows has the releases to itself.
  const ends = await Promise.allSettled(lanes.map((it) => lane(it).catch(stopping)));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  space.say(
    `the emptiest pods went ${right} of ${count} times ${isProtected ? 'with' : 'without'} the operator`,
  );
  return right;
}

async function costsOf({ allPods }: Release): Promise<Map<string, number>> {
  const cost = 'controller.kubernetes.io/pod-deletion-cost';
  return new Map(
    (await allPods()).map(({ metadata }) => [
      metadata?.name ?? '',
      Number(metadata?.annotations?.[cost] ?? 0),
    ]),
  );
}

test('with the operator the emptiest pods go, although they are the oldest', {
  timeout: TRIALS * 120_000,
}, async () => {
  expect(await trials(TRIALS, true)).toBeGreaterThanOrEqual(0.95 * TRIALS);
});

test('without its protection the order of Kubernetes ends full pods', {
  timeout: TRIALS * 120_000,
}, async () => {
  await Promise.all(lanes.map(unprotect));
  const count = Math.max(2, TRIALS / 2);
  expect(await trials(count, false)).toBeLessThan(count);
});

async function unprotect(lane: Release): Promise<void> {
  const connectionPolicy = { ...values.connectionPolicy, protectScaleIn: false };
  await lane.upgrade({ ...lane.values, connectionPolicy });
  await eventually('the deletion costs to be taken away', 60, async () =>
    [...(await costsOf(lane)).values()].every((cost) => cost === 0),
  );
}
