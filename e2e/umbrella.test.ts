// The chart as a dependency of another one, which passes on values and globals.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { contents, testLife } from './life.ts';
import { run } from './programs.ts';
import { chart, quickValues, Release } from './release.ts';
import { useSpace } from './space.ts';

let release: Release;
let before: readonly string[];
const umbrella = mkdtempSync(join(tmpdir(), 'tidegate-e2e-umbrella-'));
afterAll(() => rmSync(umbrella, { recursive: true }));

useSpace('umbrella', async (space) => {
  const dependency = {
    name: 'tidegate',
    version: '*',
    repository: `file://${chart}`,
    condition: 'tidegate.enabled',
  };
  writeFileSync(
    join(umbrella, 'Chart.yaml'),
    JSON.stringify({ apiVersion: 'v2', name: 'umbrella', version: '1.0.0', dependencies: [dependency] }),
  );
  mkdirSync(join(umbrella, 'templates'));
  await run('helm', ['dependency', 'build', umbrella]);
  before = await contents(space.namespace);
  release = await Release.install(space, {
    name: 'prod',
    fullname: 'prod-tidegate',
    chart: umbrella,
    values: { global: { region: 'north' }, tidegate: { enabled: true, ...quickValues } },
  });
  await release.pods(2);
});

testLife(() => ({ release, before }));
