// The load tests in their small form, run by k6 in the cluster, as docs/load-testing.md says. What they find is their
// own thresholds' to say; how fast it was is not asked here.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { V1Job } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { batch, core, eventually } from './cluster.ts';
import { apply, run } from './programs.ts';
import { quickValues, Release } from './release.ts';
import { useSpace } from './space.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const manifest = readFileSync(new URL('../k8s/loadtest/job.yaml', import.meta.url), 'utf8');
const LONGEST_SECONDS = 240;

let release: Release;

const space = useSpace('loadtest', async (given) => {
  await run('npm', ['run', 'build:loadtest'], { cwd: root });
  release = await Release.install(given, {
    values: {
      ...quickValues,
      // A generator that was held up catches up: what it then sends at once is not to be refused.
      limits: { messageRate: 0 },
      channels: {
        send: 'anyone',
        namespaces: {
          dash: { subscribe: 'anyone', publish: 'anyone' },
          chat: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 10_000, ageSeconds: 3600 } },
        },
      },
    },
  });
  await release.kubectl('create', 'configmap', 'tidegate-loadtest', '--from-file=dist/loadtest/');
  await release.pods(2);
});

/** Scripts that need nobody's help, a few at a time. */
for (const scripts of [['fanout', 'rooms', 'direct'], ['ramp', 'storm', 'soak'], ['slow']]) {
  test(`k6 finds nothing lost: ${scripts.join(', ')}`, async () => {
    await Promise.all(scripts.map((script) => expectToPass(script)));
  });
}

test('k6 finds nothing lost in a rolling restart', async () => {
  const restart = async () => {
    await said('rolling', 'restart the pods now');
    await release.kubectl('rollout', 'restart', `deployment/${release.fullname}`);
  };
  await Promise.all([expectToPass('rolling', { SECONDS: '75' }), restart()]);
});

test('k6 finds nothing lost while the pods double', async () => {
  const double = async () => {
    await said('scale-out', 'double the pods now');
    await release.scale(4);
  };
  await Promise.all([expectToPass('scale-out', { SECONDS: '20' }), double()]);
});

/** Runs a script as the manifest does, and expects that its thresholds hold. */
async function expectToPass(script: string, env: Readonly<Record<string, string>> = {}): Promise<void> {
  const job = parse(manifest) as V1Job;
  const container = job.spec?.template.spec?.containers[0];
  if (container === undefined) throw new Error('the manifest has no container');
  const name = `load-${script}`;
  job.metadata = { name, namespace: space.namespace };
  container.args = ['run', '--quiet', `/scripts/${script}.js`];
  container.resources = { requests: { cpu: '10m', memory: '64Mi' } };
  const settings = {
    URL: release.url(),
    ADMIN_URLS: release.httpUrl(9090),
    SIZE: 'ci',
    // Several at once on a small machine say nothing about time.
    P99_MS: '30000',
    RETURN_MS: '60000',
    PATIENCE_SECONDS: '60',
    ...(script === 'scale-out' && { ADMIN_URLS: '' }),
    ...env,
  };
  container.env = [
    ...(container.env ?? []).filter(({ valueFrom }) => valueFrom !== undefined),
    { name: 'OUT', value: '/tmp' },
    ...Object.entries(settings).map(([name, value]) => ({ name, value })),
  ];
  await apply(job);
  const namespace = space.namespace;
  const status = await eventually(`the load test ${script} to end`, LONGEST_SECONDS, async () => {
    const { status } = await batch.readNamespacedJob({ name, namespace });
    return (status?.succeeded || status?.failed) && status;
  });
  const log = await logOf(script);
  expect(status.succeeded, log).toBe(1);
  expect(log).toMatch(/messages_received|connections_opened/);
}

/** Waits until a script has said something. */
async function said(script: string, text: string): Promise<void> {
  await eventually(`${script} to say "${text}"`, LONGEST_SECONDS, async () =>
    (await logOf(script)).includes(text),
  );
}

async function logOf(script: string): Promise<string> {
  const { namespace } = space;
  const { items } = await core.listNamespacedPod({ namespace, labelSelector: `job-name=load-${script}` });
  const [pod] = items;
  if (pod?.metadata?.name === undefined || pod.status?.phase === 'Pending') return '';
  return core.readNamespacedPodLog({ name: pod.metadata.name, namespace });
}
