// The chart with Helm 3, which applies on the client and keeps what it renders.

import { describe } from 'vitest';
import { contents, testLife } from './life.ts';
import { exists } from './programs.ts';
import { Release } from './release.ts';
import { useSpace } from './space.ts';

const hasHelm3 = await exists('helm3', 'version');

describe.skipIf(!hasHelm3)(`with Helm 3${hasHelm3 ? '' : ' (skipped: there is no program helm3)'}`, () => {
  let release: Release;
  let before: readonly string[];

  useSpace('helm3', async (space) => {
    before = await contents(space.namespace);
    release = await Release.install(space, { helm: 'helm3' });
    await release.pods(2);
  });

  testLife(() => ({ release, before }));
});
