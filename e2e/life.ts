// The life of a release: what must be true of it from `helm install` to `helm uninstall`, however it was installed.

import { expect, test } from 'vitest';
import { until } from '../test/until.ts';
import { apps, clusterWide, core, eventually, getMade } from './cluster.ts';
import type { Release } from './release.ts';

/** Adds the tests. `before` is what was in the namespace before the install. */
export function testLife(get: () => { release: Release; before: readonly string[] }): void {
  test('two gateways hear each other', async () => {
    const { release } = get();
    const [one, two] = await release.pods(2);
    const ann = await release.connection('ann', one, { isPlain: true });
    const bob = await release.connection('bob', two, { isPlain: true });
    ann.send('hello');
    expect(JSON.parse(await bob.text())).toEqual({ sender: 'ann', text: 'hello' });
    bob.send('and to you');
    await until(() => ann.inbox.some((it) => it.includes('and to you')), { what: 'the answer' });
  });

  test('`helm test` passes, and says what it did', async () => {
    const { release } = get();
    const output = await release.helm(['test', release.name, '--logs']);
    expect(output).toMatch(/Phase:\s+Succeeded/);
    expect(output).toMatch(/ok +sends and receives/);
  });

  test('an upgrade with the same values keeps the secrets that were generated, and the pods', async () => {
    const { release } = get();
    const before = await stateOf(release);
    await release.upgrade(release.values);
    expect(await stateOf(release)).toEqual(before);
  });

  test('an uninstall leaves the volume of Redis and what Helm 3 needs of its test, and nothing else', async () => {
    const { release, before } = get();
    const testPod = release.isHelm3 ? [`pod/${release.fullname}-test`] : [];
    await release.helm(['uninstall', release.name]);
    await eventually('the pods to be gone', 120, async () => (await release.allPods()).length === 0);
    await expectContents(release, [
      ...before,
      `persistentvolumeclaim/data-${release.fullname}-redis-0`,
      ...testPod,
    ]);
    expect(await clusterWide((it) => it === release.namespace)).toEqual([]);
  });
}

/** What an upgrade that changes nothing must not change. */
async function stateOf({ namespace, fullname, allPods }: Release) {
  const { items: secrets } = await core.listNamespacedSecret({ namespace });
  const { metadata } = await apps.readNamespacedDeployment({ name: fullname, namespace });
  const redis = await apps.readNamespacedStatefulSet({ name: `${fullname}-redis`, namespace });
  return {
    secrets: secrets
      .filter(({ type }) => type === 'Opaque')
      .map(({ metadata, data }) => [metadata?.name, data]),
    generations: [metadata?.generation, redis.metadata?.generation],
    pods: (await allPods()).map(({ metadata }) => metadata?.uid).sort(),
  };
}

/** Waits until exactly this is in a release's namespace. */
export async function expectContents({ namespace }: Release, wanted: readonly string[]): Promise<void> {
  await eventually('an uninstalled release to leave only what it should', 60, async () => {
    const found = await contents(namespace);
    if ([...found].sort().join() === [...wanted].sort().join()) return true;
    throw new Error(`there is ${found.join(', ')} instead of ${wanted.join(', ')}`);
  });
}

/** Everything in a namespace, as `kind/name`. */
export async function contents(namespace: string): Promise<readonly string[]> {
  const output = await getMade(true, '--namespace', namespace, '--ignore-not-found', '--output', 'name');
  return output.split('\n').filter((it) => it !== '');
}
