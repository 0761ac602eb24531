// An OTLP/HTTP receiver for tests: takes spans as gateways send them over the network, and keeps them.

import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { until } from './until.ts';

/** A span as it came, its attributes as an object. */
export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  /** As the protocol has it: 1 internal, 3 client, 4 producer, 5 consumer. */
  readonly kind: number;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  /** 2 is an error. */
  readonly status: { readonly code?: number; readonly message?: string };
  /** What is said of the pod that sent it. */
  readonly resource: Readonly<Record<string, unknown>>;
}

/** A request as it came. */
export interface ReceivedRequest {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

interface Attribute {
  key: string;
  value: { stringValue?: string; intValue?: number | string; doubleValue?: number; boolValue?: boolean };
}

interface Span extends Omit<ReceivedSpan, 'startMs' | 'endMs' | 'attributes' | 'resource'> {
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes?: Attribute[];
}

/** What a request of OTLP has, as JSON. */
export interface Traces {
  resourceSpans: { resource: { attributes?: Attribute[] }; scopeSpans: { spans: Span[] }[] }[];
}

/** A receiver that runs. */
export class OtlpReceiver {
  /** What gateways are given as `OTEL_EXPORTER_OTLP_ENDPOINT`. */
  readonly url: string;
  /** Spans that came as JSON. */
  readonly spans: ReceivedSpan[] = [];
  readonly requests: ReceivedRequest[] = [];
  /** The status that it answers with. */
  status = 200;
  readonly #server: ReturnType<typeof createServer>;

  private constructor(server: ReturnType<typeof createServer>) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const sent = Buffer.concat(chunks);
      const body = request.headers['content-encoding'] === 'gzip' ? gunzipSync(sent) : sent;
      this.requests.push({ path: request.url ?? '', headers: request.headers, body });
      if (this.status === 200 && request.headers['content-type'] === 'application/json')
        this.spans.push(...spansOf(JSON.parse(body.toString()) as Traces));
      response.writeHead(this.status, { 'content-type': 'application/json' }).end('{}');
    });
  }

  static async start(): Promise<OtlpReceiver> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new OtlpReceiver(server);
  }

  /** What makes a gateway send every span here, soon. */
  get settings(): Record<string, string> {
    return {
      OTEL_EXPORTER_OTLP_ENDPOINT: this.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
      OTEL_TRACES_SAMPLER: 'always_on',
      OTEL_BSP_SCHEDULE_DELAY: '20',
    };
  }

  /** Resolves with the spans that fit when there are so many. @throws where there are more. */
  async some(count: number, fits: (span: ReceivedSpan) => boolean): Promise<ReceivedSpan[]> {
    const found = () => this.spans.filter(fits);
    await until(() => found().length >= count, { what: `${count} spans that fit ${fits}` });
    if (found().length > count) throw new Error(`${found().length} spans instead of ${count}`);
    return found();
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** The spans of a request. */
export function spansOf({ resourceSpans }: Traces): ReceivedSpan[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans
      .flatMap(({ spans }) => spans)
      .map(({ startTimeUnixNano, endTimeUnixNano, attributes, ...span }) => ({
        ...span,
        parentSpanId: span.parentSpanId || undefined,
        links: span.links ?? [],
        startMs: Number(BigInt(startTimeUnixNano) / 1000n) / 1000,
        endMs: Number(BigInt(endTimeUnixNano) / 1000n) / 1000,
        attributes: valuesOf(attributes),
        resource: valuesOf(resource.attributes),
      })),
  );
}

function valuesOf(attributes: readonly Attribute[] = []): Record<string, unknown> {
  return Object.fromEntries(
    attributes.map(({ key, value: { stringValue, intValue, doubleValue, boolValue } }) => [
      key,
      stringValue ?? doubleValue ?? boolValue ?? Number(intValue),
    ]),
  );
}
