// A recording of the whole chain: real connections, real gateways, the operator's metrics and the cluster's autoscaler.
// The simulator is compared with it, by `simulate/simulate.test.ts`.

import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { apps, eventually } from './cluster.ts';
import { Crowd } from './crowd.ts';
import { metricsProviders, operatedValues, operatorReady, servedConnections } from './operated.ts';
import { Release, type Values } from './release.ts';
import { useSpace } from './space.ts';

const file = process.env.E2E_RECORDING;
const reason = file ? '' : ' (skipped: E2E_RECORDING names no file to write)';

/** Second, and clients from then on; in between it goes evenly from one to the next. */
const HISTORY = [
  [0, 150],
  [20, 150],
  [60, 560],
  [100, 560],
  [110, 330],
  [190, 330],
  [200, 120],
  [330, 120],
  [340, 450],
  [380, 450],
] as const;

describe.skipIf(reason !== '')(`a recording${reason}`, () => {
  let release: Release;
  let crowd: Crowd;

  const space = useSpace('operator-recording', async (space) => {
    expect(await metricsProviders()).toEqual([]);
    const recorded = parse(
      readFileSync(new URL('../simulate/recordings/cluster-values.yaml', import.meta.url), 'utf8'),
    ) as Values;
    release = await Release.install(space, { values: { ...operatedValues, ...recorded } });
    await release.pods(2);
    await operatorReady(release);
    crowd = await Crowd.start(release);
    await crowd.be(HISTORY[0][1]);
    await eventually('its metrics', 60, async () => (await servedConnections(release))?.size === 2);
  });

  afterAll(() => release?.helm(['uninstall', release.name, '--ignore-not-found']));

  test('is made', { timeout: 600_000 }, async () => {
    const { namespace, fullname: name } = release;
    const rows: string[] = [];
    const startedMs = performance.now();
    const seconds = HISTORY.at(-1)?.[0] ?? 0;
    for (let second = 0; second <= seconds; second += 1) {
      // What is recorded is when it was, however long the answers take.
      await delay(Math.max(0, startedMs + second * 1000 - performance.now()));
      const clients = clientsAt(second);
      await crowd.want(clients);
      const { spec, status } = await apps.readNamespacedDeployment({ name, namespace });
      rows.push([second, clients, spec?.replicas, status?.readyReplicas ?? 0].join());
    }
    writeFileSync(file ?? '', `second,clients,replicas,ready\n${rows.join('\n')}\n`);
    space.say(`${rows.length} seconds are in ${file}`);
  });
});

function clientsAt(second: number): number {
  const next = HISTORY.findIndex(([at]) => at > second);
  const [from, to] = [HISTORY.at(next - 1), HISTORY.at(next)];
  if (from === undefined || to === undefined || next === -1) return HISTORY.at(-1)?.[1] ?? 0;
  return Math.round(from[1] + ((to[1] - from[1]) * (second - from[0])) / (to[0] - from[0]));
}
