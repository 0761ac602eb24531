// Who decides how many pods there are: an upgrade must leave alone what somebody else has decided, with each helm.

import { describe, expect, test } from 'vitest';
import { apps, eventually } from './cluster.ts';
import { exists } from './programs.ts';
import { quickValues, Release, type Values } from './release.ts';
import { useSpace } from './space.ts';

const hasHelm3 = await exists('helm3', 'version');

for (const helm of ['helm', 'helm3'] as const) {
  const isHere = helm === 'helm' || hasHelm3;
  describe.skipIf(!isHere)(`${helm}${isHere ? '' : ' (skipped: there is no program helm3)'}`, () => {
    let release: Release;

    useSpace(`replicas-${helm}`, async (space) => {
      release = await Release.install(space, { helm });
      await release.pods(2);
    });

    const replicas = async () => {
      const { namespace, fullname: name } = release;
      return (await apps.readNamespacedDeployment({ name, namespace })).spec?.replicas;
    };
    const autoscaled = (minReplicas: number, more: Values = {}): Values => ({
      ...quickValues,
      ...more,
      // It has no reason to scale, nor the time to scale in: only what an upgrade does shows.
      resources: { requests: { cpu: '100m', memory: '64Mi' } },
      autoscaling: { enabled: true, minReplicas, maxReplicas: 6, connections: { enabled: false } },
    });

    test('without a number in the values, what somebody has scaled by hand stays', async () => {
      await release.kubectl('scale', `deployment/${release.fullname}`, '--replicas=3');
      await release.upgrade({ ...quickValues, replicaCount: null });
      expect(await replicas()).toBe(3);
    });

    test('turning autoscaling on keeps the pods that there are', async () => {
      await release.upgrade(autoscaled(2));
      expect(await replicas()).toBe(3);
    });

    test('an upgrade after the HPA has scaled keeps its number, and is in conflict with nobody', async () => {
      await release.upgrade(autoscaled(4));
      await eventually('the HPA to scale to its new minimum', 60, async () => (await replicas()) === 4);
      await release.upgrade(autoscaled(4, { service: { annotations: { upgraded: 'yes' } } }));
      expect(await replicas()).toBe(4);
    });

    test('turning autoscaling off sets the number of the values', async () => {
      const fixed = { ...quickValues, replicaCount: 3 };
      if (!release.isHelm3) {
        // The number belongs to the HPA, and Helm 4 takes nothing from others unless it is told to.
        await expect(release.upgrade(fixed)).rejects.toThrow(/conflict.*\.spec\.replicas/s);
        expect(await replicas()).toBe(4);
      }
      // As the chart's README says: an autoscaler that is at work during the upgrade would have the last word.
      await release.kubectl('delete', 'horizontalpodautoscaler', release.fullname);
      await release.upgrade(fixed, { args: release.isHelm3 ? [] : ['--force-conflicts'] });
      expect(await replicas()).toBe(3);
      // From now on it is the values' again.
      await release.upgrade({ ...quickValues, replicaCount: 2 });
      expect(await replicas()).toBe(2);
    });
  });
}
