// How a running gateway treats tokens. What each check of a token refuses is in authenticate.test.ts.

import { type JWTPayload, SignJWT } from 'jose';
import { afterAll, describe, expect, it } from 'vitest';
import { startGateway, type TestGateway } from '../../test/gateway.ts';
import { type Issuer, startIssuer } from '../../test/issuer.ts';
import { exchange, upgradeRequest } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';

const secret = 'a secret of thirty-two bytes or more';
const origin = 'https://app.example.com';
const channels = `{namespaces: {doc: {subscribe: claim, publish: claim}, room: {subscribe: anyone, publish: anyone}}}`;

const issuer = await startIssuer('ES256');
const [gateway, withOrigins, withKeySet] = await Promise.all([
  startGateway({ AUTH: '', JWT_SECRET: secret, CHANNELS: channels, LOG_LEVEL: 'trace' }),
  startGateway({ AUTH: 'jwt', JWT_SECRET: 'short', ALLOWED_ORIGINS: origin, LOG_LEVEL: 'trace' }),
  startGateway({ AUTH: '', JWKS_URL: issuer.url, LOG_LEVEL: 'trace' }),
]);
afterAll(async () => {
  await Promise.all([...[gateway, withOrigins, withKeySet].map((it) => it.stop()), issuer.close()]);
});

/** Every token that a gateway was shown. */
const tokens: string[] = [];
const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;

