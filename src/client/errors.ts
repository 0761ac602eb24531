// Errors: what a call of the client may fail with, and what its `error` event tells of.

import type { ErrorCode } from '../protocol/errors.ts';

/** Codes of the client's own, beside those of the gateway:
 * - `closed`: the client was closed, by the application or for good by the gateway;
 * - `queue_full`: more is unanswered than `maxQueued` or `maxQueuedBytes` allow;
 * - `unanswered`: the connection was lost before `sendTo` was answered, so it may or may not have arrived;
 * - `token`: `token()` failed or took too long;
 * - `handler`: a handler of the application threw; `cause` is what it threw;
 * - `protocol`: the gateway said something that cannot be understood. */
export type ClientErrorCode = 'closed' | 'queue_full' | 'unanswered' | 'token' | 'handler' | 'protocol';

/** What else is known of an error. */
export interface ClientErrorDetails {
  readonly retryable?: boolean | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly channel?: string | undefined;
  readonly cause?: unknown;
}

/** An error with a stable code: the gateway's own, or the client's. */
export class ClientError extends Error {
  readonly code: ErrorCode | ClientErrorCode;
  /** The same call may succeed later. */
  readonly retryable: boolean;
  /** How long to wait before, where that is known. */
  readonly retryAfterMs: number | undefined;
  /** The channel it is about, if it is about one. */
  readonly channel: string | undefined;

  constructor(code: ErrorCode | ClientErrorCode, message: string, details: ClientErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'ClientError';
    this.code = code;
    this.retryable = details.retryable ?? false;
    this.retryAfterMs = details.retryAfterMs;
    this.channel = details.channel;
  }
}
