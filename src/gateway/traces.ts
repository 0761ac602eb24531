// Traces: the spans of a message's way, from its publish to the last socket it is written to. A span exists only where
// the trace is sampled; or, made afterwards, where a message whose trace is not has failed, was slow or was dropped.
// Loaded only where traces are on.

import { createHash } from 'node:crypto';
import {
  type Attributes,
  type Context,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  type SpanOptions,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { type Log, nameTrace } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import { asTidegateError, errorKinds } from '../protocol/errors.ts';
import { formatPosition } from '../protocol/positions.ts';
import {
  formatTraceparent,
  isSampled,
  MAX_LINKS,
  parseTraceparent,
  sampledOf,
  type TraceContext,
} from '../protocol/traceparent.ts';
import type { Namespace } from './channels.ts';
import type { Outgoing, Spread } from './fanout.ts';
import type { Repair } from './follower.ts';
import type { Group } from './hub.ts';
import type { Published } from './publish.ts';
import { TokenBucket } from './rates.ts';

/** Messaging conventions of OpenTelemetry 1.45. They are not stable yet, so their names are kept here, as the package
 * that has them asks for, and a test compares the two. */
export const conventions = {
  system: 'messaging.system.name',
  operation: 'messaging.operation.name',
  operationType: 'messaging.operation.type',
  channel: 'messaging.destination.name',
  namespace: 'messaging.destination.template',
  id: 'messaging.message.id',
  bodyBytes: 'messaging.message.body.size',
  messages: 'messaging.batch.message_count',
  error: 'error.type',
} as const;

/** What there are no conventions for: see docs/tracing.md. */
const own = {
  recipients: 'tidegate.recipients',
  dropped: 'tidegate.dropped',
  bytes: 'tidegate.bytes',
  backlogBytes: 'tidegate.backlog.bytes',
  sharedBy: 'tidegate.shared_by',
  deliveryMs: 'tidegate.delivery.ms',
  position: 'tidegate.position',
  repeated: 'tidegate.repeated',
  outcome: 'tidegate.outcome',
  late: 'tidegate.late',
} as const;

/** Where a publisher says that its message belongs. */
export interface Origin {
  /** An application's `traceparent`: decides whether the message is sampled, and is the parent of its spans. */
  readonly parent?: string | undefined;
  /** A client's: only linked to, because clients must not decide what is sampled. */
  readonly link?: string | undefined;
}

/** A message that is being published. */
export interface Sending {
  /** Undefined for a message to a user. */
  readonly channel: string | undefined;
  readonly namespace: Pick<Namespace, 'name' | 'traces'>;
  readonly payload: string;
  readonly origin?: Origin | undefined;
}

/** Messages that were read from the log of a durable channel. */
export interface Reading {
  /** When it began (`performance.now()`). */
  readonly startedAtMs: number;
  /** What came of it: `recovered` and `repaired` are good. */
  readonly outcome: string;
  readonly messages: number;
  /** Of those of them that are sampled, some at least. */
  readonly traceparents: readonly string[];
}

/** Why a message that was not sampled has a span after all. */
type Late = 'failed' | 'slow' | 'dropped' | 'read';

/** When everything goes wrong at once, so many spans of what was not sampled are enough. */
const LATE_PER_SECOND = 10;
const LATE_BURST = 20;

/** What traces are made with. */
export interface TracesOptions {
  readonly tracer: Tracer;
  /** The share of messages that is sampled, from 0 to 1, where their namespace does not say. */
  readonly ratio: number;
  /** A message that took so long from its publish to the last socket is slow. 0: none is. */
  readonly slowMs: number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** Makes the spans of messages. */
export class Traces {
  readonly #options: TracesOptions;
  readonly #late = new TokenBucket(LATE_PER_SECOND, LATE_BURST, performance.now());

  constructor(options: TracesOptions) {
    this.#options = options;
  }

  /** Publishes a message with the `traceparent` that goes with it on the bus, if any. Where it is not sampled this adds
   * nothing to the promise, only somebody who hears of a failure. */
  send<T extends Published>(
    sending: Sending,
    publish: (traceparent: string | undefined) => Promise<T>,
  ): Promise<T> {
    const { namespace, origin } = sending;
    const parent = origin?.parent === undefined ? undefined : parseTraceparent(origin.parent);
    const isWanted = parent?.sampled ?? Math.random() < this.#ratioOf(namespace);
    if (isWanted) return this.#sendSampled(sending, parent, publish);
    const startTime = performance.now();
    const traceparent = parent && formatTraceparent(parent);
    const published = publish(traceparent);
    published.catch((error: unknown) => {
      if (!isOurFault(error) || !this.#admitsLate()) return;
      const links = linksTo([traceparent, origin?.link]);
      const options = { kind: SpanKind.PRODUCER, startTime, links };
      endFailed(this.#startLate('failed', 'send', sending, options), error);
    });
    return published;
  }

  /** A message has been written to all its connections here. Returns its trace where it is sampled. */
  fannedOut(message: Outgoing, spread: Spread, latencyMs: number): string | undefined {
    if (message.kind !== 'message') return undefined;
    const { traceparent } = message;
    if (isSampled(traceparent)) {
      const producer = parseTraceparent(traceparent);
      if (producer === undefined) return undefined;
      const context = spanContextOf(producer);
      const startTime = spread.run.arrivedAtMs;
      const options = { kind: SpanKind.CONSUMER, startTime, links: [{ context }] };
      const span = this.#start('process', spread.group, options, trace.setSpanContext(ROOT_CONTEXT, context));
      this.#endProcess(span, message, spread, latencyMs);
      return producer.traceId;
    }
    const { slowMs } = this.#options;
    const isSlow = slowMs > 0 && latencyMs >= slowMs;
    if ((isSlow || spread.dropped > 0) && this.#admitsLate()) {
      const links = linksTo([traceparent ?? traceparentOfId(message.id)]);
      const options = { kind: SpanKind.CONSUMER, startTime: spread.run.arrivedAtMs, links };
      const span = this.#startLate(isSlow ? 'slow' : 'dropped', 'process', spread.group, options);
      this.#endProcess(span, message, spread, latencyMs);
    }
    return undefined;
  }

  /** A client that came back has what it missed, or was told why not. */
  recovered(group: Group, reading: Reading & { readonly bytes: number }): void {
    this.#read('recover', group, reading, {
      kind: SpanKind.CONSUMER,
      attributes: { [own.bytes]: reading.bytes },
    });
  }

  /** This pod has missed something of a durable channel, and has it now, or not. */
  repaired(group: Group, { outcome, startedAtMs, entries }: Repair): void {
    const traceparents = sampledOf(entries.map((entry) => entry.message));
    const reading = { outcome, startedAtMs, messages: entries.length, traceparents };
    this.#read('repair', group, reading, { kind: SpanKind.CLIENT });
  }

  async #sendSampled<T extends Published>(
    sending: Sending,
    parent: TraceContext | undefined,
    publish: (traceparent: string) => Promise<T>,
  ): Promise<T> {
    const context =
      parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, spanContextOf(parent));
    const options = { kind: SpanKind.PRODUCER, links: linksTo([sending.origin?.link]) };
    const span = this.#start('send', sending, options, context);
    const { traceId, spanId } = span.spanContext();
    span.setAttribute(conventions.bodyBytes, Buffer.byteLength(sending.payload));
    try {
      const published = await publish(formatTraceparent({ traceId, spanId, sampled: true }));
      if (published.id !== undefined) span.setAttribute(conventions.id, published.id);
      if (published.position !== undefined) span.setAttribute(own.position, published.position);
      if (published.repeated) span.setAttribute(own.repeated, true);
      span.end(performance.now());
      return published;
    } catch (error) {
      endFailed(span, error);
      throw error;
    }
  }

  #endProcess(span: Span, message: Outgoing, spread: Spread, latencyMs: number): void {
    const { id, position, payload } = message;
    span.setAttributes({
      ...(id !== undefined && { [conventions.id]: id }),
      ...(position !== undefined && { [own.position]: formatPosition(position) }),
      [conventions.bodyBytes]: Buffer.byteLength(payload),
      [own.recipients]: spread.recipients,
      [own.dropped]: spread.dropped,
      [own.bytes]: spread.bytes,
      [own.sharedBy]: spread.run.messages.length,
      [own.backlogBytes]: this.#options.metrics.backlogBytes.read(),
      [own.deliveryMs]: latencyMs,
    });
    span.end(performance.now());
  }

  /** Traced by the ratio; and, in bounds, where it went wrong or brought a message that is sampled, and any repair. */
  #read(operation: 'recover' | 'repair', group: Group, reading: Reading, options: SpanOptions): void {
    const { startedAtMs, outcome, messages, traceparents } = reading;
    const isGood = outcome === 'recovered' || outcome === 'repaired';
    const isSampledItself = Math.random() < this.#ratioOf(group.namespace);
    if (!isSampledItself) {
      if (isGood && traceparents.length === 0 && operation === 'recover') return;
      if (!this.#admitsLate()) return;
    }
    const timed = { ...options, startTime: startedAtMs, links: linksTo(traceparents) };
    const span = isSampledItself
      ? this.#start(operation, group, timed, ROOT_CONTEXT)
      : this.#startLate(isGood ? 'read' : 'failed', operation, group, timed);
    span.setAttributes({ [conventions.messages]: messages, [own.outcome]: outcome });
    if (!isGood) span.setStatus({ code: SpanStatusCode.ERROR, message: outcome });
    span.end(performance.now());
  }

  #start(
    operation: keyof typeof operationTypes,
    { channel, namespace }: Pick<Sending, 'channel' | 'namespace'>,
    options: SpanOptions,
    context: Context,
  ): Span {
    const attributes: Attributes = {
      ...options.attributes,
      [conventions.system]: 'tidegate',
      [conventions.operation]: operation,
      [conventions.operationType]: operationTypes[operation],
      [conventions.namespace]: namespace.name,
      // Whom a message is for is nobody else's business.
      ...(channel !== undefined && { [conventions.channel]: channel }),
    };
    // Started and ended by the same clock: the two of one span would not fit together otherwise.
    const timed = { startTime: performance.now(), ...options, attributes };
    return this.#options.tracer.startSpan(`${operation} ${namespace.name}`, timed, context);
  }

  /** Whether there may be one more span of what was not sampled. Asked before anything is made for it. */
  #admitsLate(): boolean {
    return this.#late.take(1, performance.now()) === 0;
  }

  /** A span of its own for what was not sampled, and a line in the log that leads to it. */
  #startLate(
    reason: Late,
    operation: keyof typeof operationTypes,
    of: Pick<Sending, 'channel' | 'namespace'>,
    options: SpanOptions,
  ): Span {
    const attributes = { ...options.attributes, [own.late]: reason };
    const span = this.#start(operation, of, { ...options, attributes }, ROOT_CONTEXT);
    const { traceId, spanId } = span.spanContext();
    const namespace = of.namespace.name;
    const ids = { trace_id: traceId, span_id: spanId };
    if (reason !== 'read')
      this.#options.log.warn({ ...ids, namespace, operation, reason }, 'traced although not sampled');
    return span;
  }

  #ratioOf({ traces }: Pick<Namespace, 'traces'>): number {
    return traces ?? this.#options.ratio;
  }
}

