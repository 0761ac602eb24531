import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { KubeApi } from '../../test/kube-api.ts';
import { aPolicy } from '../../test/observation.ts';
import { Applier } from './apply.ts';
import { decideInvalid } from './decide.ts';
import { createOperatorMetrics } from './metrics.ts';
import type { Policy, PolicyStatus } from './policy.ts';
import { Poller } from './poll.ts';

const api = await KubeApi.start();
const kube = api.client();
const poller = new Poller();
afterAll(async () => {
  poller.close();
  kube.close();
  await api.stop();
});
afterEach(() => {
  vi.restoreAllMocks();
});

const path = '/apis/tidegate.dev/v1alpha1/namespaces/default/connectionpolicies/gateway';
const term = new AbortController();
let steadyMs = 0;

function applier(): Applier {
  return new Applier({
    kube,
    poller,
    metrics: createOperatorMetrics('0'),
    report: () => {},
    identity: 'one',
    now: () => steadyMs,
  });
}

function stored(): Policy {
  api.delete(path);
  return aPolicy({}, { uid: api.put(path, {}).metadata.uid });
}

const statusOf = (policy: Policy, connections: number): PolicyStatus => ({
  ...decideInvalid(policy, 'nothing', 0).status,
  connections,
});
const written = () => (api.get(path)?.status as PolicyStatus | undefined)?.connections;

test('writes numbers now and then, also while somebody sets the clock back', async () => {
  const policy = stored();
  const one = applier();
  await one.writeStatus(policy, statusOf(policy, 1), term.signal);
  await one.writeStatus(policy, statusOf(policy, 2), term.signal);
  expect(written()).toBe(1);
  const before = Date.now();
  vi.spyOn(Date, 'now').mockReturnValue(before - 3_600_000);
  steadyMs += 30_000;
  await one.writeStatus(policy, statusOf(policy, 3), term.signal);
  expect(written()).toBe(3);
});

test('leaves alone a policy of the same name that came since', async () => {
  const gone = stored();
  const one = applier();
  stored();
  await one.writeStatus(gone, statusOf(gone, 7), term.signal);
  expect(written()).toBeUndefined();
});

test('writes nothing more when another leads', async () => {
  const policy = stored();
  const over = new AbortController();
  over.abort();
  const before = api.requests.length;
  const target = { policy, workload: undefined, pods: [] };
  await applier().apply(decideInvalid(policy, 'nothing', 0), target, over.signal);
  expect(api.requests.slice(before)).toEqual([]);
});
