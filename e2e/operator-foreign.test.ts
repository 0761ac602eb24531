// Another provider of custom metrics, the real prometheus-adapter: it scales the gateway by their connections, the
// operator neither joins nor replaces it, and takes its turn when it is gone.

import { afterAll, describe, expect, test } from 'vitest';
import { hasAdapter, registerAdapter, removeAdapter, startAdapter, unregisterAdapter } from './adapter.ts';
import { during, eventually } from './cluster.ts';
import { Crowd } from './crowd.ts';
import {
  expectPods,
  leaderOf,
  metricsProviders,
  operatorPods,
  operatorReady,
  reasonOf,
  scaledValues,
  servedConnections,
} from './operated.ts';
import { kubectl } from './programs.ts';
import { Prometheus } from './prometheus.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';
import { call } from './tunnel.ts';

const TARGET = 100;

const scaledBy = (source: 'operator' | 'prometheus-adapter') => scaledValues(TARGET, 4, source);

const OWN = 'v1beta2.custom.metrics.k8s.io';
const others = await metricsProviders();
const reason = !hasAdapter
  ? ' (skipped: E2E_ADAPTER_IMAGE is none)'
  : others.length > 0
    ? ` (skipped: there is ${others.join()} already)`
    : '';

describe.skipIf(reason !== '')(`another provider of metrics${reason}`, () => {
  let served: Release;
  let crowd: Crowd;

  const space = useSpace('operator-foreign', async (space) => {
    served = await Release.install(space, { values: scaledBy('prometheus-adapter') });
    await Prometheus.start(space, served.name, served.values);
    await startAdapter(space);
    await registerAdapter(space);
    await served.pods(2);
    crowd = await Crowd.start(served);
  });
  const elsewhere = useSpace('operator-blind', async () => {});
  const blind = Release.planned(elsewhere, { values: scaledBy('operator') });

  afterAll(async () => {
    await removeAdapter(space);
    await blind.unapply();
    await served?.helm(['uninstall', served.name, '--ignore-not-found']);
  });

  async function expectScale(connections: number): Promise<void> {
    await crowd.be(connections);
    await expectPods(served, connections, TARGET);
  }

  const adapter = () => `v1beta1 (Service ${space.namespace}/prometheus-adapter)`;

  /** What the leader has written. */
  async function logOfLeader(): Promise<string> {
    return blind.kubectl('logs', (await leaderOf(blind)) ?? '');
  }

  test('prometheus-adapter serves the connections of a release, and its autoscaler follows them', async () => {
    for (const connections of [205, 300, 100]) {
      await expectScale(connections);
    }
    await reasonOf(served.namespace, served.fullname, 'MetricsServed', 'NotServed');
  });

  test('a release that would serve metrics is refused, and told what to do', async () => {
    const installed = Release.install(elsewhere, { values: scaledBy('operator') });
    await expect(installed).rejects.toThrow(
      `belongs to another provider (${space.namespace}/prometheus-adapter)`,
    );
    await expect(installed).rejects.toThrow('Set autoscaling.connections.source to prometheus-adapter');
  });

  test('one that was rendered without a look at the cluster serves nothing, says why, and disturbs nobody', async () => {
    await blind.apply();
    await blind.pods(2);
    await reasonOf(blind.namespace, blind.fullname, 'MetricsServed', 'ForeignProvider');
    // Each finds it out by itself.
    for (const pod of await operatorPods(blind)) {
      await eventually(`${pod.metadata?.name} to say why it is not ready`, 60, async () => {
        const { status, text } = await call(`http://${pod.status?.podIP}:9090/readyz`);
        expect(text).toContain(`belongs to another provider: ${adapter()}`);
        expect(status).toBe(503);
        return true;
      });
    }
    expect(await logOfLeader()).toContain(`belongs to another provider: ${adapter()}`);
    expect(await kubectl('get', 'apiservice', OWN, '--output', 'jsonpath={.spec.caBundle}')).toBe('');
    await expectScale(300);
    await expectScale(100);
    const pods = await operatorPods(blind);
    expect(
      pods.flatMap((it) => it.status?.containerStatuses?.map(({ restartCount }) => restartCount)),
    ).toEqual([0, 0]);
  });

  test('when the other has gone, it serves by itself', async () => {
    await unregisterAdapter(space);
    await operatorReady(blind);
    await reasonOf(blind.namespace, blind.fullname, 'MetricsServed', 'Served');
    await eventually('its metrics', 60, async () => (await servedConnections(blind))?.size === 2);
  });

  test('another that comes while it serves is told of, and takes nothing away', async () => {
    await registerAdapter(space);
    await reasonOf(blind.namespace, blind.fullname, 'MetricsServed', 'ForeignProvider');
    await during(10, async () => expect((await servedConnections(blind))?.size).toBe(2));
    await expectPods(blind, 0, TARGET);
    await operatorReady(blind);
    await unregisterAdapter(space);
    await reasonOf(blind.namespace, blind.fullname, 'MetricsServed', 'Served');
  });
});
