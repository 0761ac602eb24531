import { afterAll, expect, onTestFinished, test, vi } from 'vitest';
import { type LocalGateway, startLocalGateway } from '../../test/local-gateway.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';
import type { Connections } from './admin.ts';

const ADMIN_TOKEN = 'a-token-of-some-length';
const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
const started: LocalGateway[] = [];
afterAll(async () => void (await Promise.all(started.map((it) => it.stop()))));

async function start(env: Record<string, string> = {}): Promise<LocalGateway> {
  const gateway = await startLocalGateway({ CHANNELS: channels, ADMIN_TOKEN, ...env });
  started.push(gateway);
  return gateway;
}

/** Sets a ceiling on everybody who can move, whatever their age, unless the fields say otherwise. */
async function setCeiling(gateway: LocalGateway, fields: Json): Promise<number> {
  const body = JSON.stringify({ expiresAfterMs: 60_000, minAgeSeconds: 0, ...fields });
  return (await fetch(`${gateway.adminUrl}/ceiling`, { method: 'PUT', headers, body })).status;
}

async function look(gateway: LocalGateway): Promise<Connections> {
  return (await fetch(`${gateway.adminUrl}/connections`, { headers })).json() as Promise<Connections>;
}

/** Clients that are closed with the test, one connected after the other. */
async function connect(gateway: LocalGateway, count: number, query = '?moves=true'): Promise<TestClient[]> {
  const clients: TestClient[] = [];
  for (let n = 0; n < count; n += 1) {
    clients.push(await TestClient.v1(`${gateway.url}/ws/user${n}${query}`));
  }
  onTestFinished(async () => void (await Promise.all(clients.map((it) => it.leave()))));
  return clients;
}

const goodbyeOf = (client: TestClient) =>
  client.inbox.map((text) => JSON.parse(text) as Json).find((it) => it.type === 'goodbye');
const asked = (clients: readonly TestClient[]) => clients.filter((it) => goodbyeOf(it) !== undefined);

test('asks as many as are above the ceiling to move, tells nobody else, and closes nobody', async () => {
  const gateway = await start();
  const clients = await connect(gateway, 10);
  expect(await setCeiling(gateway, { connections: 6, shedPerSecond: 1000 })).toBe(200);
  await until(() => asked(clients).length === 4, { what: 'four to be asked' });
  const [first] = asked(clients);
  expect(first && goodbyeOf(first)).toEqual({
    type: 'goodbye',
    code: 4400,
    move: true,
    reconnectAfterMs: expect.any(Number),
    giveUpAfterMs: 15_000,
  });
  // Asking is no closing: the connection goes on.
  expect(await first?.call({ type: 'subscribe', channel: 'room:1' })).toMatchObject({ type: 'ok' });
  expect(await look(gateway)).toMatchObject({
    connections: 10,
    movable: 6,
    shed: { asked: 4, moved: 0, outstanding: 4 },
  });
  expect(await gateway.metric('tidegate_shed_outstanding_connections')).toBe(4);

  for (const client of asked(clients)) await client.leave();
  await until(async () => (await look(gateway)).shed.moved === 4, { what: 'them to count as moved' });
  expect(asked(clients)).toHaveLength(4);
  expect(await look(gateway)).toMatchObject({ connections: 6, shed: { asked: 4, outstanding: 0 } });
  for (const [result, count] of [
    ['asked', 4],
    ['moved', 4],
    ['stayed', 0],
    ['closed', 0],
  ] as const)
    expect(await gateway.metric('tidegate_shed_total', { result })).toBe(count);
});

test('knows how old connections are after the time of day was set back', async () => {
  const gateway = await start();
  await connect(gateway, 2);
  await setCeiling(gateway, { connections: 10 });
  const before = Date.now() - 3_600_000;
  const clock = vi.spyOn(Date, 'now').mockReturnValue(before);
  onTestFinished(() => clock.mockRestore());
  expect(await look(gateway)).toMatchObject({ connections: 2, movable: 2 });
});

test('counts who says so as staying at once, and asks others in their place', async () => {
  const gateway = await start();
  const clients = await connect(gateway, 6);
  await setCeiling(gateway, { connections: 4, shedPerSecond: 1000 });
  await until(() => asked(clients).length === 2, { what: 'two to be asked' });
  const [first] = asked(clients);
  expect(await first?.call({ type: 'stay' })).toMatchObject({ type: 'ok' });
  await until(() => asked(clients).length === 3, { what: 'another to be asked' });
  expect((await look(gateway)).shed).toMatchObject({ asked: 3, moved: 0, stayed: 1, outstanding: 2 });
  // Who is not asked says nothing by it.
  const calm = clients.find((it) => goodbyeOf(it) === undefined);
  expect(await calm?.call({ type: 'stay' })).toMatchObject({ type: 'ok' });
  await setCeiling(gateway, { connections: 0, shedPerSecond: 1000 });
  await until(() => asked(clients).length === 6, { what: 'everybody to be asked' });
  expect((await look(gateway)).shed).toMatchObject({ asked: 6, stayed: 1, outstanding: 5 });
});

