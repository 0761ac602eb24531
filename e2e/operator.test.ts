// The operator serves the cluster's autoscalers: connections scale a gateway out and in as the arithmetic says, and what
// happens to the operator does nothing to the gateways. There is one such operator in a cluster, hence one file.

import { afterAll, describe, expect, test } from 'vitest';
import { until } from '../test/until.ts';
import { autoscaling, core, during, eventually, isReady } from './cluster.ts';
import { Crowd } from './crowd.ts';
import { applyFolder, applyKind, built, makeSecrets } from './manifests.ts';
import {
  asOperator,
  expectPods,
  leaderOf,
  metricsProviders,
  operatedValues,
  operatorPods,
  operatorReady,
  reasonOf,
  scaledValues,
  servedConnections,
  statusOf,
} from './operated.ts';
import { run, runToEnd } from './programs.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';

const TARGET = 400;
const MAX_REPLICAS = 6;

const values = scaledValues(TARGET, MAX_REPLICAS);

const others = (await metricsProviders()).filter((it) => !it.includes('/tidegate-operator'));

describe.skipIf(others.length > 0)(
  `the operator${others.length > 0 ? ` (skipped: custom metrics are those of ${others.join()})` : ''}`,
  () => {
    let release: Release;
    let crowd: Crowd;

    const space = useSpace('operator', async (space) => {
      release = await Release.install(space, { values });
      await release.pods(2);
      await operatorReady(release);
      crowd = await Crowd.start(release);
    });

    // What has no namespace would stay, were a test to fail before the release is uninstalled.
    afterAll(() => release?.helm(['uninstall', release.name, '--ignore-not-found']));
    const elsewhere = useSpace('operator-served', async () => {});

    async function expectScale(connections: number): Promise<void> {
      await crowd.be(connections);
      await expectPods(release, connections, TARGET);
    }

    test('connections scale it out and in, as the arithmetic of the autoscaler says at each step', async () => {
      // 840 are 5 % too many for two pods, which is within the tolerance, and 900 are not.
      for (const connections of [100, 840, 900, 2000, 1300]) {
        await expectScale(connections);
        space.say(`${connections} connections: ${(await release.allPods()).length} pods`);
      }
      // Whoever was on a pod that has left comes back, and nobody else was cut.
      await crowd.be(1300);
    });

    test('what is served and what the status says is what the pods hold', async () => {
      await crowd.be(700);
      await release.pods(2, 240);
      await eventually('the numbers to agree', 60, async () => {
        const served = (await servedConnections(release)) ?? new Map<string, number>();
        const status = await statusOf(release.namespace, release.fullname);
        const sum = [...served.values()].reduce((total, count) => total + count, 0);
        return sum === 700 && served.size === 2 && status.connections === 700;
      });
    });

    test('nobody but the API server is answered, and it asks whether one may', async () => {
      const { namespace, fullname } = release;
      const path = `/apis/custom.metrics.k8s.io/v1beta2/namespaces/${namespace}/pods/%2A/tidegate_connections`;
      const user = `system:serviceaccount:${namespace}:${fullname}`;
      const { code, output } = await runToEnd('kubectl', ['get', '--raw', path, '--as', user]);
      expect(code).not.toBe(0);
      expect(output).toContain('forbidden');
    });

    test('a leader that is killed is followed by the other, and nothing changes for the gateways', async () => {
      await expectScale(700);
      const before = await leaderOf(release);
      const pods = (await release.allPods()).map(({ metadata }) => metadata?.uid).sort();
      await release.kubectl('delete', 'pod', before ?? '', '--grace-period=0', '--force');
      await eventually('another to lead', 60, async () => {
        const now = await leaderOf(release);
        return now !== undefined && now !== before;
      });
      await during(10, async () => {
        expect((await release.allPods()).map(({ metadata }) => metadata?.uid).sort()).toEqual(pods);
      });
      await operatorReady(release);
      await crowd.be(700);
    });

    test('a roll of the operator at low load scales nothing in', async () => {
      const { namespace, fullname } = release;
      // Below what two pods are for: whatever the autoscaler takes for missing or for zero would show.
      await expectScale(1000);
      await release.pods(3);
      const replicas = (await release.allPods()).length;
      await release.kubectl('rollout', 'restart', `deployment/${fullname}-operator`);
      const rolled = release.kubectl(
        'rollout',
        'status',
        `deployment/${fullname}-operator`,
        '--timeout=400s',
      );
      rolled.catch(() => {}); // told below, unless something else is
      await during(25, async () => {
        const { status } = await autoscaling.readNamespacedHorizontalPodAutoscaler({
          name: fullname,
          namespace,
        });
        expect(status?.desiredReplicas).toBe(replicas);
      });
      await rolled;
    });

    test('a second release is refused the metrics, is told how to be served, and then is', async () => {
      await release.upgrade({
        ...values,
        operator: { ...(operatedValues.operator as object), scope: 'cluster' },
      });
      await operatorReady(release);
      const { namespace, fullname } = release;
      await expect(Release.install(elsewhere, { values })).rejects.toThrow(
        `set operator.enabled to false here, operator.servedBy.namespace to ${namespace}`,
      );
      const servedBy = { namespace, name: `${fullname}-operator` };
      const served = await Release.install(elsewhere, {
        values: { ...values, operator: { enabled: false, servedBy } },
      });
      await served.pods(2);
      await reasonOf(served.namespace, served.fullname, 'Ready', 'Observing');
      await eventually('its metrics', 60, async () => (await servedConnections(served))?.size === 2);
      await served.helm(['uninstall', served.name]);
    });

    test('without the operator the autoscaler holds, and messages flow', async () => {
      const { namespace, fullname: name } = release;
      await expectScale(1000);
      const replicas = (await release.pods(3)).length;
      await release.kubectl('scale', `deployment/${name}-operator`, '--replicas=0');
      await eventually('the operator to be gone', 60, async () => (await operatorPods(release)).length === 0);
      await crowd.be(100);
      const ann = await release.connection('ann');
      const bob = await release.connection('bob');
      await ann.call({ type: 'subscribe', channel: 'room:1' });
      await during(30, async () => {
        const { status } = await autoscaling.readNamespacedHorizontalPodAutoscaler({ name, namespace });
        expect(status?.desiredReplicas).toBe(replicas);
      });
      await bob.call({ type: 'publish', channel: 'room:1', data: 'hello' });
      await until(() => ann.inbox.some((it) => it.includes('hello')), { what: 'the message' });
      await release.kubectl('scale', `deployment/${name}-operator`, '--replicas=2');
      await operatorReady(release);
      await release.pods(2, 240);
    });
  },
);

