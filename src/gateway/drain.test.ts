import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, expect, test } from 'vitest';
import { type LogLine, startGateway, type TestGateway } from '../../test/gateway.ts';
import { startIssuer } from '../../test/issuer.ts';
import { RawPeer } from '../../test/raw.ts';
import { startRedis } from '../../test/redis.ts';
import { token, tokenSecret } from '../../test/tokens.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';

const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
const started: TestGateway[] = [];
afterAll(async () => {
  await Promise.all(started.map((it) => it.stop('SIGKILL')));
});

async function start(env: Record<string, string>): Promise<TestGateway> {
  const gateway = await startGateway({ CHANNELS: channels, ...env });
  started.push(gateway);
  return gateway;
}

/** When each connection ended, in ms after the drain began, by the gateway's clock: the test may be held up itself. */
function endsOf({ log }: TestGateway): number[] {
  const timeOf = (line: LogLine | undefined) => Date.parse(String(line?.time));
  const beganMs = timeOf(log.find(({ msg }) => msg === 'draining'));
  return log.filter(({ msg }) => msg === 'connection closed').map((line) => timeOf(line) - beganMs);
}

const hint = /^gateway is restarting; reconnect after \d+ ms$/;

test.concurrent('closes some hundred connections paced, v1 after a goodbye, plain with a hint, and ends with 0', async () => {
  const gateway = await start({ DRAIN_SECONDS: '5' });
  const connect = async (n: number) =>
    n % 2 ? TestClient.v1(`${gateway.url}/ws/user${n}`) : TestClient.open(`${gateway.url}/ws/user${n}`);
  const clients = await Promise.all(Array.from({ length: 300 }, (_, n) => connect(n)));
  expect(await gateway.stop()).toBe(0);
  for (const [n, client] of clients.entries()) {
    const { code, reason } = await client.close();
    expect(code).toBe(1012);
    expect(reason).toMatch(hint);
    const goodbyes = client.inbox
      .map((text) => JSON.parse(text) as Json)
      .filter((it) => it.type === 'goodbye');
    if (n % 2 === 0) expect(goodbyes).toEqual([]);
    else {
      expect(goodbyes).toEqual([
        { type: 'goodbye', code: 1012, reconnectAfterMs: expect.any(Number), closeAfterMs: 1000 },
      ]);
      expect(Number(goodbyes[0]?.reconnectAfterMs)).toBeLessThanOrEqual(1000);
    }
  }
  await until(() => endsOf(gateway).length === clients.length, { what: 'all to be logged' });
  const ends = endsOf(gateway).sort((one, other) => one - other);
  // Nobody goes before his turn, and the last turn comes after 3.5 of the 5 seconds.
  for (const [at, ms] of ends.entries())
    expect(ms, `${at}`).toBeGreaterThanOrEqual((at / clients.length) * 3500 - 50);
  // And not in a few heaps: no tenth of the time sees half of them go.
  const span = Math.max(...ends) - Math.min(...ends);
  const tenths = Array.from(
    { length: 10 },
    (_, at) => ends.filter((ms) => Math.floor(((ms - Math.min(...ends)) / span) * 9.99) === at).length,
  );
  expect(Math.max(...tenths)).toBeLessThan(clients.length / 2);
  // The hints differ, so that those who are closed together do not come back together.
  const hints = new Set(clients.map((client) => client.ended?.reason));
  expect(hints.size).toBeGreaterThan(50);
});

test.concurrent('takes nobody in while it drains, and says so to load balancers', async () => {
  const gateway = await start({ DRAIN_SECONDS: '3600' });
  const clients = [
    await TestClient.v1(`${gateway.url}/ws/ann`),
    await TestClient.open(`${gateway.url}/ws/bob`),
  ];
  const exit = gateway.stop();
  await until(() => gateway.log.some((line) => line.msg === 'draining'), { what: 'the drain to begin' });
  const readiness = await fetch(`${gateway.adminUrl}/readyz`);
  expect(readiness.status).toBe(503);
  expect(await readiness.json()).toMatchObject({
    ready: false,
    phase: 'draining',
    reason: 'the gateway is stopping',
  });
  expect((await fetch(`${gateway.adminUrl}/livez`)).status).toBe(200);
  const refused = { status: 503, headers: { 'retry-after': expect.any(String) } };
  await expect(TestClient.open(`${gateway.url}/ws`)).rejects.toMatchObject(refused);
  expect(await gateway.metric('tidegate_refusals_total', { reason: 'draining' })).toBe(1);
  expect(await gateway.metric('tidegate_drain_remaining_connections')).toBeGreaterThan(0);
  await Promise.all(clients.map((client) => client.leave()));
  expect(await exit).toBe(0);
});

