// prometheus-adapter in the cluster, the provider of custom metrics that most clusters have: the real one, with the rule
// that the examples give it.

import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { addressOf } from './cluster.ts';
import { apply, kubectl } from './programs.ts';
import type { Space } from './space.ts';

const image =
  process.env.E2E_ADAPTER_IMAGE || 'registry.k8s.io/prometheus-adapter/prometheus-adapter:v0.12.0';

/** Whether there is an image of it: whoever has none says so. */
export const hasAdapter = image !== 'none';

const NAME = 'prometheus-adapter';
const API_SERVICE = 'v1beta1.custom.metrics.k8s.io';
const exampleValues = new URL('../k8s/examples/prometheus-adapter/adapter-values.yaml', import.meta.url);

/** Starts one that asks the Prometheus of the same namespace. It serves nobody before it is registered. */
export async function startAdapter({ namespace, say }: Space): Promise<void> {
  say('starting a prometheus-adapter');
  const metadata = { name: NAME, namespace };
  const clusterWide = { name: `${namespace}-${NAME}` };
  const subjects = [{ kind: 'ServiceAccount', name: NAME, namespace }];
  const role = (kind: string, name: string) => ({ apiGroup: 'rbac.authorization.k8s.io', kind, name });
  const { rules } = parse(readFileSync(exampleValues, 'utf8')) as { rules: { custom: object[] } };
  await apply(
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: clusterWide,
      rules: [{ apiGroups: [''], resources: ['namespaces', 'pods'], verbs: ['get', 'list', 'watch'] }],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: clusterWide,
      roleRef: role('ClusterRole', clusterWide.name),
      subjects,
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: `${clusterWide.name}-delegator` },
      roleRef: role('ClusterRole', 'system:auth-delegator'),
      subjects,
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { ...clusterWide, namespace: 'kube-system' },
      roleRef: role('Role', 'extension-apiserver-authentication-reader'),
      subjects,
    },
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata,
      data: { 'config.yaml': JSON.stringify({ rules: rules.custom }) },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: { selector: { app: NAME }, ports: [{ port: 443, targetPort: 6443 }] },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...metadata, labels: { app: NAME } },
      spec: {
        serviceAccountName: NAME,
        terminationGracePeriodSeconds: 1,
        securityContext: {
          runAsNonRoot: true,
          runAsUser: 65534,
          seccompProfile: { type: 'RuntimeDefault' },
        },
        containers: [
          {
            name: 'adapter',
            image,
            imagePullPolicy: 'IfNotPresent',
            args: [
              '--config=/etc/adapter/config.yaml',
              `--prometheus-url=http://prometheus.${namespace}.svc:9090`,
              '--metrics-relist-interval=5s',
              '--secure-port=6443',
              '--cert-dir=/tmp',
            ],
            readinessProbe: { httpGet: { path: '/readyz', port: 6443, scheme: 'HTTPS' }, periodSeconds: 1 },
            resources: { requests: { cpu: '10m', memory: '64Mi' } },
            securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
            volumeMounts: [
              { name: 'config', mountPath: '/etc/adapter' },
              { name: 'tmp', mountPath: '/tmp' },
            ],
          },
        ],
        volumes: [
          { name: 'config', configMap: { name: NAME } },
          { name: 'tmp', emptyDir: {} },
        ],
      },
    },
  );
  await addressOf(namespace, NAME);
}

/** Makes it the provider of the cluster, as its own chart does. */
export async function registerAdapter({ namespace, say }: Space): Promise<void> {
  say('custom metrics are those of prometheus-adapter');
  await apply({
    apiVersion: 'apiregistration.k8s.io/v1',
    kind: 'APIService',
    metadata: { name: API_SERVICE },
    spec: {
      group: 'custom.metrics.k8s.io',
      version: 'v1beta1',
      groupPriorityMinimum: 100,
      versionPriority: 100,
      insecureSkipTLSVerify: true,
      service: { namespace, name: NAME },
    },
  });
  await kubectl('wait', '--for=condition=Available', `apiservice/${API_SERVICE}`, '--timeout=300s');
}

/** Takes that back. */
export async function unregisterAdapter({ say }: Space): Promise<void> {
  say('custom metrics are not those of prometheus-adapter any more');
  await kubectl('delete', 'apiservice', API_SERVICE, '--ignore-not-found');
}

/** Deletes what of it has no namespace, or is in another. */
export async function removeAdapter(space: Space): Promise<void> {
  await unregisterAdapter(space);
  const name = `${space.namespace}-${NAME}`;
  const roles = [`clusterrole/${name}`, `clusterrolebinding/${name}`, `clusterrolebinding/${name}-delegator`];
  await kubectl('delete', ...roles, '--ignore-not-found');
  await kubectl('--namespace', 'kube-system', 'delete', `rolebinding/${name}`, '--ignore-not-found');
}
