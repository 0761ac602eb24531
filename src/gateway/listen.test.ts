import { afterAll, expect, test } from 'vitest';
import { startGateway } from '../../test/gateway.ts';
import { type LocalGateway, startLocalGateway } from '../../test/local-gateway.ts';
import { exchange, RawPeer, upgradeRequest } from '../../test/raw.ts';
import { token, tokenSecret } from '../../test/tokens.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';

const gateways: LocalGateway[] = [];
async function start(env: Record<string, string> = {}): Promise<LocalGateway> {
  const gateway = await startLocalGateway(env);
  gateways.push(gateway);
  return gateway;
}

// A process of its own, because what is asked here is whether it survives.
const [gateway, tough] = await Promise.all([start(), startGateway()]);

afterAll(async () => {
  await Promise.all([...gateways.map((it) => it.stop()), tough.stop()]);
});

/** The status with which an upgrade is refused, and its headers. */
async function refusal(
  url: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Record<string, string> }> {
  try {
    await (await TestClient.open(url, { headers })).leave();
  } catch (error) {
    if (error instanceof Error && 'status' in error)
      return error as unknown as Awaited<ReturnType<typeof refusal>>;
    throw error;
  }
  throw new Error('the upgrade was not refused');
}

function statusOf(response: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(response)?.[1] ?? 0);
}

test('serves both protocols at /ws and at /ws/{user}', async () => {
  for (const path of ['/ws', '/ws/', '/ws/ann', '/ws/ann?room=1', '/ws?x']) {
    const plain = await TestClient.open(gateway.url + path);
    expect(plain.ws.protocol).toBe('');
    await plain.leave();
    const v1 = await TestClient.open(gateway.url + path, { protocols: ['tidegate.v1'] });
    expect(v1.ws.protocol).toBe('tidegate.v1');
    const { user } = await v1.json((it) => it.type === 'welcome');
    expect(user).toMatch(path.startsWith('/ws/ann') ? /^ann$/ : /^guest-/);
    await v1.leave();
  }
});

test('names a user by the decoded path, slashes included', async () => {
  for (const [path, user] of [
    ['/ws/a%2Fb', 'a/b'],
    ['/ws/team/ann', 'team/ann'],
    ['/ws/%61nn', 'ann'],
    ['/ws//', '/'],
    ['/ws/ann%40example.com', 'ann@example.com'],
  ]) {
    const client = await TestClient.open(`${gateway.url}${path}`, { protocols: ['tidegate.v1'] });
    expect(await client.json()).toMatchObject({ type: 'welcome', user });
    await client.leave();
  }
});

test('speaks plain to who offers tidegate.plain, and never echoes an entry that holds a token', async () => {
  const plain = await TestClient.open(`${gateway.url}/ws`, { protocols: ['tidegate.plain', 'bearer.abc'] });
  expect(plain.ws.protocol).toBe('tidegate.plain');
  const v1 = await TestClient.open(`${gateway.url}/ws`, { protocols: ['bearer.abc', 'tidegate.v1'] });
  expect(v1.ws.protocol).toBe('tidegate.v1');
  const response = await RawPeer.upgrade(gateway.ports.ws, '/ws', {
    'Sec-WebSocket-Protocol': 'bearer.secret',
  });
  expect(response.received.toString('latin1')).not.toContain('secret');
  response.socket.destroy();
  await Promise.all([plain.leave(), v1.leave()]);
});

test('answers other paths with 404, for upgrades and for pages', async () => {
  for (const path of ['/', '/wsx', '/WS', '/ws2/ann', '/admin', '/metrics', '/ws%2Fann']) {
    expect((await refusal(gateway.url + path)).status).toBe(404);
    expect((await fetch(`http://127.0.0.1:${gateway.ports.ws}${path}`)).status).toBe(404);
  }
});

test('answers a plain GET of /ws with 426 and what to upgrade to', async () => {
  for (const path of ['/ws', '/ws/ann', '/ws?x=1']) {
    const response = await fetch(`http://127.0.0.1:${gateway.ports.ws}${path}`);
    expect(response.status).toBe(426);
    expect(response.headers.get('upgrade')).toBe('websocket');
  }
});

test('answers a client that would rather upgrade to HTTP/2 as if it had not asked', async () => {
  const response = await exchange(
    gateway.ports.ws,
    'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n',
  );
  expect(statusOf(response)).toBe(426);
});

test('refuses a name that no user can have with 400', async () => {
  for (const path of ['/ws/%zz', '/ws/%', '/ws/a%20b', '/ws/a%00b', '/ws/%F0%9F', `/ws/${'x'.repeat(129)}`]) {
    expect(statusOf(await exchange(gateway.ports.ws, upgradeRequest(path)))).toBe(400);
  }
});

