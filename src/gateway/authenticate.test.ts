import { createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import fc from 'fast-check';
import { CompactEncrypt, exportSPKI, type JWTPayload, SignJWT } from 'jose';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { wildText } from '../../test/arbitraries.ts';
import { startIssuer } from '../../test/issuer.ts';
import {
  type Authenticator,
  anonymous,
  type TokenOptions,
  TokenRefused,
  tokenAuthenticator,
  tokenOf,
} from './authenticate.ts';
import { NO_GRANTS } from './channels.ts';
import { SharedSecrets } from './shared-secrets.ts';

const secret = 'a secret of thirty-two bytes or more';
const reports: unknown[] = [];
const report = (_stage: string, error: unknown) => reports.push(error);
const nowSeconds = () => Math.floor(Date.now() / 1000);
const valid = () => ({ sub: 'ann', exp: nowSeconds() + 60 });

const base64url = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token put together by hand, signed by HMAC with any key. */
function handmade(header: unknown, payload: unknown, key: string | Buffer = secret, hash = 'sha256'): string {
  const signed = `${base64url(header)}.${base64url(payload)}`;
  return `${signed}.${createHmac(hash, key).update(signed).digest('base64url')}`;
}

const sign = (claims: JWTPayload, alg = 'HS256', key = secret) =>
  new SignJWT(claims).setProtectedHeader({ alg }).sign(Buffer.from(key));

const none = {
  jwksUrl: undefined,
  algorithms: undefined,
  audience: undefined,
  issuer: undefined,
};
type Options = Omit<TokenOptions, 'secrets'> & { secret: string };
const create = ({ secret: text, ...options }: Partial<Options>) =>
  tokenAuthenticator(
    { ...none, ...options, secrets: text === undefined ? undefined : new SharedSecrets(text) },
    report,
  );

async function refusalOf(authenticator: Authenticator, token: string): Promise<TokenRefused> {
  try {
    const identity = await authenticator.connect(token, undefined);
    return expect.unreachable(`the token was accepted for ${identity.user}`);
  } catch (error) {
    if (error instanceof TokenRefused) return error;
    throw error;
  }
}

describe('tokenAuthenticator with several shared secrets', () => {
  const [newest, older] = ['the newest secret, long enough for it', 'an older secret, long enough as well'];

  it('takes a token that any of them signs, and no other', async () => {
    const authenticator = await create({ secret: `${newest}\n${older}` });
    for (const key of [newest, older]) {
      expect(await authenticator.connect(await sign(valid(), 'HS256', key), undefined)).toMatchObject({
        user: 'ann',
      });
    }
    const strange = await refusalOf(authenticator, await sign(valid(), 'HS256', `${newest}!`));
    expect(strange).toMatchObject({
      message: 'the token’s signature does not match',
      retryable: false,
    });
  });

  it('says of an old token what is wrong with it, whichever signed it', async () => {
    const authenticator = await create({ secret: `${newest}\n${older}` });
    const token = await sign({ sub: 'ann', exp: nowSeconds() - 60 }, 'HS256', older);
    expect((await refusalOf(authenticator, token)).message).toBe('the token has expired');
  });

  it('checks by the secrets of the moment, a refresh as well', async () => {
    const secrets = new SharedSecrets(older);
    const authenticator = await tokenAuthenticator({ ...none, secrets }, report);
    const [old, young] = await Promise.all([sign(valid(), 'HS256', older), sign(valid(), 'HS256', newest)]);
    expect(await authenticator.refresh(old, 'ann')).toMatchObject({ user: 'ann' });
    await expect(authenticator.refresh(young, 'ann')).rejects.toThrow(TokenRefused);
    secrets.replace(newest);
    expect(await authenticator.refresh(young, 'ann')).toMatchObject({ user: 'ann' });
    await expect(authenticator.refresh(old, 'ann')).rejects.toThrow(TokenRefused);
  });

  it('never asks a key set for a token that claims a secret’s algorithm', async () => {
    const issuer = await startIssuer('ES256');
    const authenticator = await create({ secret: `${newest}\n${older}`, jwksUrl: issuer.url });
    await refusalOf(authenticator, await sign(valid(), 'HS256', 'neither of them, and as long as they'));
    expect(issuer.requests).toBe(0);
    await issuer.close();
  });
});

describe('tokenAuthenticator with a shared secret', () => {
  it('takes a token for whom and what it says, until it expires', async () => {
    const { exp } = valid();
    const token = await sign({
      sub: 'ann',
      exp,
      channels: { subscribe: ['doc:*'], publish: ['doc:1', 7] },
      send: 'all',
    });
    expect(await (await create({ secret })).connect(token, undefined)).toEqual({
      user: 'ann',
      grants: { subscribe: ['doc:*'], publish: ['doc:1'], send: [] },
      expiresAtMs: exp * 1000,
    });
  });

  it('needs a token', async () => {
    const authenticator = await create({ secret });
    await expect(authenticator.connect(undefined, 'ann')).rejects.toThrow('a token is required');
  });

  it('takes a token only for the user of the path', async () => {
    const authenticator = await create({ secret });
    const token = await sign(valid());
    expect(await authenticator.connect(token, 'ann')).toMatchObject({ user: 'ann' });
    for (const user of ['bob', 'Ann', 'ann/', 'annn']) {
      await expect(authenticator.connect(token, user)).rejects.toThrow('another user than the path');
    }
  });

  it('takes a new token only for the same user', async () => {
    const authenticator = await create({ secret });
    expect(await authenticator.refresh(await sign(valid()), 'ann')).toMatchObject({ user: 'ann' });
    await expect(authenticator.refresh(await sign({ ...valid(), sub: 'bob' }), 'ann')).rejects.toThrow(
      'for another user',
    );
    await expect(authenticator.refresh(await sign({ ...valid(), exp: 1 }), 'ann')).rejects.toThrow('expired');
  });

  it.each<[string, string, () => string | Promise<string>]>([
    ['that is not signed', 'algorithm', () => `${base64url({ alg: 'none' })}.${base64url(valid())}.`],
    [
      'that is not signed, in capitals',
      'algorithm',
      () => `${base64url({ alg: 'NoNe' })}.${base64url(valid())}.`,
    ],
    ['that says it is not signed but is', 'algorithm', () => handmade({ alg: 'none' }, valid())],
    ['without an algorithm', 'not a JWT', () => handmade({ typ: 'JWT' }, valid())],
    ['of an algorithm that is no text', 'not a JWT', () => handmade({ alg: ['HS256'] }, valid())],
    ['of an algorithm that is not pinned', 'algorithm', () => sign(valid(), 'HS512')],
    ['of an algorithm for key sets', 'algorithm', () => handmade({ alg: 'RS256' }, valid())],
    [
      'signed by another secret',
      'signature',
      () => sign(valid(), 'HS256', 'another secret of thirty-two bytes'),
    ],
    ['signed by no secret', 'signature', () => handmade({ alg: 'HS256' }, valid(), '')],
    ['whose signature was cut off', 'signature', async () => (await sign(valid())).replace(/[^.]*$/, '')],
    [
      'whose payload was changed',
      'signature',
      async () => (await sign(valid())).replace(/\.[^.]*\./, `.${base64url({ ...valid(), sub: 'root' })}.`),
    ],
    ['for another audience', '"aud"', () => sign({ ...valid(), aud: 'other', iss: 'us' })],
    ['for no audience', '"aud"', () => sign({ ...valid(), iss: 'us' })],
    ['of another issuer', '"iss"', () => sign({ ...valid(), aud: 'tidegate', iss: 'https://us' })],
    ['of no issuer', '"iss"', () => sign({ ...valid(), aud: 'tidegate' })],
    [
      'that has expired',
      'expired',
      () => sign({ ...valid(), aud: 'tidegate', iss: 'us', exp: nowSeconds() - 60 }),
    ],
    [
      'that is not valid yet',
      '"nbf"',
      () => sign({ ...valid(), aud: 'tidegate', iss: 'us', nbf: nowSeconds() + 60 }),
    ],
    ['without a user', '"sub"', () => sign({ exp: valid().exp, aud: 'tidegate', iss: 'us' })],
    ['that never expires', '"exp"', () => sign({ sub: 'ann', aud: 'tidegate', iss: 'us' })],
    [
      'whose expiry is a text',
      '"exp"',
      () => handmade({ alg: 'HS256' }, { ...valid(), aud: 'tidegate', iss: 'us', exp: '9999999999' }),
    ],
    [
      'whose expiry is beyond all numbers',
      '"exp"',
      () => handmade({ alg: 'HS256' }, '{"sub":"ann","aud":"tidegate","iss":"us","exp":1e999}'),
    ],
    [
      'whose user is no valid name',
      '"sub"',
      () => sign({ ...valid(), aud: 'tidegate', iss: 'us', sub: 'ann lee' }),
    ],
    [
      'whose user breaks lines',
      '"sub"',
      () => sign({ ...valid(), aud: 'tidegate', iss: 'us', sub: 'ann\n' }),
    ],
    ['whose user is empty', '"sub"', () => sign({ ...valid(), aud: 'tidegate', iss: 'us', sub: '' })],
    [
      'whose user is too long',
      '"sub"',
      () => sign({ ...valid(), aud: 'tidegate', iss: 'us', sub: 'x'.repeat(129) }),
    ],
    [
      'whose user is no text',
      '"sub"',
      () => handmade({ alg: 'HS256' }, { ...valid(), aud: 'tidegate', iss: 'us', sub: 7 }),
    ],
    ['whose claims are a list', 'not a JWT', () => handmade({ alg: 'HS256' }, [valid()])],
    ['whose claims are no JSON', 'not a JWT', () => handmade({ alg: 'HS256' }, '{"sub":')],
    [
      'with an extension that must be understood',
      'not supported',
      () => handmade({ alg: 'HS256', crit: ['x'], x: 1 }, valid()),
    ],
    [
      'that is encrypted',
      'not a JWT',
      () =>
        new CompactEncrypt(Buffer.from('{}'))
          .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
          .encrypt(Buffer.alloc(32)),
    ],
    ['that is empty', 'not a JWT', () => ''],
    ['that is three dots', 'not a JWT', () => '...'],
    ['that is huge and nothing else', 'not a JWT', () => 'x'.repeat(1_000_000)],
    [
      'that is huge and signed by nobody',
      'signature',
      () => `${base64url({ alg: 'HS256' })}.${base64url({ x: 'x'.repeat(1_000_000) })}.AAAA`,
    ],
  ])('refuses a token %s, and says no more than that', async (_what, said, make) => {
    const authenticator = await create({ secret, audience: 'tidegate', issuer: 'us' });
    expect(
      await authenticator.connect(await sign({ ...valid(), aud: ['x', 'tidegate'], iss: 'us' }), 'ann'),
    ).toMatchObject({ user: 'ann' });
    const token = await make();
    const refusal = await refusalOf(authenticator, token);
    expect(refusal.message).toContain(said);
    expect(refusal.retryable).toBe(false);
    expect(Buffer.byteLength(refusal.message)).toBeLessThanOrEqual(123);
    if (token.length > 3) expect(refusal.message).not.toContain(token.slice(0, 20));
    await expect(authenticator.refresh(token, 'ann')).rejects.toThrow(refusal.message);
    expect(reports).toEqual([]);
  });

  it('refuses whatever is no token, and never blames itself', async () => {
    const authenticator = await create({ secret });
    const good = await sign(valid());
    const header = fc.oneof(
      fc.json(),
      fc.dictionary(
        fc.constantFrom('alg', 'kid', 'crit', 'b64', 'typ', 'jwk', 'zip', 'enc', '__proto__'),
        fc.oneof(fc.jsonValue(), fc.constantFrom('HS256', 'none')),
      ),
    );
    const token = fc.oneof(
      wildText,
      fc
        .tuple(header, fc.oneof(fc.json(), wildText))
        .map(([head, payload]) => handmade(head, payload, 'not the secret')),
      fc
        .tuple(fc.nat(good.length - 1), fc.constantFrom('', '.', 'A', '=', '-', 'é'))
        .map(([at, text]) => good.slice(0, at) + text + good.slice(at + 1)),
    );
    await fc.assert(
      fc.asyncProperty(token, async (text) => {
        // The last character of a signature has bits that say nothing.
        if (text.length === good.length && text.slice(0, -1) === good.slice(0, -1)) return;
        expect((await refusalOf(authenticator, text)).retryable).toBe(false);
      }),
      { numRuns: 500 },
    );
    expect(reports).toEqual([]);
  });

  it('takes the algorithms that are pinned, and only those', async () => {
    const authenticator = await create({ secret, algorithms: ['HS512', 'HS384', 'RS256'] });
    for (const alg of ['HS384', 'HS512'])
      expect(await authenticator.connect(await sign(valid(), alg), undefined)).toMatchObject({ user: 'ann' });
    expect((await refusalOf(authenticator, await sign(valid()))).message).toContain('algorithm');
  });

  it('refuses to start where no algorithm that is pinned fits the key', async () => {
    await expect(create({ secret, algorithms: ['RS256'] })).rejects.toThrow(/^JWT_ALGORITHMS /);
    await expect(create({ jwksUrl: 'http://127.0.0.1/keys', algorithms: ['HS256'] })).rejects.toThrow(
      /^JWT_ALGORITHMS /,
    );
  });

  it('forgives clocks that differ by a few seconds, and no more', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    onTestFinished(() => void vi.useRealTimers());
    const authenticator = await create({ secret });
    expect(
      await authenticator.connect(await sign({ sub: 'ann', exp: nowSeconds() - 1 }), undefined),
    ).toMatchObject({ user: 'ann' });
    expect(
      await authenticator.connect(await sign({ ...valid(), nbf: nowSeconds() + 2 }), undefined),
    ).toMatchObject({ user: 'ann' });
    expect(
      (await refusalOf(authenticator, await sign({ sub: 'ann', exp: nowSeconds() - 30 }))).message,
    ).toContain('expired');
  });
});

