// Dashboards: every panel has something to show of gateways, an operator and an autoscaler as they are in a cluster.

import { expect, test } from 'vitest';
import { dashboards } from '../monitoring/dashboards/all.ts';
import { filled } from '../monitoring/expressions.ts';
import { eventually } from './cluster.ts';
import { operatedValues, operatorReady } from './operated.ts';
import { Prometheus } from './prometheus.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';

const values = {
  ...operatedValues,
  // More than pods that rest ever take, or there are soon more of them.
  resources: { requests: { cpu: '100m', memory: '64Mi' } },
  replicaCount: 2,
  autoscaling: { enabled: true, minReplicas: 2, maxReplicas: 3, connections: { enabled: false } },
};

let release: Release;
let prometheus: Prometheus;

useSpace('dashboards', async (space) => {
  release = await Release.install(space, { values });
  prometheus = await Prometheus.start(space, 'tidegate', values);
  await release.pods(2);
  await operatorReady(release);
});

test('every panel of every dashboard shows something', async () => {
  await using clients = new AsyncDisposableStack();
  const channels = await Promise.all(
    ['ann', 'bob'].map(async (user) => {
      const channel = clients.use(release.client(user)).channel('room:shown');
      await channel.subscribe(() => {}).ready;
      return channel;
    }),
  );
  const expressions = dashboards.flatMap(({ title, rows }) =>
    rows.flatMap(({ panels }) =>
      panels.flatMap((panel) =>
        panel.queries.map(({ expr }) => ({ where: `${title}: ${panel.title}`, expr: filled(expr, '10s') })),
      ),
    ),
  );
  let empty: string[] = [];
  await eventually('every panel to show something', 240, async () => {
    await Promise.all(channels.map((channel) => channel.publish('hello')));
    const values = await Promise.all(expressions.map(({ expr }) => prometheus.value(expr)));
    empty = expressions.flatMap(({ where, expr }, at) =>
      values[at] === undefined || Number.isNaN(values[at]) ? [`${where}: ${expr}`] : [],
    );
    return empty.length === 0;
  }).catch((error: unknown) => {
    if (empty.length === 0) throw error;
  });
  expect(empty).toEqual([]);
});

test('no rule fails in it', async () => {
  expect(await prometheus.ruleErrors()).toEqual([]);
});
