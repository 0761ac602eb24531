// Connection policies on a real cluster: what the API server refuses, what the operator says of workloads that are not
// ours, and what it may not do.

import { afterAll, expect, test } from 'vitest';
import { eventually } from './cluster.ts';
import { contents, expectContents } from './life.ts';
import { asOperator, operatedValues, operatorReady, reasonOf } from './operated.ts';
import { apply, kubectl } from './programs.ts';
import { Release } from './release.ts';
import { image } from './settings.ts';
import { useSpace } from './space.ts';

const CRD = 'connectionpolicies.tidegate.dev';

let release: Release;
let before: readonly string[];

useSpace('operator-policy', async (space) => {
  before = await contents(space.namespace);
  release = await Release.install(space, { values: operatedValues });
  await release.pods(2);
  await operatorReady(release);
});

afterAll(() => release?.helm(['uninstall', release.name, '--ignore-not-found']));

function policy(name: string, spec: object): object {
  const metadata = { name, namespace: release.namespace };
  return { apiVersion: 'tidegate.dev/v1alpha1', kind: 'ConnectionPolicy', metadata, spec };
}

test('a policy that makes no sense is refused, with what to do', async () => {
  const target = { kind: 'Deployment', name: 'x' };
  for (const [spec, said] of [
    [{ targetRef: { kind: 'StatefulSet', name: 'x' } }, 'set scaleIn.protect to false'],
    [{ targetRef: { kind: 'DaemonSet', name: 'x' } }, 'Unsupported value'],
    [{}, 'targetRef'],
    [{ targetRef: target, rebalance: { maxSkew: 1 } }, 'maxSkew'],
    [{ targetRef: target, rebalance: { minAge: 'soon' } }, 'minAge'],
    [{ targetRef: target, rebalance: { window: { start: '1am', end: '05:00' } } }, 'start'],
    [
      { targetRef: target, rebalance: { window: { start: '01:00', end: '05:00', days: ['Mon', 'Mon'] } } },
      'names a day twice',
    ],
    [{ targetRef: target, rebalance: { typo: 1 } }, 'unknown field'],
  ] as const) {
    await expect(apply(policy('refused', spec)), JSON.stringify(spec)).rejects.toThrow(said);
  }
});

test('the policy of the chart says how its pods are, and has a short name', async () => {
  await reasonOf(release.namespace, release.fullname, 'Ready', 'Observing');
  // It may have begun with the pod that was ready first.
  await eventually('it to tell of both pods', 60, async () => {
    const shown = await release.kubectl('get', 'cpol', release.fullname, '--output', 'wide');
    expect(shown).toMatch(/TARGET +PODS +CONNECTIONS +SKEW +STATE/);
    expect(shown).toMatch(/tidegate +2 +0 +/);
    return true;
  });
});

test('a policy on pods that lack the contract, on nothing, or beside an older one says so', async () => {
  const { namespace } = release;
  const labels = { app: 'foreign' };
  await apply(
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'foreign', namespace },
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            automountServiceAccountToken: false,
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                name: 'foreign',
                image,
                imagePullPolicy: 'IfNotPresent',
                command: [
                  '/usr/local/bin/node',
                  '--eval',
                  "require('node:http').createServer((_, response) => response.end('hello')).listen(9090)",
                ],
                readinessProbe: { tcpSocket: { port: 9090 }, periodSeconds: 1 },
                securityContext: {
                  allowPrivilegeEscalation: false,
                  capabilities: { drop: ['ALL'] },
                  runAsNonRoot: true,
                  seccompProfile: { type: 'RuntimeDefault' },
                },
              },
            ],
          },
        },
      },
    },
    policy('foreign', { targetRef: { kind: 'Deployment', name: 'foreign' } }),
    policy('nowhere', { targetRef: { kind: 'Deployment', name: 'nowhere' } }),
    policy('younger', { targetRef: { kind: 'Deployment', name: release.fullname } }),
  );
  try {
    await reasonOf(namespace, 'foreign', 'Ready', 'NoContract');
    await reasonOf(namespace, 'nowhere', 'Ready', 'TargetNotFound');
    await reasonOf(namespace, 'younger', 'Conflict', 'OlderPolicy');
    await reasonOf(namespace, release.fullname, 'Conflict', 'YoungerPolicies');
  } finally {
    await release.kubectl('delete', 'deployment/foreign', 'cpol/foreign', 'cpol/nowhere', 'cpol/younger');
  }
});

test('of a pod the operator can change its deletion cost, and nothing else', async () => {
  const { namespace, fullname } = release;
  const kube = asOperator(namespace, `${fullname}-operator`);
  const [pod] = await release.pods(2);
  const patch = (body: object) =>
    kube.patch(`/api/v1/namespaces/${namespace}/pods/${pod.name}`, 'merge', body);
  await patch({ metadata: { annotations: { 'controller.kubernetes.io/pod-deletion-cost': '7' } } });
  for (const body of [
    { metadata: { annotations: { other: 'x' } } },
    { metadata: { annotations: { 'kubectl.kubernetes.io/default-container': null } } },
    { metadata: { labels: { other: 'x' } } },
    { metadata: { finalizers: ['example.com/x'] } },
    { metadata: { ownerReferences: null } },
    { spec: { activeDeadlineSeconds: 1 } },
  ]) {
    await expect(patch(body), JSON.stringify(body)).rejects.toThrow(/the operator may change/);
  }
  // What it is all about.
  const image = [{ op: 'replace', path: '/spec/containers/0/image', value: 'other' }];
  await expect(kube.patch(`/api/v1/namespaces/${namespace}/pods/${pod.name}`, 'json', image)).rejects.toThrow(
    /the operator may change/,
  );
  for (const [verb, path] of [
    ['get', `/api/v1/namespaces/${namespace}/secrets/${fullname}-auth`],
    ['list', `/api/v1/namespaces/${namespace}/secrets`],
    ['list', '/api/v1/namespaces/kube-system/pods'],
    ['list', '/apis/tidegate.dev/v1alpha1/connectionpolicies'],
  ] as const) {
    await expect(kube.get(path), `${verb} ${path}`).rejects.toMatchObject({ status: 403 });
  }
  kube.close();
});

test('an uninstall leaves the kind and the volume of Redis, and nothing else', async () => {
  await release.helm(['uninstall', release.name]);
  await eventually('the pods to be gone', 120, async () => (await release.allPods()).length === 0);
  await expectContents(release, [...before, `persistentvolumeclaim/data-${release.fullname}-redis-0`]);
  const left = await kubectl(
    'get',
    'clusterrole,clusterrolebinding,validatingadmissionpolicy',
    '--output',
    'name',
  );
  expect(left).not.toContain(`/${release.namespace}-`);
  expect(await kubectl('get', 'crd', CRD, '--output', 'name')).toContain(CRD);
});
