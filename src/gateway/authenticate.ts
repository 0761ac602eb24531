// Authentication: who a connection speaks for, from its token or, where that is allowed, from its own word.

import { createSecretKey } from 'node:crypto';
import type { JWTVerifyGetKey } from 'jose';
import type { IncomingMessage } from 'node:http';
import { newId } from '../platform/ids.ts';
import { isName } from '../protocol/names.ts';
import { type Grants, grantsOf, NO_GRANTS } from './channels.ts';

/** Whom a connection speaks for, what its token allows, and until when (ms since 1970). */
export interface Identity {
  readonly user: string;
  readonly grants: Grants;
  readonly expiresAtMs: number | undefined;
}

/** A token was refused. `retryable`: the fault is ours, as when the keys cannot be fetched. `message` is for the
 * client and names no secret. */
export class TokenRefused extends Error {
  readonly retryable: boolean;

  constructor(message: string, options?: ErrorOptions & { retryable?: boolean }) {
    super(message, options);
    this.name = 'TokenRefused';
    this.retryable = options?.retryable ?? false;
  }
}

/** Tells who somebody is.
 * `connect`: the identity for an upgrade to `/ws` or `/ws/{user}`; `refresh`: for a new token of the same user.
 * Both throw {@link TokenRefused}. */
export interface Authenticator {
  connect(token: string | undefined, claimedUser: string | undefined): Promise<Identity> | Identity;
  refresh(token: string, user: string): Promise<Identity>;
}

/** Lets everybody in: under the name in the path, or as a guest. */
export const anonymous: Authenticator = {
  connect: (_token, claimedUser) => ({
    user: claimedUser ?? `guest-${newId().slice(0, 8)}`,
    grants: NO_GRANTS,
    expiresAtMs: undefined,
  }),
  refresh: async () => {
    throw new TokenRefused('this gateway takes no tokens');
  },
};

/** How tokens are checked. */
export interface TokenOptions {
  readonly secret: string | undefined;
  readonly jwksUrl: string | undefined;
  readonly algorithms: readonly string[] | undefined;
  readonly audience: string | undefined;
  readonly issuer: string | undefined;
}

const SECRET_ALGORITHMS = ['HS256'];
const KEY_SET_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];

/** Clocks of issuers and pods differ by a few seconds. */
const CLOCK_TOLERANCE_SECONDS = 5;

/** Checks tokens by a shared secret, by a key set, or by either where both are given: the algorithm in the token
 * decides which, and each accepts only its own kind, so a public key can never be used as a shared secret. */
