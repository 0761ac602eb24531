import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { opcodes, RawPeer } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';
import { AddressRates, TokenBucket } from './rates.ts';

// --- Buckets

test('gives the burst at once, then the rate', () => {
  const bucket = new TokenBucket(500, 5, 0);
  expect(Array.from({ length: 5 }, () => bucket.take(1, 0))).toEqual([0, 0, 0, 0, 0]);
  expect(bucket.take(1, 0)).toBe(2);
  expect(bucket.take(1, 1)).toBe(1);
  expect(bucket.take(1, 2)).toBe(0);
  expect(bucket.take(3, 2)).toBe(6);
});

test('never limits at a rate of 0', () => {
  const bucket = new TokenBucket(0, 0, 0);
  for (let n = 0; n < 1000; n += 1) expect(bucket.take(1e9, 0)).toBe(0);
});

test('lets an amount above the burst through when it is full', () => {
  const bucket = new TokenBucket(10, 5, 0);
  expect(bucket.take(500, 0)).toBe(0);
  expect(bucket.take(1, 0)).toBe(100);
  expect(bucket.take(500, 100)).toBe(400);
  expect(bucket.take(500, 500)).toBe(0);
});

test('never gives more than the burst and the rate, and says how long to wait to the millisecond', () => {
  const step = fc.record({
    amount: fc.integer({ min: 1, max: 20 }),
    afterMs: fc.integer({ min: 0, max: 500 }),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1000 }),
      fc.integer({ min: 1, max: 50 }),
      fc.array(step, { maxLength: 50 }),
      (rate, burst, steps) => {
        const bucket = new TokenBucket(rate, burst, 0);
        let nowMs = 0;
        let taken = 0;
        for (const { amount, afterMs } of steps) {
          nowMs += afterMs;
          const waitMs = bucket.take(amount, nowMs);
          if (waitMs > 0) {
            nowMs += waitMs + 1; // fractions of tokens are not exact
            expect(bucket.take(amount, nowMs)).toBe(0);
          }
          taken += Math.min(amount, burst);
          expect(taken).toBeLessThanOrEqual(burst + (nowMs / 1000) * rate + 1e-6);
        }
      },
    ),
  );
});

test('keeps a bucket for each address, and forgets those that are full again', () => {
  const rates = new AddressRates(1, 2);
  for (let n = 0; n < 1000; n += 1) {
    expect(rates.take(`a${n}`, 0)).toBe(0);
    expect(rates.take(`a${n}`, 0)).toBe(0);
    expect(rates.take(`a${n}`, 0)).toBe(1000);
  }
  expect(rates.size).toBe(1000);
  // Two are looked at for each that is new, so after as many more none of the old ones is left.
  for (let n = 0; n < 1000; n += 1) rates.take(`b${n}`, 10_000);
  expect(rates.size).toBe(1000);
});

test('has one bucket for all addresses of an IPv6 /64', () => {
  const rates = new AddressRates(1, 2);
  expect(rates.take('2001:db8:0:1::1', 0)).toBe(0);
  expect(rates.take('2001:db8:0:1:ffff::2', 0)).toBe(0);
  expect(rates.take('2001:db8:0:1::3', 0)).toBe(1000);
  expect(rates.take('2001:db8:0:2::1', 0)).toBe(0);
  expect(rates.size).toBe(2);
});

test('remembers a bounded number of addresses, whatever comes', () => {
  const rates = new AddressRates(1, 2);
  for (let n = 0; n < 150_000; n += 1) rates.take(`a${n}`, 0);
  expect(rates.size).toBeLessThanOrEqual(100_001);
  // Who has come just now is still known.
  rates.take('a149999', 0);
  expect(rates.take('a149999', 0)).toBe(1000);
});

// --- Connections

const gateway = await startLocalGateway({ MESSAGE_RATE: '5', BYTE_RATE: '1000' });
afterAll(() => gateway.stop());

