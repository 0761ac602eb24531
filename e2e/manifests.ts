// The manifests in k8s/, as a scenario applies them: in its own namespace, with the image under test.

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { run } from './programs.ts';
import { image } from './settings.ts';

export const manifests = fileURLToPath(new URL('../k8s/', import.meta.url));

/** What kustomize makes of a folder for a namespace. */
export async function built(folder: string, namespace: string): Promise<string> {
  const own = mkdtempSync(join(tmpdir(), 'tidegate-manifests-'));
  const path = (name: string) => relative(own, join(manifests, name));
  const { namespace: named } = parse(readFileSync(join(manifests, folder, 'kustomization.yaml'), 'utf8'));
  const colon = image.lastIndexOf(':');
  const kustomization = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    namespace,
    resources: [path(folder)],
    images: [
      { name: 'ghcr.io/tidegate/tidegate', newName: image.slice(0, colon), newTag: image.slice(colon + 1) },
    ],
    // As Helm marks what it makes, so that a killed run's cluster-wide objects are found.
    commonAnnotations: { 'meta.helm.sh/release-namespace': namespace },
    // Small enough to stand beside the pods of other scenarios.
    patches: ['Deployment', 'StatefulSet'].map((kind) => ({
      target: { kind },
      patch: JSON.stringify([
        {
          op: 'add',
          path: '/spec/template/spec/containers/0/resources/requests',
          value: { cpu: '10m', memory: '64Mi' },
        },
      ]),
    })),
    // A folder that names a namespace has more to change where it is another.
    transformers: named === undefined ? [] : [path(join(folder, 'namespace'))],
  };
  try {
    writeFileSync(join(own, 'kustomization.yaml'), JSON.stringify(kustomization));
    return await run('kubectl', ['kustomize', own]);
  } finally {
    rmSync(own, { recursive: true });
  }
}

/** Makes the Secrets that the manifests expect, as k8s/README.md says. */
export async function makeSecrets(namespace: string): Promise<void> {
  const secret = (name: string, ...keys: string[]) => {
    const literals = keys.map((key) => `--from-literal=${key}=${randomBytes(32).toString('hex')}`);
    return run('kubectl', ['--namespace', namespace, 'create', 'secret', 'generic', name, ...literals]);
  };
  await secret('tidegate-auth', 'jwt-secret', 'api-key', 'admin-token');
  await secret('tidegate-redis', 'redis-password');
}

/** Applies a folder. */
export async function applyFolder(folder: string, namespace: string): Promise<void> {
  await run('kubectl', ['apply', '--filename', '-'], { input: await built(folder, namespace) });
}

/** Makes sure that the cluster knows the kind of policies. It is everybody's, and stays. */
export async function applyKind(): Promise<void> {
  await run('kubectl', ['apply', '--kustomize', join(manifests, 'crd')]);
  await run('kubectl', [
    'wait',
    '--for=condition=Established',
    '--timeout=300s',
    'crd/connectionpolicies.tidegate.dev',
  ]);
}
