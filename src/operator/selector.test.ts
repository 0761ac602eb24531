import { expect, test } from 'vitest';
import { parseSelector, selectorText } from './selector.ts';

test('matches labels as Kubernetes does', () => {
  const cases: [string, Record<string, string>, boolean][] = [
    ['', {}, true],
    ['app=a', { app: 'a' }, true],
    ['app==a', { app: 'b' }, false],
    ['app=a,tier=web', { app: 'a', tier: 'web' }, true],
    ['app=a,tier=web', { app: 'a' }, false],
    ['app!=a', {}, true],
    ['app!=a', { app: 'a' }, false],
    ['app', { app: '' }, true],
    ['app', {}, false],
    ['!app', {}, true],
    ['!app', { app: 'a' }, false],
    ['app in (a, b)', { app: 'b' }, true],
    ['app in (a,b)', {}, false],
    ['app notin (a,b)', {}, true],
    ['app notin (a,b),tier=web', { app: 'a', tier: 'web' }, false],
    ['example.com/app = a', { 'example.com/app': 'a' }, true],
    ['constructor', {}, false],
  ];
  for (const [selector, labels, expected] of cases) {
    expect(parseSelector(selector)?.(labels), `${selector} of ${JSON.stringify(labels)}`).toBe(expected);
  }
});

test('knows what is no selector', () => {
  for (const text of ['app=a,,b=c', '=a', 'app in a', 'app in (a', 'app~a', ',']) {
    expect(parseSelector(text), text).toBeUndefined();
  }
});

test('writes a workload’s selector so that it reads the same', () => {
  const text = selectorText({
    matchLabels: { app: 'a', tier: 'web' },
    matchExpressions: [
      { key: 'zone', operator: 'In', values: ['x', 'y'] },
      { key: 'old', operator: 'DoesNotExist' },
      { key: 'team', operator: 'Exists' },
      { key: 'track', operator: 'NotIn', values: ['canary'] },
    ],
  });
  expect(text).toBe('app=a,tier=web,zone in (x,y),!old,team,track notin (canary)');
  const matches = parseSelector(text);
  expect(matches?.({ app: 'a', tier: 'web', zone: 'y', team: 't' })).toBe(true);
  expect(matches?.({ app: 'a', tier: 'web', zone: 'y', team: 't', track: 'canary' })).toBe(false);
});