test.concurrent('answers messages over the rate with how long to wait, and takes them again after that', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  for (let ref = 1; ref <= 15; ref += 1) client.send({ type: 'ping', ref });
  for (let ref = 1; ref <= 10; ref += 1)
    expect(await client.json((it) => it.ref === ref)).toEqual({ type: 'ok', ref });
  const refused = await client.json((it) => it.ref === 15);
  expect(refused).toMatchObject({ type: 'error', code: 'rate_limited', retryable: true });
  expect(refused.retryAfterMs).toBeGreaterThan(0);
  expect(refused.retryAfterMs).toBeLessThanOrEqual(200);
  await delay(Number(refused.retryAfterMs));
  expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  expect(await gateway.metric('tidegate_errors_total', { code: 'rate_limited' })).toBeGreaterThan(0);
  await client.leave();
});

test.concurrent('closes with 4404 who goes on after having been told', async () => {
  // So low that none is let through in between, which would begin the count anew.
  const strict = await startLocalGateway({ MESSAGE_RATE: '1' });
  const v1 = await TestClient.v1(`${strict.url}/ws/ann`);
  const plain = await TestClient.open(`${strict.url}/ws/bob`);
  for (let n = 0; n < 100; n += 1) {
    v1.send({ type: 'ping' });
    plain.send(`${n}`);
  }
  expect(await v1.close()).toMatchObject({ code: 4404 });
  expect(await plain.close()).toMatchObject({ code: 4404 });
  // Everybody was told before.
  for (const client of [v1, plain])
    expect(client.inbox.filter((it) => it.includes('"rate_limited"'))).toHaveLength(20);
  await strict.stop();
});

test.concurrent('limits bytes as well as messages', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  const padding = 'x'.repeat(850);
  for (let ref = 1; ref <= 3; ref += 1) client.send({ type: 'ping', ref, padding });
  for (const ref of [1, 2]) expect(await client.json((it) => it.ref === ref)).toEqual({ type: 'ok', ref });
  const refused = await client.json((it) => it.ref === 3);
  expect(refused).toMatchObject({ code: 'rate_limited' });
  expect(refused.retryAfterMs).toBeGreaterThan(200);
  await client.leave();
});

test.concurrent('counts pings, and pongs that nobody asked for', async () => {
  for (const opcode of [opcodes.ping, opcodes.pong]) {
    const peer = await RawPeer.upgrade(gateway.ports.ws, '/ws/ann');
    for (let n = 0; n < 100; n += 1) peer.send(opcode, 'x');
    expect(await peer.closed()).toBe(4404);
  }
});

test.concurrent('does not count the answers to its own pings', async () => {
  const pinging = await startLocalGateway({ MESSAGE_RATE: '1', PING_INTERVAL_SECONDS: '1' });
  const client = await TestClient.v1(`${pinging.url}/ws/ann`);
  let pings = 0;
  client.ws.on('ping', () => {
    pings += 1;
  });
  await until(() => pings >= 3, { what: 'a few pings' });
  // The burst is still there.
  for (let n = 0; n < 2; n += 1) expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  await client.leave();
  await pinging.stop();
});

test.concurrent('counts a command for many channels as one for every twenty of them', async () => {
  const namespaces = { room: { subscribe: 'anyone', publish: 'anyone' } };
  const counting = await startLocalGateway({ MESSAGE_RATE: '5', CHANNELS: JSON.stringify({ namespaces }) });
  const client = await TestClient.v1(`${counting.url}/ws/ann`);
  const some = (count: number) => Array.from({ length: count }, (_, n) => `room:${n}`);
  // In one go, as time gives back what the first has taken.
  client.send({ type: 'subscribe', channels: some(101), ref: 1 });
  client.send({ type: 'unsubscribe', channels: some(100), ref: 2 });
  expect(await client.json((it) => it.ref === 1)).toMatchObject({ type: 'ok' });
  // Six of ten are gone: what counts as five must wait, for one at the most.
  const refused = await client.json((it) => it.ref === 2);
  expect(refused).toMatchObject({ type: 'error', code: 'rate_limited' });
  expect(refused.retryAfterMs).toBeLessThanOrEqual(200);
  await client.leave();
  await counting.stop();
});

test.concurrent('closes nobody at a rate of 0', async () => {
  const free = await startLocalGateway();
  const client = await TestClient.v1(`${free.url}/ws/ann`);
  for (let n = 0; n < 2000; n += 1) client.send({ type: 'ping', ref: n });
  expect(await client.json((it) => it.ref === 1999)).toMatchObject({ type: 'ok' });
  await client.leave();
  await free.stop();
});