test.concurrent('goes on delivering between goodbye and close', async () => {
  const redis = await startRedis();
  const [leaving, staying] = await Promise.all([
    start({ REDIS_URL: redis.url, DRAIN_SECONDS: '15' }),
    start({ REDIS_URL: redis.url }),
  ]);
  const ann = await TestClient.v1(`${leaving.url}/ws/ann`);
  const bob = await TestClient.v1(`${staying.url}/ws/bob`);
  await ann.call({ type: 'subscribe', channel: 'room:1' });
  const exit = leaving.stop();
  const { closeAfterMs } = await ann.json((it) => it.type === 'goodbye');
  expect(closeAfterMs).toBe(3000);
  // The bus, and what it carries both ways, lives until the last connection is gone.
  let published = 0;
  while (ann.ended === undefined) {
    if ((await bob.call({ type: 'publish', channel: 'room:1', data: published })).type === 'ok')
      published += 1;
    if (published === 1)
      expect(await ann.call({ type: 'publish', channel: 'room:2', data: 1 })).toMatchObject({ type: 'ok' });
  }
  expect(ann.ended).toMatchObject({ code: 1012 });
  const seen = ann.inbox.map((text) => JSON.parse(text) as Json).filter((it) => it.channel === 'room:1');
  expect(seen.length).toBeGreaterThan(0);
  expect(seen.map((it) => it.data)).toEqual(Array.from({ length: seen.length }, (_, n) => n));
  expect(await exit).toBe(0);
  await bob.leave();
  await staying.stop();
  await redis.stop();
});

test.concurrent('flushes what waits for a connection before it closes it', async () => {
  const gateway = await start({ DRAIN_SECONDS: '0' });
  const clients = await Promise.all(
    Array.from({ length: 50 }, (_, n) => TestClient.v1(`${gateway.url}/ws/user${n}`)),
  );
  await Promise.all(clients.map((it) => it.call({ type: 'subscribe', channel: 'room:1' })));
  const [publisher] = clients;
  for (let n = 0; n < 100; n += 1) publisher?.send({ type: 'publish', channel: 'room:1', data: n, ref: n });
  await publisher?.json((it) => it.ref === 99);
  expect(await gateway.stop()).toBe(0);
  for (const client of clients) {
    expect(await client.close()).toMatchObject({ code: 1012 });
    expect(client.inbox.filter((text) => text.includes('"message"'))).toHaveLength(100);
  }
});

test.concurrent('closes all at once where DRAIN_SECONDS is 0, with a hint all the same', async () => {
  const gateway = await start({ DRAIN_SECONDS: '0' });
  const clients = await Promise.all(
    Array.from({ length: 200 }, (_, n) =>
      n % 2 ? TestClient.v1(`${gateway.url}/ws/user${n}`) : TestClient.open(`${gateway.url}/ws/user${n}`),
    ),
  );
  expect(await gateway.stop()).toBe(0);
  for (const client of clients) {
    const { code, reason } = await client.close();
    expect(code).toBe(1012);
    expect(reason).toMatch(hint);
  }
});

test.concurrent('is not held up by clients that never answer the close, or never read', async () => {
  for (const DRAIN_SECONDS of ['0', '1']) {
    const gateway = await start({ DRAIN_SECONDS });
    const peers = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        RawPeer.upgrade(
          gateway.ports.ws,
          `/ws/user${n}`,
          n % 2 ? { 'Sec-WebSocket-Protocol': 'tidegate.v1' } : {},
        ),
      ),
    );
    for (const peer of peers.slice(0, 10)) peer.stopReading();
    // And somebody who has not even finished the handshake.
    const half = await RawPeer.connect(gateway.ports.ws);
    half.socket.write('GET /ws HTTP/1.1\r\nHost: x\r\n');
    expect(await gateway.stop()).toBe(0);
    const stopped = () => gateway.log.find((line) => line.msg === 'stopped');
    await until(stopped, { what: 'the last line of the log' });
    // All were still there and were cut: it has not waited for the time-out of their closing handshakes.
    expect(stopped()).toMatchObject({ cut: peers.length });
    for (const peer of [...peers, half]) peer.socket.destroy();
  }
});

