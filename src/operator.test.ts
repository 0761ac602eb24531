// The whole operator, with real gateways as pods. Each has an address of its own, because pods share their port.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { KubeApi } from '../test/kube-api.ts';
import { startLocalGateway } from '../test/local-gateway.ts';
import { freePort } from '../test/ports.ts';
import { until } from '../test/until.ts';
import { TestClient } from '../test/websocket.ts';
import type { PolicyStatus } from './operator/policy.ts';
import { type Operator, startOperator } from './operator.ts';
import { readOperatorConfig } from './platform/config.ts';

const token = 'a-token-of-16-or-more';
const adminPort = await freePort();
const policies = '/apis/tidegate.dev/v1alpha1/namespaces/chat/connectionpolicies';
const pods = '/api/v1/namespaces/chat/pods';
const deployments = '/apis/apps/v1/namespaces/chat/deployments';
const cost = 'controller.kubernetes.io/pod-deletion-cost';

const gateways = await Promise.all(
  ['127.0.0.2', '127.0.0.3'].map((HOST) =>
    startLocalGateway({ HOST, ADMIN_PORT: String(adminPort), ADMIN_TOKEN: token }),
  ),
);
afterAll(() => Promise.all(gateways.map((gateway) => gateway.stop())));

let api: KubeApi;
let operators: Operator[] = [];

beforeEach(async () => {
  api = await KubeApi.start();
  api.put(`${deployments}/gateway`, deployment());
  putPod('pod-1', '127.0.0.2');
  putPod('pod-2', '127.0.0.3');
});

afterEach(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  operators = [];
  await api.stop();
});

function deployment(): { [key: string]: unknown } {
  return {
    metadata: { namespace: 'chat', generation: 1 },
    spec: {
      replicas: 2,
      selector: { matchLabels: { app: 'gateway' } },
      template: { spec: { containers: [{}] } },
    },
    status: { observedGeneration: 1, replicas: 2, updatedReplicas: 2 },
  };
}

function putPod(name: string, podIP: string): void {
  api.put(`${pods}/${name}`, {
    metadata: { namespace: 'chat', labels: { app: 'gateway' } },
    status: {
      phase: 'Running',
      podIP,
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: [{ state: { running: {} } }],
    },
  });
}

function putPolicy(name: string, spec: object = {}, metadata: object = {}): void {
  api.put(`${policies}/${name}`, {
    metadata: { namespace: 'chat', generation: 1, ...metadata },
    spec: { targetRef: { kind: 'Deployment', name: 'gateway' }, adminPort, ...spec },
  });
}

async function start(env: Record<string, string> = {}): Promise<Operator> {
  const defaults = { ADMIN_PORT: '0', HOST: '127.0.0.1', OPERATOR_NAMESPACE: 'chat', ADMIN_TOKEN: token };
  const config = readOperatorConfig({ ...defaults, ...env });
  const operator = await startOperator(config, pino({ level: 'silent' }), api.client());
  operators.push(operator);
  return operator;
}

const statusOf = (name: string) => api.get(`${policies}/${name}`)?.status as PolicyStatus | undefined;
const condition = (name: string, type: string) => statusOf(name)?.conditions.find((it) => it.type === type);
const reasonOf = (name: string, type: string, reason: string) =>
  until(() => condition(name, type)?.reason === reason, { what: `${type} of ${name} to be ${reason}` });

async function metric(operator: Operator, line: RegExp): Promise<number | undefined> {
  const said = await (await fetch(`http://127.0.0.1:${operator.ports.admin}/metrics`)).text();
  const [, value] = new RegExp(`^${line.source} (\\S+)$`, 'm').exec(said) ?? [];
  return value === undefined ? undefined : Number(value);
}

async function readiness(operator: Operator): Promise<{ ready: boolean; reasons: string[] }> {
  return (await fetch(`http://127.0.0.1:${operator.ports.admin}/readyz`)).json() as never;
}

test('says in the status what pods hold, and lets the emptier one go first', async () => {
  const clients = await Promise.all(
    [1, 2, 3].map(() => TestClient.v1(`${gateways[0]?.url.replace('127.0.0.1', '127.0.0.2')}/ws/ann`)),
  );
  putPolicy('main');
  const operator = await start();
  await reasonOf('main', 'Ready', 'Observing');
  await until(() => statusOf('main')?.connections === 3, { what: 'the connections to be known' });
  expect(statusOf('main')?.pods).toMatchObject([
    { name: 'pod-1', connections: 3 },
    { name: 'pod-2', connections: 0 },
  ]);
  const costOf = (name: string) =>
    Number((api.get(`${pods}/${name}`)?.metadata.annotations as Record<string, string>)?.[cost]);
  await until(() => costOf('pod-1') > costOf('pod-2'), { what: 'the deletion costs' });
  expect((await readiness(operator)).ready).toBe(true);
  expect(await metric(operator, /tidegate_operator_leader/)).toBe(1);
  const said = /tidegate_operator_connections\{policy_namespace="chat",policy="main"\}/;
  await until(async () => (await metric(operator, said)) === 3, { what: 'the metric' });
  await Promise.all(clients.map((client) => client.leave()));
});

