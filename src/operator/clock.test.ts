import { expect, test } from 'vitest';
import { Clock } from './clock.ts';

test('notices once that the time of day was set, in either direction, and not that time passes', () => {
  let [dayMs, steadyMs] = [1_000_000, 0];
  const clock = new Clock(
    () => dayMs,
    () => steadyMs,
  );
  const pass = (ms: number, setByMs = 0) => {
    steadyMs += ms;
    dayMs += ms + setByMs;
    return clock.wasSet();
  };
  expect(pass(5000)).toBe(false);
  expect(pass(3_600_000)).toBe(false);
  expect(pass(5000, 100)).toBe(false);
  expect(pass(5000, -3_600_000)).toBe(true);
  expect(pass(5000)).toBe(false);
  expect(pass(5000, 60_000)).toBe(true);
});
