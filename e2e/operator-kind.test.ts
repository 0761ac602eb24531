// The kind itself: an upgrade of a release brings it up to date. All releases of a cluster share it.

import { afterAll, expect, test } from 'vitest';
import { version } from '../src/platform/version.ts';
import { contents } from './life.ts';
import { operatedValues } from './operated.ts';
import { kubectl } from './programs.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';

const CRD = 'connectionpolicies.tidegate.dev';
const VERSION = 'tidegate.dev/version';

let release: Release;

useSpace('operator-kind', async (space) => {
  release = await Release.install(space, { values: operatedValues });
});

afterAll(() => release?.helm(['uninstall', release.name, '--ignore-not-found']));

test('an upgrade brings the kind up to date, leaves a newer one alone, and nothing of itself behind', async () => {
  const versionOf = () =>
    kubectl('get', 'crd', CRD, '--output', `jsonpath={.metadata.annotations.tidegate\\.dev/version}`);
  try {
    await kubectl('annotate', 'crd', CRD, '--overwrite', `${VERSION}=0.0.1`);
    await release.upgrade(release.values);
    expect(await versionOf()).toBe(version);
    await kubectl('annotate', 'crd', CRD, '--overwrite', `${VERSION}=99.0.0`);
    await release.upgrade(release.values);
    expect(await versionOf()).toBe('99.0.0');
  } finally {
    await kubectl('annotate', 'crd', CRD, '--overwrite', `${VERSION}=${version}`);
  }
  const left = await kubectl('get', 'clusterrole,clusterrolebinding', '--output', 'name');
  expect(left).not.toContain(`${release.namespace}-${release.fullname}-operator-crd`);
  expect((await contents(release.namespace)).filter((it) => it.includes('-crd'))).toEqual([]);
});
