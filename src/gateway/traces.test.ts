import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as semconv from '@opentelemetry/semantic-conventions/incubating';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { startGateway } from '../../test/gateway.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { OtlpReceiver, type ReceivedSpan } from '../../test/otlp.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';
import { parseTraceparent } from '../protocol/traceparent.ts';
import { conventions } from './traces.ts';

const PRODUCER = 4;
const CONSUMER = 5;
const ERROR = 2;

const anyone = { subscribe: 'anyone', publish: 'anyone' };
const CHANNELS = JSON.stringify({
  namespaces: {
    room: anyone,
    doc: { ...anyone, durable: { messages: 1000, ageSeconds: 3600 } },
    quiet: { ...anyone, traces: 0 },
  },
});
const folder = mkdtempSync(join(tmpdir(), 'tidegate-traces-'));
const keys = join(folder, 'keys');
writeFileSync(keys, 'key\n');
const headers = { authorization: 'Bearer key', 'content-type': 'application/json' };

const receiver = await OtlpReceiver.start();
const redis = await startRedis();
// On a busy machine a message may be slow, which is a test of its own.
const fast = { ...receiver.settings, TRACE_SLOW_MS: '0' };
const settings = { ...fast, CHANNELS, REDIS_URL: redis.url, API_KEYS_FILE: keys };
const pods = await Promise.all(['a', 'b', 'c'].map((name) => startGateway({ ...settings, POD_NAME: name })));
const [a, b, c] = pods as [(typeof pods)[0], (typeof pods)[0], (typeof pods)[0]];

afterAll(async () => {
  await Promise.all(pods.map((pod) => pod.stop()));
  await redis.stop();
  await receiver.stop();
  rmSync(folder, { recursive: true });
});

beforeEach(() => {
  receiver.spans.length = 0;
});

let next = 0;
const newChannel = (namespace: string) => `${namespace}:${++next}`;
const isMessage = ({ type }: Json) => type === 'message';
const contextOf = ({ traceId, spanId }: ReceivedSpan) => ({ traceId, spanId });
const podOf = ({ resource }: ReceivedSpan) => resource['service.instance.id'];
const newTraceparent = (sampled: boolean) =>
  `00-${crypto.randomUUID().replaceAll('-', '')}-00000000000000a1-${sampled ? '01' : '00'}`;

async function subscribe(url: string, channel: string): Promise<TestClient> {
  const client = await TestClient.v1(url);
  expect(await client.call({ type: 'subscribe', channel })).toMatchObject({ type: 'ok' });
  return client;
}

function publish(body: Json, more: Record<string, string> = {}): Promise<Response> {
  const request = { method: 'POST', headers: { ...headers, ...more }, body: JSON.stringify(body) };
  return fetch(`${a.apiUrl}/v1/publish`, request);
}

test.each(['room', 'doc'])(
  'a message on a %s is one trace: its producer, and a fan-out on each pod that has subscribers',
  async (namespace) => {
    const channel = newChannel(namespace);
    const ann = await TestClient.v1(`${a.url}/ws/ann`);
    const subscribers = [
      await subscribe(`${b.url}/ws/bob`, channel),
      await subscribe(`${b.url}/ws/ben`, channel),
      await subscribe(`${c.url}/ws/cat`, channel),
    ];
    const { id } = await ann.call({ type: 'publish', channel, data: { x: 'é' } });
    for (const client of subscribers) await client.json(isMessage);

    const spans = await receiver.some(3, ({ attributes }) => attributes['messaging.message.id'] === id);
    const [producer] = spans.filter((span) => span.kind === PRODUCER) as [ReceivedSpan];
    const consumers = spans.filter((span) => span.kind === CONSUMER);
    expect(new Set(spans.map((span) => span.traceId)).size).toBe(1);
    expect(producer).toMatchObject({ name: `send ${namespace}`, parentSpanId: undefined, links: [] });
    expect(producer.attributes).toMatchObject({
      'messaging.system.name': 'tidegate',
      'messaging.operation.name': 'send',
      'messaging.operation.type': 'send',
      'messaging.destination.name': channel,
      'messaging.destination.template': namespace,
      'messaging.message.body.size': Buffer.byteLength('{"x":"é"}'),
    });
    expect(producer.resource).toMatchObject({ 'service.name': 'tidegate', 'service.instance.id': 'a' });
    expect(consumers.map(podOf).sort()).toEqual(['b', 'c']);
    for (const consumer of consumers) {
      expect(consumer).toMatchObject({ name: `process ${namespace}`, parentSpanId: producer.spanId });
      expect(consumer.links.map(({ traceId, spanId }) => ({ traceId, spanId }))).toEqual([
        contextOf(producer),
      ]);
      expect(consumer.attributes).toMatchObject({
        'messaging.operation.type': 'process',
        'messaging.destination.name': channel,
        'messaging.message.body.size': Buffer.byteLength('{"x":"é"}'),
        'tidegate.recipients': podOf(consumer) === 'b' ? 2 : 1,
        'tidegate.dropped': 0,
        'tidegate.backlog.bytes': 0,
        'tidegate.shared_by': 1,
        'tidegate.bytes': expect.any(Number),
        'tidegate.delivery.ms': expect.any(Number),
      });
      expect(consumer.attributes['tidegate.position']).toBe(producer.attributes['tidegate.position']);
      expect(consumer.endMs).toBeGreaterThanOrEqual(consumer.startMs);
    }
    expect(producer.attributes['tidegate.position']).toEqual(
      namespace === 'doc' ? expect.any(String) : undefined,
    );
  },
);

