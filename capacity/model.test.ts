import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { chartValues } from './chart-values.ts';
import { choices } from './constants.ts';
import { type Demand, planFor, planWith, podsReached, threadCores } from './model.ts';

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
          expect(plan.podLoad).toBeLessThanOrEqual(choices.podLoad.value);
          expect(plan.podLoadOneLost).toBeLessThanOrEqual(choices.podLoadOneLost.value);
          expect(plan.maxConnections).toBeLessThanOrEqual(choices.maxConnections.value);
          expect(plan.connectionsPerPod).toBeLessThanOrEqual(
            plan.maxConnections * choices.targetShare.value + 1,
          );
          expect((plan.pods - 1) * plan.maxConnections).toBeGreaterThanOrEqual(demand.connections);
          expect(plan.redisLoadPerMaster).toBeLessThanOrEqual(choices.redisLoad.value);
          expect(plan.redisMibitPerSecond / plan.redisMasters).toBeLessThanOrEqual(choices.redisMibit.value);
        },
      ),
    );
  });

  test('plans the fewest pods: one less would break a limit', () => {
    for (const connections of [200_000, 1_000_000]) {
      const plan = planFor({ ...rooms, connections });
      const less = planWith({ ...rooms, connections }, plan.pods - 1);
      expect(less.nearest.some(({ limit, share }) => !limit.startsWith('redis') && share > 1)).toBe(true);
    }
  });

  test('needs more for more of anything', () => {
    const base = planFor(rooms);
    expect(planFor({ ...rooms, connections: 1_000_000 }).pods).toBeGreaterThan(base.pods);
    expect(planFor({ ...rooms, recipients: 1000 }).pods).toBeGreaterThan(base.pods);
    const many = { ...rooms, publishesPerSecond: 40_000 };
    expect(planFor(many).redisMasters).toBe(1);
    expect(planFor({ ...many, durableShare: 1 }).redisMasters).toBeGreaterThanOrEqual(3);
    expect(planFor({ ...many, messageBytes: 10_000 }).redisMasters).toBeGreaterThanOrEqual(3);
  });

  test('says so where no number of pods is enough', () => {
    expect(() => planFor({ ...rooms, publishesPerSecond: 1_000_000, recipients: 100_000 })).toThrow(
      /no number of pods/,
    );
  });

  test('says how long a message to everybody takes on each pod, which is shorter on more of them', () => {
    const news = { ...rooms, publishesPerSecond: 1, recipients: rooms.connections };
    const [few, many] = [planWith(news, 3), planWith(news, 30)];
    expect(few.sweepMs).toBeGreaterThan(100);
    expect(many.sweepMs).toBeCloseTo(few.sweepMs / 10);
    expect(planFor({ ...rooms, recipients: 0 }).sweepMs).toBe(0);
  });

  test('shows a thread as busier than its share of a full one, and full where it is full', () => {
    expect(threadCores(0.01, 0.001)).toBeCloseTo(0.01, 3);
    expect(threadCores(0.5, 0.5)).toBe(0.5);
    expect(threadCores(20, 1)).toBe(1);
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 1, max: 100, noNaN: true }),
        (busy, times) => {
          const cores = threadCores(busy * times, busy);
          expect(cores).toBeGreaterThanOrEqual(busy * 0.999);
          expect(cores).toBeLessThanOrEqual(Math.min(1, busy * times) * 1.001);
        },
      ),
    );
  });

  test('reaches one pod with one recipient, and all with many', () => {
    expect(podsReached(10, 1)).toBeCloseTo(1);
    expect(podsReached(10, 1000)).toBeCloseTo(10);
    expect(podsReached(1, 5)).toBe(1);
  });

  test('gives values of the chart that keep its own rules', () => {
    const plan = planFor({ ...rooms, connections: 1_000_000, publishesPerSecond: 100_000, durableShare: 1 });
    const values = parse(chartValues(plan));
    expect(values.autoscaling.connections.target).toBeLessThanOrEqual(0.7 * values.maxConnections);
    expect(Number.parseInt(values.resources.requests.cpu, 10)).toBeLessThanOrEqual(1000);
    expect(values.autoscaling.minReplicas).toBe(plan.pods);
    expect(values.redis.enabled).toBe(false);
  });
});
