// Load for the monitoring: gateways behind one Redis, and clients that use all that they have, so that every panel has
// something to show.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decide } from '../src/operator/decide.ts';
import { createOperatorMetrics, measurePolicy } from '../src/operator/metrics.ts';
import type { Observation } from '../src/operator/observation.ts';
import { decodeSpec } from '../src/operator/policy.ts';
import { type LocalGateway, startLocalGateway } from '../test/local-gateway.ts';
import type { Target } from '../test/prometheus.ts';
import { type RedisServer, startRedis } from '../test/redis.ts';
import { TestClient } from '../test/websocket.ts';

const CHANNELS = JSON.stringify({
  namespaces: {
    room: { subscribe: 'anyone', publish: 'anyone', presence: true },
    doc: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 1000, ageSeconds: 600 } },
    ws_broadcast: { subscribe: 'anyone', publish: 'anyone', raw: true },
  },
});

/** As the pods of the chart's Deployment are called. */
const PODS = ['aaaaa', 'bbbbb', 'ccccc', 'ddddd', 'eeeee'].map((end) => `tidegate-7d9f8c6b5-${end}`);

/** An operator's metrics, as its own code makes them: of a policy for these pods, decided anew at each scrape. It has
 * no cluster here. */
async function startOperatorMetrics(pods: () => readonly number[]): Promise<Target & { stop(): void }> {
  const metrics = createOperatorMetrics('load');
  metrics.leader.read = () => 1;
  const decoded = decodeSpec({ targetRef: { kind: 'Deployment', name: 'tidegate' } });
  if ('fault' in decoded) throw new Error(decoded.fault);
  const name = { namespace: 'chat', name: 'tidegate' };
  const createdAtMs = Date.now();
  const policy = { ...name, uid: 'load', generation: 1, createdAtMs, spec: decoded.spec, status: undefined };
  const server = createServer((_, response) => {
    const observation = observationOf(pods(), name);
    const { status } = decide(policy, observation, undefined, Date.now());
    measurePolicy(metrics, policy, observation, status);
    metrics.registry.metrics().then(
      (text) => response.end(text),
      () => response.destroy(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    adminUrl: `http://127.0.0.1:${port}`,
    labels: { namespace: 'chat', pod: 'tidegate-operator-5c7b9d8f4-aaaaa' },
    stop: () => void server.close(),
  };
}

/** Pods with so many connections each, all of them well. */
function observationOf(pods: readonly number[], workload: { namespace: string; name: string }): Observation {
  const replicas = pods.length;
  return {
    workload: {
      ...workload,
      kind: 'Deployment',
      desired: replicas,
      actual: replicas,
      rolling: false,
      graceSeconds: 45,
      preStopSeconds: 5,
    },
    hpa: { name: workload.name, min: 2, max: 5, desired: replicas, current: replicas, atLimit: false },
    pods: pods.map((connections, at) => ({
      name: PODS[at] ?? String(at),
      uid: String(at),
      ready: true,
      deleting: false,
      createdAtMs: 0,
      deletionCost: undefined,
      heard: {
        known: true,
        answer: { ...NOTHING_TOLD, atMs: Date.now(), connections },
      },
    })),
    bus: 'up',
    rivals: [],
  };
}

/** Only `connections` is a must. */
const NOTHING_TOLD = {
  maxConnections: undefined,
  phase: undefined,
  startedAtMs: undefined,
  accepted: undefined,
  refused: undefined,
  refusedMoving: undefined,
  deliveries: undefined,
  cpuSeconds: undefined,
  movable: undefined,
  immovable: undefined,
  drainSeconds: undefined,
  ceiling: undefined,
  shed: undefined,
};

export interface Load {
  readonly redis: RedisServer;
  readonly gateways: readonly LocalGateway[];
  /** For Prometheus. */
  targets(): Target[];
  /** Another pod. */
  addGateway(): Promise<LocalGateway>;
  /** More clients on a gateway, all in a room and a document. */
  addClients(gateway: LocalGateway, count: number): Promise<TestClient[]>;
  stop(): Promise<void>;
}

/** Starts gateways with so many clients each. Somebody says something in every channel many times a second. */
export async function startLoad(
  pods: number,
  clientsEach: number,
  env: Record<string, string> = {},
): Promise<Load> {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-load-'));
  writeFileSync(join(folder, 'keys'), 'the-key\n');
  const redis = await startRedis({ args: ['--maxmemory', '64mb'] });
  const gateways: LocalGateway[] = [];
  const speakers: TestClient[] = [];
  const clients: TestClient[] = [];

  const counts = new Map<LocalGateway, number>();
  const operator = await startOperatorMetrics(() => gateways.map((it) => counts.get(it) ?? 0));

  async function addGateway(): Promise<LocalGateway> {
    const gateway = await startLocalGateway({
      REDIS_URL: redis.url,
      CHANNELS,
      API_KEYS_FILE: join(folder, 'keys'),
      ...env,
    });
    gateways.push(gateway);
    return gateway;
  }

  async function addClients(gateway: LocalGateway, count: number): Promise<TestClient[]> {
    const added = await Promise.all(
      Array.from({ length: count }, async (_, at) => {
        const client = await TestClient.v1(`${gateway.url}/ws/user${clients.length + at}`);
        await client.call({ type: 'subscribe', channels: [`room:${at % 3}`, `doc:${at % 2}`] });
        // Nobody looks at what arrives, and it would be kept for ever.
        client.ws.removeAllListeners('message');
        return client;
      }),
    );
    clients.push(...added);
    counts.set(gateway, (counts.get(gateway) ?? 0) + count);
    return added;
  }

  for (let at = 0; at < pods; at += 1) {
    const gateway = await addGateway();
    await addClients(gateway, clientsEach);
    const speaker = await TestClient.v1(`${gateway.url}/ws/speaker${at}`);
    speaker.ws.removeAllListeners('message');
    speakers.push(speaker);
    clients.push(await TestClient.open(`${gateway.url}/ws/plain${at}`));
  }
  let said = 0;
  const timer = setInterval(() => {
    for (const speaker of speakers) {
      said += 1;
      speaker.send({ type: 'publish', channel: `room:${said % 3}`, data: { said } });
      if (said % 3 === 0) speaker.send({ type: 'publish', channel: `doc:${said % 2}`, data: { said } });
      if (said % 7 === 0) speaker.send({ type: 'send', user: `user${said % clients.length}`, data: said });
    }
    if (said % 5 === 0) clients.find((it) => it.ws.protocol === '')?.send(`hello ${said}`);
  }, 20);

  return {
    redis,
    gateways,
    targets: () => [
      ...gateways.map(({ adminUrl }, at) => ({
        adminUrl,
        labels: { namespace: 'chat', pod: PODS[at] ?? `tidegate-7d9f8c6b5-${String(at).padStart(5, '0')}` },
      })),
      operator,
    ],
    addGateway,
    addClients,
    async stop() {
      clearInterval(timer);
      for (const { ws } of [...speakers, ...clients]) ws.terminate();
      await Promise.all(gateways.map((gateway) => gateway.stop()));
      operator.stop();
      await redis.stop();
      rmSync(folder, { recursive: true });
    },
  };
}