test('a message to a user is a trace that does not say who the user is', async () => {
  const bob = await TestClient.v1(`${b.url}/ws/bob-of-this-test`);
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  const { id } = await ann.call({ type: 'send', user: 'bob-of-this-test', data: 1 });
  await bob.json(isMessage);
  const spans = await receiver.some(2, ({ attributes }) => attributes['messaging.message.id'] === id);
  expect(spans.map(({ name }) => name).sort()).toEqual(['process direct', 'send direct']);
  expect(JSON.stringify(spans)).not.toContain('bob-of-this-test');
});

test('an application that is traced is the parent of what it publishes, one message or many', async () => {
  const traceparent = newTraceparent(true);
  const { traceId, spanId } = parseTraceparent(traceparent) ?? {};
  const channel = newChannel('quiet');
  const cat = await subscribe(`${c.url}/ws/cat`, channel);
  await publish({ channel, data: 1 }, { traceparent });
  await cat.json(isMessage);
  const [send] = await receiver.some(1, (span) => span.traceId === traceId && span.kind === PRODUCER);
  expect(send?.parentSpanId).toBe(spanId);
  await receiver.some(1, (span) => span.traceId === traceId && span.parentSpanId === send?.spanId);

  const many = newTraceparent(true);
  const messages = [1, 2, 3].map((data) => ({ channel, data }));
  const request = {
    method: 'POST',
    headers: { ...headers, traceparent: many },
    body: JSON.stringify({ messages }),
  };
  await fetch(`${a.apiUrl}/v1/publish/many`, request);
  await receiver.some(
    3,
    (span) => span.traceId === parseTraceparent(many)?.traceId && span.kind === PRODUCER,
  );
});

test('what an application that is not traced publishes is not traced either', async () => {
  const channel = newChannel('room');
  const cat = await subscribe(`${c.url}/ws/cat`, channel);
  await publish({ channel, data: 1 }, { traceparent: newTraceparent(false) });
  await publish({ channel, data: 2 }, { traceparent: newTraceparent(true) });
  await cat.json(({ data }) => data === 2);
  await receiver.some(2, ({ attributes }) => attributes['messaging.destination.name'] === channel);
});

test('a client’s own trace is only linked to, and does not decide what is sampled', async () => {
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  const traceparent = newTraceparent(false);
  const { traceId, spanId } = parseTraceparent(traceparent) ?? {};
  const room = newChannel('room');
  await ann.call({ type: 'publish', channel: room, data: 1, traceparent });
  const [span] = await receiver.some(
    1,
    ({ attributes }) => attributes['messaging.destination.name'] === room,
  );
  expect(span?.traceId).not.toBe(traceId);
  expect(span?.parentSpanId).toBeUndefined();
  expect(span?.links).toMatchObject([{ traceId, spanId }]);

  const quiet = newChannel('quiet');
  await ann.call({ type: 'publish', channel: quiet, data: 1, traceparent: newTraceparent(true) });
  await ann.call({ type: 'send', user: 'nobody', data: 1, traceparent: newTraceparent(true) });
  await receiver.some(1, ({ name, links }) => name === 'send direct' && links.length === 1);
  expect(receiver.spans.filter(({ name }) => name.endsWith('quiet'))).toEqual([]);
});

