import { afterAll, beforeEach, expect, test } from 'vitest';
import { KubeApi } from '../../test/kube-api.ts';
import { until } from '../../test/until.ts';
import type { KubeObject } from './kube.ts';
import { Watched } from './watched.ts';

const api = await KubeApi.start();
const kube = api.client();
afterAll(async () => {
  kube.close();
  await api.stop();
});

const pods = '/api/v1/namespaces/chat/pods';
let restarts = 0;
let faults: string[] = [];

beforeEach(() => {
  api.fault = () => undefined;
  restarts = 0;
  faults = [];
});

function watch(): Watched<KubeObject> {
  return new Watched<KubeObject>({
    kube,
    path: pods,
    report: (stage, error) => faults.push(`${stage}: ${error}`),
    onRestart: () => {
      restarts += 1;
    },
  }).start();
}

const names = (watched: Watched<KubeObject>) => watched.items.map(({ metadata }) => metadata.name).sort();

async function holds(watched: Watched<KubeObject>, expected: string): Promise<void> {
  await until(() => names(watched).join() === expected, { what: `it to hold ${expected}` });
}

async function whileWatching(run: (watched: Watched<KubeObject>) => Promise<void>): Promise<void> {
  const watched = watch();
  await until(() => api.watches === 1, { what: 'the watch' });
  await run(watched);
  await watched.stop();
  await until(() => api.watches === 0, { what: 'the watch to end' });
  for (const name of names(watched)) api.delete(`${pods}/${name}`);
}

test('knows what was there and what comes, changes and goes', async () => {
  api.put(`${pods}/a`, {});
  await whileWatching(async (watched) => {
    await holds(watched, 'a');
    api.put(`${pods}/b`, {});
    await holds(watched, 'a,b');
    api.put(`${pods}/b`, { spec: 1 });
    await until(() => watched.items.some((item) => (item as unknown as { spec?: number }).spec === 1), {
      what: 'the change',
    });
    api.delete(`${pods}/a`);
    await holds(watched, 'b');
    expect(restarts).toBe(0);
  });
});

test('says that nothing is known before everything was listed', async () => {
  api.fault = (request) => (request === `GET ${pods}` ? 500 : undefined);
  const watched = watch();
  await until(() => restarts > 1, { what: 'two tries' });
  expect(watched.isComplete).toBe(false);
  api.fault = () => undefined;
  await until(() => watched.isComplete, { what: 'the list' });
  await watched.stop();
});

// The client library's own informer stops for good at the first of these.
for (const [what, end] of [
  ['answered with an error', () => (api.fault = (request) => (request.endsWith('?watch') ? 500 : undefined))],
  ['told an error', () => api.endWatches({ code: 500 })],
  ['cut', () => api.endWatches('cut')],
] as const) {
  test(`begins anew when its watch is ${what}, counts that, and misses nothing`, async () => {
    await whileWatching(async (watched) => {
      end();
      if (what === 'answered with an error') api.endWatches('cut');
      api.put(`${pods}/missed`, {});
      await until(() => restarts > 0, { what: 'a restart' });
      api.fault = () => undefined;
      await holds(watched, 'missed');
      await until(() => api.watches === 1, { what: 'a new watch' });
      expect(faults[0]).toContain('watch /api/v1/namespaces/chat/pods');
    });
  });
}

test('lists again when what it knows is too old, which is no failure', async () => {
  await whileWatching(async (watched) => {
    api.endWatches({ code: 410 });
    api.put(`${pods}/missed`, {});
    await holds(watched, 'missed');
    expect(restarts).toBe(0);
  });
});

test('goes on where it was when the server ends the watch as agreed', async () => {
  await whileWatching(async (watched) => {
    const lists = () => api.requests.filter((request) => request === `GET ${pods}`).length;
    const before = lists();
    api.endWatches('end');
    await until(() => api.watches === 1, { what: 'a new watch' });
    api.put(`${pods}/later`, {});
    await holds(watched, 'later');
    expect(lists()).toBe(before);
    expect(restarts).toBe(0);
  });
});
