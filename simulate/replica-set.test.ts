import { expect, test } from 'vitest';
import { pickForRemoval, type Removable } from './replica-set.ts';

const NOW = Date.UTC(2026, 0, 1);
const ago = (seconds: number) => NOW - seconds * 1000;

function pod(uid: string, fields: Partial<Removable> = {}): Removable {
  const usual = { ready: true, deletionCost: 0, onSameNode: 1, readyAtMs: ago(3600), createdAtMs: ago(3610) };
  return { uid, ...usual, ...fields };
}

const picked = (count: number, ...pods: Removable[]) =>
  pickForRemoval(pods, count, NOW).map(({ uid }) => uid);

test('what is not ready goes first, whatever its cost', () => {
  expect(
    picked(1, pod('ready', { deletionCost: -5 }), pod('starting', { ready: false, deletionCost: 900 })),
  ).toEqual(['starting']);
});

test('among ready pods the cost decides, before node and age', () => {
  const young = { readyAtMs: ago(10), onSameNode: 5 };
  expect(
    picked(2, pod('full', { deletionCost: 900, ...young }), pod('a', { deletionCost: 3 }), pod('b')),
  ).toEqual(['b', 'a']);
});

test('with equal costs the one that shares its node with more goes, and then the younger', () => {
  expect(picked(1, pod('alone', { readyAtMs: ago(10) }), pod('crowded', { onSameNode: 2 }))).toEqual([
    'crowded',
  ]);
  expect(picked(1, pod('old'), pod('young', { readyAtMs: ago(60) }))).toEqual(['young']);
});

test('ages are only told apart by powers of two, so that the oldest may go as well', () => {
  expect(picked(1, pod('b', { readyAtMs: ago(3000) }), pod('a', { readyAtMs: ago(3600) }))).toEqual(['a']);
});

test('nothing is picked where there is none too many', () => {
  expect(picked(0, pod('a'))).toEqual([]);
  expect(picked(-2, pod('a'))).toEqual([]);
});
