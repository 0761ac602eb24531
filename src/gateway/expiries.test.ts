import { queryObjects } from 'node:v8';
import { afterAll, expect, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { token, tokenSecret } from '../../test/tokens.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';
import { Connection } from './connection.ts';

const gateway = await startLocalGateway({ AUTH: 'jwt', JWT_SECRET: tokenSecret });
afterAll(() => gateway.stop());

const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;

test.concurrent('closes with 4402 when the token expires, in both protocols, and not before', async () => {
  const exp = inSeconds(3);
  const url = `${gateway.url}/ws?token=${token({ sub: 'ann', exp })}`;
  const clients = [await TestClient.open(url), await TestClient.v1(url)];
  for (const client of clients) {
    expect(await client.close()).toEqual({ code: 4402, reason: 'token expired' });
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1000);
  }
  expect(await gateway.metric('tidegate_closes_total', { code: '4402' })).toBeGreaterThanOrEqual(2);
});

test.concurrent('keeps a connection whose token is refreshed in time, until the new one expires', async () => {
  const exp = inSeconds(5);
  const [refreshed, other] = await Promise.all([
    TestClient.v1(`${gateway.url}/ws?token=${token({ sub: 'ann', exp })}`),
    TestClient.v1(`${gateway.url}/ws?token=${token({ sub: 'ann', exp })}`),
  ]);
  const beforeMs = Date.now();
  const answer = await refreshed.call({ type: 'refresh', token: token({ sub: 'ann', exp: exp + 60 }) });
  expect(answer).toMatchObject({ type: 'ok' });
  expect(answer.tokenExpiresInMs).toBeLessThanOrEqual((exp + 60) * 1000 - beforeMs);
  expect(answer.tokenExpiresInMs).toBeGreaterThanOrEqual((exp + 60) * 1000 - Date.now());
  expect(await other.close()).toMatchObject({ code: 4402 });
  expect(await refreshed.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  const last = inSeconds(2);
  await refreshed.call({ type: 'refresh', token: token({ sub: 'ann', exp: last }) });
  expect(await refreshed.close()).toMatchObject({ code: 4402 });
  expect(Date.now()).toBeGreaterThanOrEqual(last * 1000);
});

test.concurrent('goes by the last of many new tokens, also if it ends sooner', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws?token=${token({ sub: 'ann' })}`);
  for (const seconds of [600, 60, 6000, 2]) {
    await client.call({ type: 'refresh', token: token({ sub: 'ann', exp: inSeconds(seconds) }) });
  }
  expect(await client.close()).toMatchObject({ code: 4402 });
  await until(async () => (await gateway.metric('tidegate_connections')) === 0, { what: 'its end' });
});

// After the others, whose connections are gone by then.
test('keeps nothing of connections that leave before their token expires', async () => {
  const clients = await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      TestClient.v1(`${gateway.url}/ws?token=${token({ sub: `user${n}` })}`),
    ),
  );
  for (const client of clients.slice(0, 10)) {
    await client.call({
      type: 'refresh',
      token: token({ sub: `user${clients.indexOf(client)}`, exp: inSeconds(600) }),
    });
  }
  for (const [n, client] of clients.entries()) n % 2 ? client.ws.terminate() : client.ws.close();
  await until(async () => (await gateway.metric('tidegate_connections')) === 0, { what: 'all to be gone' });
  await until(() => queryObjects(Connection, { format: 'count' }) === 0, {
    what: 'connections to be collected',
  });
});
