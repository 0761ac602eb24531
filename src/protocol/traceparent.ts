// Trace context: the W3C `traceparent`, which says to which trace a message belongs and whether that one is sampled.

/** A place in a trace. */
export interface TraceContext {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  readonly sampled: boolean;
}

const PATTERN = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** How long one of this version is; a later version may only add to it. */
const LENGTH = 55;
const MAX_LENGTH = 128;
const SAMPLED_FLAG = 1;
const DIGIT_ONE = 0x31;

/** Total: whatever is no `traceparent` gives undefined. */
export function parseTraceparent(value: unknown): TraceContext | undefined {
  if (typeof value !== 'string' || value.length < LENGTH || value.length > MAX_LENGTH) return undefined;
  const [, version, traceId, spanId, flags = '', more] = PATTERN.exec(value) ?? [];
  if (traceId === undefined || spanId === undefined || (version === '00' && more !== undefined))
    return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & SAMPLED_FLAG) !== 0 };
}

/** As gateways write it: no other flag than the one for sampled. */
export function formatTraceparent({ traceId, spanId, sampled }: TraceContext): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`;
}

/** Whether one that a gateway wrote is of a sampled trace. Asked for every message, so it looks at no more than the
 * flag: whoever goes on parses it. */
export function isSampled(traceparent: string | undefined): traceparent is string {
  return traceparent?.charCodeAt(LENGTH - 1) === DIGIT_ONE;
}

/** So many messages are linked to from one span. */
export const MAX_LINKS = 16;

/** The traces of those messages that are sampled, as many as a span links to. */
export function sampledOf(messages: readonly { readonly traceparent?: string | undefined }[]): string[] {
  const found: string[] = [];
  for (const { traceparent } of messages) {
    if (isSampled(traceparent) && found.push(traceparent) === MAX_LINKS) break;
  }
  return found;
}
