import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { spawnGateway, startGateway } from '../../test/gateway.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { OtlpReceiver } from '../../test/otlp.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';

const CHANNELS = '{namespaces: {room: {subscribe: anyone, publish: anyone}}}';
const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

async function receiver(): Promise<OtlpReceiver> {
  const started = await OtlpReceiver.start();
  stops.push(() => started.stop());
  return started;
}

async function publishOne(url: string): Promise<void> {
  const ann = await TestClient.v1(`${url}/ws/ann`);
  await ann.call({ type: 'publish', channel: 'room:1', data: 1 });
  await ann.leave();
}

test('sends Protobuf unless told otherwise, to the standard path, with the headers that it was given', async () => {
  const to = await receiver();
  const gateway = await startLocalGateway({
    CHANNELS,
    OTEL_EXPORTER_OTLP_ENDPOINT: to.url,
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20key,x-tenant=a',
    OTEL_EXPORTER_OTLP_TRACES_HEADERS: 'x-tenant=b',
    OTEL_TRACES_SAMPLER: 'always_on',
    OTEL_BSP_SCHEDULE_DELAY: '20',
  });
  stops.push(() => gateway.stop());
  await publishOne(gateway.url);
  const request = await until(() => to.requests[0], { what: 'a request' });
  expect(request.path).toBe('/v1/traces');
  expect(request.headers).toMatchObject({
    'content-type': 'application/x-protobuf',
    authorization: 'Bearer key',
    'x-tenant': 'b',
  });
  expect(request.body.includes('send room')).toBe(true);
  await until(async () => (await gateway.metric('tidegate_trace_spans_total', { outcome: 'exported' })) > 0, {
    what: 'the spans to be counted',
  });
});

test('says who it is as the standard names say', async () => {
  const to = await receiver();
  const gateway = await startLocalGateway({
    ...to.settings,
    CHANNELS,
    POD_NAME: 'pod-1',
    OTEL_RESOURCE_ATTRIBUTES: 'k8s.namespace.name=chat,service.name=from-attributes',
  });
  stops.push(() => gateway.stop());
  await publishOne(gateway.url);
  const [span] = await to.some(1, ({ name }) => name === 'send room');
  expect(span?.resource).toMatchObject({
    'service.name': 'from-attributes',
    'service.instance.id': 'pod-1',
    'service.version': expect.any(String),
    'k8s.namespace.name': 'chat',
  });
});

test('sends what is left when the gateway stops', async () => {
  const to = await receiver();
  const gateway = await startGateway({ ...to.settings, CHANNELS, OTEL_BSP_SCHEDULE_DELAY: '600000' });
  await publishOne(gateway.url);
  expect(to.spans).toEqual([]);
  expect(await gateway.stop()).toBe(0);
  expect(to.spans.map(({ name }) => name)).toEqual(['send room']);
});

/** A receiver that takes connections and says nothing. */
async function silentReceiver(): Promise<string> {
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  stops.push(async () => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  return `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
}

test('does not keep a gateway from stopping where the receiver never answers, and drops what may not wait', async () => {
  const gateway = await startGateway({
    CHANNELS,
    OTEL_EXPORTER_OTLP_ENDPOINT: await silentReceiver(),
    OTEL_TRACES_SAMPLER: 'always_on',
    OTEL_BSP_MAX_QUEUE_SIZE: '2',
    // Or some would be under way already on a slow machine, and leave room.
    OTEL_BSP_SCHEDULE_DELAY: '600000',
  });
  for (let count = 0; count < 5; count += 1) await publishOne(gateway.url);
  expect(await gateway.metric('tidegate_trace_spans_total', { outcome: 'dropped' })).toBe(3);
  // It waits for two seconds, and the library alone would for ten and more.
  expect(await gateway.stop()).toBe(0);
});

test('tells of a receiver that refuses once, counts what is lost, and delivers all the same', async () => {
  const to = await receiver();
  to.status = 400;
  const gateway = await startLocalGateway({ ...to.settings, CHANNELS });
  stops.push(() => gateway.stop());
  const failed = () => gateway.metric('tidegate_trace_spans_total', { outcome: 'failed' });
  for (let count = 1; count <= 3; count += 1) {
    await publishOne(gateway.url);
    await until(async () => (await failed()) === count, { what: `${count} spans that failed` });
  }
  const told = gateway.log.filter(({ stage }) => stage === 'telemetry');
  expect(told).toHaveLength(1);
});

test.each([
  ['an endpoint of gRPC', { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4317' }, 'OTEL_EXPORTER_OTLP_ENDPOINT'],
  [
    'a protocol that it does not speak',
    { OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
    'OTEL_EXPORTER_OTLP_PROTOCOL',
  ],
])('refuses to start with %s', async (_, env, name) => {
  const { process: child, stderr } = spawnGateway({ AUTH: 'anonymous', ...env });
  await once(child, 'close');
  expect(child.exitCode).toBe(2);
  expect(stderr()).toContain(name);
});