const operationTypes = { send: 'send', process: 'process', recover: 'process', repair: 'receive' } as const;

/** Links to whatever of it is a `traceparent`. */
function linksTo(traceparents: readonly (string | undefined)[]): Link[] {
  return traceparents
    .slice(0, MAX_LINKS)
    .map(parseTraceparent)
    .filter((context) => context !== undefined)
    .map((context) => ({ context: spanContextOf(context) }));
}

/** What the spans of one message have in common where none of them was expected. */
function traceparentOfId(id: string | undefined): string | undefined {
  if (id === undefined) return undefined;
  const hex = createHash('sha256').update(id).digest('hex');
  return formatTraceparent({ traceId: hex.slice(0, 32), spanId: hex.slice(32, 48), sampled: false });
}

function spanContextOf({ traceId, spanId, sampled }: TraceContext): SpanContext {
  return { traceId, spanId, traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE, isRemote: true };
}

function endFailed(span: Span, error: unknown): void {
  const { code, message } = asTidegateError(error);
  span.setAttribute(conventions.error, code);
  span.setStatus({ code: SpanStatusCode.ERROR, message });
  nameTrace(error, span.spanContext());
  span.end(performance.now());
}

/** What a publisher did wrong is told to it, and no failure of the gateway. */
function isOurFault(error: unknown): boolean {
  return errorKinds[asTidegateError(error).code].status >= 500;
}
