// New pods get their share of the connections that are there already: few more move than must, and no client is ever
// without a connection or misses a message. A leader that is killed meanwhile changes nothing of that.

import { afterAll, expect, test } from 'vitest';
import { core, eventually } from './cluster.ts';
import { type Ask, runInside } from './inside.ts';
import { leaderOf, operatedValues, operatorReady, statusOf } from './operated.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';
import { call } from './tunnel.ts';

/** How many clients there are. What is promised is promised of 4000. */
const CLIENTS = Number(process.env.E2E_CLIENTS || 4000);
const MAX_SKEW = 1.15;
/** Of what must move at the least. */
const MAX_MOVES = 1.2;
/** Of what a load balancer that picks at random needs to find a new pod: 2 to 4 pods takes two tries, so 2.5. */
const MAX_ATTEMPTS = 1.25;

let release: Release;
let fleet: Ask;

const space = useSpace('operator-rebalance', async (space) => {
  release = await Release.install(space, {
    values: {
      ...operatedValues,
      connectionPolicy: {
        rebalance: { maxSkew: MAX_SKEW, ratePerSecond: Math.ceil(CLIENTS / 40), minAge: '1s' },
      },
    },
  });
  await release.pods(2);
  await operatorReady(release);
  // The address itself: thousands of look-ups are not what this is about.
  const service = await core.readNamespacedService({ name: release.fullname, namespace: release.namespace });
  const env = {
    URL: `ws://${service.spec?.clusterIP}:8080/ws`,
    COUNT: String(CLIENTS),
    EVERY_MS: String(Math.max(1000, CLIENTS / 2)),
  };
  fleet = await runInside(space.namespace, 'fleet.mjs', env);
  await eventually('the fleet to be complete', 240, async () => (await state()).ready);
});

afterAll(() => release?.helm(['uninstall', release.name, '--ignore-not-found']));

interface FleetState {
  readonly ready: boolean;
  readonly open: number;
  readonly moves: number;
  readonly behind: number;
  readonly published: Readonly<Record<string, number>>;
  readonly faults: readonly string[];
}

async function state(method = 'GET', path = '/'): Promise<FleetState> {
  return JSON.parse(await fleet(method, path)) as FleetState;
}

let faultsTold = 0;

/** What went wrong that no other test has told already. */
function newFaults({ faults }: FleetState): readonly string[] {
  const fresh = faults.slice(faultsTold);
  faultsTold = faults.length;
  return fresh;
}

interface PodAnswer {
  readonly connections: number;
  readonly refused: { readonly moving?: number };
}

/** What the pods that stay say of themselves. */
async function answers(): Promise<Map<string, PodAnswer>> {
  const { namespace, fullname } = release;
  const { data } = await core.readNamespacedSecret({ name: `${fullname}-auth`, namespace });
  const token = Buffer.from(data?.['admin-token'] ?? '', 'base64').toString();
  const headers = { authorization: `Bearer ${token}` };
  const found = (await release.allPods()).map(async ({ metadata, status }) => {
    const { text } = await call(`http://${status?.podIP}:9090/connections`, { headers });
    return [metadata?.name ?? '', JSON.parse(text) as PodAnswer] as const;
  });
  return new Map(await Promise.all(found));
}

async function connections(): Promise<Map<string, number>> {
  return new Map([...(await answers())].map(([name, { connections }]) => [name, connections]));
}

/** How often a client that moves was sent on, over all pods. */
async function sentOn(): Promise<number> {
  return [...(await answers()).values()].reduce((sum, { refused }) => sum + (refused.moving ?? 0), 0);
}

/** Adds pods, waits until all have their share, and looks at what that took. `during` happens once it has begun. */
async function spread(pods: number, during: () => Promise<void>): Promise<void> {
  const before = { ...(await state()), sentOn: await sentOn() };
  const was = (await release.allPods()).length;
  await release.kubectl('scale', `deployment/${release.fullname}`, `--replicas=${pods}`);
  await release.pods(pods);
  const beganMs = performance.now();
  await eventually('connections to move', 120, async () => (await state()).moves > before.moves);
  await during();
  await eventually(`${pods} pods to be even`, 240, async () => {
    const counts = [...(await connections()).values()];
    const skew = (Math.max(...counts) * counts.length) / counts.reduce((sum, count) => sum + count, 0);
    if (counts.length === pods && skew <= MAX_SKEW) return true;
    throw new Error(`skew ${skew}: ${counts}`);
  });
  const seconds = Math.round((performance.now() - beganMs) / 1000);
  // What it does beyond that counts, too.
  await eventually('the operator to be content', 120, async () => {
    const status = await statusOf(release.namespace, release.fullname);
    return status.readyPods === pods && status.state === 'Even';
  });
  const after = await state();
  const [moved, attempts] = [after.moves - before.moves, (await sentOn()) - before.sentOn];
  const least = Math.round(CLIENTS * (1 - was / pods));
  const triesOfOne = pods / (pods - was);
  space.say(
    `${was} to ${pods} pods, ${CLIENTS} clients: even in ${seconds} s, ${moved} moved of ${least} at the least, ` +
      `in ${moved + attempts} attempts`,
  );
  expect(newFaults(after)).toEqual([]);
  expect(after.open).toBe(CLIENTS);
  expect(moved).toBeLessThanOrEqual(MAX_MOVES * least);
  expect(moved + attempts).toBeLessThanOrEqual(MAX_ATTEMPTS * triesOfOne * least);
}

test('two new pods beside two get their share, and nobody misses anything', async () => {
  await spread(4, async () => {});
});

test('a leader that is killed meanwhile is followed by one that goes on', async () => {
  await spread(6, async () => {
    const leader = await leaderOf(release);
    await release.kubectl('delete', 'pod', leader ?? '', '--grace-period=0', '--force');
    await eventually('another to lead', 60, async () => {
      const now = await leaderOf(release);
      return now !== undefined && now !== leader;
    });
  });
});

test('every message has arrived everywhere, once and in order', async () => {
  const { published } = await state('POST', '/rest');
  await eventually('the last messages', 60, async () => (await state()).behind === 0);
  const faults = newFaults(await state());
  space.say(`published ${JSON.stringify(published)}`);
  expect(faults).toEqual([]);
  for (const count of Object.values(published)) expect(count).toBeGreaterThan(20);
});
