// An issuer of tokens for tests: signs them, and serves its public keys over HTTP as JWKS_URL expects them.

import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';
import { freePort } from './ports.ts';

/** A key pair with the public half as it is served. */
export interface IssuerKey {
  readonly jwk: JWK;
  readonly publicKey: CryptoKey;
  readonly privateKey: CryptoKey;
}

/** How the server answers: `well`, or in one of the ways in which such servers fail. */
export type Behaviour = 'well' | 'status 500' | 'garbage' | 'no key set' | 'redirect' | 'silence' | 'half';

export interface Issuer {
  readonly url: string;
  /** The key that signs; the last one that was added. */
  readonly key: IssuerKey;
  /** How often the keys were asked for. */
  readonly requests: number;
  behaviour: Behaviour;
  /** Takes a new key into use, and withdraws the old ones unless they are to be kept. */
  rotate(options?: { alg?: string; keepOld?: boolean }): Promise<IssuerKey>;
  /** A token of these claims, valid for an hour unless they say otherwise. */
  sign(claims: JWTPayload, by?: { key?: IssuerKey; header?: Record<string, unknown> }): Promise<string>;
  /** Closes the port until `open`. */
  close(): Promise<void>;
  open(): Promise<void>;
}

/** Starts an issuer with one key. */
export async function startIssuer(alg = 'RS256'): Promise<Issuer> {
  const port = await freePort();
  let keys: IssuerKey[] = [];
  let requests = 0;
  let kids = 0;
  const server = createServer((_request, response) => {
    requests += 1;
    answer(
      response,
      issuer.behaviour,
      keys.map(({ jwk }) => jwk),
    );
  });

  async function rotate(options: { alg?: string; keepOld?: boolean } = {}): Promise<IssuerKey> {
    const pair = await generateKeyPair(options.alg ?? alg, { extractable: true });
    const jwk = {
      ...(await exportJWK(pair.publicKey)),
      kid: `key-${++kids}`,
      alg: options.alg ?? alg,
      use: 'sig',
    };
    keys = [...(options.keepOld ? keys : []), { jwk, ...pair }];
    return issuer.key;
  }

  const issuer: Issuer = {
    url: `http://127.0.0.1:${port}/keys`,
    behaviour: 'well',
    get key() {
      const key = keys.at(-1);
      if (key === undefined) throw new Error('the issuer has no key');
      return key;
    },
    get requests() {
      return requests;
    },
    rotate,
    sign(claims, { key = issuer.key, header = {} } = {}) {
      return new SignJWT({ exp: Math.floor(Date.now() / 1000) + 3600, ...claims })
        .setProtectedHeader({ alg: key.jwk.alg ?? '', kid: key.jwk.kid ?? '', ...header })
        .sign(key.privateKey);
    },
    async close() {
      server.closeAllConnections();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
    async open() {
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
    },
  };
  await rotate();
  await issuer.open();
  return issuer;
}

function answer(response: ServerResponse, behaviour: Behaviour, keys: readonly JWK[]): void {
  const body = JSON.stringify({ keys });
  switch (behaviour) {
    case 'well':
      response.writeHead(200, { 'content-type': 'application/jwk-set+json' }).end(body);
      return;
    case 'status 500':
      response.writeHead(500).end(body);
      return;
    case 'garbage':
      response.writeHead(200, { 'content-type': 'application/json' }).end('<html>not today</html>');
      return;
    case 'no key set':
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"keys":"none"}');
      return;
    case 'redirect':
      response.writeHead(302, { location: '/elsewhere' }).end();
      return;
    case 'half':
      response.writeHead(200, { 'content-length': body.length }).write(body.slice(0, 20));
      return;
    case 'silence':
  }
}
