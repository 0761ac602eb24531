// An upgrade from the last version, under load: old gateways and new ones side by side, and nothing is lost.

import { afterAll, describe, expect, test } from 'vitest';
import { Counting } from './counting.ts';
import { bring, findLastVersion, type Installable, whyNot } from './last-version.ts';
import { contents } from './life.ts';
import { run, runToEnd } from './programs.ts';
import { chart, imageValuesOf, patientValues, Release } from './release.ts';
import { useSpace } from './space.ts';

/** The operator, small enough to stand beside other scenarios. */
const withOperator = {
  ...patientValues,
  operator: { resources: { requests: { cpu: '10m', memory: '64Mi' } } },
};

const version = await findLastVersion();
const reason = whyNot(version);

describe.skipIf(reason !== undefined)(
  `an upgrade from ${version?.name}${reason ? ` (skipped: ${reason})` : ''}`,
  () => {
    let release: Release;
    let last: Installable;

    useSpace('upgrade', async (space) => {
      if (version === undefined) return;
      last = await bring(version);
      // What this tree's chart has and that one need not have.
      const { operator: _, ...values } = patientValues;
      release = await Release.install(space, {
        chart: last.chart,
        values: { ...values, ...imageValuesOf(last.image) },
      });
      await release.pods(2);
    });
    afterAll(() => last?.remove());

    test('it keeps the secrets, and clients move from old pods to new ones without missing anything', async () => {
      const old = await release.pods(2);
      const before = [await release.secret('jwt-secret'), await release.secret('api-key')];
      await using load = await Counting.start(release, { subscribers: 12, channels: 2, everyMs: 200 });

      await release.upgrade(patientValues, { chart });
      await release.kubectl('rollout', 'status', `deployment/${release.fullname}`, '--timeout=600s');
      const pods = await release.pods(2);
      expect(pods.filter(({ name }) => old.some((it) => it.name === name))).toEqual([]);
      expect([await release.secret('jwt-secret'), await release.secret('api-key')]).toEqual(before);

      await load.expectEverything();
      load.expectNoneLost();
      expect(load.moves.length).toBeGreaterThan(0);
      expect(await release.helm(['test', release.name, '--logs'])).toMatch(/Phase:\s+Succeeded/);
    });

    test('the operator comes with an upgrade of a release that had none, after the one command that it asks for', async () => {
      // Helm brings a kind only with a first install, which may have been that of another release.
      const { code } = await runToEnd('kubectl', ['get', 'crd', 'connectionpolicies.tidegate.dev']);
      if (code !== 0) {
        const input = await run('helm', ['show', 'crds', chart]);
        await run('kubectl', ['apply', '--server-side', '--filename', '-'], { input });
      }
      const { namespace, fullname } = release;
      await release.upgrade(withOperator);
      await release.kubectl('rollout', 'status', `deployment/${fullname}-operator`, '--timeout=600s');
      expect(await contents(namespace)).toContain(`connectionpolicy.tidegate.dev/${fullname}`);
    });
  },
);
