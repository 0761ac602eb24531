import { expect, test } from 'vitest';
import type { Window } from './policy.ts';
import { isOpen, isTimeZone } from './window.ts';

const everyDay: Window['days'] = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];
const at = (text: string) => Date.parse(text);

test.each([
  ['within', '02:00', '05:00', 'UTC', '2026-11-22T03:00:00Z', true],
  ['at its first moment', '02:00', '05:00', 'UTC', '2026-11-22T02:00:00Z', true],
  ['at its end', '02:00', '05:00', 'UTC', '2026-11-22T05:00:00Z', false],
  ['before it', '02:00', '05:00', 'UTC', '2026-11-22T01:59:59Z', false],
  ['late in one that goes past midnight', '22:00', '05:00', 'UTC', '2026-11-22T23:00:00Z', true],
  ['early in one that goes past midnight', '22:00', '05:00', 'UTC', '2026-11-22T04:00:00Z', true],
  ['between two of those', '22:00', '05:00', 'UTC', '2026-11-22T12:00:00Z', false],
  ['in one that lasts all day', '08:00', '08:00', 'UTC', '2026-11-22T07:59:00Z', true],
  ['elsewhere, where it is an hour later', '02:00', '05:00', 'Europe/Berlin', '2026-11-22T01:00:00Z', true],
  ['elsewhere in summer, where it is two', '02:00', '05:00', 'Europe/Berlin', '2026-07-22T03:30:00Z', false],
  ['at midnight', '00:00', '01:00', 'UTC', '2026-11-22T00:00:00Z', true],
])('%s', (_, start, end, timeZone, moment, open) => {
  expect(isOpen({ start, end, timeZone, days: everyDay }, at(moment))).toBe(open);
});

test('days are those on which it begins, so that a night belongs to its evening', () => {
  const saturdayNight: Window = { start: '22:00', end: '05:00', timeZone: 'UTC', days: ['Sat'] };
  expect(isOpen(saturdayNight, at('2026-11-21T23:00:00Z'))).toBe(true); // Saturday
  expect(isOpen(saturdayNight, at('2026-11-22T04:00:00Z'))).toBe(true); // the night to Sunday
  expect(isOpen(saturdayNight, at('2026-11-22T23:00:00Z'))).toBe(false); // Sunday
  expect(isOpen(saturdayNight, at('2026-11-21T04:00:00Z'))).toBe(false); // the night before
});

test('time zones are those of the IANA database', () => {
  expect(isTimeZone('America/Argentina/Buenos_Aires')).toBe(true);
  expect(isTimeZone('Atlantis/Capital')).toBe(false);
});