test('never has more outstanding than there are above the ceiling, also when others leave by themselves', async () => {
  const gateway = await start();
  const clients = await connect(gateway, 12);
  await setCeiling(gateway, { connections: 9, shedPerSecond: 1000 });
  await until(() => asked(clients).length === 3, { what: 'three to be asked' });
  const calm = clients.filter((it) => goodbyeOf(it) === undefined);
  for (const client of calm.slice(0, 3)) await client.leave();
  await setCeiling(gateway, { connections: 7, shedPerSecond: 1000 });
  // Nine are here, three of them were asked and may still go: one above seven is none too many.
  await until(async () => (await look(gateway)).ceiling?.connections === 7, { what: 'the new ceiling' });
  const newcomers = await connect(gateway, 2);
  await until(() => asked([...clients, ...newcomers]).length === 4, { what: 'just one more to be asked' });
  expect((await look(gateway)).shed).toMatchObject({ asked: 4, outstanding: 4 });
});

test('asks the oldest first where it is told to, and nobody who is too young', async () => {
  const gateway = await start();
  const clients = await connect(gateway, 8);
  await setCeiling(gateway, { connections: 5, shedPerSecond: 1000, order: 'oldest' });
  await until(() => asked(clients).length === 3, { what: 'three to be asked' });
  expect(asked(clients)).toEqual(clients.slice(0, 3));
  await setCeiling(gateway, { connections: 0, shedPerSecond: 1000, minAgeSeconds: 3600 });
  expect((await look(gateway)).movable).toBe(0);
  expect(asked(clients)).toHaveLength(3);
});

test('leaves alone who cannot move, unless it may close them: v1 after a goodbye, plain with a hint', async () => {
  const gateway = await start();
  const [stranger] = await connect(gateway, 1, '');
  const plain = await TestClient.open(`${gateway.url}/ws/plain?moves=true`);
  const [mover] = await connect(gateway, 1);
  await setCeiling(gateway, { connections: 0, shedPerSecond: 1000 });
  await until(() => mover !== undefined && goodbyeOf(mover) !== undefined, {
    what: 'the one that can to be asked',
  });
  expect((await look(gateway)).shed.asked).toBe(1);
  expect(await look(gateway)).toMatchObject({ movable: 0, immovable: 2 });

  await setCeiling(gateway, { connections: 0, shedPerSecond: 1000, plain: true });
  expect(await plain.close()).toEqual({
    code: 4400,
    reason: expect.stringMatching(/^moved to another pod; reconnect after \d+ ms$/),
  });
  expect(await stranger?.json((it) => it.type === 'goodbye')).toEqual({
    type: 'goodbye',
    code: 4400,
    reconnectAfterMs: expect.any(Number),
    closeAfterMs: 5000,
  });
  expect(await stranger?.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  expect(await stranger?.close()).toMatchObject({ code: 4400 });
  await until(async () => (await look(gateway)).shed.closed === 2, { what: 'both to count as closed' });
});

test('turns away who moves while it has its share, before the upgrade, and admits everybody else', async () => {
  const gateway = await start();
  await connect(gateway, 2);
  await setCeiling(gateway, { connections: 2, shedPerSecond: 0 });
  const refused = await TestClient.v1(`${gateway.url}/ws/x?moves=true&moving=true`).catch(
    (error: unknown) => error,
  );
  expect(refused).toMatchObject({
    status: 503,
    headers: { 'retry-after': '1', 'tidegate-refused': 'moving' },
  });
  await connect(gateway, 1);
  for (const moving of ['false', '', '1']) {
    const admitted = await TestClient.v1(`${gateway.url}/ws/x?moves=true&moving=${moving}`);
    await admitted.leave();
  }
  expect(await look(gateway)).toMatchObject({ refused: { moving: 1 }, shed: { asked: 0 } });
  expect(await gateway.metric('tidegate_refusals_total', { reason: 'moving' })).toBe(1);
  await setCeiling(gateway, { connections: 4, shedPerSecond: 0 });
  const mover = await TestClient.v1(`${gateway.url}/ws/y?moving=true`);
  await mover.leave();
});

test('stops when the ceiling expires or is lifted: nobody is asked and nobody is refused any more', async () => {
  const gateway = await start();
  const clients = await connect(gateway, 20);
  for (const end of [
    () => setCeiling(gateway, { connections: 0, shedPerSecond: 2, expiresAfterMs: 1 }),
    () => fetch(`${gateway.adminUrl}/ceiling`, { method: 'DELETE', headers }),
  ]) {
    const before = asked(clients).length;
    // Slow enough to be stopped long before all have been asked.
    await setCeiling(gateway, { connections: 0, shedPerSecond: 2 });
    await until(() => asked(clients).length > before, { what: 'some to be asked' });
    await end();
    await until(async () => (await look(gateway)).ceiling === null, { what: 'the ceiling to be gone' });
    const { asked: total } = (await look(gateway)).shed;
    const mover = await TestClient.v1(`${gateway.url}/ws/mover?moving=true`);
    await mover.leave();
    expect((await look(gateway)).shed.asked).toBe(total);
    expect(total).toBeLessThan(20);
  }
});

test('sheds nobody while it drains, takes no ceiling then, and tells those it had asked that they must go', async () => {
  const gateway = await start({ DRAIN_SECONDS: '3' });
  const clients = await connect(gateway, 4);
  await setCeiling(gateway, { connections: 3, shedPerSecond: 1000 });
  await until(() => asked(clients).length === 1, { what: 'one to be asked' });
  const stopping = gateway.stop();
  expect(await setCeiling(gateway, { connections: 0, shedPerSecond: 1000 })).toBe(409);
  await stopping;
  for (const client of clients) {
    await client.close();
    const goodbyes = client.inbox
      .map((text) => JSON.parse(text) as Json)
      .filter((it) => it.type === 'goodbye');
    expect(goodbyes.at(-1)).toMatchObject({ code: 1012 });
    expect(client.ended?.code).toBe(1012);
  }
});
