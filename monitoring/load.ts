// Load for the monitoring: gateways behind one Redis, and clients that use all that they have, so that every panel has
// something to show.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Client, connect } from '../src/client/client.ts';
import { decide } from '../src/operator/decide.ts';
import { createOperatorMetrics, measurePolicy } from '../src/operator/metrics.ts';
import type { Observation } from '../src/operator/observation.ts';
import { decodeSpec } from '../src/operator/policy.ts';
import { startBalancer } from '../test/balancer.ts';
import { startLocalGateway } from '../test/local-gateway.ts';
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
async function startOperatorMetrics(
  pods: () => Promise<readonly number[]>,
): Promise<Target & { stop(): void }> {
  const metrics = createOperatorMetrics('load');
  metrics.leader.read = () => 1;
  const decoded = decodeSpec({ targetRef: { kind: 'Deployment', name: 'tidegate' } });
  if ('fault' in decoded) throw new Error(decoded.fault);
  const name = { namespace: 'chat', name: 'tidegate' };
  const createdAtMs = Date.now();
  const policy = { ...name, uid: 'load', generation: 1, createdAtMs, spec: decoded.spec, status: undefined };
  const scrape = async () => {
    const observation = observationOf(await pods(), name);
    const { status } = decide(policy, observation, undefined, Date.now());
    measurePolicy(metrics, policy, observation, status);
    return metrics.registry.metrics();
  };
  const server = createServer((_, response) => {
    scrape().then(
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
    metricsApi: undefined,
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

/** A gateway, in this process or in one of its own. */
export interface LoadedGateway {
  readonly url: string;
  readonly adminUrl: string;
  readonly ports: { readonly ws: number };
  stop(): Promise<unknown>;
}

export interface Load {
  readonly redis: RedisServer;
  readonly gateways: readonly LoadedGateway[];
  /** For Prometheus. */
  targets(): Target[];
  /** Another pod, which new clients find. */
  addGateway(): Promise<LoadedGateway>;
  /** No new client finds it any more, and it drains. */
  stopGateway(gateway: LoadedGateway): Promise<void>;
  /** More clients, all in a room and a document. */
  addClients(count: number): Promise<void>;
  /** Asks a pod to keep no more than this, as the operator does. */
  setCeiling(gateway: LoadedGateway, connections: number): Promise<void>;
  stop(): Promise<void>;
}

const ADMIN_TOKEN = 'token-of-the-load-01';

/** Starts gateways behind a load balancer, with so many clients on each. Somebody says something in every channel many
 * times a second. `start` makes a gateway. */
export async function startLoad(
  pods: number,
  clientsEach: number,
  env: Record<string, string> = {},
  start: (env: Record<string, string>) => Promise<LoadedGateway> = startLocalGateway,
): Promise<Load> {
  const redis = await startRedis({ args: ['--maxmemory', '64mb'] });
  const balancer = await startBalancer();
  const url = `ws://127.0.0.1:${balancer.port}/ws`;
  const gateways: LoadedGateway[] = [];
  const open = new Set<LoadedGateway>();
  const speakers: TestClient[] = [];
  const clients: Client[] = [];
  const authorization = `Bearer ${ADMIN_TOKEN}`;

  const useOpen = () => balancer.use(...[...open].map(({ ports }) => ports.ws));

  async function connectionsOf({ adminUrl }: LoadedGateway): Promise<number> {
    const response = await fetch(`${adminUrl}/connections`, { headers: { authorization } });
    return ((await response.json()) as { connections: number }).connections;
  }

  const operator = await startOperatorMetrics(() => Promise.all([...open].map(connectionsOf)));

  async function addGateway(): Promise<LoadedGateway> {
    const gateway = await start({ REDIS_URL: redis.url, CHANNELS, ADMIN_TOKEN, ...env });
    gateways.push(gateway);
    open.add(gateway);
    useOpen();
    return gateway;
  }

  async function addClients(count: number): Promise<void> {
    await Promise.all(
      Array.from({ length: count }, async (_, at) => {
        const client = connect({ url: `${url}/user${clients.length}` });
        clients.push(client);
        const subscriptions = [`room:${at % 3}`, `doc:${at % 2}`].map((channel) =>
          client.channel(channel).subscribe(() => {}),
        );
        await Promise.all(subscriptions.map(({ ready }) => ready));
      }),
    );
  }

  for (let at = 0; at < pods; at += 1) await addGateway();
  await addClients(pods * clientsEach);
  for (const gateway of gateways) {
    const speaker = await TestClient.v1(`${gateway.url}/ws/speaker${speakers.length}`);
    // Nobody looks at what it is answered, and it would be kept for ever.
    speaker.ws.removeAllListeners('message');
    speakers.push(speaker);
  }
  const plain = await TestClient.open(`${gateways.at(-1)?.url}/ws/plain`);
  plain.ws.removeAllListeners('message');
  let said = 0;
  const timer = setInterval(() => {
    for (const speaker of speakers.filter(({ ended }) => ended === undefined)) {
      said += 1;
      speaker.send({ type: 'publish', channel: `room:${said % 3}`, data: { said } });
      if (said % 3 === 0) speaker.send({ type: 'publish', channel: `doc:${said % 2}`, data: { said } });
      if (said % 7 === 0) speaker.send({ type: 'send', user: `user${said % clients.length}`, data: said });
    }
    if (said % 5 === 0) plain.send(`hello ${said}`);
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
    async stopGateway(gateway) {
      open.delete(gateway);
      useOpen();
      await gateway.stop();
    },
    async setCeiling({ adminUrl }, connections) {
      const body = JSON.stringify({
        connections,
        minAgeSeconds: 0,
        shedPerSecond: 4,
        expiresAfterMs: 60_000,
      });
      await fetch(`${adminUrl}/ceiling`, { method: 'PUT', headers: { authorization }, body });
    },
    async stop() {
      clearInterval(timer);
      for (const client of clients) client.close();
      for (const { ws } of [...speakers, plain]) ws.terminate();
      await Promise.all(gateways.map((gateway) => gateway.stop()));
      operator.stop();
      await balancer.stop();
      await redis.stop();
    },
  };
}
