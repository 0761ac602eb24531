// Autoscaling on CPU: load adds pods, its end takes them away one at a time, and clients miss nothing.

import type { V1Pod } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { apps, autoscaling, eventually, hasLeft, watch } from './cluster.ts';
import { Counting } from './counting.ts';
import { runToEnd } from './programs.ts';
import { patientValues, Release } from './release.ts';
import { useSpace } from './space.ts';
import { call } from './tunnel.ts';

/** Of the CPU request. */
const TARGET_PERCENT = 80;

const hasMetrics =
  (await runToEnd('kubectl', ['get', '--raw', '/apis/metrics.k8s.io/v1beta1/nodes'])).code === 0;

describe.skipIf(!hasMetrics)(
  `autoscaling${hasMetrics ? '' : ' (skipped: there is no metrics-server)'}`,
  () => {
    let release: Release;

    const space = useSpace('hpa', async (space) => {
      release = await Release.install(space, {
        values: {
          ...patientValues,
          // Twice what a pod takes at rest, and less than the load brings even where the machine is busy with other things.
          resources: { requests: { cpu: '70m', memory: '64Mi' } },
          autoscaling: {
            enabled: true,
            minReplicas: 2,
            maxReplicas: 4,
            cpu: { targetUtilization: TARGET_PERCENT },
            connections: { enabled: false },
            // No shorter than a pod takes to leave, as the chart wants it.
            scaleDown: { periodSeconds: 65, stabilizationWindowSeconds: 65 },
          },
        },
      });
      await release.pods(2);
    });

    test('load scales a gateway out, and its end scales it in by one pod at a time', async () => {
      await using counting = await Counting.start(release, { subscribers: 12, channels: 1, everyMs: 500 });

      await eventually('the HPA to be content with two pods', 180, async () => {
        const { namespace, fullname: name } = release;
        const { status } = await autoscaling.readNamespacedHorizontalPodAutoscaler({ name, namespace });
        const [metric] = status?.currentMetrics ?? [];
        const percent = metric?.containerResource?.current.averageUtilization ?? Number.POSITIVE_INFINITY;
        return status?.desiredReplicas === 2 && percent <= TARGET_PERCENT;
      });
      await release.pods(2);
      const { stop, ended } = load(release);
      space.say('the load begins');
      await Promise.race([release.pods(4, 240), ended]).finally(stop);
      await ended;
      space.say('scaled out to four pods, and the load ends');

      const leaving = new Set<string>();
      let atOnce = 0;
      const stopWatching = await watch<V1Pod>(
        `/api/v1/namespaces/${release.namespace}/pods`,
        release.selector,
        (change) => {
          const { metadata } = change.object;
          if (hasLeft(change)) leaving.delete(metadata?.name ?? '');
          else if (metadata?.deletionTimestamp !== undefined) leaving.add(metadata.name ?? '');
          atOnce = Math.max(atOnce, leaving.size);
        },
      );
      await release.pods(2, 300);
      stopWatching();
      space.say('scaled in');
      expect(atOnce).toBe(1);
      await counting.expectEverything();
      counting.expectNoneLost();

      const { namespace, fullname: name } = release;
      expect((await apps.readNamespacedDeployment({ name, namespace })).spec?.replicas).toBe(2);
    });
  },
);

/** Makes the gateways work, by publishing as many messages as they take. */
function load(release: Release): { readonly stop: () => void; readonly ended: Promise<unknown> } {
  let isOver = false;
  const body = {
    messages: Array.from({ length: 200 }, (_, at) => ({ channel: `room:load-${at}`, data: 'x'.repeat(200) })),
  };
  const publish = async () => {
    const headers = { authorization: `Bearer ${await release.secret('api-key')}` };
    const url = `${release.httpUrl(8081)}/v1/publish/many`;
    const { status, text } = await call(url, { method: 'POST', headers, body });
    if (status !== 200) throw new Error(`the API answered ${status}: ${text}`);
  };
  const worker = async () => {
    // Some requests may fail where pods come and the machine is busy; the load goes on.
    for (let failures = 0; !isOver; ) {
      try {
        await publish();
        failures = 0;
      } catch (error) {
        failures += 1;
        if (failures === 20) throw error;
      }
    }
  };
  return {
    stop: () => {
      isOver = true;
    },
    ended: Promise.all([worker(), worker(), worker(), worker()]),
  };
}