describe.skipIf(others.length > 0)(
  `the operator without Helm${others.length > 0 ? ` (skipped: custom metrics are those of ${others.join()})` : ''}`,
  () => {
    const folder = 'overlays/operator';
    const space = useSpace('operator-manifests', async ({ namespace }) => {
      await makeSecrets(namespace);
      await applyKind();
      await applyFolder(folder, namespace);
    });
    // What has no namespace would stay.
    afterAll(async () => {
      const input = await built(folder, space.namespace);
      await run('kubectl', ['delete', '--wait=false', '--ignore-not-found', '--filename', '-'], { input });
    });

    test('becomes ready, knows the pods, and gives the autoscaler their connections', async () => {
      const { namespace } = space;
      const pods = async (component: string) => {
        const labelSelector = `app.kubernetes.io/component=${component}`;
        return (await core.listNamespacedPod({ namespace, labelSelector })).items;
      };
      await eventually('two operators to be ready', 180, async () => {
        const found = await pods('operator');
        return found.length === 2 && found.every(isReady);
      });
      expect(await metricsProviders()).toEqual([`v1beta2 ${namespace}/tidegate-operator`]);
      await reasonOf(namespace, 'tidegate', 'Ready', 'Observing', 180);
      await eventually('the status to have every gateway', 120, async () => {
        const status = await statusOf(namespace, 'tidegate');
        const ready = (await pods('gateway')).filter(isReady).length;
        return ready >= 2 && status.pods?.length === ready && status.connections === 0;
      });
      const average = await eventually('the autoscaler to read the connections', 120, async () => {
        const { status } = await autoscaling.readNamespacedHorizontalPodAutoscaler({
          name: 'tidegate',
          namespace,
        });
        return status?.currentMetrics?.find(({ type }) => type === 'Pods')?.pods?.current.averageValue;
      });
      expect(average).toBe('0');
    });

    test('may change nothing of a pod but what its removal costs', async () => {
      const { namespace } = space;
      const kube = asOperator(namespace, 'tidegate-operator');
      const labelSelector = 'app.kubernetes.io/component=gateway';
      const [pod] = (await core.listNamespacedPod({ namespace, labelSelector })).items;
      const patch = (metadata: object) =>
        kube.patch(`/api/v1/namespaces/${namespace}/pods/${pod?.metadata?.name}`, 'merge', { metadata });
      await patch({ annotations: { 'controller.kubernetes.io/pod-deletion-cost': '7' } });
      await expect(patch({ labels: { other: 'x' } })).rejects.toThrow(/the operator may change/);
      kube.close();
    });
  },
);
