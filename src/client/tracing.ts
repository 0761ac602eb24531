// Tracing: opens a span for each message that arrives and is part of a trace, with the OpenTelemetry that the
// application has. An entry of its own, `tidegate/client/tracing`, so that who does not trace does not load it.

import { namespaceOf } from '../protocol/names.ts';
import { parseTraceparent } from '../protocol/traceparent.ts';
import type { Message } from './events.ts';

/** What is used of a span. */
export interface SpanLike {
  setStatus(status: { code: number; message?: string }): unknown;
  end(): void;
}

/** What is used of a tracer: one of `@opentelemetry/api`, or what looks like it. */
export interface TracerLike<C, S extends SpanLike> {
  startSpan(name: string, options: { kind: number; attributes: Record<string, string> }, context: C): S;
}

/** What is used of the module `@opentelemetry/api` itself. */
export interface OpenTelemetryLike<C, S extends SpanLike> {
  readonly ROOT_CONTEXT: C;
  readonly trace: {
    setSpanContext(
      context: C,
      spanContext: { traceId: string; spanId: string; traceFlags: number; isRemote: boolean },
    ): C;
    setSpan(context: C, span: S): C;
  };
  readonly context: { with<R>(context: C, run: () => R): R };
}

const CONSUMER = 4;
const ERROR = 2;
const SAMPLED = 1;

/** A handler that runs inside of a span, a child of the message's own, where the message is part of a trace; such
 * messages are told apart only to connections whose URL says `?traces=true`. The span ends when the handler has
 * returned, or what it returned has settled.
 * @example
 * import * as otel from '@opentelemetry/api';
 * const client = connect({ url: 'wss://example.com/ws?traces=true' });
 * const tracer = otel.trace.getTracer('chat');
 * client.channel('room:42').subscribe(traced(otel, tracer, ({ from, data }) => show(from, data)));
 */
export function traced<T, C, S extends SpanLike>(
  otel: OpenTelemetryLike<C, S>,
  tracer: TracerLike<C, S>,
  handle: (message: Message<T>) => unknown,
): (message: Message<T>) => unknown {
  return (message) => {
    const parent = parseTraceparent(message.traceparent);
    if (!parent?.sampled) return handle(message);
    const { traceId, spanId } = parent;
    const spanContext = { traceId, spanId, traceFlags: SAMPLED, isRemote: true };
    const context = otel.trace.setSpanContext(otel.ROOT_CONTEXT, spanContext);
    const namespace = message.channel === undefined ? 'direct' : namespaceOf(message.channel);
    const options = { kind: CONSUMER, attributes: attributesOf(message, namespace) };
    const span = tracer.startSpan(`receive ${namespace}`, options, context);
    return otel.context.with(otel.trace.setSpan(context, span), () => within(span, () => handle(message)));
  };
}

function within(span: SpanLike, run: () => unknown): unknown {
  const failed = (error: unknown): never => {
    span.setStatus({ code: ERROR, message: String(error) });
    span.end();
    throw error;
  };
  let result: unknown;
  try {
    result = run();
  } catch (error) {
    return failed(error);
  }
  if (result instanceof Promise) {
    return result.then((value: unknown) => {
      span.end();
      return value;
    }, failed);
  }
  span.end();
  return result;
}

function attributesOf({ channel, id }: Message, namespace: string): Record<string, string> {
  return {
    'messaging.system.name': 'tidegate',
    'messaging.operation.name': 'receive',
    'messaging.operation.type': 'process',
    'messaging.destination.template': namespace,
    ...(channel !== undefined && { 'messaging.destination.name': channel }),
    ...(id !== undefined && { 'messaging.message.id': id }),
  };
}