async function sign(claims: Record<string, unknown> = {}, key = secret): Promise<string> {
  const token = await new SignJWT({ sub: 'ann', exp: inSeconds(3600), ...claims } as JWTPayload)
    .setProtectedHeader({ alg: 'HS256' })
    .sign(Buffer.from(key));
  tokens.push(token);
  return token;
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

/** How a connection that is refused after its upgrade ends. */
async function closeOf(url: string, options?: Parameters<typeof TestClient.open>[1]) {
  const client = await TestClient.open(url, options);
  const ended = await client.close();
  expect(client.inbox).toEqual([]);
  return ended;
}

describe('a token', () => {
  it.each<[string, (token: string) => [path: string, options: Parameters<typeof TestClient.open>[1]]]>([
    ['the Authorization header', (token) => ['/ws', bearer(token)]],
    ['a subprotocol entry', (token) => ['/ws', { protocols: [`bearer.${token}`] }]],
    ['the query', (token) => [`/ws?token=${token}`, {}]],
    ['the query, with a user in the path', (token) => [`/ws/ann?token=${token}`, {}]],
  ])('is taken from %s', async (_where, place) => {
    const [path, options] = place(await sign());
    const client = await TestClient.open(gateway.url + path, {
      ...options,
      protocols: ['tidegate.v1', ...(options?.protocols ?? [])],
    });
    expect(client.ws.protocol).toBe('tidegate.v1');
    const welcome = await client.json();
    expect(welcome).toMatchObject({ type: 'welcome', user: 'ann' });
    expect(welcome.tokenExpiresInMs).toBeGreaterThan(3_500_000);
    expect(welcome.tokenExpiresInMs).toBeLessThanOrEqual(3_600_000);
    await client.leave();
  });

  it('is never echoed, also where it is all that was offered', async () => {
    const token = await sign();
    for (const protocols of [`bearer.${token}`, `bearer.${token}, other`, `tidegate.v1, bearer.${token}`]) {
      const request = upgradeRequest('/ws', { 'Sec-WebSocket-Protocol': protocols });
      const response = await exchange(
        gateway.ports.ws,
        Buffer.concat([Buffer.from(request), Buffer.from([0x88, 0x80, 0, 0, 0, 0])]),
      );
      expect(response).toMatch(/^HTTP\/1\.1 101 /);
      expect(response).not.toContain('bearer');
    }
  });

  it('is taken from a cookie only where the origins are listed and one of them sends it', async () => {
    const cookie = `theme=dark; tidegate_token=${await sign({}, 'short')}`;
    const fromPage = await TestClient.open(`${withOrigins.url}/ws/ann`, { headers: { cookie, origin } });
    await fromPage.leave();
    expect(await closeOf(`${withOrigins.url}/ws`, { headers: { cookie } })).toMatchObject({ code: 1008 });
    await expect(
      closeOf(`${withOrigins.url}/ws`, { headers: { cookie, origin: 'https://evil.example' } }),
    ).rejects.toMatchObject({ status: 403 });
    await expect(
      closeOf(`${withOrigins.url}/ws`, { headers: { cookie, origin: 'null' } }),
    ).rejects.toMatchObject({ status: 403 });
    const unlisted = `tidegate_token=${await sign()}`;
    expect(await closeOf(`${gateway.url}/ws`, { headers: { cookie: unlisted, origin } })).toMatchObject({
      code: 1008,
    });
  });

  it.each<[string, () => string | undefined | Promise<string>]>([
    ['a token is required', () => undefined],
    ['the token is not a JWT', () => 'not.a.token'],
    ['the token’s signature does not match', () => sign({}, 'not the secret of this gateway, but another')],
    ['the token has expired', () => sign({ exp: inSeconds(-60) })],
    ['the token’s "exp" is not accepted', () => sign({ exp: undefined })],
    ['the token’s "sub" is not a valid user name', () => sign({ sub: 'ann lee' })],
    ['the token is for another user than the path', () => sign({ sub: 'bob' })],
  ])('that is refused closes with 1008 after the upgrade, and says: %s', async (reason, make) => {
    const token = await make();
    const options = token === undefined ? {} : bearer(token);
    const before = await gateway.metric('tidegate_refusals_total', { reason: 'token' });
    expect(await closeOf(`${gateway.url}/ws/ann`, options)).toEqual({ code: 1008, reason });
    expect(await closeOf(`${gateway.url}/ws/ann`, { ...options, protocols: ['tidegate.v1'] })).toEqual({
      code: 1008,
      reason,
    });
    expect(await gateway.metric('tidegate_refusals_total', { reason: 'token' })).toBe(before + 2);
    await until(async () => (await gateway.metric('tidegate_connections')) === 0, {
      what: 'nobody to be in',
    });
  });

  it('that is longer than headers may be is refused before the upgrade', async () => {
    const token = await sign({ padding: 'x'.repeat(20_000) });
    await expect(closeOf(`${gateway.url}/ws`, bearer(token))).rejects.toMatchObject({ status: 431 });
    const large = await sign({ padding: 'x'.repeat(5000) });
    const client = await TestClient.v1(`${gateway.url}/ws`, bearer(large));
    await client.leave();
  });

  it('must fit the user of the path, however that is written', async () => {
    const token = await sign({ sub: 'ann@example.com' });
    for (const path of ['/ws/ann@example.com', '/ws/ann%40example.com', '/ws/%61nn@example.com']) {
      await (await TestClient.v1(gateway.url + path, bearer(token))).leave();
    }
    for (const path of ['/ws/ann', '/ws/ANN@example.com', '/ws/ann@example.com/']) {
      expect(await closeOf(gateway.url + path, bearer(token))).toMatchObject({ code: 1008 });
    }
  });

  it('that expires closes with 4402, unless a new one came in time', async () => {
    const [idle, refreshed, plain] = await Promise.all([
      TestClient.v1(`${gateway.url}/ws`, bearer(await sign({ exp: inSeconds(5) }))),
      TestClient.v1(`${gateway.url}/ws`, bearer(await sign({ exp: inSeconds(5) }))),
      TestClient.open(`${gateway.url}/ws`, bearer(await sign({ exp: inSeconds(5) }))),
    ]);
    const answer = await refreshed.call({ type: 'refresh', token: await sign({ exp: inSeconds(600) }) });
    expect(answer).toMatchObject({ type: 'ok' });
    expect(answer.tokenExpiresInMs).toBeGreaterThan(500_000);
    expect(await idle.close()).toEqual({ code: 4402, reason: 'token expired' });
    expect(await plain.close()).toEqual({ code: 4402, reason: 'token expired' });
    expect(await refreshed.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
    // A shorter one counts too.
    expect(await refreshed.call({ type: 'refresh', token: await sign({ exp: inSeconds(1) }) })).toMatchObject(
      { type: 'ok' },
    );
    expect(await refreshed.close()).toMatchObject({ code: 4402 });
  });
});

describe('a new token', () => {
  it('is refused where it is another user’s or no good, and the connection stays as it was', async () => {
    const client = await TestClient.v1(
      `${gateway.url}/ws`,
      bearer(await sign({ channels: { subscribe: ['doc:1'] } })),
    );
    for (const token of [
      await sign({ sub: 'bob' }),
      await sign({}, 'not the secret'),
      await sign({ exp: inSeconds(-60) }),
      'x',
      'x'.repeat(16_384),
    ]) {
      expect(await client.call({ type: 'refresh', token })).toMatchObject({
        type: 'error',
        code: 'token_refused',
        retryable: false,
      });
    }
    expect(await client.call({ type: 'refresh', token: 'x'.repeat(16_385) })).toMatchObject({
      type: 'error',
      code: 'malformed',
    });
    expect(await client.call({ type: 'subscribe', channel: 'doc:1' })).toMatchObject({ type: 'ok' });
    await client.leave();
  });

  it('that lost a grant makes the connection leave the channel, and says so', async () => {
    const all = { channels: { subscribe: ['doc:*'], publish: ['doc:*'] } };
    const ann = await TestClient.v1(`${gateway.url}/ws`, bearer(await sign(all)));
    const bob = await TestClient.v1(`${gateway.url}/ws`, bearer(await sign({ ...all, sub: 'bob' })));
    for (const channel of ['doc:1', 'doc:2', 'room:1'])
      expect(await ann.call({ type: 'subscribe', channel })).toMatchObject({ type: 'ok' });

    const answer = await ann.call({
      type: 'refresh',
      token: await sign({ channels: { subscribe: ['doc:2'] } }),
    });
    expect(answer).toMatchObject({ type: 'ok', left: ['doc:1'] });

    for (const channel of ['doc:1', 'doc:2'])
      expect(await bob.call({ type: 'publish', channel, data: channel })).toMatchObject({ type: 'ok' });
    expect(await ann.json((it) => it.type === 'message')).toMatchObject({ channel: 'doc:2' });
    expect(ann.inbox).toEqual([]);
    expect(await ann.call({ type: 'unsubscribe', channel: 'doc:1' })).toMatchObject({
      code: 'not_subscribed',
    });
    expect(await ann.call({ type: 'subscribe', channel: 'doc:1' })).toMatchObject({ code: 'forbidden' });
    expect(await ann.call({ type: 'publish', channel: 'doc:2', data: 1 })).toMatchObject({
      code: 'forbidden',
    });
    // And what it gained, it may.
    expect(await ann.call({ type: 'refresh', token: await sign(all) })).not.toHaveProperty('left');
    expect(await ann.call({ type: 'subscribe', channel: 'doc:1' })).toMatchObject({ type: 'ok' });
    await Promise.all([ann.leave(), bob.leave()]);
  });

  it('is refused where there are no tokens', async () => {
    const open = await startGateway();
    const client = await TestClient.v1(`${open.url}/ws/ann`);
    expect(await client.call({ type: 'refresh', token: await sign() })).toMatchObject({
      code: 'token_refused',
    });
    await open.stop();
  });
});

describe('a key set', () => {
  const connect = (token: string) => TestClient.v1(`${withKeySet.url}/ws`, bearer(token));
  const make = async (by: Issuer = issuer, options?: Parameters<Issuer['sign']>[1]) => {
    const token = await by.sign({ sub: 'ann' }, options);
    tokens.push(token);
    return token;
  };

  it('may rotate its keys while the gateway runs', async () => {
    await (await connect(await make())).leave();
    const old = issuer.key;
    await issuer.rotate({ keepOld: true });
    await (await connect(await make())).leave();
    await (await connect(await make(issuer, { key: old }))).leave();
  });

  it('that is away refuses no token for good: known keys go on working, others close with 1013', async () => {
    const known = await make();
    await (await connect(known)).leave();
    issuer.behaviour = 'status 500';
    await (await connect(known)).leave();
    const key = await issuer.rotate();
    const unknown = await make(issuer, { key });
    expect(await closeOf(`${withKeySet.url}/ws`, bearer(unknown))).toEqual({
      code: 1013,
      reason: 'the keys cannot be fetched now',
    });
    expect(await withKeySet.metric('tidegate_refusals_total', { reason: 'keys_unavailable' })).toBe(1);
    const client = await connect(known);
    expect(await client.call({ type: 'refresh', token: unknown })).toMatchObject({
      type: 'error',
      retryable: true,
    });
    await client.leave();
    issuer.behaviour = 'well';
  });

  it('is not asked again and again because of a flood of unknown keys', async () => {
    const before = issuer.requests;
    const forged = await Promise.all(
      Array.from({ length: 40 }, (_, at) => make(issuer, { header: { kid: `made-up-${at}` } })),
    );
    const codes = await Promise.all(
      forged.map(async (token) => (await closeOf(`${withKeySet.url}/ws`, bearer(token))).code),
    );
    expect(new Set(codes)).toEqual(new Set([1008]));
    expect(issuer.requests - before).toBeLessThanOrEqual(6);
    await until(async () => (await withKeySet.metric('tidegate_connections')) === 0, {
      what: 'nobody to be in',
    });
  });
});

describe('the log', () => {
  it('warns of a secret that is short, without showing it', async () => {
    const warning = (of: TestGateway) =>
      of.log.find(({ msg }) => msg?.startsWith('JWT_SECRET is shorter than 32 bytes'));
    expect(warning(withOrigins)).toMatchObject({ level: 40 });
    expect(warning(gateway)).toBeUndefined();
  });

  it('never holds a token or a secret', async () => {
    const all = [gateway, withOrigins, withKeySet];
    await Promise.all(all.map((it) => it.stop()));
    await until(() => all.every((it) => it.output().includes('"stopped"')), { what: 'the whole log' });
    const output = all.map((it) => it.output()).join('');
    expect(tokens.length).toBeGreaterThan(50);
    for (const token of tokens) {
      const [, payload = '', signature = ''] = token.split('.');
      expect(output).not.toContain(payload.slice(0, 40));
      expect(output).not.toContain(signature.slice(0, 20));
    }
    expect(output).not.toContain(secret);
    expect(output).not.toContain('bearer');
  });
});
