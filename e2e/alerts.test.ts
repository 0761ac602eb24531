// Alerts: what each is about is brought about, and the chart's own rules see it in a real Prometheus.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import type { Client } from '../src/client/client.ts';
import { eventually } from './cluster.ts';
import { Prometheus } from './prometheus.ts';
import { type Pod, quickValues, Release } from './release.ts';
import { useSpace } from './space.ts';
import { call, tunnel } from './tunnel.ts';

/** As many as a pod holds here, so that it is soon full. */
const MAX_CONNECTIONS = 6;

const SHORT = { for: '4s' };

const values = {
  ...quickValues,
  // So that one or another of the deaf is late all the time: who answers nothing is cut five seconds after the close, which
  // is in time where a drain is longer.
  drainSeconds: 20,
  replicaCount: 2,
  maxConnections: MAX_CONNECTIONS,
  autoscaling: { enabled: true, minReplicas: 2, maxReplicas: 2, connections: { enabled: false } },
  operator: { enabled: false },
  redis: { ...(quickValues.redis as object), maxMemoryMebibytes: 16 },
  monitoring: {
    rules: {
      noPodReady: SHORT,
      configFileInvalid: SHORT,
      // A new pod on a busy machine may take some seconds to its first probe.
      busDown: { for: '15s' },
      refusals: { percent: 5, ...SHORT },
      redisMemory: { percent: 80, ...SHORT },
      hpaAtMax: { for: '10s' },
      drainOverrun: { connections: 0 },
    },
  },
};

/** Of a machine that starves this is true: no fault of the rules. */
const SLOW = ['TidegateDeliveryLatencyBudgetBurn', 'TidegateEventLoopLag'];

let release: Release;
let prometheus: Prometheus;

const space = useSpace('alerts', async (it) => {
  release = await Release.install(it, { values });
  prometheus = await Prometheus.start(it, 'tidegate', values);
  await release.pods(2);
});

/** What fires and is neither expected nor the machine's fault. */
async function others(...expected: string[]): Promise<string[]> {
  const firing = (await prometheus.firing()).map(({ labels }) => labels.alertname ?? '');
  return firing.filter((it) => ![...expected, ...SLOW].includes(it));
}

test('the rules see both pods, and only what is so is said', async () => {
  const both = `sum(tidegate_ready{namespace="${space.namespace}"}) == 2`;
  await eventually('both pods to be scraped', 60, () => prometheus.value(both));
  const alert = await prometheus.fires('TidegateHpaAtMax');
  expect(alert.annotations.runbook_url).toMatch(/\/TidegateHpaAtMax\.md$/);
  // While the pods started none was ready, and that was said, too.
  await eventually('nothing else to fire', 60, async () => {
    expect(await others('TidegateHpaAtMax')).toEqual([]);
    return true;
  });
});

// Before any pod drains: those that hold on to an older file are then on their way out, which is no fault.
test('TidegateConfigFileInvalid fires for channels that cannot be used, and ends when they are mended', async () => {
  const hold = async (text: string) => {
    const patch = JSON.stringify({ data: { 'channels.yaml': text } });
    await release.kubectl('patch', 'configmap', 'tidegate-channels', '--patch', patch);
    await release.bringFiles();
  };
  const before = await release.kubectl(
    ...['get', 'configmap', 'tidegate-channels', '--output', 'jsonpath={.data.channels\\.yaml}'],
  );
  try {
    await hold('namespaces: {room: {subscribe: whoever}}');
    const alert = await prometheus.fires('TidegateConfigFileInvalid', 180);
    expect(alert.labels).toMatchObject({ file: 'CHANNELS_FILE', severity: 'warning' });
  } finally {
    await hold(before);
  }
  await prometheus.ends('TidegateConfigFileInvalid');
});

test('a rolling restart fires nothing, while clients talk and move', async () => {
  await using clients = new AsyncDisposableStack();
  const talkers = await Promise.all(
    ['ann', 'bob', 'cho'].map(async (user) => {
      const client = clients.use(release.client(user));
      await client.channel('room:roll').subscribe(() => {}).ready;
      return client;
    }),
  );
  await release.kubectl('rollout', 'restart', 'deployment/tidegate');
  let isOver = false;
  const roll = release.kubectl('rollout', 'status', 'deployment/tidegate', '--timeout=800s').then(() => {
    isOver = true;
  });
  const fired = new Set<string>();
  await eventually('the roll to end', 280, async () => {
    await Promise.allSettled(talkers.map((client) => client.channel('room:roll').publish('hello')));
    for (const name of await others('TidegateHpaAtMax')) fired.add(name);
    return isOver;
  });
  await roll;
  expect([...fired]).toEqual([]);
});

