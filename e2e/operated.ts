// The operator of a release, as a scenario looks at it.

import { KubeConfig, type V1Lease, type V1Pod } from '@kubernetes/client-node';
import { Kube } from '../src/operator/kube.ts';
import type { PolicyStatus } from '../src/operator/policy.ts';
import { autoscaling, core, eventually, isReady } from './cluster.ts';
import { kubectl, runToEnd } from './programs.ts';
import { quickValues, type Release, type Values } from './release.ts';

/** Values for a release with an operator, that lets everybody in. */
export const operatedValues: Values = {
  ...quickValues,
  auth: { mode: 'anonymous' },
  limits: { upgradeRate: 0, connectionsPerUser: 0 },
  drainSeconds: 3,
  resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '512Mi' } },
  operator: {
    enabled: true,
    resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '256Mi' } },
  },
};

/** The same, scaled by its connections alone, and as fast as the chart lets it. */
export function scaledValues(target: number, maxReplicas: number, source = 'operator'): Values {
  return {
    ...operatedValues,
    autoscaling: {
      enabled: true,
      minReplicas: 2,
      maxReplicas,
      cpu: { enabled: false },
      connections: { enabled: true, target, source },
      // No shorter than a pod takes to leave, as the chart wants it.
      scaleDown: { periodSeconds: 15, stabilizationWindowSeconds: 15 },
    },
  };
}

/** Who has the cluster's custom metrics, as `v1beta2 platform/tidegate-operator`; nobody: empty. */
export async function metricsProviders(): Promise<string[]> {
  const path =
    '{range .items[?(@.spec.group=="custom.metrics.k8s.io")]}{.spec.version} {.spec.service.namespace}/{.spec.service.name}{"\\n"}{end}';
  const found = await kubectl('get', 'apiservices', '--output', `jsonpath=${path}`);
  return found.split('\n').filter((line) => line !== '');
}

/** The API server, as this operator is let in. */
export function asOperator(namespace: string, name: string): Kube {
  const config = new KubeConfig();
  config.loadFromDefault();
  const impersonateUser = `system:serviceaccount:${namespace}:${name}`;
  Object.assign(config.getCurrentUser() ?? {}, { impersonateUser });
  return new Kube(config);
}

/** The status of a policy. */
export async function statusOf(namespace: string, name: string): Promise<Partial<PolicyStatus>> {
  const found = await kubectl('--namespace', namespace, 'get', 'connectionpolicy', name, '--output', 'json');
  return (JSON.parse(found) as { status?: PolicyStatus }).status ?? {};
}

/** Waits until a condition of a policy has this reason. */
export async function reasonOf(
  namespace: string,
  name: string,
  type: string,
  reason: string,
  seconds = 90,
): Promise<void> {
  await eventually(`${type} of ${namespace}/${name} to be ${reason}`, seconds, async () => {
    const found = (await statusOf(namespace, name)).conditions?.find((it) => it.type === type);
    if (found?.reason === reason) return true;
    throw new Error(`it is ${found?.reason}: ${found?.message}`);
  });
}

/** The operator's pods, all of them. */
export async function operatorPods({ namespace, name }: Release): Promise<V1Pod[]> {
  const labelSelector = `app.kubernetes.io/instance=${name},app.kubernetes.io/component=operator`;
  return (await core.listNamespacedPod({ namespace, labelSelector })).items;
}

/** Waits until so many pods of the operator are there and ready. */
export async function operatorReady(release: Release, count = 2): Promise<void> {
  await eventually('the operator to be ready', 120, async () => {
    const pods = await operatorPods(release);
    return pods.length === count && pods.every(isReady);
  });
}

/** The pod that leads; undefined: none. */
export async function leaderOf({ namespace, fullname }: Release): Promise<string | undefined> {
  const found = await kubectl(
    '--namespace',
    namespace,
    'get',
    'lease',
    `${fullname}-operator`,
    '--output',
    'json',
  );
  return (JSON.parse(found) as V1Lease).spec?.holderIdentity?.split('_')[0] || undefined;
}

/** The metric of every gateway pod, by its name, as the autoscaler gets it; undefined: it is refused. */
export async function servedConnections({
  namespace,
  selector,
}: Release): Promise<Map<string, number> | undefined> {
  const path = `/apis/custom.metrics.k8s.io/v1beta2/namespaces/${namespace}/pods/%2A/tidegate_connections`;
  const { code, stdout } = await runToEnd('kubectl', [
    'get',
    '--raw',
    `${path}?labelSelector=${encodeURIComponent(selector)}`,
  ]);
  if (code !== 0) return undefined;
  const { items } = JSON.parse(stdout) as { items: { describedObject: { name: string }; value: string }[] };
  return new Map(items.map(({ describedObject, value }) => [describedObject.name, Number(value)]));
}

/** Of the autoscaler: what differs from the target by less is as it should be. */
const TOLERANCE = 0.1;

/** Waits until the autoscaler wants, and there are, as many pods as its arithmetic says of so many connections. */
export async function expectPods(
  { namespace, fullname: name }: Release,
  connections: number,
  target: number,
): Promise<void> {
  await eventually(`the pods for ${connections} connections`, 240, async () => {
    const { spec, status } = await autoscaling.readNamespacedHorizontalPodAutoscaler({ name, namespace });
    const current = status?.currentReplicas ?? 0;
    const [metric] = status?.currentMetrics ?? [];
    const average = Number(metric?.pods?.current.averageValue?.replace(/m$/, 'e-3'));
    // What it counted is what there is: not some of it, and not what was.
    if (!(Math.abs(average * current - connections) <= current))
      throw new Error(`it has seen ${average} on each of ${current}`);
    const ratio = connections / current / target;
    const wanted = Math.abs(ratio - 1) <= TOLERANCE ? current : Math.ceil(connections / target);
    const bounded = Math.min(spec?.maxReplicas ?? 0, Math.max(spec?.minReplicas ?? 0, wanted));
    if (status?.desiredReplicas === bounded && current === bounded) return true;
    throw new Error(`it wants ${status?.desiredReplicas} of ${bounded}`);
  });
}
