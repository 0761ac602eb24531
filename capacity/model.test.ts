import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { chartValues } from './chart-values.ts';
import { choices } from './constants.ts';
import { type Demand, planFor, planWith, podsReached } from './model.ts';

const rooms: Demand = {
  connections: 100_000,
  publishesPerSecond: 1000,
  recipients: 10,
  messageBytes: 200,
  durableShare: 0,
};

describe('the capacity model', () => {
  test('never plans fewer than two pods, because one may be missing', () => {
    expect(planFor({ ...rooms, connections: 10, publishesPerSecond: 0 }).pods).toBe(2);
  });

  test('holds every limit that it names, with one pod missing too', () => {
    fc.assert(
      fc.property(
        fc.record({
          connections: fc.integer({ min: 1, max: 2_000_000 }),
          publishesPerSecond: fc.integer({ min: 0, max: 20_000 }),
          recipients: fc.integer({ min: 0, max: 50 }),
          messageBytes: fc.integer({ min: 1, max: 65_536 }),
          durableShare: fc.double({ min: 0, max: 1, noNaN: true }),
        }),
        (demand) => {
          const plan = planFor(demand);
          expect(plan.podCpuCores).toBeLessThanOrEqual(choices.podCpu.value);
          expect(plan.podCpuCoresOneLost).toBeLessThanOrEqual(choices.podCpuOneLost.value);
          expect(plan.maxConnections).toBeLessThanOrEqual(choices.maxConnections.value);
          expect(plan.connectionsPerPod).toBeLessThanOrEqual(
            plan.maxConnections * choices.targetShare.value + 1,
          );
          expect((plan.pods - 1) * plan.maxConnections).toBeGreaterThanOrEqual(demand.connections);
          expect(plan.redisCpuCoresPerMaster).toBeLessThanOrEqual(choices.redisCpu.value);
        },
      ),
    );
  });

  test('plans the fewest pods: one less would break a limit', () => {
    for (const connections of [200_000, 1_000_000]) {
      const plan = planFor({ ...rooms, connections });
      const less = planWith({ ...rooms, connections }, plan.pods - 1);
      expect(less.nearest.some(({ limit, share }) => limit !== 'redis cpu' && share > 1)).toBe(true);
    }
  });

  test('needs more for more of anything', () => {
    const base = planFor(rooms);
    expect(planFor({ ...rooms, connections: 1_000_000 }).pods).toBeGreaterThan(base.pods);
    expect(planFor({ ...rooms, recipients: 1000 }).pods).toBeGreaterThan(base.pods);
    expect(planFor({ ...rooms, publishesPerSecond: 40_000 }).redisMasters).toBeGreaterThanOrEqual(3);
  });

  test('says so where no number of pods is enough', () => {
    expect(() => planFor({ ...rooms, publishesPerSecond: 1_000_000, recipients: 100_000 })).toThrow(
      /no number of pods/,
    );
  });

  test('reaches one pod with one recipient, and all with many', () => {
    expect(podsReached(10, 1)).toBeCloseTo(1);
    expect(podsReached(10, 1000)).toBeCloseTo(10);
    expect(podsReached(1, 5)).toBe(1);
  });

  test('gives values of the chart that keep its own rules', () => {
    const plan = planFor({ ...rooms, connections: 1_000_000, publishesPerSecond: 100_000 });
    const values = parse(chartValues(plan));
    expect(values.autoscaling.connections.target).toBeLessThanOrEqual(0.7 * values.maxConnections);
    expect(Number.parseInt(values.resources.requests.cpu, 10)).toBeLessThanOrEqual(800);
    expect(values.autoscaling.minReplicas).toBe(plan.pods);
    expect(values.redis.enabled).toBe(false);
  });
});
