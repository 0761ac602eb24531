// Problems: how the HTTP API tells what is wrong, as problem details (RFC 9457) with a stable `code`.

import { asTidegateError, type ErrorCode, errorKinds, TidegateError } from '../protocol/errors.ts';
import { namePattern } from '../protocol/names.ts';

/** The body of an error. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly retryable: boolean;
}

/** What to tell of an error, of ours or the framework's. */
export function problemOf(error: unknown): Problem {
  const { code, message, retryable } = isFastifyError(error) ? ofFastify(error) : asTidegateError(error);
  return {
    type: `urn:tidegate:error:${code}`,
    title: message,
    status: errorKinds[code].status,
    code,
    retryable,
  };
}

interface FastifyErrorLike {
  readonly statusCode: number;
  readonly message: string;
  /** What the schema did not allow. */
  readonly validation?: readonly { readonly params?: { readonly pattern?: unknown } }[];
}

/** Errors of the framework about the request itself: a body that is no JSON, too large, or not of the schema. */
function isFastifyError(error: unknown): error is FastifyErrorLike {
  if (!(error instanceof Error) || error instanceof TidegateError) return false;
  return 'statusCode' in error && typeof error.statusCode === 'number' && error.statusCode < 500;
}

function ofFastify({ statusCode, message, validation = [] }: FastifyErrorLike): TidegateError {
  if (statusCode === 413) return new TidegateError('too_large', message);
  if (statusCode === 415)
    return new TidegateError('malformed', 'Send the header "Content-Type: application/json".');
  const isName = validation.some(({ params }) => params?.pattern === namePattern.source);
  return isName ? new TidegateError('bad_name') : new TidegateError('malformed', message);
}
