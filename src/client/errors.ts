// Errors: what a call of the client may fail with, and what its `error` event tells of.

import type { ErrorCode } from '../protocol/errors.ts';
import type { Frame } from './link.ts';

/** The gateway's codes, and the client's own:
 * - `closed`: the client was closed, by the application, or by the gateway for good;
 * - `queue_full`: more is unanswered than `maxQueued` or `maxQueuedBytes` allow;
 * - `connect`: the URL or the token is nothing to connect with;
 * - `token`: `token()` failed or took too long;
 * - `handler`: a handler of the application threw; `cause` is what it threw. */
export type ClientErrorCode = ErrorCode | 'closed' | 'queue_full' | 'connect' | 'token' | 'handler';

/** What else is known of an error. */
export interface ClientErrorDetails {
  readonly retryable?: boolean | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly channel?: string | undefined;
  readonly cause?: unknown;
}

/** An error with a stable code. */
export class ClientError extends Error {
  readonly code: ClientErrorCode;
  /** The same call may succeed later. */
  readonly retryable: boolean;
  /** How long to wait before, where that is known. */
  readonly retryAfterMs: number | undefined;
  /** The channel it is about, if it is about one. */
  readonly channel: string | undefined;

  constructor(code: ClientErrorCode, message: string, details: ClientErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'ClientError';
    this.code = code;
    this.retryable = details.retryable ?? false;
    this.retryAfterMs = details.retryAfterMs;
    this.channel = details.channel;
  }
}

/** The error that an answer tells of. */
export function errorOf(answer: Frame, channel?: string): ClientError {
  const { code, message } = answer as { code: ErrorCode; message: string };
  return new ClientError(code, message, { ...answer, channel });
}