// As one is whose metrics have never been there: it would look as if it were about to remove every pod.
test('takes an autoscaler that has not computed anything for one that wants what there is', async () => {
  api.put('/apis/autoscaling/v2/namespaces/chat/horizontalpodautoscalers/hpa', {
    metadata: { namespace: 'chat' },
    spec: { scaleTargetRef: { kind: 'Deployment', name: 'gateway' }, maxReplicas: 5 },
    status: { currentReplicas: 2, desiredReplicas: 0 },
  });
  putPolicy('main');
  await start();
  await until(() => statusOf('main')?.hpa !== undefined, { what: 'the autoscaler to be seen' });
  expect(statusOf('main')?.hpa).toEqual({ name: 'hpa', desired: 2, actual: 2 });
});

test('lets one replica alone write, and the other go on where it ended', async () => {
  putPolicy('main');
  const one = await start();
  await reasonOf('main', 'Ready', 'Observing');
  const two = await start();
  await until(async () => (await readiness(two)).ready, { what: 'the second to be ready' });
  expect(await metric(two, /tidegate_operator_leader/)).toBe(0);
  expect(await metric(two, /tidegate_operator_connections\{.*\}/)).toBeUndefined();
  const before = statusOf('main');
  await one.stop();
  await until(async () => (await metric(two, /tidegate_operator_leader/)) === 1, {
    what: 'the second to lead',
  });
  await until(async () => (await metric(two, /tidegate_operator_connections\{.*\}/)) === 0, {
    what: 'it to tell',
  });
  // Nothing has changed, so that no condition may look as if it had.
  const times = (status: PolicyStatus | undefined) =>
    status?.conditions.map(({ type, lastTransitionTime }) => [type, lastTransitionTime]);
  expect(times(statusOf('main'))).toEqual(times(before));
});

test('says what is wrong with a workload', async () => {
  const plain = createServer((_, response) => response.end('hello')).listen(adminPort, '127.0.0.4');
  api.put(`${deployments}/plain`, {
    ...deployment(),
    spec: { replicas: 1, selector: { matchLabels: { app: 'plain' } }, template: {} },
  });
  putPolicy('nowhere', { targetRef: { kind: 'Deployment', name: 'nowhere' } });
  putPolicy('invalid', { rebalance: { maxSkew: 'much' } });
  putPolicy('unauthorized', { adminTokenSecret: 'no-such-secret' });
  await start();
  await reasonOf('nowhere', 'Ready', 'TargetNotFound');
  await reasonOf('invalid', 'Ready', 'InvalidSpec');
  await reasonOf('unauthorized', 'Ready', 'Unauthorized');
  api.delete(`${policies}/unauthorized`);
  api.delete(`${pods}/pod-1`);
  api.delete(`${pods}/pod-2`);
  putPod('plain-1', '127.0.0.4');
  putPolicy('foreign');
  await reasonOf('foreign', 'Ready', 'NoContract');
  expect(statusOf('foreign')?.connections).toBeUndefined();
  plain.closeAllConnections();
  plain.close();
});

test('shows the token that a policy names, from a Secret beside it', async () => {
  api.put('/api/v1/namespaces/chat/secrets/mine', {
    data: { 'admin-token': Buffer.from(token).toString('base64') },
  });
  putPolicy('main', { adminTokenSecret: 'mine' });
  await start({ ADMIN_TOKEN: 'another-token-of-mine' });
  await reasonOf('main', 'Ready', 'Observing');
});

test('reads its token again when the file that holds it changes', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-operator-'));
  const file = join(folder, 'token');
  writeFileSync(file, 'another-token-of-mine\n');
  putPolicy('main');
  await start({ ADMIN_TOKEN: '', ADMIN_TOKEN_FILE: file });
  await reasonOf('main', 'Ready', 'Unauthorized');
  writeFileSync(file, `${token}\n`);
  await reasonOf('main', 'Ready', 'Observing');
  rmSync(folder, { recursive: true });
});

