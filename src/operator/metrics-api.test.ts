import { request } from 'node:https';
import { text } from 'node:stream/consumers';
import { afterAll, expect, test } from 'vitest';
import { type ClientCertificate, clientCertificate } from '../../test/certificates.ts';
import { makeCertificate } from './certificate.ts';
import { MetricsApi, type MetricsSource, type QueryResult, quantity, route } from './metrics-api.ts';

const root = '/apis/custom.metrics.k8s.io/v1beta2';
const pods = [
  { name: 'a', labels: { app: 'gateway' } },
  { name: 'b', labels: { app: 'gateway' } },
  { name: 'c', labels: { app: 'other' } },
];

/** Pods of which each has as many connections as its place. */
const source: MetricsSource = {
  query(namespace, _, wants): QueryResult {
    if (namespace === 'starting') return { status: 503, message: 'the first round is under way' };
    const samples = pods
      .filter(wants)
      .map(({ name }, at) => ({ pod: name, value: at + 1, atMs: 1_700_000_000_123 }));
    return samples.length === 0 ? { status: 404, message: 'no pod matches' } : { samples };
  },
};

const get = (path: string) => route(source, 'GET', `${root}${path}`);

test('answers the query of the autoscaler, in the form that it reads', () => {
  const path = `/namespaces/chat/pods/%2A/tidegate_connections?labelSelector=${encodeURIComponent('app=gateway')}`;
  expect(get(path)).toEqual({
    status: 200,
    body: {
      kind: 'MetricValueList',
      apiVersion: 'custom.metrics.k8s.io/v1beta2',
      metadata: {},
      items: [
        {
          describedObject: { kind: 'Pod', namespace: 'chat', name: 'a', apiVersion: '/v1' },
          metric: { name: 'tidegate_connections', selector: null },
          timestamp: '2023-11-14T22:13:20Z',
          value: '1',
        },
        expect.objectContaining({ value: '2' }),
      ],
    },
  });
  expect(get('/namespaces/chat/pods/*/tidegate_connections').body).toMatchObject({ items: { length: 3 } });
});

test('answers for one pod by its name', () => {
  expect(get('/namespaces/chat/pods/b/tidegate_connections').body).toMatchObject({
    items: [{ describedObject: { name: 'b' } }],
  });
});

test('says what it serves, and describes itself where the API server asks', () => {
  expect(get('').body).toMatchObject({
    kind: 'APIResourceList',
    resources: [
      { name: 'pods/tidegate_connections', namespaced: true, kind: 'MetricValueList', verbs: ['get'] },
      { name: 'pods/tidegate_refusals_per_second' },
      { name: 'pods/tidegate_deliveries_per_second' },
    ],
  });
  expect(route(source, 'GET', '/openapi/v2').status).toBe(200);
  expect(route(source, 'GET', `/openapi/v3${root}`).status).toBe(200);
});

test('refuses whatever else it is asked', () => {
  for (const [path, status] of [
    ['/namespaces/chat/pods/*/unknown', 404],
    ['/namespaces/chat/services/x/tidegate_connections', 404],
    ['/namespaces/chat/pods/*/tidegate_connections/more', 404],
    ['/namespaces/chat/pods/*/tidegate_connections?labelSelector=in(', 400],
    ['/namespaces/chat/pods/*/tidegate_connections?metricLabelSelector=a%3Db', 404],
    ['/namespaces/chat/pods/*/tidegate_connections?labelSelector=app%3Dnone', 404],
    ['/namespaces/starting/pods/*/tidegate_connections', 503],
    ['/namespaces/%zz/pods/*/tidegate_connections', 404],
    ['/namespaces', 404],
  ] as const) {
    expect(get(path), path).toMatchObject({ status, body: { kind: 'Status', code: status } });
  }
  expect(route(source, 'DELETE', root).status).toBe(405);
  expect(route(source, 'GET', '/apis').status).toBe(404);
});

test('writes numbers as Kubernetes reads them', () => {
  expect([0, 812, 12.5, 0.0004, 1 / 3].map(quantity)).toEqual(['0', '812', '12500m', '0m', '333m']);
});

const dnsName = 'tidegate-operator.chat.svc';
const codes: number[] = [];
const api = new MetricsApi(source, (code) => codes.push(code));
afterAll(() => api.stop());

/** Asks over TLS, as who has this certificate. */
function ask(
  port: number,
  ca: string,
  who: Partial<ClientCertificate>,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: root, servername: dnsName, ca, agent: false, ...who };
    // The autoscaler asks for protobuf first.
    const headers = { accept: 'application/vnd.kubernetes.protobuf, */*' };
    request({ ...options, headers }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject);
    })
      .on('error', reject)
      .end();
  });
}

test('lets in the API server alone, and shows it a new certificate from the next connection on', async () => {
  const frontProxy = await clientCertificate('front-proxy');
  const kubelet = await clientCertificate('kubelet');
  const stranger = await clientCertificate('front-proxy');
  const one = await makeCertificate(dnsName, undefined, Date.now());
  const clients = { ca: frontProxy.cert + kubelet.cert, allowedNames: ['front-proxy'] };
  const port = await api.serve(one, clients, 0, '127.0.0.1');

  expect(await ask(port, one.trust, frontProxy)).toMatchObject({
    status: 200,
    body: expect.stringContaining('{"kind"'),
  });
  // The right authority, and another name.
  expect((await ask(port, one.trust, kubelet)).status).toBe(403);
  // The right name, and another authority; and nobody at all.
  await expect(ask(port, one.trust, stranger)).rejects.toThrow();
  await expect(ask(port, one.trust, {})).rejects.toThrow();
  expect(codes).toEqual([200, 403]);

  const two = await makeCertificate(dnsName, one, Date.now());
  expect(await api.serve(two, { ...clients, allowedNames: [] }, 0, '127.0.0.1')).toBe(port);
  await expect(ask(port, one.trust, frontProxy)).rejects.toThrow(/self-signed|unable to verify/);
  expect((await ask(port, two.trust, frontProxy)).status).toBe(200);
  // No names: whoever the authority vouches for.
  expect((await ask(port, two.trust, kubelet)).status).toBe(200);
});