test.concurrent('shows a drain that falls behind while there is still time to see it', async () => {
  const gateway = await start({ DRAIN_SECONDS: '6' });
  const peers = await Promise.all(Array.from({ length: 20 }, () => RawPeer.upgrade(gateway.ports.ws, '/ws')));
  expect(await gateway.metric('tidegate_drain_elapsed_seconds')).toBe(0);
  expect(await gateway.metric('tidegate_ready')).toBe(1);
  const exit = gateway.stop();
  // They are told to go and never answer, so each stays until its closing handshake is given up.
  for (const peer of peers) peer.stopReading();
  await until(async () => (await gateway.metric('tidegate_drain_late_connections')) > 0, {
    what: 'some to be late',
  });
  // Not before the first has had the time to leave, and that for the closing handshake.
  expect(await gateway.metric('tidegate_drain_elapsed_seconds')).toBeGreaterThan(0.3 * 6);
  expect(await gateway.metric('tidegate_drain_limit_seconds')).toBe(6);
  expect(await gateway.metric('tidegate_ready')).toBe(0);
  for (const peer of peers) peer.socket.destroy();
  expect(await exit).toBe(0);
});

test.concurrent('ends with 0 at once where nobody is connected', async () => {
  const gateway = await start({ DRAIN_SECONDS: '3600' });
  expect(await gateway.stop()).toBe(0);
});

test.concurrent('stops as soon as the last client has left, however long it may drain', async () => {
  const gateway = await start({ DRAIN_SECONDS: '3600' });
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  const exit = gateway.stop('SIGINT');
  // The only one is told in the first moment, and has ten seconds.
  expect(await client.json((it) => it.type === 'goodbye')).toMatchObject({ closeAfterMs: 10_000 });
  await client.leave();
  expect(await exit).toBe(0);
});

test.concurrent('leaves at once on a second signal', async () => {
  const gateway = await start({ DRAIN_SECONDS: '3600' });
  const clients = await Promise.all(
    Array.from({ length: 20 }, (_, n) => TestClient.open(`${gateway.url}/ws/user${n}`)),
  );
  gateway.process.kill('SIGTERM');
  await until(() => gateway.log.some((line) => line.msg === 'draining'), { what: 'the drain to begin' });
  gateway.process.kill('SIGTERM');
  await until(() => gateway.process.exitCode !== null, { what: 'it to end' });
  expect(gateway.process.exitCode).toBe(1);
  await Promise.all(clients.map((client) => client.close()));
});

test.concurrent('refuses who is in the middle of an upgrade when the drain begins', async () => {
  const issuer = await startIssuer();
  const asked: ServerResponse[] = [];
  const keys = createServer((_request, response) => asked.push(response)).listen(0, '127.0.0.1');
  await once(keys, 'listening');
  const gateway = await start({
    DRAIN_SECONDS: '3600',
    AUTH: 'jwt',
    JWT_SECRET: tokenSecret,
    JWKS_URL: `http://127.0.0.1:${(keys.address() as AddressInfo).port}/`,
  });
  // Somebody who keeps the drain going, and somebody whose token cannot be checked yet.
  const holder = await TestClient.v1(`${gateway.url}/ws?token=${token({ sub: 'ann' })}`);
  const upgrade = TestClient.open(`${gateway.url}/ws?token=${await issuer.sign({ sub: 'bob' })}`);
  const refused = expect(upgrade).rejects.toMatchObject({ status: 503 });
  await until(() => asked.length > 0, { what: 'the keys to be asked for' });
  const exit = gateway.stop();
  await until(() => gateway.log.some((line) => line.msg === 'draining'), { what: 'the drain to begin' });
  asked[0]
    ?.writeHead(200, { 'content-type': 'application/json' })
    .end(JSON.stringify({ keys: [issuer.key.jwk] }));
  await refused;
  await holder.leave();
  expect(await exit).toBe(0);
  keys.close();
  await issuer.close();
});
