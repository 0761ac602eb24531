import * as otel from '@opentelemetry/api';
import {
  AlwaysOnSampler,
  InMemorySpanExporter,
  SimpleSpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { OtlpReceiver } from '../../test/otlp.ts';
import { until } from '../../test/until.ts';
import { connect } from './client.ts';
import { traced } from './tracing.ts';

// The application's own OpenTelemetry.
const spans = new InMemorySpanExporter();
const provider = new TracerProvider({
  sampler: new AlwaysOnSampler(),
  spanProcessors: [new SimpleSpanProcessor({ exporter: spans })],
});
const tracer = provider.getTracer('application');

const receiver = await OtlpReceiver.start();
const anyone = { subscribe: 'anyone', publish: 'anyone' };
const gateway = await startLocalGateway({
  ...receiver.settings,
  CHANNELS: JSON.stringify({ namespaces: { room: anyone, quiet: { ...anyone, traces: 0 } } }),
});
afterAll(async () => {
  await gateway.stop();
  await receiver.stop();
});
beforeEach(() => spans.reset());

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

it('opens a span in the trace of each message that arrives', async () => {
  await using client = connect({ url: `${gateway.url}/ws/ann?traces=true` });
  const seen: unknown[] = [];
  const room = client.channel<number>('room:1');
  await room.subscribe(traced(otel, tracer, ({ data }) => seen.push(data))).ready;
  const { id } = await room.publish(1);
  await until(() => spans.getFinishedSpans().length > 0, { what: 'the span' });
  const [span] = spans.getFinishedSpans();
  const [send] = await receiver.some(
    1,
    ({ kind, attributes }) => kind === 4 && attributes['messaging.message.id'] === id,
  );
  expect(seen).toEqual([1]);
  expect(span?.name).toBe('receive room');
  expect(span?.spanContext().traceId).toBe(send?.traceId);
  expect(span?.parentSpanContext?.spanId).toBe(send?.spanId);
  expect(span?.attributes).toMatchObject({
    'messaging.destination.name': 'room:1',
    'messaging.message.id': id,
  });
});

it('opens none for what is not part of a trace, or where traces were not asked for', async () => {
  await using client = connect({ url: `${gateway.url}/ws/ann?traces=true` });
  await using other = connect({ url: `${gateway.url}/ws/bob` });
  const seen: string[] = [];
  const handlers = [
    client.channel('quiet:1').subscribe(traced(otel, tracer, () => seen.push('quiet'))),
    other.channel('room:2').subscribe(traced(otel, tracer, () => seen.push('room'))),
  ];
  for (const { ready } of handlers) await ready;
  await client.channel('quiet:1').publish(1);
  await client.channel('room:2').publish(1);
  await until(() => seen.length === 2, { what: 'both messages' });
  expect(spans.getFinishedSpans()).toEqual([]);
});

it('links what it publishes to what the application is doing', async () => {
  await using client = connect({ url: `${gateway.url}/ws/ann` });
  const { id } = await client.channel('room:3').publish(1, { traceparent });
  const [send] = await receiver.some(1, ({ attributes }) => attributes['messaging.message.id'] === id);
  expect(send?.links).toMatchObject([{ traceId: '4bf92f3577b34da6a3ce929d0e0e4736' }]);
  const sent = await client.sendTo('bob', 1, { traceparent });
  const [direct] = await receiver.some(1, ({ attributes }) => attributes['messaging.message.id'] === sent.id);
  expect(direct?.links).toMatchObject([{ spanId: '00f067aa0ba902b7' }]);
});

it('ends the span when the handler has ended, and tells it what went wrong', async () => {
  let finish = (_value: string) => {};
  const later = new Promise<string>((resolve) => {
    finish = resolve;
  });
  const handled = traced(otel, tracer, () => later)({ channel: 'room:1', data: 1, traceparent });
  expect(spans.getFinishedSpans()).toHaveLength(0);
  finish('done');
  expect(await handled).toBe('done');
  expect(spans.getFinishedSpans()).toHaveLength(1);

  const throws = traced(otel, tracer, () => {
    throw new Error('at once');
  });
  expect(() => throws({ data: 1, traceparent })).toThrow('at once');
  const rejects = traced(otel, tracer, () => Promise.reject(new Error('later')));
  await expect(rejects({ data: 1, traceparent })).rejects.toThrow('later');
  expect(
    spans
      .getFinishedSpans()
      .slice(1)
      .map(({ name, status }) => [name, status.code, status.message]),
  ).toEqual([
    ['receive direct', otel.SpanStatusCode.ERROR, 'Error: at once'],
    ['receive direct', otel.SpanStatusCode.ERROR, 'Error: later'],
  ]);
});
