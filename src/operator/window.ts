// The window: the only times of the week at which connections may be moved.

import type { Window } from './policy.ts';

const DAY_MINUTES = 24 * 60;
const days: readonly string[] = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];

/** Whether it is open. @throws RangeError where nobody knows the time zone. */
export function isOpen(window: Window, nowMs: number): boolean {
  const { day, minute } = localTime(nowMs, window.timeZone);
  const [start, end] = [minuteOf(window.start), minuteOf(window.end)];
  const length = end > start ? end - start : end - start + DAY_MINUTES;
  const begins = (index: number) => window.days.some((name) => name === days[index]);
  const sinceToday = minute - start;
  if (begins(day) && sinceToday >= 0 && sinceToday < length) return true;
  return begins((day + 6) % 7) && sinceToday + DAY_MINUTES < length;
}

/** Whether the time zone is known here. */
export function isTimeZone(timeZone: string): boolean {
  try {
    new Intl.DateTimeFormat('en-US', { timeZone });
    return true;
  } catch {
    return false;
  }
}

function localTime(nowMs: number, timeZone: string): { day: number; minute: number } {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    weekday: 'short',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  });
  const parts = new Map(format.formatToParts(nowMs).map(({ type, value }) => [type, value]));
  return {
    day: days.indexOf(parts.get('weekday') ?? ''),
    minute: Number(parts.get('hour')) * 60 + Number(parts.get('minute')),
  };
}

function minuteOf(time: string): number {
  const [hours, minutes] = time.split(':');
  return Number(hours) * 60 + Number(minutes);
}
