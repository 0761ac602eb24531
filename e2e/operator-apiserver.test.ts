// An API server that is frozen for a while: gateways and their clients do not notice, and the operator goes on where it
// was. Whoever runs the tests says how to freeze it, and it freezes for everybody, so that this runs alone.

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { eventually } from './cluster.ts';
import { type Ask, runInside } from './inside.ts';
import { leaderOf, operatedValues, operatorPods, operatorReady, statusOf } from './operated.ts';
import { run } from './programs.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';

const { E2E_PAUSE_API: pause = '', E2E_RESUME_API: resume = '' } = process.env;
const reason = pause && resume ? '' : ' (skipped: E2E_PAUSE_API and E2E_RESUME_API are not set)';
const FROZEN_SECONDS = 30;

describe.skipIf(reason !== '')(`a frozen API server${reason}`, () => {
  let release: Release;
  let fleet: Ask;

  const space = useSpace('operator-apiserver', async (space) => {
    release = await Release.install(space, { values: operatedValues });
    await release.pods(2);
    await operatorReady(release);
    fleet = await runInside(space.namespace, 'fleet.mjs', {
      URL: release.url(),
      COUNT: '50',
      EVERY_MS: '500',
    });
    await eventually('the fleet to be complete', 120, async () => (await state()).ready);
  });

  afterAll(() => release?.helm(['uninstall', release.name, '--ignore-not-found']));

  interface FleetState {
    readonly ready: boolean;
    readonly behind: number;
    readonly published: Readonly<Record<string, number>>;
    readonly faults: readonly string[];
  }

  async function state(method = 'GET', path = '/'): Promise<FleetState> {
    return JSON.parse(await fleet(method, path)) as FleetState;
  }

  test('messages flow, no pod restarts, and one leads again', async () => {
    const pods = async () =>
      [...(await release.allPods()), ...(await operatorPods(release))].map(({ metadata, status }) => ({
        uid: metadata?.uid,
        restarts: status?.containerStatuses?.map(({ restartCount }) => restartCount),
      }));
    const before = { pods: await pods(), published: (await state()).published };
    await run('sh', ['-c', pause]);
    try {
      // Nothing can be asked meanwhile: what is waited for is the time itself.
      await delay(FROZEN_SECONDS * 1000);
    } finally {
      await run('sh', ['-c', resume]);
    }
    space.say('the API server goes on');
    await eventually('one to lead', 60, async () => (await leaderOf(release)) !== undefined);
    await operatorReady(release);
    const after = await eventually('the fleet to be asked', 60, () => state());
    for (const [channel, count] of Object.entries(after.published)) {
      expect(count - (before.published[channel] ?? 0)).toBeGreaterThan(FROZEN_SECONDS);
    }
    expect(await pods()).toEqual(before.pods);
    // What it had written before is still there: only what is new shows that it goes on.
    await release.kubectl('scale', `deployment/${release.fullname}`, '--replicas=3');
    await eventually('the operator to know of a new pod', 60, async () => {
      const { readyPods, connections = 0 } = await statusOf(release.namespace, release.fullname);
      return readyPods === 3 && connections >= 50;
    });
    await state('POST', '/rest');
    await eventually('the last messages', 60, async () => (await state()).behind === 0);
    expect((await state()).faults).toEqual([]);
  });
});
