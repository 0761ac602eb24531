// Tokens for tests: signed with one secret unless another is given, and valid for an hour unless the claims say otherwise.

import { createHmac } from 'node:crypto';

/** For `JWT_SECRET`. */
export const tokenSecret = 'a secret that is long enough for HS256';

/** A token with these claims. */
export function token(claims: Readonly<Record<string, unknown>>, secret = tokenSecret): string {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ exp, ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