test('TidegateRefusals fires when a pod is full', async () => {
  const [pod] = await release.pods(2);
  await using held = new AsyncDisposableStack();
  for (let at = 0; at < MAX_CONNECTIONS; at += 1) {
    const connection = await release.connection(`user${at}`, pod);
    held.defer(() => connection.ws.terminate());
  }
  let refused = 0;
  const knock = async () => {
    await release.connection('late', pod).then(
      ({ ws }) => ws.terminate(),
      () => {
        refused += 1;
      },
    );
    return (await prometheus.firing()).find(({ labels }) => labels.alertname === 'TidegateRefusals');
  };
  const alert = await eventually('TidegateRefusals to fire', 120, knock);
  expect(refused).toBeGreaterThan(0);
  expect(alert.labels).toMatchObject({ reason: 'capacity', severity: 'warning', namespace: space.namespace });
});

test('TidegateRedisMemory fires when durable channels fill Redis', async () => {
  const authorization = `Bearer ${await release.secret('api-key')}`;
  const body = { channel: 'doc:large', data: 'x'.repeat(60_000) };
  const publish = () =>
    call(`${release.httpUrl(8081)}/v1/publish`, { method: 'POST', headers: { authorization }, body });
  const fill = async () => {
    // It refuses the last ones: that is what the alert is to prevent.
    await Promise.all(Array.from({ length: 20 }, publish));
    return (await prometheus.firing()).find(({ labels }) => labels.alertname === 'TidegateRedisMemory');
  };
  const alert = await eventually('TidegateRedisMemory to fire', 180, fill);
  expect(alert.annotations.description).toMatch(/^Redis uses (?:[89]\d|10\d)[.\d]*% of its maxmemory/);
});

test('TidegateBusDown and TidegateProbeFailing fire while Redis is away, and TidegateGapsDeclared when it is back', async () => {
  await using listeners = new AsyncDisposableStack();
  const listen = async (pod: Pod): Promise<Client> => {
    const client = listeners.use(release.client(`hears-${pod.name}`, { pod }));
    await client.channel('room:outage').subscribe(() => {}).ready;
    return client;
  };
  const pods = await release.pods(2);
  await Promise.all(pods.map(listen));
  await release.kubectl('scale', 'statefulset/tidegate-redis', '--replicas=0');
  try {
    const [down, probes] = await Promise.all([
      prometheus.fires('TidegateBusDown'),
      prometheus.fires('TidegateProbeFailing'),
    ]);
    expect(down.labels.severity).toBe('critical');
    expect(pods.map(({ name }) => name)).toContain(down.labels.pod);
    expect(['refused', 'stalled']).toContain(probes.labels.reason);
  } finally {
    await release.kubectl('scale', 'statefulset/tidegate-redis', '--replicas=1');
  }
  const gaps = await prometheus.fires('TidegateGapsDeclared', 180);
  expect(gaps.labels.reason).toBe('bus');
  await prometheus.ends('TidegateBusDown');
});

/** A connection of a peer that never answers anything: its closing handshake comes to no end. */
async function openDeaf(pod: Pod): Promise<Socket> {
  const socket = tunnel(pod.address, 8080);
  const headers = [
    'GET /ws HTTP/1.1',
    'Host: tidegate',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Protocol: tidegate.v1',
    `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
    `Authorization: Bearer ${await release.token('deaf')}`,
  ];
  socket.write(`${headers.join('\r\n')}\r\n\r\n`);
  const [answer] = (await once(socket, 'data', { signal: AbortSignal.timeout(60_000) })) as [Buffer];
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 101 /);
  socket.pause().on('error', () => {});
  return socket;
}

test('TidegateDrainOverrun fires for clients that never leave, and TidegateNoPodReady when no pod is left', async () => {
  const [pod] = await release.pods(2);
  await using deaf = new AsyncDisposableStack();
  for (let at = 0; at < MAX_CONNECTIONS; at += 1) {
    const socket = await openDeaf(pod);
    deaf.defer(() => void socket.destroy());
  }
  await release.kubectl('scale', 'deployment/tidegate', '--replicas=0');
  const [overrun, gone] = await Promise.all([
    prometheus.fires('TidegateDrainOverrun'),
    prometheus.fires('TidegateNoPodReady', 180),
  ]);
  expect(overrun.labels.pod).toBe(pod.name);
  expect(gone.labels.severity).toBe('critical');
});
