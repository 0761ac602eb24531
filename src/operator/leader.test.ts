import { afterAll, expect, test } from 'vitest';
import { KubeApi } from '../../test/kube-api.ts';
import { until } from '../../test/until.ts';
import { Leader, type LeaseTimes } from './leader.ts';

const api = await KubeApi.start();
afterAll(() => api.stop());

/** As in production, but for how often is asked: nothing expires while a test runs, however slow the machine is. */
const times: LeaseTimes = { leaseMs: 60_000, renewMs: 40_000, retryMs: 100 };
/** For tests that wait for the end of a lease. */
const short: LeaseTimes = { leaseMs: 1500, renewMs: 1000, retryMs: 100 };
const leases = '/apis/coordination.k8s.io/v1/namespaces/chat/leases';

/** A replica that writes down from when to when it led. */
function replica(name: string, identity: string, leaseTimes = times) {
  const terms: { readonly fromMs: number; toMs: number | undefined; readonly over: AbortSignal }[] = [];
  const kube = api.client();
  const leader = new Leader({
    kube,
    namespace: 'chat',
    name,
    identity,
    times: leaseTimes,
    report: () => {},
    onLead(over) {
      const term = { fromMs: performance.now(), toMs: undefined as number | undefined, over };
      terms.push(term);
      over.addEventListener('abort', () => {
        term.toMs = performance.now();
      });
    },
  }).start();
  return { leader, terms, identity, kube };
}

const holder = (name: string) =>
  (api.get(`${leases}/${name}`)?.spec as { holderIdentity?: string })?.holderIdentity;

test('lets one of two lead, and the other at once when the first stops', async () => {
  const one = replica('stops', 'one');
  await until(() => one.leader.isLeading, { what: 'one to lead' });
  const two = replica('stops', 'two');
  await until(() => api.requests.filter((request) => request.includes('stops')).length > 8, {
    what: 'both to ask',
  });
  expect(two.leader.isLeading).toBe(false);
  expect(holder('stops')).toBe('one');
  await one.leader.stop();
  expect(one.terms[0]?.over.aborted).toBe(true);
  expect(holder('stops')).toBe('');
  await until(() => two.leader.isLeading, { what: 'two to lead' });
  expect(two.terms[0]?.fromMs).toBeGreaterThanOrEqual(one.terms[0]?.toMs ?? Number.NaN);
  await two.leader.stop();
});

test('writes times as a Lease wants them', async () => {
  const one = replica('times', 'one');
  await until(() => one.leader.isLeading, { what: 'it to lead' });
  const spec = api.get(`${leases}/times`)?.spec as { renewTime: string; acquireTime: string };
  expect(spec.renewTime).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  expect(spec.acquireTime).toMatch(/\.\d{6}Z$/);
  await one.leader.stop();
});

test('takes over from a leader that is gone without a word, after the lease', async () => {
  api.put(`${leases}/gone`, {
    spec: { holderIdentity: 'dead', leaseDurationSeconds: 15, leaseTransitions: 3 },
  });
  const beganMs = performance.now();
  const one = replica('gone', 'one', short);
  await until(() => one.leader.isLeading, { what: 'it to take over' });
  expect((one.terms[0]?.fromMs ?? 0) - beganMs).toBeGreaterThanOrEqual(short.leaseMs);
  expect(api.get(`${leases}/gone`)?.spec).toMatchObject({ holderIdentity: 'one', leaseTransitions: 4 });
  await one.leader.stop();
});

test('ends its term by itself when it cannot renew, before another may begin', async () => {
  const one = replica('frozen', 'one', short);
  await until(() => one.leader.isLeading, { what: 'one to lead' });
  // Of this replica alone: what it asks is never answered.
  one.kube.patch = () => new Promise(() => {});
  const two = replica('frozen', 'two', short);
  await until(() => two.leader.isLeading, { what: 'two to lead' });
  expect(one.leader.isLeading).toBe(false);
  expect(two.terms[0]?.fromMs).toBeGreaterThan(one.terms[0]?.toMs ?? Number.POSITIVE_INFINITY);
  await two.leader.stop();
});

test('goes on leading through failures that are shorter than its time', async () => {
  const one = replica('hiccup', 'one');
  await until(() => one.leader.isLeading, { what: 'it to lead' });
  let failed = 0;
  api.fault = (request) => (request.includes('hiccup') && failed++ < 3 ? 500 : undefined);
  await until(() => failed > 5, { what: 'the failures to be over' });
  api.fault = () => undefined;
  expect(one.leader.isLeading).toBe(true);
  expect(one.terms).toHaveLength(1);
  await one.leader.stop();
});

test('does not lead where somebody else was faster', async () => {
  const both = [replica('race', 'one'), replica('race', 'two'), replica('race', 'three')];
  await until(() => both.some(({ leader }) => leader.isLeading), { what: 'one of them to lead' });
  const before = api.requests.length;
  await until(() => api.requests.length > before + 20, { what: 'them all to ask again' });
  expect(both.filter(({ leader }) => leader.isLeading)).toHaveLength(1);
  expect(both.find(({ leader }) => leader.isLeading)?.identity).toBe(holder('race'));
  await Promise.all(both.map(({ leader }) => leader.stop()));
});