describe('tokenAuthenticator with a key set', async () => {
  const issuer = await startIssuer('RS256');
  afterAll(() => issuer.close());
  const rsa = issuer.key;
  const pem = await exportSPKI(rsa.publicKey);
  const der = Buffer.from(await crypto.subtle.exportKey('spki', rsa.publicKey));
  const keySetOnly = await create({ jwksUrl: issuer.url });
  const both = await create({ jwksUrl: issuer.url, secret });

  it('takes tokens signed by its keys, of several kinds', async () => {
    expect(await keySetOnly.connect(await issuer.sign({ sub: 'ann' }), undefined)).toMatchObject({
      user: 'ann',
      grants: NO_GRANTS,
    });
    for (const alg of ['ES256', 'EdDSA', 'PS256']) {
      const key = await issuer.rotate({ alg, keepOld: true });
      expect(
        await (await create({ jwksUrl: issuer.url })).connect(
          await issuer.sign({ sub: alg }, { key }),
          undefined,
        ),
      ).toMatchObject({ user: alg });
    }
  });

  it('never takes a public key for a shared secret', async () => {
    for (const key of [pem, pem.trim(), `${pem.trim()}\n`, der, JSON.stringify(rsa.jwk), rsa.jwk.n ?? '']) {
      for (const alg of ['HS256', 'HS384', 'HS512']) {
        const token = handmade({ alg, kid: rsa.jwk.kid }, valid(), key, `sha${alg.slice(2)}`);
        expect((await refusalOf(keySetOnly, token)).message).toContain('algorithm');
        expect((await refusalOf(both, token)).message).toMatch(/algorithm|signature/);
      }
    }
  });

  it('takes either kind where it has both, each only by its own key', async () => {
    expect(await both.connect(await sign(valid()), undefined)).toMatchObject({ user: 'ann' });
    expect(await both.connect(await issuer.sign({ sub: 'bob' }), undefined)).toMatchObject({ user: 'bob' });
    expect((await refusalOf(both, handmade({ alg: 'RS256', kid: rsa.jwk.kid }, valid()))).message).toContain(
      'signature',
    );
  });

  it('looks at no key and no address that a token brings with it', async () => {
    const evil = await startIssuer('RS256');
    const header = { jwk: evil.key.jwk, jku: evil.url, x5u: evil.url, kid: rsa.jwk.kid };
    const token = await evil.sign({ sub: 'ann' }, { header });
    expect((await refusalOf(keySetOnly, token)).message).toContain('signature');
    expect(evil.requests).toBe(0);
    await evil.close();
  });

  it('refuses a token whose key it does not know, or that does not say which one it is', async () => {
    const key = await issuer.rotate({ alg: 'RS256', keepOld: true });
    expect(
      (await refusalOf(keySetOnly, await issuer.sign({ sub: 'ann' }, { key, header: { kid: 'unknown' } })))
        .message,
    ).toContain('key is not known');
    const nameless = await issuer.sign({ sub: 'ann' }, { key, header: { kid: undefined } });
    expect((await refusalOf(keySetOnly, nameless)).message).toContain('which key');
  });

  it('lets a client try again while the keys cannot be fetched, and reports that once for each try to fetch them', async () => {
    const lost = await startIssuer('ES256');
    const token = await lost.sign({ sub: 'ann' });
    const authenticator = await create({ jwksUrl: lost.url });
    await lost.close();
    for (let at = 0; at < 20; at += 1) expect((await refusalOf(authenticator, token)).retryable).toBe(true);
    expect(reports.length).toBeGreaterThan(0);
    expect(reports.length).toBeLessThanOrEqual(6);
    // What is no token needs no key to be refused.
    expect((await refusalOf(authenticator, 'x.y.z')).retryable).toBe(false);
    reports.length = 0;
  });

  it('reports a key that cannot be used, and lets the client try again', async () => {
    const weak = await startIssuer('RS256');
    const token = await weak.sign({ sub: 'ann' });
    weak.key.jwk.n = 'AQAB';
    const authenticator = await create({ jwksUrl: weak.url });
    expect((await refusalOf(authenticator, token)).retryable).toBe(true);
    expect(reports).toHaveLength(1);
    reports.length = 0;
    await weak.close();
  });
});

