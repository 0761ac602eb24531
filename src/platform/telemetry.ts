// Telemetry: OpenTelemetry's SDK, set up to send spans over OTLP/HTTP. The only file that loads it, and itself loaded
// only where an endpoint is set.

import { DiagLogLevel, diag, type Tracer } from '@opentelemetry/api';
import { ExportResultCode, parseKeyPairsIntoRecord, setGlobalErrorHandler } from '@opentelemetry/core';
import { OTLPTraceExporter as JsonExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtobufExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  type SpanExporter,
  type SpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { Config } from './config.ts';
import type { Report } from './logs.ts';
import type { Metrics } from './metrics.ts';

/** What sends spans while the gateway runs. */
export interface Telemetry {
  readonly tracer: Tracer;
  /** Sends what has not been sent yet, and gives up after a while. */
  stop(): Promise<void>;
}

/** What telemetry is told. */
export interface TelemetryOptions {
  readonly config: Config;
  /** Where spans go. */
  readonly url: string;
  readonly pod: string;
  readonly version: string;
  readonly metrics: Metrics;
  readonly report: Report;
}

/** How long a process that stops waits for a receiver: less than what a pod has left when it has drained. */
const FLUSH_MS = 2000;

/** A receiver that is away is told of once in a while, not at each try. */
const REPORT_EVERY_MS = 60_000;

/** Begins to send spans. Whether there is a span at all is decided before: here all are sampled. */
export function startTelemetry(options: TelemetryOptions): Telemetry {
  const { config, pod, version } = options;
  reportSeldom(options.report);
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'tidegate',
      'service.version': version,
      'service.instance.id': pod,
      ...parseKeyPairsIntoRecord(config.OTEL_RESOURCE_ATTRIBUTES),
      ...(config.OTEL_SERVICE_NAME !== undefined && { 'service.name': config.OTEL_SERVICE_NAME }),
    }),
    sampler: new AlwaysOnSampler(),
    spanProcessors: [countedProcessor(options)],
  });
  return {
    tracer: provider.getTracer('tidegate', version),
    async stop() {
      let timer: NodeJS.Timeout | undefined;
      const tooLate = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, FLUSH_MS);
      });
      await Promise.race([provider.shutdown().catch(() => {}), tooLate]);
      clearTimeout(timer);
    },
  };
}

/** What the table of settings does not have (time-out, compression, certificates) the exporter reads by itself. */
function exporterOf({ config, url }: TelemetryOptions): SpanExporter {
  const headers = {
    ...parseKeyPairsIntoRecord(config.OTEL_EXPORTER_OTLP_HEADERS),
    ...parseKeyPairsIntoRecord(config.OTEL_EXPORTER_OTLP_TRACES_HEADERS),
  };
  const protocol = config.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL ?? config.OTEL_EXPORTER_OTLP_PROTOCOL;
  return protocol === 'http/json'
    ? new JsonExporter({ url, headers })
    : new ProtobufExporter({ url, headers });
}

/** Sends spans in batches, and counts what becomes of each. The library bounds its queue, too, and does not say how
 * many it has dropped: so it is never given more than it takes. */
function countedProcessor(options: TelemetryOptions): SpanProcessor {
  const { config, metrics } = options;
  const exporter = exporterOf(options);
  let waiting = 0;
  const counted: SpanExporter = {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const outcome = result.code === ExportResultCode.SUCCESS ? 'exported' : 'failed';
        metrics.traceSpans.inc({ outcome }, spans.length);
        waiting -= spans.length;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
  };
  const batches = new BatchSpanProcessor({
    exporter: counted,
    maxQueueSize: config.OTEL_BSP_MAX_QUEUE_SIZE,
    maxExportBatchSize: config.OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    scheduledDelayMillis: config.OTEL_BSP_SCHEDULE_DELAY,
    exportTimeoutMillis: config.OTEL_BSP_EXPORT_TIMEOUT,
  });
  return {
    onStart() {},
    onEnd(span) {
      if (waiting >= config.OTEL_BSP_MAX_QUEUE_SIZE) {
        metrics.traceSpans.inc({ outcome: 'dropped' });
        return;
      }
      waiting += 1;
      batches.onEnd(span);
    },
    forceFlush: () => batches.forceFlush(),
    shutdown: () => batches.shutdown(),
  };
}

/** The library tells of failures for the whole process. */
function reportSeldom(report: Report): void {
  let silentUntilMs = 0;
  const tell = (error: unknown) => {
    if (performance.now() < silentUntilMs) return;
    silentUntilMs = performance.now() + REPORT_EVERY_MS;
    report('telemetry', error);
  };
  setGlobalErrorHandler(tell);
  const warn = (message: string) => tell(new Error(message));
  const ignore = () => {};
  diag.setLogger(
    { error: warn, warn, info: ignore, debug: ignore, verbose: ignore },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
}
