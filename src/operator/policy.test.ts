import { expect, test } from 'vitest';
import { z } from 'zod';
import { decodeSpec, durationSeconds, specSchema } from './policy.ts';

const targetRef = { kind: 'Deployment', name: 'tidegate' };

test('A policy needs nothing but its target', () => {
  const decoded = decodeSpec({ targetRef });
  expect(decoded).toEqual({
    spec: {
      targetRef: { apiVersion: 'apps/v1', ...targetRef },
      adminPort: 9090,
      rebalance: {
        by: 'connections',
        maxSkew: 1.2,
        ratePerSecond: 100,
        minAge: '30s',
        order: 'random',
        plain: false,
        suspend: false,
      },
      scaleIn: { protect: true },
      metrics: { serve: true },
    },
  });
});

test('Faults are told with their place, also those of what is no object at all', () => {
  expect(decodeSpec({ targetRef, rebalance: { maxSkew: 0.5 } })).toEqual({
    fault: expect.stringContaining('spec.rebalance.maxSkew'),
  });
  expect(decodeSpec({ targetRef, rebalance: { minAge: 'soon' } })).toEqual({
    fault: expect.stringContaining('a duration is written as 30s, 5m or 1h30m'),
  });
  for (const raw of [null, undefined, 7, 'spec', []]) expect(decodeSpec(raw)).toHaveProperty('fault');
});

test('The schema of the custom resource can be made from it, defaults and help included', () => {
  const made = z.toJSONSchema(specSchema, { io: 'input' });
  expect(made.required).toEqual(['targetRef']);
  expect(made).toHaveProperty('properties.rebalance.properties.maxSkew', {
    type: 'number',
    minimum: 1.05,
    maximum: 10,
    default: 1.2,
    description: expect.stringContaining('fullest pod'),
  });
});

test('Durations are read as Kubernetes writes them', () => {
  expect(durationSeconds('30s')).toBe(30);
  expect(durationSeconds('1h30m')).toBe(5400);
  expect(durationSeconds('1.5m')).toBe(90);
  expect(durationSeconds('250ms')).toBe(0.25);
});
