// Definitions of other projects' kinds: brought into the cluster where it has none of its own, and taken out again.

import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { eventually } from './cluster.ts';
import { kubectl, run } from './programs.ts';
import { runLabel, runName } from './settings.ts';

const schemas = new URL('schemas/', import.meta.url);
const ours = new URL('../charts/tidegate/crds/', import.meta.url);

interface Definition {
  metadata: { name: string; labels?: Record<string, string> };
}

/** Gives the tests of this file every kind that the chart and the examples have objects of. */
export function useDefinitions(): void {
  beforeAll(async () => {
    const present = (await kubectl('get', 'customresourcedefinitions', '--output=name')).split('\n');
    const isMissing = ({ metadata }: Definition) =>
      !present.includes(`customresourcedefinition.apiextensions.k8s.io/${metadata.name}`);
    const foreign = readDefinitions(schemas).filter(isMissing);
    for (const { metadata } of foreign) metadata.labels = { [runLabel]: runName };
    // The chart's own stays, as it does after an uninstall: other scenarios have objects of it.
    const missing = [...foreign, ...readDefinitions(ours).filter(isMissing)];
    if (missing.length === 0) return;
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: missing });
    // Another scenario may bring the chart's own at the same moment.
    await eventually('the definitions to be there', 60, async () => {
      await run('kubectl', ['apply', '--filename', '-'], { input });
      return true;
    });
    const names = missing.map(({ metadata }) => `customresourcedefinition/${metadata.name}`);
    await kubectl('wait', '--for=condition=Established', '--timeout=300s', ...names);
  });
  // Those of a run that was killed, too. Never the cluster's own: with a definition go all objects of its kind.
  afterAll(async () => {
    await kubectl('delete', 'customresourcedefinitions', '--selector', `${runLabel}=${runName}`);
  });
}

function readDefinitions(folder: URL): Definition[] {
  return readdirSync(folder)
    .filter((name) => /\.(json|yaml)$/.test(name))
    .map((name) => readFileSync(new URL(name, folder), 'utf8'))
    .flatMap((text) => parseAllDocuments(text).map((document) => document.toJS() as Definition));
}