test('survives whatever stands where the path should be', async () => {
  const { ports } = tough;
  const targets = [
    '//',
    '///',
    '//ws',
    '/\\',
    '/ws/%zz',
    '/ws/a%2Fb',
    '/ws/..%2f..%2fetc',
    '/%',
    '/?',
    '?',
    '*',
    'http://',
    'http://[',
    'http://a:b:c/ws',
    'http:///ws',
    'ws',
    '/ws?token=%zz&%=%&&&',
    '/ws/%01',
    `/ws/${'%2e'.repeat(1000)}`,
  ];
  const requests = targets.flatMap((target) => [
    `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
    `HEAD ${target} HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n`,
    `POST ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc`,
  ]);
  await Promise.all(
    requests.map(async (request) => {
      expect(statusOf(await exchange(ports.ws, request)), request).toBeGreaterThanOrEqual(400);
    }),
  );
  await Promise.all(
    targets.map(async (target) => {
      const peer = await RawPeer.connect(ports.ws);
      peer.socket.write(upgradeRequest(target));
      await until(() => peer.received.length > 0 || peer.ended, { what: `an answer to ${target}` });
      peer.socket.destroy();
    }),
  );
  expect((await fetch(`${tough.adminUrl}/livez`)).status).toBe(200);
  expect(tough.process.exitCode).toBeNull();
});

test('takes an absolute URL as target, as the standard asks of servers', async () => {
  const { ports } = tough;
  const peer = await RawPeer.connect(ports.ws);
  peer.socket.write(
    upgradeRequest('http://gateway.example:8080/ws/ann?x=1', { 'Sec-WebSocket-Protocol': 'tidegate.v1' }),
  );
  await until(() => peer.received.includes('"welcome"'), { what: 'a welcome' });
  expect(peer.received.toString()).toContain('"user":"ann"');
  peer.socket.destroy();
  const get = 'GET http://gateway.example/ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
  expect(statusOf(await exchange(ports.ws, get))).toBe(426);
});

test('answers a URL or headers that are far too long with 431, and garbage with 400', async () => {
  const { ports } = tough;
  // The rest of what was sent is never read, so a reset may come before the answer has been read.
  const long = [
    upgradeRequest(`/ws/${'x'.repeat(100_000)}`),
    upgradeRequest('/ws', { Cookie: 'y'.repeat(100_000) }),
  ];
  for (const request of long) expect(statusOf(await exchange(ports.ws, request))).toBeOneOf([431, 0]);
  const garbage = [
    '\0\0\0\0\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc',
    'GET\r\n\r\n',
    'GET /ws HTTP/9.9\r\n\r\n',
  ];
  for (const request of garbage) expect(statusOf(await exchange(ports.ws, request))).toBe(400);
  expect(await tough.metric('tidegate_refusals_total', { reason: 'bad_request' })).toBeGreaterThanOrEqual(4);
});

test('refuses handshakes that are none', async () => {
  const { ports } = tough;
  const broken = [
    upgradeRequest('/ws', { 'Sec-WebSocket-Key': 'short' }),
    upgradeRequest('/ws', { 'Sec-WebSocket-Version': '7' }),
    upgradeRequest('/ws', { 'Sec-WebSocket-Protocol': ', ,' }),
    upgradeRequest('/ws').replace('GET', 'POST'),
  ];
  for (const request of broken) expect(statusOf(await exchange(ports.ws, request))).toBeOneOf([400, 405]);
  expect(await tough.metric('tidegate_connections')).toBe(0);
});

test('ends a socket that sends nothing, half a header, or a header byte by byte', async () => {
  const hasty = await start({ HANDSHAKE_TIMEOUT_SECONDS: '1' });
  const { ports } = hasty;
  const silent = await RawPeer.connect(ports.ws);
  const half = await RawPeer.connect(ports.ws);
  half.socket.write('GET /ws HTTP/1.1\r\nHost: x\r\nUpgra');
  const slow = await RawPeer.connect(ports.ws);
  const drip = setInterval(() => slow.socket.writable && slow.socket.write('x'), 50);
  slow.socket.write('GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ');
  const body = await RawPeer.connect(ports.ws);
  body.socket.write('POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc');
  for (const peer of [silent, half, slow]) expect(statusOf(await peer.end())).toBe(408);
  await body.end();
  clearInterval(drip);
  expect(
    await hasty.metric('tidegate_refusals_total', { reason: 'handshake_timeout' }),
  ).toBeGreaterThanOrEqual(3);
});

test('lets in the listed origins and who sends none, and answers others with 403', async () => {
  const { url } = await start({ ALLOWED_ORIGINS: 'https://app.example.com, https://two.example.com' });
  for (const headers of [{ Origin: 'https://two.example.com' }, {}] as Record<string, string>[]) {
    await (await TestClient.open(`${url}/ws`, { headers })).leave();
  }
  for (const origin of [
    'https://evil.example.com',
    'http://app.example.com',
    'https://app.example.com:444',
    'https://app.example.com.evil.com',
    'null',
  ]) {
    expect((await refusal(`${url}/ws`, { Origin: origin })).status).toBe(403);
  }
});

test('answers 503 with Retry-After before the upgrade when it is full, and lets in again when there is room', async () => {
  const full = await start({ MAX_CONNECTIONS: '3' });
  const clients = await Promise.all([1, 2, 3].map((n) => TestClient.open(`${full.url}/ws/user${n}`)));
  const refused = await refusal(`${full.url}/ws`);
  expect(refused.status).toBe(503);
  expect(Number(refused.headers['retry-after'])).toBeGreaterThanOrEqual(1);
  expect(await full.metric('tidegate_refusals_total', { reason: 'capacity' })).toBe(1);
  await clients[0]?.leave();
  await until(async () => (await full.metric('tidegate_connections')) === 2, { what: 'room' });
  await (await TestClient.open(`${full.url}/ws`)).leave();
});

test('never goes over its capacity when many come at once', async () => {
  const full = await start({ MAX_CONNECTIONS: '10', AUTH: 'jwt', JWT_SECRET: tokenSecret });
  const url = `${full.url}/ws?token=${token({ sub: 'ann' })}`;
  const results = await Promise.allSettled(Array.from({ length: 60 }, () => TestClient.open(url)));
  const open = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  expect(open.length).toBeGreaterThan(0);
  expect(open.length).toBeLessThanOrEqual(10);
  expect(await full.metric('tidegate_connections')).toBe(open.length);
});

test('counts those it refuses by a close code until they are gone', async () => {
  const full = await start({ MAX_CONNECTIONS: '2', AUTH: 'jwt', JWT_SECRET: tokenSecret });
  // They do not answer the close, so they stay.
  const peers = await Promise.all([1, 2].map(() => RawPeer.upgrade(full.ports.ws, '/ws')));
  expect((await refusal(`${full.url}/ws?token=${token({ sub: 'ann' })}`)).status).toBe(503);
  for (const peer of peers) peer.socket.destroy();
  await until(() => TestClient.open(`${full.url}/ws?token=${token({ sub: 'ann' })}`), { what: 'room' });
});

test('closes a connection over the cap of its user with 4406, and nobody else', async () => {
  const capped = await start({ MAX_CONNECTIONS_PER_USER: '2' });
  const anns = [await TestClient.open(`${capped.url}/ws/ann`), await TestClient.open(`${capped.url}/ws/ann`)];
  const third = await TestClient.open(`${capped.url}/ws/ann`);
  expect(await third.close()).toMatchObject({ code: 4406 });
  const bob = await TestClient.open(`${capped.url}/ws/bob`);
  await anns[0]?.leave();
  await until(async () => (await capped.metric('tidegate_connections')) === 2, {
    what: 'the first to be gone',
  });
  const fourth = await TestClient.v1(`${capped.url}/ws/ann`);
  expect([anns[1]?.ended, bob.ended, fourth.ended]).toEqual([undefined, undefined, undefined]);
});

test('limits upgrades by the address that the last trusted proxy saw, not by what a client made up', async () => {
  // One a second in bursts of ten.
  const limited = await start({ UPGRADE_RATE: '1', TRUSTED_PROXIES: '1' });
  const attempts = Array.from({ length: 30 }, (_, n) => `10.9.8.${n}, 203.0.113.7`);
  const results = await Promise.allSettled(
    attempts.map((forwarded) =>
      TestClient.open(`${limited.url}/ws`, { headers: { 'X-Forwarded-For': forwarded } }),
    ),
  );
  const refusals = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  const open = results.length - refusals.length;
  expect(open).toBeGreaterThanOrEqual(10);
  expect(open).toBeLessThan(20);
  for (const { status, headers } of refusals) {
    expect(status).toBe(429);
    expect(Number(headers['retry-after'])).toBeGreaterThanOrEqual(1);
  }
  // Somebody else, and who came without a proxy, have buckets of their own.
  await (
    await TestClient.open(`${limited.url}/ws`, { headers: { 'X-Forwarded-For': '203.0.113.8' } })
  ).leave();
  await (await TestClient.open(`${limited.url}/ws`)).leave();
});

test('takes the header of no proxy for true where none is trusted', async () => {
  const limited = await start({ UPGRADE_RATE: '1' });
  const results = await Promise.allSettled(
    Array.from({ length: 30 }, (_, n) =>
      TestClient.open(`${limited.url}/ws`, { headers: { 'X-Forwarded-For': `198.51.100.${n}` } }),
    ),
  );
  expect(results.filter((result) => result.status === 'rejected').length).toBeGreaterThan(10);
});

test('closes with 1008 and a reason after the upgrade where a token is refused', async () => {
  const strict = await start({ AUTH: 'jwt', JWT_SECRET: tokenSecret });
  const none = await TestClient.open(`${strict.url}/ws`);
  expect(await none.close()).toEqual({ code: 1008, reason: 'a token is required' });
  const other = await TestClient.open(`${strict.url}/ws/bob?token=${token({ sub: 'ann' })}`);
  expect(await other.close()).toMatchObject({ code: 1008 });
  expect(await strict.metric('tidegate_refusals_total', { reason: 'token' })).toBe(2);
});

test('says which port is taken', async () => {
  await expect(start({ PORT: String(gateway.ports.ws) })).rejects.toThrow(
    new RegExp(`EADDRINUSE.*127\\.0\\.0\\.1:${gateway.ports.ws}`),
  );
});
