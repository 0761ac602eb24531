// Traces in a backend that people use: Jaeger takes them as Protobuf, and shows one message as one trace.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { startGateway } from './gateway.ts';
import { freePort } from './ports.ts';
import { startRedis } from './redis.ts';
import { until } from './until.ts';
import { TestClient } from './websocket.ts';

interface JaegerSpan {
  readonly spanID: string;
  readonly operationName: string;
  readonly processID: string;
  readonly references: readonly { readonly spanID: string }[];
}

interface JaegerTrace {
  readonly spans: readonly JaegerSpan[];
  readonly processes: Readonly<Record<string, { readonly tags: readonly { key: string; value: unknown }[] }>>;
}

const isInstalled = spawnSync('jaeger', ['version']).status === 0;
const folder = mkdtempSync(join(tmpdir(), 'tidegate-jaeger-'));
let jaeger: ChildProcess | undefined;
const endJaeger = () => jaeger?.kill('SIGKILL');
process.once('exit', endJaeger);
afterAll(() => {
  endJaeger();
  rmSync(folder, { recursive: true });
});

/** Jaeger with nothing but what is used here, on ports of its own. */
function configOf(otlp: number, query: number, ports: readonly number[]): object {
  return {
    service: {
      extensions: ['jaeger_storage', 'jaeger_query'],
      pipelines: { traces: { receivers: ['otlp'], exporters: ['jaeger_storage_exporter'] } },
      telemetry: { metrics: { level: 'none' } },
    },
    extensions: {
      jaeger_query: {
        storage: { traces: 'memory' },
        http: { endpoint: `127.0.0.1:${query}` },
        grpc: { endpoint: `127.0.0.1:${ports[0]}` },
      },
      jaeger_storage: { backends: { memory: { memory: { max_traces: 1000 } } } },
    },
    receivers: { otlp: { protocols: { http: { endpoint: `127.0.0.1:${otlp}` } } } },
    exporters: { jaeger_storage_exporter: { trace_storage: 'memory' } },
  };
}

test.skipIf(!isInstalled)(
  `Jaeger shows a message through three pods as one trace${isInstalled ? '' : ' (skipped: there is no jaeger, version 2, on the path)'}`,
  async () => {
    const [otlp, query, other] = await Promise.all([freePort(), freePort(), freePort()]);
    const config = join(folder, 'jaeger.yaml');
    writeFileSync(config, JSON.stringify(configOf(otlp, query, [other])));
    jaeger = spawn('jaeger', ['--config', config], { stdio: 'ignore' });
    const url = `http://127.0.0.1:${query}`;
    await until(async () => (await fetch(`${url}/api/services`)).ok, { what: 'Jaeger' });

    const redis = await startRedis();
    const keys = join(folder, 'keys');
    writeFileSync(keys, 'key\n');
    const settings = {
      REDIS_URL: redis.url,
      API_KEYS_FILE: keys,
      CHANNELS: '{namespaces: {room: {subscribe: anyone, publish: anyone, traces: 0}}}',
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${otlp}`,
      OTEL_BSP_SCHEDULE_DELAY: '50',
    };
    const pods = await Promise.all(
      ['a', 'b', 'c'].map((name) => startGateway({ ...settings, POD_NAME: name })),
    );
    const clients = await Promise.all(pods.map((pod) => TestClient.v1(`${pod.url}/ws/ann`)));
    for (const client of clients) await client.call({ type: 'subscribe', channel: 'room:1' });
    const traceId = crypto.randomUUID().replaceAll('-', '');
    await fetch(`${pods[0]?.apiUrl}/v1/publish`, {
      method: 'POST',
      headers: {
        authorization: 'Bearer key',
        'content-type': 'application/json',
        traceparent: `00-${traceId}-00000000000000aa-01`,
      },
      body: JSON.stringify({ channel: 'room:1', data: 'hello' }),
    });
    for (const client of clients) await client.json(({ type }) => type === 'message');

    const { spans, processes } = await until(
      async () => {
        const { data } = (await (await fetch(`${url}/api/traces/${traceId}`)).json()) as {
          data: JaegerTrace[];
        };
        return data[0]?.spans.length === 4 && data[0];
      },
      { what: 'the trace' },
    );
    const podOf = ({ processID }: JaegerSpan) =>
      processes[processID]?.tags.find(({ key }) => key === 'service.instance.id')?.value;
    const [send] = spans.filter(({ operationName }) => operationName === 'send room');
    const fanouts = spans.filter(({ operationName }) => operationName === 'process room');
    expect(send?.references.map(({ spanID }) => spanID)).toEqual(['00000000000000aa']);
    expect(fanouts.map(podOf).sort()).toEqual(['a', 'b', 'c']);
    for (const { references } of fanouts) expect(references[0]?.spanID).toBe(send?.spanID);

    await Promise.all(pods.map((pod) => pod.stop()));
    await redis.stop();
  },
);