export async function tokenAuthenticator(options: TokenOptions): Promise<Authenticator> {
  // Loaded only where there are tokens: an anonymous gateway starts without it.
  const jose = await import('jose');
  const wanted = (of: readonly string[], otherwise: readonly string[]) => {
    const chosen = options.algorithms?.filter((algorithm) => of.includes(algorithm));
    return chosen ?? [...otherwise];
  };
  const secretAlgorithms = options.secret === undefined ? [] : wanted(['HS256', 'HS384', 'HS512'], SECRET_ALGORITHMS);
  const keySetAlgorithms = options.jwksUrl === undefined ? [] : wanted(KEY_SET_ALGORITHMS, KEY_SET_ALGORITHMS);
  const algorithms = [...secretAlgorithms, ...keySetAlgorithms];
  if (algorithms.length === 0) {
    throw new Error('JWT_ALGORITHMS lists no algorithm that JWT_SECRET (HS…) or JWKS_URL (RS…, PS…, ES…, EdDSA) can check');
  }
  const secret = options.secret === undefined ? undefined : createSecretKey(Buffer.from(options.secret));
  // The library keeps keys for ten minutes and fetches for an unknown one at most every thirty seconds, so a
  // flood of made-up key ids does not become a flood of requests.
  const keySet =
    options.jwksUrl === undefined
      ? undefined
      : jose.createRemoteJWKSet(new URL(options.jwksUrl), { timeoutDuration: 5000, cooldownDuration: 30_000 });

  const keyFor: JWTVerifyGetKey = (header, token) => {
    if (secretAlgorithms.includes(header.alg) && secret !== undefined) return secret;
    if (keySet !== undefined) return keySet(header, token);
    throw new jose.errors.JOSEAlgNotAllowed();
  };

  async function verify(token: string): Promise<Identity> {
    try {
      const { payload } = await jose.jwtVerify(token, keyFor, {
        algorithms,
        requiredClaims: ['sub', 'exp'],
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
        ...(options.audience !== undefined && { audience: options.audience }),
        ...(options.issuer !== undefined && { issuer: options.issuer }),
      });
      if (!isName(payload.sub)) throw new TokenRefused('the token’s "sub" is not a valid user name');
      return { user: payload.sub, grants: grantsOf(payload), expiresAtMs: (payload.exp ?? 0) * 1000 };
    } catch (error) {
      throw error instanceof TokenRefused ? error : refusalOf(error, jose.errors);
    }
  }

  return {
    async connect(token, claimedUser) {
      if (token === undefined) throw new TokenRefused('a token is required');
      const identity = await verify(token);
      if (claimedUser !== undefined && claimedUser !== identity.user) {
        throw new TokenRefused('the token is for another user than the path');
      }
      return identity;
    },
    async refresh(token, user) {
      const identity = await verify(token);
      if (identity.user !== user) throw new TokenRefused('the token is for another user');
      return identity;
    },
  };
}

/** What the client is told. Says which check failed, which the holder of the token may know, and nothing else. */
function refusalOf(error: unknown, errors: typeof import('jose').errors): TokenRefused {
  if (error instanceof errors.JWTExpired) return new TokenRefused('the token has expired', { cause: error });
  if (error instanceof errors.JWTClaimValidationFailed) {
    return new TokenRefused(`the token’s "${error.claim}" is not accepted`, { cause: error });
  }
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return new TokenRefused('the token’s algorithm is not accepted', { cause: error });
  }
  if (error instanceof errors.JWKSNoMatchingKey) return new TokenRefused('the token’s key is not known', { cause: error });
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return new TokenRefused('the token’s signature does not match', { cause: error });
  }
  if (error instanceof errors.JWTInvalid || error instanceof errors.JWSInvalid) {
    return new TokenRefused('the token is not a JWT', { cause: error });
  }
  if (error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout)) {
    // A key set that is not one, or a key of a kind that is not supported.
    const isOurs = error instanceof errors.JWKSInvalid || error.message.includes('JSON Web Key Set HTTP response');
    return new TokenRefused(isOurs ? 'the keys cannot be fetched now' : 'the token cannot be checked', { cause: error, retryable: isOurs });
  }
  return new TokenRefused('the keys cannot be fetched now', { cause: error, retryable: true });
}

const BEARER_SUBPROTOCOL = 'bearer.';

/** Where a token may be in an upgrade request, in this order: `Authorization: Bearer`, a subprotocol entry
 * `bearer.JWT`, a cookie, `?token=`. The cookie counts only where `cookie` is given: browsers send it with every
 * page's requests, so there must be a list of origins. */
export function tokenOf(request: IncomingMessage, query: URLSearchParams, cookie: string | undefined): string | undefined {
  const header = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (header !== undefined) return header;
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((entry) => entry.trim());
  const entry = offered.find((it) => it.startsWith(BEARER_SUBPROTOCOL));
  if (entry !== undefined) return entry.slice(BEARER_SUBPROTOCOL.length);
  if (cookie !== undefined) {
    for (const pair of (request.headers.cookie ?? '').split(';')) {
      const at = pair.indexOf('=');
      if (at !== -1 && pair.slice(0, at).trim() === cookie) return pair.slice(at + 1).trim();
    }
  }
  return query.get('token') ?? undefined;
}
