// Authentication: who a connection speaks for, from its token or, where that is allowed, from its own word.

import type { KeyObject } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { JWTPayload, JWTVerifyGetKey } from 'jose';
import { keySetAlgorithms, secretAlgorithms } from '../platform/config.ts';
import { newId } from '../platform/ids.ts';
import type { Report } from '../platform/logs.ts';
import { isName } from '../protocol/names.ts';
import { type Grants, grantsOf, NO_GRANTS } from './channels.ts';
import type { SharedSecrets } from './shared-secrets.ts';

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
  readonly secrets: SharedSecrets | undefined;
  readonly jwksUrl: string | undefined;
  readonly algorithms: readonly string[] | undefined;
  readonly audience: string | undefined;
  readonly issuer: string | undefined;
}

/** The one that a shared secret signs by unless others are listed: the longer ones are rarely meant. */
const DEFAULT_SECRET_ALGORITHMS = ['HS256'];

/** Clocks of issuers and pods differ by a few seconds. */
const CLOCK_TOLERANCE_SECONDS = 5;

/** Checks tokens by shared secrets, by a key set, or by either where both are given: the algorithm in the token
 * decides which, and each accepts only its own kind, so a public key can never be used as a shared secret.
 * @throws {Error} where no token could ever be checked. */
export async function tokenAuthenticator(options: TokenOptions, report: Report): Promise<Authenticator> {
  // Loaded only where there are tokens: an anonymous gateway starts without it.
  const jose = await import('jose');
  const forSecret =
    options.secrets === undefined
      ? []
      : (options.algorithms ?? DEFAULT_SECRET_ALGORITHMS).filter((it) => secretAlgorithms.includes(it));
  const forKeySet =
    options.jwksUrl === undefined
      ? []
      : (options.algorithms ?? keySetAlgorithms).filter((it) => keySetAlgorithms.includes(it));
  if (forSecret.length + forKeySet.length === 0) {
    throw new Error(
      'JWT_ALGORITHMS lists no algorithm that JWT_SECRET (HS…) or JWKS_URL (RS…, PS…, ES…, EdDSA) can check',
    );
  }
  const keySet =
    options.jwksUrl === undefined
      ? undefined
      : new (await import('./keyset.ts')).KeySet(new URL(options.jwksUrl), report);

  const checks = {
    algorithms: [...forSecret, ...forKeySet],
    requiredClaims: ['sub', 'exp'],
    clockTolerance: CLOCK_TOLERANCE_SECONDS,
    ...(options.audience !== undefined && { audience: options.audience }),
    ...(options.issuer !== undefined && { issuer: options.issuer }),
  };

  /** The claims of a token that any of the keys has signed. */
  async function claimsOf(token: string): Promise<JWTPayload> {
    const older = [...(options.secrets?.keys ?? [])];
    for (;;) {
      let secret: KeyObject | undefined;
      const keyFor: JWTVerifyGetKey = (header, jws) => {
        if (forSecret.includes(header.alg)) secret = older.shift();
        if (secret !== undefined) return secret;
        if (keySet !== undefined && forKeySet.includes(header.alg)) return keySet.keyFor(header, jws);
        throw new jose.errors.JOSEAlgNotAllowed();
      };
      try {
        return (await jose.jwtVerify(token, keyFor, checks)).payload;
      } catch (error) {
        const isUnsigned = error instanceof jose.errors.JWSSignatureVerificationFailed;
        if (!isUnsigned || secret === undefined || older.length === 0) throw error;
      }
    }
  }

  async function verify(token: string): Promise<Identity> {
    try {
      const payload = await claimsOf(token);
      if (!isName(payload.sub)) throw new TokenRefused('the token’s "sub" is not a valid user name');
      // JSON has numbers that are larger than any, and such a token would never expire.
      if (!Number.isFinite(payload.exp)) throw new TokenRefused('the token’s "exp" is not accepted');
      return { user: payload.sub, grants: grantsOf(payload), expiresAtMs: (payload.exp ?? 0) * 1000 };
    } catch (error) {
      const refusal = refusalOf(error, jose.errors);
      if (refusal === undefined) report('authenticate', error);
      throw refusal ?? new TokenRefused('tokens cannot be checked now', { cause: error, retryable: true });
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

/** What the client is told. Says which check failed, which the holder of the token may know, and nothing else.
 * Undefined where the fault is not the token's. */
function refusalOf(error: unknown, errors: typeof import('jose').errors): TokenRefused | undefined {
  if (error instanceof TokenRefused) return error;
  const refused = (message: string) => new TokenRefused(message, { cause: error });
  if (error instanceof errors.JWTExpired) return refused('the token has expired');
  if (error instanceof errors.JWTClaimValidationFailed)
    return refused(`the token’s "${error.claim}" is not accepted`);
  if (error instanceof errors.JOSEAlgNotAllowed) return refused('the token’s algorithm is not accepted');
  if (error instanceof errors.JWKSNoMatchingKey) return refused('the token’s key is not known');
  if (error instanceof errors.JWKSMultipleMatchingKeys)
    return refused('the token does not say which key it is signed by');
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return refused('the token’s signature does not match');
  if (error instanceof errors.JWTInvalid || error instanceof errors.JWSInvalid)
    return refused('the token is not a JWT');
  if (error instanceof errors.JOSENotSupported)
    return refused('the token is of a kind that is not supported');
  return undefined;
}

const BEARER_SUBPROTOCOL = 'bearer.';

/** Where a token may be in an upgrade request, in this order: `Authorization: Bearer`, a subprotocol entry
 * `bearer.JWT`, a cookie, `?token=`. The cookie counts only where `cookie` is given: browsers send it with every
 * page's requests, so there must be a list of origins. */
export function tokenOf(
  request: IncomingMessage,
  query: URLSearchParams,
  cookie: string | undefined,
): string | undefined {
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
