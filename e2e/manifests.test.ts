// The manifests in k8s/: applied as they are, they make a gateway that works, without Helm. The operator's are applied
// in operator.test.ts, because there is one such operator in a cluster.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { core, eventually, isReady } from './cluster.ts';
import { applyFolder, applyKind, built, makeSecrets, manifests } from './manifests.ts';
import { run, runToEnd } from './programs.ts';
import { useSpace } from './space.ts';

const space = useSpace('manifests', ({ namespace }) => makeSecrets(namespace));

test('the base makes gateways that carry messages, and the smoke test sees it', async () => {
  const { namespace } = space;
  await applyFolder('base', namespace);
  await eventually('two gateways to be ready', 180, async () => {
    const { items } = await core.listNamespacedPod({
      namespace,
      labelSelector: 'app.kubernetes.io/component=gateway',
    });
    return items.length === 2 && items.every(isReady);
  });
  await applyFolder('smoke', namespace);
  const phase = await eventually('the smoke test to end', 120, async () => {
    const { status } = await core.readNamespacedPod({ name: 'tidegate-test', namespace });
    return ['Succeeded', 'Failed'].find((it) => it === status?.phase);
  });
  const said = await run('kubectl', ['--namespace', namespace, 'logs', 'tidegate-test']);
  expect({ phase, said }).toMatchObject({
    phase: 'Succeeded',
    said: expect.stringContaining('ok       receives what the HTTP API publishes'),
  });
});

for (const name of readdirSync(join(manifests, 'overlays'))) {
  test(`the overlay ${name} can be applied over the base`, async () => {
    await applyKind();
    const input = await built(`overlays/${name}`, space.namespace);
    const args = ['apply', '--dry-run=server', '--validate=strict', '--filename', '-'];
    const { code, output } = await runToEnd('kubectl', args, { input });
    expect({ code, output }).toMatchObject({ code: 0 });
  });
}