describe('anonymous', () => {
  it('lets everybody in under the name of the path, or as a guest', () => {
    expect(anonymous.connect(undefined, 'ann')).toEqual({
      user: 'ann',
      grants: NO_GRANTS,
      expiresAtMs: undefined,
    });
    expect(anonymous.connect('a.b.c', undefined)).toMatchObject({
      user: expect.stringMatching(/^guest-[\w-]{8}$/),
    });
  });

  it('takes no new tokens', async () => {
    await expect(anonymous.refresh('a.b.c', 'ann')).rejects.toThrow(TokenRefused);
  });
});

describe('tokenOf', () => {
  const found = (headers: IncomingMessage['headers'], query = '', cookie?: string) =>
    tokenOf({ headers } as IncomingMessage, new URLSearchParams(query), cookie);
  const all = {
    authorization: 'Bearer from-header',
    'sec-websocket-protocol': 'tidegate.v1, bearer.from-protocol',
    cookie: 'other=1; tidegate_token=from-cookie; x=y',
  };

  it('looks into the header, the subprotocols, the cookie and the query, in this order', () => {
    const { authorization: _, ...noHeader } = all;
    expect(found(all, 'token=from-query', 'tidegate_token')).toBe('from-header');
    expect(found(noHeader, 'token=from-query', 'tidegate_token')).toBe('from-protocol');
    expect(found({ cookie: all.cookie }, 'token=from-query', 'tidegate_token')).toBe('from-cookie');
    expect(found({ cookie: all.cookie }, 'token=from-query')).toBe('from-query');
    expect(found({})).toBeUndefined();
  });

  it('reads no cookie unless it is told which', () => {
    expect(found({ cookie: all.cookie })).toBeUndefined();
    expect(found({ cookie: all.cookie }, '', 'token')).toBeUndefined();
    expect(
      found({ cookie: 'xtidegate_token=a; tidegate_tokenx=b; tidegate_token' }, '', 'tidegate_token'),
    ).toBeUndefined();
  });

  it('takes no other scheme for a token', () => {
    for (const authorization of ['Basic abc', 'Bearer', 'Bearer ', 'Bearer a b', 'xBearer a', 'Bearer\ta']) {
      expect(found({ authorization }), authorization).toBeUndefined();
    }
    expect(found({ authorization: 'bearer  abc' })).toBe('abc');
    expect(found({ 'sec-websocket-protocol': 'tidegate.v1, xbearer.abc, Bearer.abc' })).toBeUndefined();
  });
});
