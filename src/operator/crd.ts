// The upgrade of the custom resource's definition: what a Job does before each `helm upgrade`, as Helm itself never does.

import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import type { Kube, KubeObject } from './kube.ts';

/** The version of Tidegate that a definition is from. */
const VERSION = 'tidegate.dev/version';

/** Applies the definition in the file, unless the cluster has a newer one: another release may need that. Returns what
 * was done. @throws where the file holds no definition, or the API server refuses it. */
export async function applyCrd(kube: Kube, file: string): Promise<string> {
  const wanted = parse(readFileSync(file, 'utf8')) as KubeObject | null;
  const name = wanted?.metadata?.name;
  if (wanted?.kind !== 'CustomResourceDefinition' || name === undefined) {
    throw new Error(`${file} holds no CustomResourceDefinition`);
  }
  const path = `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`;
  const found = await kube.get<KubeObject>(path);
  const [to, from] = [wanted, found].map(({ metadata }) => metadata.annotations?.[VERSION] ?? '0.0.0') as [
    string,
    string,
  ];
  if (compareVersions(from, to) > 0) return `${name} is from ${from}, which is newer than ${to}: it stays`;
  await kube.patch(path, 'apply', wanted);
  return `${name} is now from ${to}, and was from ${from}`;
}

/** Negative where the first is older. What comes after the three numbers does not count. */
export function compareVersions(one: string, other: string): number {
  const numbers = (version: string) =>
    version.split(/[.+-]/, 3).map((part) => Number.parseInt(part, 10) || 0);
  const [a, b] = [numbers(one), numbers(other)];
  for (let at = 0; at < 3; at += 1) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