test('a client that asks for traces is told those that are sampled', async () => {
  const channel = newChannel('room');
  const asks = await subscribe(`${b.url}/ws/bob?traces=true`, channel);
  const other = await subscribe(`${b.url}/ws/ben`, channel);
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  const { id } = await ann.call({ type: 'publish', channel, data: 1 });
  const told = await asks.json(isMessage);
  expect(await other.json(isMessage)).not.toHaveProperty('traceparent');
  const [producer] = await receiver.some(
    1,
    ({ attributes, kind }) => kind === PRODUCER && attributes['messaging.message.id'] === id,
  );
  expect(parseTraceparent(told.traceparent)).toEqual({
    ...contextOf(producer as ReceivedSpan),
    sampled: true,
  });

  const quiet = newChannel('quiet');
  await asks.call({ type: 'subscribe', channel: quiet });
  await ann.call({ type: 'publish', channel: quiet, data: 1 });
  expect(await asks.json(({ channel: of }) => of === quiet)).not.toHaveProperty('traceparent');
});

test('a recovery is linked to the messages that it brings', async () => {
  const channel = newChannel('doc');
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  const { position } = await ann.call({ type: 'publish', channel, data: 0 });
  for (const data of [1, 2]) await ann.call({ type: 'publish', channel, data });
  const bob = await TestClient.v1(`${b.url}/ws/bob`);
  expect(await bob.call({ type: 'subscribe', channel, after: position })).toMatchObject({ recovered: true });
  for (const data of [1, 2]) expect(await bob.json(isMessage)).toMatchObject({ data });

  const ofChannel = ({ attributes }: ReceivedSpan) => attributes['messaging.destination.name'] === channel;
  const sent = await receiver.some(3, (span) => ofChannel(span) && span.kind === PRODUCER);
  const [recovery] = await receiver.some(1, (span) => ofChannel(span) && span.name === 'recover doc');
  expect(recovery?.attributes).toMatchObject({
    'messaging.batch.message_count': 2,
    'tidegate.outcome': 'recovered',
    'tidegate.bytes': expect.any(Number),
  });
  const missed = sent.sort((one, two) => one.startMs - two.startMs).slice(1);
  expect(recovery?.links.map(({ spanId }) => spanId)).toEqual(missed.map(({ spanId }) => spanId));
});

test('a recovery that fails says why', async () => {
  const channel = newChannel('doc');
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  await ann.call({ type: 'publish', channel, data: 0 });
  const after = '1-not-the-id-of-any-message';
  expect(await ann.call({ type: 'subscribe', channel, after })).toMatchObject({ recovered: false });
  const [span] = await receiver.some(1, ({ name }) => name === 'recover doc');
  expect(span).toMatchObject({
    status: { code: ERROR, message: 'forked' },
    attributes: { 'tidegate.outcome': 'forked' },
  });
});

test('a repair is linked to the messages that this pod had missed', async () => {
  const channel = newChannel('doc');
  await subscribe(`${b.url}/ws/bob`, channel);
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  const client = await redis.client();
  const isRepair = (span: ReceivedSpan) => span.name === 'repair doc' && podOf(span) === 'b';
  const repair = await until(
    async () => {
      // What is published now, this pod hears only if it is back already.
      await client.call('client', 'kill', 'type', 'pubsub');
      await ann.call({ type: 'publish', channel, data: 1 });
      return receiver.spans.find(isRepair);
    },
    { what: 'a repair' },
  );
  client.disconnect();
  expect(repair.attributes).toMatchObject({
    'messaging.operation.type': 'receive',
    'messaging.destination.name': channel,
    'tidegate.outcome': 'repaired',
  });
  expect(repair.links).toHaveLength(Number(repair.attributes['messaging.batch.message_count']));
  for (const { spanId } of repair.links)
    await receiver.some(1, (span) => span.spanId === spanId && span.name === 'send doc');
});

