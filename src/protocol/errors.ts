// Error codes: what may go wrong with a command or an API call. One table for gateway, client and docs.

/** One row of the table. `status` is the HTTP status of the same error on the HTTP API. */
export interface ErrorKind {
  readonly retryable: boolean;
  readonly status: number;
  readonly help: string;
}

/** Every error a client or an API caller can be answered with, by its stable code. */
export const errorKinds = {
  malformed: {
    retryable: false,
    status: 400,
    help: 'The frame or body is not valid JSON of the documented shape.',
  },
  unknown_type: { retryable: false, status: 400, help: 'The command has a type that does not exist.' },
  bad_name: {
    retryable: false,
    status: 400,
    help: 'A channel or user name is not 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : / -',
  },
  forbidden: { retryable: false, status: 403, help: 'Nothing allows this to this user.' },
  too_large: {
    retryable: false,
    status: 413,
    help: 'The payload is larger than the namespace or the gateway allows.',
  },
  too_many_channels: {
    retryable: false,
    status: 400,
    help: 'The connection already holds MAX_CHANNELS_PER_CONNECTION channels.',
  },
  not_subscribed: {
    retryable: false,
    status: 400,
    help: 'The connection is not subscribed to this channel.',
  },
  no_presence: { retryable: false, status: 400, help: 'The namespace of this channel keeps no presence.' },
  not_durable: { retryable: false, status: 400, help: 'The namespace of this channel keeps no messages.' },
  raw_channel: {
    retryable: false,
    status: 400,
    help: 'A raw channel cannot do this: it carries nothing but the payload.',
  },
  token_refused: {
    retryable: false,
    status: 401,
    help: 'The new token is not valid, or is for another user.',
  },
  unauthorized: { retryable: false, status: 401, help: 'The API key is missing or wrong.' },
  not_found: { retryable: false, status: 404, help: 'There is no such thing here.' },
  rate_limited: {
    retryable: true,
    status: 429,
    help: 'The connection sends faster than its rate. Wait retryAfterMs.',
  },
  key_reused: { retryable: false, status: 422, help: 'The idempotency key was used with another payload.' },
  key_in_progress: {
    retryable: true,
    status: 409,
    help: 'The first call with this idempotency key has not ended yet.',
  },
  bus_unavailable: {
    retryable: true,
    status: 503,
    help: 'The bus does not answer. The message may or may not have been published; retry it with the same key.',
  },
  overloaded: {
    retryable: true,
    status: 503,
    help: 'Too much waits for the bus already. Try again a little later.',
  },
  internal: { retryable: true, status: 500, help: 'The gateway failed. Its log says more.' },
} as const satisfies Record<string, ErrorKind>;

/** A stable error code: the key of {@link errorKinds}. */
export type ErrorCode = keyof typeof errorKinds;

/** An error that has a stable code. Everything that a client or an API caller may be told is one of these;
 * anything else that is thrown is a bug and is told as `internal`. */
export class TidegateError extends Error {
  readonly code: ErrorCode;
  /** How long the caller should wait before it tries again, in milliseconds, where that is known. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message?: string, options?: ErrorOptions & { retryAfterMs?: number }) {
    super(message ?? errorKinds[code].help, options);
    this.name = 'TidegateError';
    this.code = code;
    this.retryAfterMs = options?.retryAfterMs;
  }

  get retryable(): boolean {
    return errorKinds[this.code].retryable;
  }
}

/** The error as one that has a code: itself, or `internal` with the original as its cause. */
export function asTidegateError(error: unknown): TidegateError {
  return error instanceof TidegateError ? error : new TidegateError('internal', undefined, { cause: error });
}
