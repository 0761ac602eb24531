// How shedding paces itself. The clock is the test's, and connections are only counted.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createMetrics } from '../platform/metrics.ts';
import { type Ceiling, ceilingDefaults } from './ceiling.ts';
import { NO_GRANTS } from './channels.ts';
import { Connection, type ConnectionSocket } from './connection.ts';
import { Shedder } from './shed.ts';

const metrics = createMetrics('test');

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance', 'Date'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTime(ms);

/** A pod with so many connections, and whom it has asked, in order. */
function makePod(count: number, moves = true) {
  const open = new Set<Connection>();
  const asked: Connection[] = [];
  const sessions = {
    get size() {
      return open.size;
    },
    close: () => {},
    [Symbol.iterator]: () => open.values(),
  };
  const fanout = { send: (connection: Connection) => void asked.push(connection) };
  const shedder = new Shedder(sessions, fanout, metrics);
  const connect = () => {
    const ws = { readyState: 1 as number };
    const connection = new Connection({
      ws: ws as unknown as ConnectionSocket,
      socket: {} as Connection['socket'],
      identity: { user: 'ann', grants: NO_GRANTS, expiresAtMs: undefined },
      protocol: 'v1',
      compressed: false,
      toldOfGaps: true,
      moves,
      traced: false,
      address: '',
    });
    open.add(connection);
    return () => {
      ws.readyState = 3;
      open.delete(connection);
    };
  };
  const leave = Array.from({ length: count }, connect);
  const set = (fields: Partial<Ceiling>) =>
    shedder.set({ ...ceilingDefaults, connections: 0, expiresAfterMs: 600_000, minAgeSeconds: 0, ...fields });
  return { shedder, asked, connect, leave, set, order: () => [...open] };
}

test.each([
  [0, 0],
  [0.5, 5],
  [1, 10],
  [25, 250],
  [400, 4000],
])('asks no more than %s a second, and no fewer', (shedPerSecond, inTenSeconds) => {
  const { asked, set } = makePod(5000);
  set({ shedPerSecond });
  pass(10_000);
  expect(asked.length).toBeGreaterThanOrEqual(inTenSeconds - 1);
  expect(asked.length).toBeLessThanOrEqual(inTenSeconds);
});

test('keeps to the rate however often the ceiling is set again', () => {
  const { asked, set } = makePod(5000);
  for (let round = 0; round < 100; round += 1) {
    set({ shedPerSecond: 10, connections: round });
    pass(100);
  }
  expect(asked.length).toBeLessThanOrEqual(100);
  expect(asked.length).toBeGreaterThanOrEqual(98);
});

test('does not make up for the time in which the process was held up', () => {
  const { asked, set } = makePod(5000);
  set({ shedPerSecond: 25 });
  pass(1000);
  const before = asked.length;
  vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 60_000);
  pass(200);
  expect(asked.length - before).toBeLessThanOrEqual(5);
});

test('asks again for each that has left, until there are none above the ceiling', () => {
  const { shedder, asked, leave, set } = makePod(100);
  set({ connections: 40, shedPerSecond: 1000, order: 'oldest' });
  pass(1000);
  expect(asked).toHaveLength(60);
  for (const go of leave.slice(0, 60)) go();
  pass(1000);
  expect(asked).toHaveLength(60);
  expect(shedder.counts).toEqual({ asked: 60, moved: 60, stayed: 0, closed: 0, outstanding: 0 });
});

test('counts who has not left in time as staying, and leaves him alone for a minute', () => {
  const { shedder, asked, set } = makePod(10);
  set({ connections: 7, shedPerSecond: 1000, order: 'oldest' });
  pass(1000);
  const first = asked.slice();
  expect(first).toHaveLength(3);
  pass(29_000);
  // Others are asked in their place, and not those who have tried just now.
  pass(1000);
  expect(shedder.counts).toMatchObject({ asked: 6, stayed: 3, outstanding: 3 });
  expect(asked.slice(3).some((it) => first.includes(it))).toBe(false);
  expect(shedder.countMovable()).toBe(4);
  pass(30_000);
  expect(asked.slice(6)).toContain(first[0]);
});

test('asks nobody who has come after the least age, and everybody else', () => {
  const { shedder, asked, connect, set } = makePod(5);
  pass(20_000);
  for (let late = 0; late < 5; late += 1) connect();
  pass(15_000);
  expect(shedder.countMovable()).toBe(5);
  set({ shedPerSecond: 1000, minAgeSeconds: 30 });
  pass(1000);
  expect(asked).toHaveLength(5);
  pass(15_000);
  expect(asked).toHaveLength(10);
});

test('chooses at random, each as likely as any other', () => {
  const chosen = new Map<number, number>();
  for (let round = 0; round < 400; round += 1) {
    const { asked, set, shedder, order } = makePod(10);
    set({ connections: 9, shedPerSecond: 1000 });
    pass(1000);
    const at = asked[0] === undefined ? -1 : order().indexOf(asked[0]);
    chosen.set(at, (chosen.get(at) ?? 0) + 1);
    shedder.stop();
  }
  // 40 each are expected; fewer than 12 or more than 80 come once in a hundred thousand runs.
  expect(chosen.size).toBe(10);
  for (const count of chosen.values()) {
    expect(count).toBeGreaterThan(12);
    expect(count).toBeLessThan(80);
  }
});

test('has no timer while there is no ceiling and nobody to wait for', () => {
  const { shedder, leave, set } = makePod(3);
  expect(vi.getTimerCount()).toBe(0);
  set({ connections: 2, shedPerSecond: 1000, expiresAfterMs: 1000 });
  pass(1000);
  expect(shedder.ceiling).toBeUndefined();
  expect(shedder.counts.outstanding).toBe(1);
  expect(vi.getTimerCount()).toBe(1);
  for (const go of leave) go();
  pass(400);
  expect(vi.getTimerCount()).toBe(0);
});