test('the log leads to the trace of a message that fails, also of one that was not sampled', async () => {
  const own = await startRedis();
  const gateway = await startLocalGateway({
    ...settings,
    REDIS_URL: own.url,
    OTEL_TRACES_SAMPLER: 'always_off',
    OTEL_SERVICE_NAME: 'failing',
  });
  const ann = await TestClient.v1(`${gateway.url}/ws/ann`);
  await own.stop();
  const channel = newChannel('room');
  const traceparent = newTraceparent(true);
  expect(await ann.call({ type: 'publish', channel, data: 1, traceparent })).toMatchObject({
    code: 'bus_unavailable',
  });
  const [span] = await receiver.some(1, ({ resource }) => resource['service.name'] === 'failing');
  expect(span).toMatchObject({
    name: 'send room',
    kind: PRODUCER,
    status: { code: ERROR },
    attributes: { 'error.type': 'bus_unavailable', 'tidegate.late': 'failed' },
  });
  expect(span?.links).toMatchObject([{ traceId: parseTraceparent(traceparent)?.traceId }]);
  const line = gateway.log.find((it) => it.msg === 'traced although not sampled');
  expect(line).toMatchObject({ trace_id: span?.traceId, span_id: span?.spanId, reason: 'failed' });
  await gateway.stop();
});

test('a slow message is traced afterwards, and a storm of them is bounded', async () => {
  const gateway = await startLocalGateway({
    ...receiver.settings,
    CHANNELS,
    OTEL_TRACES_SAMPLER: 'always_off',
    OTEL_SERVICE_NAME: 'slow',
    TRACE_SLOW_MS: '1',
    MAX_BACKLOG_BYTES: String(64 * 1_048_576),
  });
  const ann = await subscribe(`${gateway.url}/ws/ann`, 'room:slow');
  // A turn in which so much is published takes longer than that.
  for (let count = 0; count < 500; count += 1)
    ann.send({ type: 'publish', channel: 'room:slow', data: 'x'.repeat(10_000) });
  await until(() => ann.inbox.filter((text) => text.includes('"message"')).length === 500, {
    what: 'all messages',
  });
  const isSlow = (span: ReceivedSpan) => span.resource['service.name'] === 'slow';
  await until(() => receiver.spans.some(isSlow), { what: 'the first slow one' });
  await gateway.stop();
  const spans = receiver.spans.filter(isSlow);
  for (const span of spans) {
    expect(span).toMatchObject({ name: 'process room', attributes: { 'tidegate.late': 'slow' } });
    expect(span.links).toHaveLength(1);
    expect(span.attributes['tidegate.delivery.ms']).toBeGreaterThanOrEqual(1);
  }
  expect(spans.length).toBeLessThan(100);
});

test('the latency of a sampled message leads to its trace', async () => {
  const channel = newChannel('room');
  const bob = await subscribe(`${b.url}/ws/bob`, channel);
  const ann = await TestClient.v1(`${a.url}/ws/ann`);
  await ann.call({ type: 'publish', channel, data: 1 });
  await bob.json(isMessage);
  const isProcess = ({ kind, attributes }: ReceivedSpan) =>
    kind === CONSUMER && attributes['messaging.destination.name'] === channel;
  const [span] = await receiver.some(1, isProcess);
  const accept = 'application/openmetrics-text; version=1.0.0';
  const response = await fetch(`${b.adminUrl}/metrics`, { headers: { accept } });
  expect(response.headers.get('content-type')).toContain('application/openmetrics-text');
  const text = await response.text();
  expect(text).toContain(`{trace_id="${span?.traceId}"}`);
  expect(text).toContain('# TYPE tidegate_deliveries counter\n');
  expect(text).toMatch(/^tidegate_deliveries_total\{channel_namespace="room"\} \d+$/m);
  expect(text.endsWith('# EOF\n')).toBe(true);
  // One that asks for nothing gets the older format as before, whoever asked for what in between.
  const plain = await (await fetch(`${b.adminUrl}/metrics`)).text();
  expect(plain).toMatch(/^# TYPE tidegate_deliveries_total counter$/m);
  expect(plain).toMatch(/^tidegate_deliveries_total\{channel_namespace="room"\} \d+$/m);
  expect(plain).not.toContain('trace_id');
});

test('the names of attributes are those of the conventions', () => {
  const theirs = new Set(
    Object.entries(semconv).flatMap(([key, value]) => (key.startsWith('ATTR_') ? [value] : [])),
  );
  for (const name of Object.values(conventions)) expect(theirs).toContain(name);
});
