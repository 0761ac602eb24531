// The operator's decisions on real gateways with real clients, behind a load balancer that picks at random. Rounds are made
// five times as fast as in production.

import { expect, onTestFinished, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { type Balancer, startBalancer } from '../../test/balancer.ts';
import { type LocalGateway, startLocalGateway } from '../../test/local-gateway.ts';
import { anObservation, aPod, aPolicy } from '../../test/observation.ts';
import { until } from '../../test/until.ts';
import { connect } from '../client/client.ts';
import type { WebSocketConstructor } from '../client/platform.ts';
import { decide } from './decide.ts';
import type { Decision } from './decision.ts';
import { Poller } from './poll.ts';

const token = 'a-token-of-some-length';
const HASTE = 5;
// Half a minute on a machine that is free.
vi.setConfig({ testTimeout: 600_000 });
const PATIENCE = { timeoutMs: 250_000, pollIntervalMs: 1000 };
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

async function start(): Promise<LocalGateway> {
  const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
  const gateway = await startLocalGateway({ CHANNELS: channels, ADMIN_TOKEN: token, LOG_LEVEL: 'error' });
  onTestFinished(() => gateway.stop());
  return gateway;
}

/** Clients of ours, each of which notices when it is without any connection. */
async function gather({ port }: Balancer, count: number): Promise<{ alone: () => number }> {
  let alone = 0;
  let ended = false;
  const clients = Array.from({ length: count }, (_, at) => {
    const open = new Set<WebSocket>();
    class Counted extends WebSocket {
      constructor(address: string, protocols: string[]) {
        super(address, protocols);
        this.on('open', () => open.add(this));
        this.on('close', () => {
          if (open.delete(this) && open.size === 0 && !ended) alone += 1;
        });
      }
    }
    const WebSocketOfClient = Counted as unknown as WebSocketConstructor;
    const client = connect({ url: `ws://127.0.0.1:${port}/ws/m${at}`, WebSocket: WebSocketOfClient });
    return { client, ready: client.channel('room:1').subscribe(() => {}).ready };
  });
  onTestFinished(async () => {
    ended = true;
    await Promise.all(clients.map(({ client }) => client.close()));
  });
  await Promise.all(clients.map(({ ready }) => ready));
  return { alone: () => alone };
}

/** An operator without Kubernetes: it polls these gateways, decides, and sets what was decided. */
function operate(spec: Readonly<Record<string, unknown>>) {
  const poller = new Poller();
  onTestFinished(() => poller.close());
  const startedAtMs = Date.now();
  let policy = aPolicy(spec);
  let decision: Decision | undefined;
  const { signal } = new AbortController();
  return {
    /** Whoever leads from now on remembers nothing. */
    changeLeader() {
      decision = undefined;
    },
    async round(gateways: readonly LocalGateway[]): Promise<Decision> {
      const address = ({ ports }: LocalGateway) => ({ host: '127.0.0.1', port: ports.admin, token });
      const nowMs = startedAtMs + (Date.now() - startedAtMs) * HASTE;
      const answers = await Promise.all(gateways.map((gateway) => poller.ask(address(gateway))));
      const pods = answers.map((answer, at) =>
        aPod(`pod-${at}`, 0, { heard: { known: true, answer: { ...answer, atMs: nowMs } } }),
      );
      const made = decide(policy, anObservation(pods), decision?.memory, nowMs);
      const of = (name: string) => address(gateways[Number(name.slice('pod-'.length))] as LocalGateway);
      await Promise.all([
        ...made.ceilings.map(({ name, ceiling }) => poller.setCeiling(of(name), ceiling, signal)),
        ...made.lifts.map(({ name }) => poller.liftCeiling(of(name), signal)),
      ]);
      decision = made;
      policy = { ...policy, status: made.status };
      return made;
    },
  };
}

test('two full pods become four even ones, with hardly more moves than needed, and a new leader halfway', async () => {
  const count = 300;
  const old = [await start(), await start()];
  const balancer = await startBalancer(...old.map(({ ports }) => ports.ws));
  onTestFinished(() => balancer.stop());
  const crowd = await gather(balancer, count);
  const gateways = [...old, await start(), await start()];
  balancer.use(...gateways.map(({ ports }) => ports.ws));
  balancer.pickAtRandom();

  const operator = operate({ rebalance: { minAge: '0s' } });
  const states: string[] = [];
  let changed = false;
  const last = await until(
    async () => {
      const { status, events } = await operator.round(gateways);
      states.push(status.state);
      if (!changed && (status.lastRebalance?.moved ?? 0) > count / 6) {
        operator.changeLeader();
        changed = true;
      }
      return events.some(({ reason }) => reason === 'RebalanceFinished') && status;
    },
    { ...PATIENCE, what: 'the pods to be even' },
  );
  expect(changed).toBe(true);
  expect(states.slice(0, 2)).toEqual(['Confirming', 'Probing']);
  expect(last.lastRebalance).toMatchObject({ outcome: 'Even' });

  // Lifted, nobody is asked any more, and those who were on their way arrive.
  const settled = await until(
    async () => {
      const { status } = await operator.round(gateways);
      return status.connections === count && status;
    },
    { ...PATIENCE, what: 'every client to have one connection' },
  );
  const least = count / 2;
  const looks = await Promise.all(
    gateways.map(async ({ adminUrl }) => {
      const headers = { authorization: `Bearer ${token}` };
      return (await fetch(`${adminUrl}/connections`, { headers })).json() as Promise<{
        refused: Record<string, number>;
        shed: { moved: number };
      }>;
    }),
  );
  const moved = sum(looks.map(({ shed }) => shed.moved));
  const tries = moved + sum(looks.map(({ refused }) => refused.moving ?? 0));
  expect(settled.skew).toBeLessThanOrEqual(1.15);
  expect(moved).toBeLessThanOrEqual(1.2 * least);
  expect(tries).toBeLessThanOrEqual(2.5 * least);
  expect(crowd.alone()).toBe(0);
});

test('where new pods are not registered with the load balancer, a few are asked, nobody is lost, and it says so', async () => {
  const [old, added] = [await start(), await start()];
  const balancer = await startBalancer(old.ports.ws);
  onTestFinished(() => balancer.stop());
  const crowd = await gather(balancer, 60);
  const operator = operate({ rebalance: { minAge: '0s' } });
  const { status } = await until(
    async () => {
      const decision = await operator.round([old, added]);
      return decision.status.state === 'NotReceiving' && decision;
    },
    { ...PATIENCE, what: 'the probe to end' },
  );
  expect(status.lastRebalance?.asked).toBeLessThanOrEqual(12);
  expect(status.connections).toBe(60);
  expect(crowd.alone()).toBe(0);
});
