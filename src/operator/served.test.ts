import { expect, test } from 'vitest';
import type { Answer } from './observation.ts';
import type { Observer } from './observe.ts';
import type { SeenPod } from './pods.ts';
import { decodeSpec, type Policy } from './policy.ts';
import { decodeAnswer } from './poll.ts';
import { MAX_AGE_MS, Served } from './served.ts';

const NOW = 1_000_000_000;

function policyOf(namespace: string, serve = true): Policy {
  const decoded = decodeSpec({ targetRef: { kind: 'Deployment', name: 'x' }, metrics: { serve } });
  if ('fault' in decoded) throw new Error(decoded.fault);
  const rest = { name: 'x', uid: 'x', generation: 1, createdAtMs: 0, status: undefined };
  return { namespace, spec: decoded.spec, ...rest };
}

function answerOf(connections: number, atMs: number, counters: object = {}) {
  return decodeAnswer(JSON.stringify({ connections, startedAt: '2026-01-01T00:00:00Z', ...counters }), atMs);
}

function podOf(name: string, answer: Answer | undefined, more: Partial<SeenPod> = {}): SeenPod {
  return {
    name,
    uid: name,
    ready: true,
    deleting: false,
    createdAtMs: 0,
    deletionCost: undefined,
    heard: answer
      ? { known: true, answer }
      : { known: false, sinceMs: 0, fault: 'unreachable', last: undefined },
    labels: { app: 'gateway' },
    address: undefined,
    runs: true,
    before: undefined,
    bus: 'unknown',
    ...more,
  };
}

function served(pods: SeenPod[], policy = policyOf('chat'), isComplete = true): Served {
  return new Served(
    () => [{ policy, isComplete, pods } as unknown as Observer],
    () => NOW,
  );
}

const silent = (last: Answer): Partial<SeenPod> => ({
  heard: { known: false, sinceMs: last.atMs, fault: 'unreachable', last },
});

test('tells of every pod, with the time at which it was true', () => {
  const pods = [podOf('a', answerOf(5, NOW - 1000)), podOf('b', answerOf(0, NOW))];
  expect(served(pods).query('chat', 'tidegate_connections', () => true)).toEqual({
    samples: [
      { pod: 'a', value: 5, atMs: NOW - 1000 },
      { pod: 'b', value: 0, atMs: NOW },
    ],
  });
});

// A pod that is missing counts as exactly on target, so that the autoscaler would scale in.
test('tells a pod’s last value for a minute, and then of no pod at all', () => {
  const last = answerOf(5, NOW - MAX_AGE_MS);
  const pods = (atMs: number) => [
    podOf('a', answerOf(1, NOW)),
    podOf('b', undefined, silent({ ...last, atMs })),
  ];
  expect(served(pods(NOW - MAX_AGE_MS)).query('chat', 'tidegate_connections', () => true)).toMatchObject({
    samples: [{ pod: 'a' }, { pod: 'b', value: 5, atMs: NOW - MAX_AGE_MS }],
  });
  expect(served(pods(NOW - MAX_AGE_MS - 1)).query('chat', 'tidegate_connections', () => true)).toMatchObject({
    status: 503,
    message: expect.stringContaining('pod b'),
  });
  // From a clock that was set back since: nobody knows how old it is.
  expect(served(pods(NOW + 3_600_000)).query('chat', 'tidegate_connections', () => true)).toMatchObject({
    status: 503,
  });
  // Of others it still tells.
  expect(served(pods(0)).query('chat', 'tidegate_connections', ({ name }) => name === 'a')).toHaveProperty(
    'samples',
  );
});

test('tells nothing before the first round has come to its end', () => {
  const pods = [podOf('a', answerOf(5, NOW))];
  expect(
    served(pods, policyOf('chat'), false).query('chat', 'tidegate_connections', () => true),
  ).toMatchObject({
    status: 503,
  });
});

test('tells nothing while a pod that runs has never been heard', () => {
  const pods = [podOf('a', answerOf(5, NOW)), podOf('new', undefined)];
  expect(served(pods).query('chat', 'tidegate_connections', () => true)).toMatchObject({ status: 503 });
});

test('leaves out what the autoscaler leaves out: pods that go, and pods that do not run yet', () => {
  const pods = [
    podOf('a', answerOf(5, NOW)),
    podOf('going', answerOf(99, NOW), { deleting: true }),
    podOf('pending', undefined, { runs: false }),
  ];
  expect(served(pods).query('chat', 'tidegate_connections', () => true)).toEqual({
    samples: [{ pod: 'a', value: 5, atMs: NOW }],
  });
});

test('knows nothing of other namespaces, nor of policies that do not want it', () => {
  const pods = [podOf('a', answerOf(5, NOW))];
  expect(served(pods).query('other', 'tidegate_connections', () => true)).toMatchObject({ status: 404 });
  expect(
    served(pods, policyOf('chat', false)).query('chat', 'tidegate_connections', () => true),
  ).toMatchObject({
    status: 404,
  });
  expect(served(pods).query('chat', 'tidegate_connections', () => false)).toMatchObject({ status: 404 });
});

test('makes rates of counters, and none where they began anew', () => {
  const before = answerOf(1, NOW - 2000, { deliveries: 100, refused: { capacity: 1, moving: 5 } });
  const after = answerOf(1, NOW, { deliveries: 350, refused: { capacity: 4, moving: 90 } });
  const query = (answer: Answer, metric: 'tidegate_deliveries_per_second' | 'tidegate_refusals_per_second') =>
    served([podOf('a', answer, { before })]).query('chat', metric, () => true);
  expect(query(after, 'tidegate_deliveries_per_second')).toMatchObject({ samples: [{ value: 125 }] });
  // Clients that were sent on are no refusals: they are the operator's own doing.
  expect(query(after, 'tidegate_refusals_per_second')).toMatchObject({ samples: [{ value: 1.5 }] });
  expect(query({ ...after, startedAtMs: 7 }, 'tidegate_deliveries_per_second')).toMatchObject({
    status: 503,
  });
  expect(query({ ...after, deliveries: 3 }, 'tidegate_deliveries_per_second')).toMatchObject({ status: 503 });
});
