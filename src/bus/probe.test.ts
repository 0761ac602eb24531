// How the probe judges. The clock is the test's; what comes back, and when, stands in for Redis.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Probe } from './probe.ts';

/** What the other side does with probes. */
let redis: 'answers' | 'swallows' | 'refuses' | 'is silent';
let events: string[];
let published: { topic: string; text: string }[];
let probe: Probe;

function makeProbe(): Probe {
  const made: Probe = new Probe({
    topic: 'tg:{probe:0}:pod',
    async publish(topic, bytes) {
      published.push({ topic, text: bytes.toString() });
      if (redis === 'is silent') return new Promise(() => {});
      if (redis === 'refuses') throw new Error('connect ECONNREFUSED');
      if (redis === 'answers') setTimeout(() => made.hear(topic, bytes), 2);
      return 1;
    },
    subscribe: () => Promise.resolve(),
    onReturn: (seconds) => events.push(`returned after ${Math.round(seconds * 1000)} ms`),
    onDeaf: (missed) => events.push(`missed ${missed}`),
    onRefusal: () => events.push('refused'),
    onStall: () => events.push('stalled'),
  });
  return made;
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout', 'performance'] });
  redis = 'answers';
  events = [];
  published = [];
  probe = makeProbe();
});
afterEach(() => {
  probe.stop();
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const health = () => ({ state: probe.state, reason: probe.reason });

test('is up with the first probe that comes back, which is sent as soon as it can be heard', async () => {
  expect(health()).toEqual({ state: 'starting', reason: 'no probe has come back yet' });
  probe.start();
  await pass(2);
  await probe.firstReturn;
  expect(health()).toEqual({ state: 'up', reason: '' });
  expect(events).toEqual(['returned after 2 ms']);
  await pass(5000);
  expect(published).toHaveLength(11);
  expect(new Set(published.map(({ text }) => text)).size).toBe(11);
});

test('says why it cannot start, and does not call that being down', async () => {
  redis = 'refuses';
  probe.start();
  await pass(3000);
  expect(health()).toEqual({
    state: 'starting',
    reason: 'Redis does not take messages: connect ECONNREFUSED',
  });
  redis = 'swallows';
  await pass(30_000);
  expect(health()).toEqual({
    state: 'starting',
    reason: 'Redis takes messages, but they do not come back to this pod',
  });
});

test('is down at once where probes are refused, and up with the first that comes back', async () => {
  probe.start();
  await pass(100);
  redis = 'refuses';
  await pass(500);
  expect(health()).toEqual({ state: 'down', reason: 'Redis does not take messages: connect ECONNREFUSED' });
  expect(events.at(-1)).toBe('refused');
  redis = 'answers';
  await pass(510);
  expect(health()).toEqual({ state: 'up', reason: '' });
});

test('asks for another subscription when a probe is missed, and is deaf when that does not help', async () => {
  probe.start();
  await pass(100);
  redis = 'swallows';
  await pass(2500);
  expect(events.at(-1)).toBe('missed 1');
  expect(probe.state).toBe('up');
  await pass(7500);
  expect(health()).toEqual({
    state: 'deaf',
    reason: 'Redis takes messages, but they do not come back to this pod',
  });
  expect(events.at(-1)).toMatch(/missed [34]/);
  redis = 'answers';
  await pass(2500);
  expect(health()).toEqual({ state: 'up', reason: '' });
});

test('is never deaf after an outage, however long that was', async () => {
  probe.start();
  await pass(100);
  // It was already missing probes when Redis went away.
  redis = 'swallows';
  await pass(2500);
  redis = 'refuses';
  await pass(60_000);
  expect(probe.state).toBe('down');
  redis = 'swallows';
  await pass(3000);
  expect(probe.state).toBe('down');
  redis = 'answers';
  probe.again();
  await pass(10);
  expect(probe.state).toBe('up');
});

test('does not wait for what was sent before a subscription was made anew', async () => {
  probe.start();
  await pass(100);
  redis = 'swallows';
  await pass(500);
  redis = 'answers';
  probe.again();
  await pass(2);
  expect(events.at(-1)).toBe('returned after 2 ms');
  await pass(5000);
  expect(events.filter((event) => event.startsWith('missed'))).toEqual([]);
});

test('asks for other connections when nothing is said at all, and gives them time', async () => {
  probe.start();
  await pass(100);
  redis = 'is silent';
  await pass(3400);
  expect(events.at(-1)).toBe('stalled');
  const before = events.length;
  await pass(2000);
  expect(events).toHaveLength(before);
  await pass(1000);
  expect(events.slice(before)).toEqual(['stalled']);
});

test('blames nobody for the time that its own process was held up', async () => {
  probe.start();
  await pass(100);
  redis = 'swallows';
  await pass(500);
  // Nothing ran, and nothing was read, for a while.
  vi.spyOn(performance, 'now').mockReturnValueOnce(performance.now() + 20_000);
  const before = events.length;
  await pass(500);
  expect(events).toHaveLength(before);
  expect(probe.state).toBe('up');
});

test('goes on under another topic, and forgets the one before', async () => {
  probe.start();
  await pass(100);
  redis = 'swallows';
  await pass(500);
  const last = published.at(-1);
  redis = 'answers';
  probe.moveTo('tg:{probe:1}:pod');
  await pass(10);
  expect(published.at(-1)?.topic).toBe('tg:{probe:1}:pod');
  expect(probe.hear(last?.topic ?? '', Buffer.from(last?.text ?? ''))).toBe(false);
  await pass(5000);
  expect(events.filter((event) => event.startsWith('missed'))).toEqual([]);
  expect(probe.state).toBe('up');
});

test('forgets a refusal of what was given up', async () => {
  probe.start();
  await pass(100);
  redis = 'refuses';
  await pass(395);
  // The slot of its topic has moved, which the refusal was about.
  probe.moveTo('tg:{probe:1}:pod');
  redis = 'answers';
  await pass(600);
  expect(events).not.toContain('refused');
});

test('takes only its own messages', async () => {
  probe.start();
  await pass(100);
  expect(probe.hear('tg:{c:room}', Buffer.from('1'))).toBe(false);
  expect(probe.hear(probe.topic, Buffer.from('something else'))).toBe(true);
});

test('sends nothing more once it has stopped, and lets those go who wait for it', async () => {
  redis = 'refuses';
  probe.start();
  await pass(700);
  probe.stop();
  await probe.firstReturn;
  const before = published.length;
  probe.again();
  await pass(5000);
  expect(published).toHaveLength(before);
});
