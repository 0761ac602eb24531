import { createHmac } from 'node:crypto';
import { exportSPKI } from 'jose';
import { afterAll, expect } from 'vitest';
import { startIssuer } from '../test/issuer.ts';
import { RawPeer } from '../test/raw.ts';
import { token, tokenSecret } from '../test/tokens.ts';
import { TestClient } from '../test/websocket.ts';
import { many } from './peers.ts';
import { openStage } from './stage.ts';

const issuer = await startIssuer('RS256');
const { gateway, attack } = await openStage(
  'tokens',
  { AUTH: 'jwt', JWT_SECRET: tokenSecret, JWKS_URL: issuer.url, JWT_AUDIENCE: 'here' },
  (user) => `?token=${token({ sub: user, aud: 'here' })}`,
);
afterAll(() => issuer.close());

const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token put together by hand. */
function forge(header: unknown, claims: unknown, secret: string | Buffer = 'not the secret'): string {
  const signed = `${encode(header)}.${encode(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

const now = Math.floor(Date.now() / 1000);
const claims = { sub: 'root', aud: 'here', exp: now + 3600 };
const good = token({ sub: 'mallory', aud: 'here' });
const nested = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

/** Each way to bring a token to an upgrade. */
const ways = [
  (it: string) => ({ path: `/ws?token=${encodeURIComponent(it)}`, headers: {} }),
  (it: string) => ({ path: '/ws', headers: { Authorization: `Bearer ${it}` } }),
  (it: string) => ({ path: '/ws', headers: { 'Sec-WebSocket-Protocol': `tidegate.v1, bearer.${it}` } }),
];

async function expectRefused(what: string, forged: string, at = 0): Promise<void> {
  const way = ways[at % ways.length] ?? ways[0];
  if (way === undefined) throw new Error('there is no way');
  const { path, headers } = way(forged);
  const peer = await RawPeer.upgrade(gateway.ports.ws, path, headers);
  expect(await peer.closed(), what).toBe(1008);
  expect(peer.texts, what).toEqual([]);
}

attack(
  {
    does: 'tokens that nobody signed, or with a public key as the secret',
    answer: 'closed with 1008, and not a frame before',
  },
  async () => {
    const pem = await exportSPKI(issuer.key.publicKey);
    const jwk = JSON.stringify(issuer.key.jwk);
    const kid = issuer.key.jwk.kid;
    const tokens: [string, string][] = [
      ...['none', 'None', 'NONE', 'nOnE', ''].map((alg): [string, string] => [
        `alg ${alg}`,
        `${encode({ alg, typ: 'JWT' })}.${encode(claims)}.`,
      ]),
      ['none with a signature', forge({ alg: 'none' }, claims, tokenSecret)],
      ['HS256 by the public key', forge({ alg: 'HS256', kid }, claims, pem)],
      ['HS256 by the public key without its last line', forge({ alg: 'HS256', kid }, claims, pem.trim())],
      ['HS256 by the key as JSON', forge({ alg: 'HS256', kid }, claims, jwk)],
      ['RS256 that is really HS256', forge({ alg: 'RS256', kid }, claims, tokenSecret)],
      ['HS512 by the secret', forge({ alg: 'HS512' }, claims, tokenSecret)],
      ['two algorithms', forge('{"alg":"none","alg":"HS256"}', claims)],
      ['the key in the token', forge({ alg: 'HS256', jwk: { kty: 'oct', k: encode('k') } }, claims, 'k')],
      ['an empty signature', good.replace(/[^.]*$/, '')],
      ['another payload', good.replace(/\.[^.]*\./, `.${encode(claims)}.`)],
      ['b64 false', forge({ alg: 'HS256', b64: false, crit: ['b64'] }, claims, tokenSecret)],
      ['an unknown crit', forge({ alg: 'HS256', crit: ['x'], x: 1 }, claims, tokenSecret)],
    ];
    for (const [at, [what, forged]] of tokens.entries()) await expectRefused(what, forged, at);
  },
);

attack(
  {
    does: 'tokens whose `kid`, `jku`, `x5u` lead elsewhere',
    answer: 'closed with 1008; no address of a token is ever asked',
  },
  async () => {
    const asked = issuer.requests;
    const kids: unknown[] = [
      '../../../../dev/null',
      '/etc/passwd',
      'http://127.0.0.1:1/keys',
      "' UNION SELECT 'x",
      '\0',
      '__proto__',
      'x'.repeat(5000),
      { $ne: null },
      ['key-1'],
      7,
    ];
    for (const [at, kid] of kids.entries()) {
      for (const alg of ['HS256', 'RS256'])
        await expectRefused(`kid ${String(kid).slice(0, 40)}`, forge({ alg, kid }, claims, ''), at);
    }
    const elsewhere = `${issuer.url}/evil`;
    for (const field of ['jku', 'x5u'])
      await expectRefused(field, forge({ alg: 'RS256', kid: 'evil', [field]: elsewhere }, claims));
    // Unknown keys make it look whether there are new ones, now and then, at its own address.
    expect(issuer.requests - asked).toBeLessThan(10);
  },
);

attack(
  {
    does: '2000 tokens with as many unknown keys',
    answer: 'closed with 1008; the key set is fetched a few times',
  },
  async () => {
    const asked = issuer.requests;
    await many(2000, async (at) => {
      await expectRefused('an unknown key', forge({ alg: 'RS256', kid: `kid-${at}` }, claims), at);
    });
    expect(issuer.requests - asked).toBeLessThan(30);
  },
);

attack(
  {
    does: 'signed tokens that are expired, not valid yet, for others, or whose claims are no claims',
    answer: 'closed with 1008',
  },
  async () => {
    const by = (it: unknown) => forge({ alg: 'HS256' }, it, tokenSecret);
    const bad: [string, unknown][] = [
      ['expired', { ...claims, exp: now - 60 }],
      ['expired long ago', { ...claims, exp: -1e15 }],
      ['not valid yet', { ...claims, nbf: now + 3600 }],
      ['never valid', { ...claims, nbf: 1e300 }],
      ['an expiry that is a text', { ...claims, exp: '9999999999' }],
      ['an expiry that is null', { ...claims, exp: null }],
      ['an expiry beyond numbers', `{"sub":"root","aud":"here","exp":1e999}`],
      ['no expiry', { sub: 'root', aud: 'here' }],
      ['another audience', { ...claims, aud: 'elsewhere' }],
      ['an audience that is an object', { ...claims, aud: { here: true } }],
      ['a user with a line’s end', { ...claims, sub: 'root\n' }],
      ['a user that is a glob', { ...claims, sub: '*' }],
      ['a user that is a list', { ...claims, sub: ['root'] }],
      ['claims that are a list', [claims]],
      ['claims that are deep and nothing else', nested(2000)],
      ['claims that are no JSON', '{"sub":'],
      ['claims that are null', 'null'],
    ];
    for (const [at, [what, it]] of bad.entries()) {
      await expectRefused(what, by(it), at);
    }
    // Nesting alone is no fault, and no way to stop the process either.
    const deep = `{"sub":"mallory","aud":"here","exp":${now + 3600},"channels":${nested(1000)}}`;
    await (await TestClient.v1(`${gateway.url}/ws?token=${by(deep)}`)).leave();
  },
);

attack(
  {
    does: 'tokens of 60 KB in a header, and in 100 refreshes',
    answer: '431, or `token_refused` and `malformed`; the connection goes on',
  },
  async () => {
    const huge = forge({ alg: 'HS256' }, { ...claims, x: 'x'.repeat(44_000) });
    for (const way of ways) {
      const { path, headers } = way(huge);
      await expect(RawPeer.upgrade(gateway.ports.ws, path, headers)).rejects.toThrow(
        /not upgraded: (HTTP\/1\.1 431|$)/,
      );
    }
    const client = await TestClient.v1(`${gateway.url}/ws?token=${good}`);
    const large = forge({ alg: 'HS256' }, { ...claims, x: 'x'.repeat(11_000) });
    for (let at = 0; at < 50; at += 1) {
      expect(await client.call({ type: 'refresh', token: large })).toMatchObject({ code: 'token_refused' });
      expect(await client.call({ type: 'refresh', token: huge })).toMatchObject({ code: 'malformed' });
    }
    for (const other of [
      token({ sub: 'root', aud: 'here' }),
      token({ sub: 'mallory', aud: 'x' }),
      'none',
      '',
    ])
      expect(await client.call({ type: 'refresh', token: other })).toMatchObject({ type: 'error' });
    expect(await client.call({ type: 'refresh', token: good })).toMatchObject({ type: 'ok' });
    await client.leave();
    expect(JSON.stringify(gateway.log)).not.toContain(good.slice(0, 60));
  },
);
