// The manifests in k8s/: applied as they are, they make a gateway that works, without Helm.

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { core, eventually, isReady } from './cluster.ts';
import { run, runToEnd } from './programs.ts';
import { image } from './settings.ts';
import { useSpace } from './space.ts';

const manifests = fileURLToPath(new URL('../k8s/', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tidegate-manifests-'));
afterAll(() => rmSync(folder, { recursive: true }));

const space = useSpace('manifests', async ({ namespace }) => {
  const secret = (name: string, ...keys: string[]) => {
    const literals = keys.map((key) => `--from-literal=${key}=${randomBytes(32).toString('hex')}`);
    return run('kubectl', ['--namespace', namespace, 'create', 'secret', 'generic', name, ...literals]);
  };
  await secret('tidegate-auth', 'jwt-secret', 'api-key');
  await secret('tidegate-redis', 'redis-password');
});

test('the base makes gateways that carry messages, and the smoke test sees it', async () => {
  const { namespace } = space;
  await apply('base');
  await eventually('two gateways to be ready', 180, async () => {
    const { items } = await core.listNamespacedPod({
      namespace,
      labelSelector: 'app.kubernetes.io/component=gateway',
    });
    return items.length === 2 && items.every(isReady);
  });
  await apply('smoke');
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
    const objects = await run('kubectl', ['kustomize', join(manifests, 'overlays', name)]);
    const args = ['--namespace', space.namespace, 'apply', '--dry-run=server', '--validate=strict'];
    const { code, output } = await runToEnd('kubectl', [...args, '--filename', '-'], { input: objects });
    expect({ code, output }).toMatchObject({ code: 0 });
  });
}

/** Applies a folder with the image under test, and pods small enough to stand beside those of other scenarios. */
async function apply(name: string): Promise<void> {
  const colon = image.lastIndexOf(':');
  const small = (kind: string, metadataName: string, container: string) => ({
    patch: JSON.stringify({
      apiVersion: 'apps/v1',
      kind,
      metadata: { name: metadataName },
      spec: {
        template: {
          spec: {
            containers: [{ name: container, resources: { requests: { cpu: '10m', memory: '64Mi' } } }],
          },
        },
      },
    }),
  });
  const kustomization = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    namespace: space.namespace,
    resources: [relative(folder, join(manifests, name))],
    images: [
      { name: 'ghcr.io/tidegate/tidegate', newName: image.slice(0, colon), newTag: image.slice(colon + 1) },
    ],
    patches:
      name === 'base'
        ? [small('Deployment', 'tidegate', 'gateway'), small('StatefulSet', 'tidegate-redis', 'redis')]
        : [],
  };
  writeFileSync(join(folder, 'kustomization.yaml'), JSON.stringify(kustomization));
  await run('kubectl', ['apply', '--kustomize', folder]);
}
