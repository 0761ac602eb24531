import fc from 'fast-check';
import { expect, test } from 'vitest';
import { wildText } from '../../test/arbitraries.ts';
import { nearest } from './nearest.ts';

const known = [
  'subscribe',
  'publish',
  'presence',
  'presenceEvents',
  'raw',
  'durable',
  'PORT',
  'POD_NAME',
  'JWKS_URL',
  'MAX_CONNECTIONS',
];

test.each([
  ['subcribe', 'subscribe'],
  ['Publish', 'publish'],
  ['presense', 'presence'],
  ['presenceEvent', 'presenceEvents'],
  ['JWKS_URI', 'JWKS_URL'],
  ['MAX_CONECTION', 'MAX_CONNECTIONS'],
  ['PORTS', undefined],
  ['NODE_NAME', undefined],
  ['rar', undefined],
  ['PATH', undefined],
  ['send', undefined],
  ['', undefined],
])('takes %s for %s', (name, meant) => {
  expect(nearest(name, known)).toBe(meant);
});

test('takes nothing for what is longer or shorter by more than two letters, and each name for itself', () => {
  fc.assert(
    fc.property(wildText, (text) => {
      expect(nearest(text, [...known, text])).toBe(text);
      expect(nearest(`${text}123`, [text])).toBeUndefined();
    }),
  );
});
