import calculateSlot from 'cluster-key-slot';
import { expect, test } from 'vitest';
import { readRedirect, Slots } from './redis-slots.ts';

const asked = { host: 'redis-0', port: 6379 };

test('gives each key the master of its slot', () => {
  const slots = new Slots(
    [
      [0, 8191, ['10.0.0.1', 6379, 'id-1', []], ['10.0.0.3', 6379, 'id-3', []]],
      [8192, 16_000, ['10.0.0.2', 6380, 'id-2', []]],
      [16_001, 16_383, ['10.0.0.1', 6379, 'id-1', []]],
    ],
    asked,
  );
  expect([...slots.nodes]).toEqual([
    ['10.0.0.1:6379', { host: '10.0.0.1', port: 6379 }],
    ['10.0.0.2:6380', { host: '10.0.0.2', port: 6380 }],
  ]);
  for (const key of ['a', 'b', 'foo', 'tg:{c:room}', 'tg:{c:room}:head']) {
    const slot = calculateSlot(key);
    expect(slots.ownerOf(key)).toBe(slot < 8192 || slot > 16_000 ? '10.0.0.1:6379' : '10.0.0.2:6380');
  }
});

test.each([
  ['an address of version 6', '2001:db8::1', '2001:db8::1'],
  ['a name', 'redis-1.redis.svc', 'redis-1.redis.svc'],
  ['nothing, and means the one that was asked', null, 'redis-0'],
  ['an empty name, and means the one that was asked', '', 'redis-0'],
])('takes a host for %s', (_, told, host) => {
  const slots = new Slots([[0, 16_383, [told, 6379, 'id', []]]], asked);
  expect([...slots.nodes.values()]).toEqual([{ host, port: 6379 }]);
  expect(slots.ownerOf('any')).toBe(`${host}:6379`);
});

test('knows no owner where there is none', () => {
  expect(new Slots([], asked).ownerOf('foo')).toBeUndefined();
  expect(new Slots([[0, 1, ['10.0.0.1', 6379]]], asked).ownerOf('foo')).toBeUndefined();
});

test.each([
  { answer: undefined },
  { answer: 'OK' },
  { answer: [1, null] },
  { answer: [[0, 1]] },
  { answer: [[0, 1, null]] },
  { answer: [['a', 'b', ['host', 'port']]] },
])('makes nothing of $answer', ({ answer }) => {
  expect(new Slots(answer, asked).ownerOf('foo')).toBeUndefined();
});

test('is the same where all slots have the same owners, however that is said', () => {
  const slots = (host: string | null, ...more: unknown[]) =>
    new Slots([[0, 16_383, [host, 6379, ...more]]], asked);
  expect(slots(null).equals(slots('redis-0', 'id', []))).toBe(true);
  expect(slots(null).equals(slots('redis-1'))).toBe(false);
  expect(slots(null).equals(new Slots([], asked))).toBe(false);
  expect(new Slots([], asked).equals(slots(null))).toBe(false);
  expect(slots(null).equals(new Slots([[0, 16_382, [null, 6379]]], asked))).toBe(false);
});

test.each([
  ['MOVED 12182 10.0.0.2:6380', { kind: 'MOVED', node: '10.0.0.2:6380' }],
  ['ASK 1 10.0.0.2:6380', { kind: 'ASK', node: '10.0.0.2:6380' }],
  ['MOVED 1 2001:db8::1:6379', { kind: 'MOVED', node: '2001:db8::1:6379' }],
  ['MOVED 1 :6379', { kind: 'MOVED', node: 'redis-0:6379' }],
  ['ERR no such thing', undefined],
  ['CLUSTERDOWN Hash slot not served', undefined],
])('reads %s', (message, redirect) => {
  expect(readRedirect(new Error(message), asked)).toEqual(redirect);
});
