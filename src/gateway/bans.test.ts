import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { json, wildText } from '../../test/arbitraries.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';
import { CONTROL_TOPIC } from '../bus/bus.ts';
import { MemoryBus } from '../bus/memory.ts';
import { Bans, type Disconnect } from './bans.ts';

/** Bans on a bus of their own, with what they ordered and reported. */
async function start() {
  const bus = new MemoryBus();
  const orders: Disconnect[] = [];
  const reports: unknown[] = [];
  const bans = new Bans(
    bus,
    (_stage, error) => reports.push(error),
    (order) => orders.push(order),
  );
  await bus.start({
    message: (topic, bytes) => topic === CONTROL_TOPIC && bans.receive(bytes),
    interrupted() {},
  });
  await bans.start();
  return { bus, bans, orders, reports };
}

const inAnHour = () => Date.now() + 3_600_000;

describe('Bans', () => {
  it('carries an order over the bus, and holds a ban until it ends', async () => {
    const { bans, orders } = await start();
    const bannedUntilMs = inAnHour();
    await bans.order({ user: 'ann', code: 4403, reason: 'out', bannedUntilMs });
    await bans.order({ user: 'bob', code: 0, reason: '' });
    await expect.poll(() => orders).toHaveLength(2);
    expect(orders[0]).toEqual({ user: 'ann', code: 4403, reason: 'out', bannedUntilMs });
    expect(bans.isBanned('ann')).toBe(true);
    expect(bans.isBanned('bob')).toBe(false);
    bans.receive(
      Buffer.from(JSON.stringify({ user: 'ann', code: 0, reason: '', bannedUntilMs: Date.now() - 1 })),
    );
    expect(bans.isBanned('ann')).toBe(false);
  });

  it('does nothing for whatever is no order, and never throws', async () => {
    const { bans, orders } = await start();
    const order = { user: 'ann', code: 4000, reason: '' };
    const fields = fc.constantFrom('user', 'code', 'reason', 'bannedUntilMs');
    const text = fc.oneof(
      wildText,
      json.map((it) => JSON.stringify(it)),
      fc.tuple(fields, json).map(([field, value]) => JSON.stringify({ ...order, [field]: value })),
      fc.integer().map((code) => JSON.stringify({ ...order, code })),
    );
    fc.assert(
      fc.property(text, (given) => bans.receive(Buffer.from(given))),
      { numRuns: 1000 },
    );
    // A code that no close frame may carry would throw where it is used.
    for (const { code } of orders)
      expect(code === 0 || (Number.isInteger(code) && code >= 4000 && code <= 4999)).toBe(true);
    const before = orders.length;
    for (const code of [1, 999, 1005, 1006, 3999, 5000, 4000.5, 1e9, -1, '4000', null])
      bans.receive(Buffer.from(JSON.stringify({ ...order, code })));
    for (const user of ['', 'a b', 7, null]) bans.receive(Buffer.from(JSON.stringify({ ...order, user })));
    expect(orders).toHaveLength(before);
  });

  it('learns bans that were made before it came, and closes those who are there', async () => {
    const { bus, bans, orders } = await start();
    await bus.store.ban('ann', inAnHour());
    expect(bans.isBanned('ann')).toBe(false);
    await bans.reload();
    expect(bans.isBanned('ann')).toBe(true);
    expect(orders).toEqual([{ user: 'ann', code: 0, reason: '' }]);
    await bans.reload();
    expect(orders).toHaveLength(1);
  });

  it('takes what the bus says of a ban for newer than what it knew', async () => {
    const { bus, bans } = await start();
    await bans.order({ user: 'ann', code: 0, reason: '', bannedUntilMs: inAnHour() });
    await expect.poll(() => bans.isBanned('ann')).toBe(true);
    await bus.store.ban('ann', Date.now() + 1500);
    await bans.reload();
    await expect.poll(() => bans.isBanned('ann')).toBe(false);
  });

  it('reports once that it cannot learn them, keeps those it has, and goes on trying until it can', async () => {
    const { bus, bans, orders, reports } = await start();
    await bans.order({ user: 'ann', code: 0, reason: '', bannedUntilMs: inAnHour() });
    await expect.poll(() => bans.isBanned('ann')).toBe(true);
    await bus.store.ban('bob', inAnHour());
    const read = bus.store.bans;
    let asked = 0;
    bus.store.bans = () => {
      asked += 1;
      return Promise.reject(new Error('gone'));
    };
    await bans.reload();
    await until(() => asked >= 3, { what: 'two more tries' });
    expect(reports).toHaveLength(1);
    expect(bans.isBanned('ann')).toBe(true);
    bus.store.bans = read;
    await until(() => orders.some(({ user }) => user === 'bob'), { what: 'the ban that was missed' });
    bans.stop();
  });

  it('learns what was ordered while Redis was away, also where subscriptions are back first', async () => {
    const redis = await startRedis();
    const admin = redis.client();
    const gateway = await startLocalGateway({ REDIS_URL: redis.url });
    onTestFinished(async () => {
      await gateway.stop();
      await redis.stop();
    });
    // Whichever connection comes back first is left to chance, so more than once.
    for (const user of ['ann', 'bob', 'cat', 'dan', 'eve', 'fay', 'gus', 'hal']) {
      const client = await TestClient.v1(`${gateway.url}/ws/${user}`);
      await admin.zadd('tg:bans', inAnHour(), user);
      const connections = String(await admin.client('LIST')).matchAll(/^id=(\d+) .* name=tidegate/gm);
      const kill = admin.multi();
      for (const [, id = ''] of connections) kill.call('CLIENT', 'KILL', 'ID', id);
      await kill.exec();
      expect(await client.close()).toMatchObject({ code: 4403 });
    }
  });

  it('lets go of bans that have ended, also of those who never come back', async () => {
    const { bans } = await start();
    const order = (user: string, bannedUntilMs: number) =>
      bans.receive(Buffer.from(JSON.stringify({ user, code: 0, reason: '', bannedUntilMs })));
    for (let at = 0; at < 1000; at += 1) order(`old-${at}`, Date.now() - 1);
    order('kept', inAnHour());
    for (let at = 0; at < 10; at += 1) order(`old-again-${at}`, Date.now() - 1);
    expect(bans.size).toBeLessThan(10);
    expect(bans.isBanned('kept')).toBe(true);
  });
});
