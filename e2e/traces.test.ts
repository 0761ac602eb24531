// Traces: one message through three pods, as a receiver in the cluster gets them.

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type ReceivedSpan, spansOf, type Traces } from '../test/otlp.ts';
import { until } from '../test/until.ts';
import { core, eventually } from './cluster.ts';
import { apply } from './programs.ts';
import { quickValues, Release } from './release.ts';
import { image } from './settings.ts';
import { useSpace } from './space.ts';
import { call } from './tunnel.ts';

const PRODUCER = 4;
const CONSUMER = 5;

let release: Release;
let receiver: string;

useSpace('traces', async ({ namespace, ...space }) => {
  await startReceiver(namespace);
  receiver = `http://otlp.${namespace}.svc:4318`;
  release = await Release.install(
    { namespace, ...space },
    {
      values: {
        ...quickValues,
        replicaCount: 3,
        tracing: { endpoint: receiver, protocol: 'http/json', ratio: 0, headersSecret: 'otlp' },
        extraEnv: [{ name: 'OTEL_BSP_SCHEDULE_DELAY', value: '200' }],
      },
    },
  );
  await release.pods(3);
});

/** A receiver, its Service, and the Secret with what it wants to be told. */
async function startReceiver(namespace: string): Promise<void> {
  const labels = { app: 'otlp' };
  await apply(
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'otlp', namespace },
      stringData: { headers: 'authorization=Bearer%20key-of-the-test' },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'otlp', namespace },
      spec: { selector: labels, ports: [{ port: 4318 }] },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'otlp', namespace, labels },
      spec: {
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: 1,
        containers: [
          {
            name: 'otlp',
            image,
            imagePullPolicy: 'IfNotPresent',
            command: [
              '/usr/local/bin/node',
              '--input-type=module',
              '--eval',
              readFileSync(new URL('otlp.mjs', import.meta.url), 'utf8'),
            ],
            readinessProbe: { tcpSocket: { port: 4318 }, periodSeconds: 1 },
            resources: { requests: { cpu: '10m', memory: '32Mi' } },
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
  );
  await eventually('the receiver of traces to be ready', 120, async () => {
    const { status } = await core.readNamespacedPod({ name: 'otlp', namespace });
    return status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
  });
}

async function receivedOf(traceId: string): Promise<ReceivedSpan[]> {
  const { text } = await call(receiver);
  return (JSON.parse(text) as Traces[]).flatMap(spansOf).filter((span) => span.traceId === traceId);
}

test('a message of a traced application is one trace: it, its producer, and a fan-out on each pod', async () => {
  const pods = await release.pods(3);
  const heard: unknown[] = [];
  await using clients = new AsyncDisposableStack();
  for (const pod of pods) {
    const client = clients.use(release.client(pod.name, { pod }));
    await client.channel('doc:traced').subscribe(({ data }) => heard.push(data)).ready;
  }
  const traceId = crypto.randomUUID().replaceAll('-', '');
  const authorization = `Bearer ${await release.secret('api-key')}`;
  const { status, text } = await call(`${release.httpUrl(8081)}/v1/publish`, {
    method: 'POST',
    headers: { authorization, traceparent: `00-${traceId}-00000000000000aa-01` },
    body: { channel: 'doc:traced', data: 'hello' },
  });
  expect(status).toBe(200);
  await until(() => heard.length === 3, { what: 'the message at all three' });
  const spans = await until(
    async () => {
      const received = await receivedOf(traceId);
      return received.length >= 4 && received;
    },
    { what: 'all spans' },
  );

  expect(spans).toHaveLength(4);
  const producer = spans.find(({ kind }) => kind === PRODUCER);
  const fanouts = spans.filter(({ kind }) => kind === CONSUMER);
  expect(producer).toMatchObject({ name: 'send doc', parentSpanId: '00000000000000aa' });
  expect(fanouts.map(({ resource }) => resource['k8s.pod.name']).sort()).toEqual(
    pods.map(({ name }) => name).sort(),
  );
  for (const { name, parentSpanId, links, attributes, resource } of fanouts) {
    expect(name).toBe('process doc');
    expect(parentSpanId).toBe(producer?.spanId);
    expect(links).toMatchObject([{ traceId, spanId: producer?.spanId }]);
    expect(attributes).toMatchObject({
      'tidegate.recipients': 1,
      'messaging.message.id': (JSON.parse(text) as { id: string }).id,
    });
    expect(resource).toMatchObject({
      'service.name': release.fullname,
      'k8s.namespace.name': release.namespace,
    });
  }
});