test('never shows its own token in another namespace', async () => {
  const seen: (string | undefined)[] = [];
  const thief = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.end('{"connections":1}');
  }).listen(adminPort, '127.0.0.5');
  const elsewhere = (path: string) => path.replace('/chat/', '/elsewhere/');
  api.put(elsewhere(`${deployments}/gateway`), {
    ...deployment(),
    metadata: { namespace: 'elsewhere', generation: 1 },
  });
  putPod('thief', '127.0.0.5');
  api.put(elsewhere(`${pods}/thief`), { ...api.get(`${pods}/thief`), metadata: { namespace: 'elsewhere' } });
  api.delete(`${pods}/thief`);
  // All namespaces: what is listed is the collection without any.
  api.put('/apis/tidegate.dev/v1alpha1/connectionpolicies/main', {
    metadata: { namespace: 'elsewhere', generation: 1 },
    spec: { targetRef: { kind: 'Deployment', name: 'gateway' }, adminPort },
  });
  await start({ WATCH_NAMESPACES: 'all' });
  await until(() => seen.length > 0, { what: 'the pod to be asked' });
  expect(seen[0]).toBeUndefined();
  thief.closeAllConnections();
  thief.close();
});

test('lets the older of two policies act, and leaves alone what is another operator’s', async () => {
  putPolicy('older', {}, { creationTimestamp: '2026-01-01T00:00:00Z' });
  putPolicy('younger', {}, { creationTimestamp: '2026-01-02T00:00:00Z' });
  putPolicy('others', {}, { annotations: { 'tidegate.dev/operator': 'platform/ws-operator' } });
  putPolicy(
    'named',
    {},
    {
      annotations: { 'tidegate.dev/operator': 'chat/tidegate-operator' },
      creationTimestamp: '2026-01-03T00:00:00Z',
    },
  );
  await start();
  await reasonOf('younger', 'Conflict', 'OlderPolicy');
  await reasonOf('named', 'Conflict', 'OlderPolicy');
  await reasonOf('older', 'Conflict', 'YoungerPolicies');
  expect(statusOf('others')).toBeUndefined();
  const events = () => api.list('/apis/events.k8s.io/v1/namespaces/chat/events');
  await until(() => events().length === 2, { what: 'an event for each that stands aside' });
  expect(events()).toMatchObject(
    Array(2).fill({ type: 'Warning', reason: 'PolicyConflict', regarding: { name: 'gateway' } }),
  );
});

const apiServices = '/apis/apiregistration.k8s.io/v1/apiservices';

test('refuses to join a provider of metrics that is there already, and says what to do', async () => {
  const group = { group: 'custom.metrics.k8s.io' };
  const own = `${apiServices}/v1beta2.custom.metrics.k8s.io`;
  api.put(own, { spec: { ...group, service: { namespace: 'chat', name: 'tidegate-operator' } } });
  api.put(`${apiServices}/v1beta1.custom.metrics.k8s.io`, {
    spec: { ...group, service: { namespace: 'monitoring', name: 'prometheus-adapter' } },
  });
  const operator = await start({ METRICS_API_PORT: String(await freePort()) });
  await until(async () => (await readiness(operator)).reasons.join().includes('prometheus-adapter'), {
    what: 'it to say so',
  });
  expect(api.get(own)?.spec).not.toHaveProperty('caBundle');
  expect((await readiness(operator)).ready).toBe(false);
});

test('makes its certificate, tells the API server to trust it, and serves', async () => {
  const own = `${apiServices}/v1beta2.custom.metrics.k8s.io`;
  const secret = '/api/v1/namespaces/chat/secrets/tidegate-operator-tls';
  api.put(own, {
    spec: { group: 'custom.metrics.k8s.io', service: { namespace: 'chat', name: 'tidegate-operator' } },
  });
  api.put(secret, {});
  api.put('/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication', {
    data: {
      'requestheader-client-ca-file': api.certificate,
      'requestheader-allowed-names': '["front-proxy"]',
    },
  });
  putPolicy('main');
  const operator = await start({ METRICS_API_PORT: String(await freePort()) });
  await until(async () => (await readiness(operator)).ready, { what: 'it to be ready' });
  const trusted = (api.get(secret)?.data as Record<string, string> | undefined)?.['ca.crt'];
  expect(trusted).toMatch(/^LS0t/);
  expect(api.get(own)?.spec).toHaveProperty('caBundle', trusted);
  const inDays =
    ((await metric(operator, /tidegate_operator_certificate_expiry_timestamp_seconds/)) ?? 0) -
    Date.now() / 1000;
  expect(inDays / 86_400).toBeGreaterThan(80);
});
