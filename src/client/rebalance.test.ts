// Rebalancing, whole: gateways on a real Redis, behind a load balancer that picks at random, hundreds of clients under
// constant traffic, and in the operator's place the few lines that set ceilings.

import { afterAll, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket as WsWebSocket } from 'ws';
import { type Balancer, startBalancer } from '../../test/balancer.ts';
import { type LocalGateway, startLocalGateway } from '../../test/local-gateway.ts';
import { startProxy } from '../../test/proxy.ts';
import { startRedis } from '../../test/redis.ts';
import { until as untilSoon } from '../../test/until.ts';
import type { Connections } from '../gateway/admin.ts';
import { type Client, connect } from './client.ts';
import type { WebSocketConstructor } from './platform.ts';

// Half a minute on a machine that is free.
vi.setConfig({ testTimeout: 600_000 });
const until: typeof untilSoon = (condition, options) =>
  untilSoon(condition, { timeoutMs: 200_000, pollIntervalMs: 100, ...options });

const ADMIN_TOKEN = 'a-token-of-some-length';
const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
const CHANNELS = `
namespaces:
  room: {subscribe: anyone, publish: anyone}
  quiet: {subscribe: anyone, publish: anyone}
  doc: {subscribe: anyone, publish: anyone, durable: {messages: 10000, ageSeconds: 3600}}
send: anyone
`;
const redis = await startRedis();
afterAll(() => redis.stop());

async function start(env: Record<string, string> = {}): Promise<LocalGateway> {
  const gateway = await startLocalGateway({
    REDIS_URL: redis.url,
    CHANNELS,
    ADMIN_TOKEN,
    LOG_LEVEL: 'error',
    ...env,
  });
  onTestFinished(() => gateway.stop());
  return gateway;
}

const look = async ({ adminUrl }: LocalGateway) =>
  (await (await fetch(`${adminUrl}/connections`, { headers })).json()) as Connections;

async function setCeiling({ adminUrl }: LocalGateway, fields: Record<string, unknown>): Promise<void> {
  const body = JSON.stringify({ expiresAfterMs: 3000, shedPerSecond: 100, minAgeSeconds: 0, ...fields });
  await fetch(`${adminUrl}/ceiling`, { method: 'PUT', headers, body });
}

/** What the operator does in one round: full pods get their share as ceiling, and the others a little room. */
async function balance(gateways: readonly LocalGateway[]): Promise<void> {
  const pods = await Promise.all(gateways.map(look));
  const share = Math.ceil(sum(pods.map(({ connections }) => connections)) / pods.length);
  await Promise.all(
    gateways.map((gateway, at) => {
      const isFull = (pods[at]?.connections ?? 0) > share * 1.1;
      return setCeiling(gateway, { connections: isFull ? share : Math.ceil(share * 1.1) });
    }),
  );
}

/** How much fuller than the mean the fullest pod is. */
function skewOf(pods: readonly Connections[]): number {
  const connections = pods.map((pod) => pod.connections);
  return Math.max(...connections) / (sum(connections) / connections.length);
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

/** A client, what it heard, and how often it was without any open connection after its first. */
interface Member {
  readonly client: Client;
  readonly name: string;
  readonly heard: Record<'room' | 'quiet' | 'doc' | 'direct', number[]>;
  readonly troubles: string[];
  moves: number;
}

/** For a client that does not say that it can move, and so is never asked. */
const Settled = class extends WsWebSocket {
  constructor(address: string, protocols: string[]) {
    super(address.replace('moves=true', ''), protocols);
  }
} as unknown as WebSocketConstructor;

let rooms = 0;

/** Clients in one room and one document, each on a channel of its own where little is said, all under traffic. */
async function gather(balancer: Balancer, publisherUrl: string, count: number) {
  rooms += 1;
  const names = { room: `room:${rooms}`, quiet: `quiet:${rooms}`, doc: `doc:${rooms}` };
  const members = numbers(count).map((at) =>
    join(`ws://127.0.0.1:${balancer.port}/ws`, `m${rooms}-${at}`, names),
  );
  await Promise.all(members.map(({ ready }) => ready));
  const publisher = connect({ url: `${publisherUrl}/ws/publisher-${rooms}`, WebSocket: Settled });
  const sent = { room: 0, quiet: 0, doc: 0, direct: 0 };
  const publishing = new Map<string, Promise<unknown>>();
  /** Says something again and again, no faster than it is taken: a slow machine has less to carry. */
  const keepSaying = (kind: keyof typeof sent, everyMs: number, say: (number: number) => Promise<unknown>) =>
    setInterval(() => {
      if (publishing.has(kind)) return;
      const saying = say(sent[kind]++).then(() => void publishing.delete(kind));
      publishing.set(kind, saying);
    }, everyMs);
  const timers = [
    keepSaying('room', 250, (number) => publisher.channel(names.room).publish(number)),
    keepSaying('doc', 500, (number) => publisher.channel(names.doc).publish(number)),
    keepSaying('quiet', 1700, (number) => publisher.channel(names.quiet).publish(number)),
    keepSaying('direct', 300, (number) =>
      Promise.all(members.slice(0, 20).map(({ name }) => publisher.sendTo(name, number))),
    ),
  ];
  onTestFinished(() => timers.forEach(clearInterval));
  return {
    members,
    /** Ends the traffic, and looks whether everybody has heard everything once, and was never alone. */
    async check() {
      timers.forEach(clearInterval);
      await Promise.all(publishing.values());
      for (const [at, { heard, troubles }] of members.entries()) {
        expect(troubles).toEqual([]);
        for (const kind of ['room', 'quiet', 'doc', 'direct'] as const) {
          const expected = kind === 'direct' && at >= 20 ? 0 : sent[kind];
          await until(() => heard[kind].at(-1) === expected - 1 || expected === 0, {
            what: `the last of ${kind}`,
          });
          expect(heard[kind]).toEqual(numbers(expected));
        }
      }
      await publisher.close();
    },
  };
}

function join(url: string, name: string, names: { room: string; quiet: string; doc: string }) {
  const troubles: string[] = [];
  const sockets = new Set<WsWebSocket>();
  let closing = false;
  class Counted extends WsWebSocket {
    constructor(address: string, protocols: string[]) {
      super(address, protocols);
      this.on('open', () => sockets.add(this));
      this.on('close', () => {
        if (sockets.delete(this) && sockets.size === 0 && !closing) troubles.push('without a connection');
      });
    }
  }
  const client = connect({
    url: `${url}/${name}`,
    WebSocket: Counted as unknown as WebSocketConstructor,
    backoffMs: 300,
  });
  const heard: Member['heard'] = { room: [], quiet: [], doc: [], direct: [] };
  const member = { client, name, heard, troubles, moves: 0 };
  client.on('state', ({ state }) => state === 'open' || closing || troubles.push(state));
  client.on('gap', ({ channel = 'direct', reason }) => troubles.push(`gap ${channel} ${reason}`));
  client.on('error', (error) => troubles.push(String(error)));
  client.on('move', () => {
    member.moves += 1;
  });
  client.on('direct', ({ data }) => heard.direct.push(data as number));
  const ready = Promise.all(
    (['room', 'quiet', 'doc'] as const).map(
      (kind) => client.channel<number>(names[kind]).subscribe(({ data }) => heard[kind].push(data)).ready,
    ),
  );
  onTestFinished(() => {
    closing = true;
    return client.close();
  });
  return Object.assign(member, { ready });
}

it('flattens two full pods over four with hardly more moves than needed, and nobody notices', async () => {
  const old = [await start(), await start()];
  const balancer = await startBalancer(...old.map(({ ports }) => ports.ws));
  onTestFinished(() => balancer.stop());
  const count = 400;
  const { members, check } = await gather(balancer, old[0]?.url ?? '', count);
  const gateways = [...old, await start(), await start()];
  balancer.use(...gateways.map(({ ports }) => ports.ws));
  balancer.pickAtRandom();

  const isFlat = async () => {
    await balance(gateways);
    return skewOf(await Promise.all(gateways.map(look))) <= 1.1;
  };
  await until(isFlat, { what: 'all pods to be about equally full' });
  // Flat, so the operator lets the ceilings go, and what is on its way comes to its end.
  await Promise.all(
    gateways.map(({ adminUrl }) => fetch(`${adminUrl}/ceiling`, { method: 'DELETE', headers })),
  );
  const pods = await until(
    async () => {
      const moves = sum(members.map((it) => it.moves));
      const seen = await Promise.all(gateways.map(look));
      const isSettled =
        sum(seen.map(({ connections }) => connections)) === count + 1 &&
        // One that took longer than the gateway waits for it has counted as staying.
        sum(seen.map(({ shed }) => shed.moved + shed.stayed)) >= moves;
      return isSettled && seen;
    },
    { what: 'every client to have one connection' },
  );
  const least = count / 2;
  const moved = sum(members.map(({ moves }) => moves));
  const tries = moved + sum(pods.map(({ refused }) => refused.moving ?? 0));
  console.log(
    `  ${least} moves are needed: ${moved} moved, in ${tries} tries; skew ${skewOf(pods).toFixed(3)}`,
  );
  expect(skewOf(pods)).toBeLessThanOrEqual(1.15);
  expect(moved).toBeLessThanOrEqual(1.2 * least);
  expect(tries).toBeLessThanOrEqual(2.5 * moved);
  await check();
});

it('keeps everybody connected where pods drain and die of their ceilings in the middle of it', async () => {
  const old = [await start({ DRAIN_SECONDS: '20' }), await start()] as const;
  const balancer = await startBalancer(...old.map(({ ports }) => ports.ws));
  onTestFinished(() => balancer.stop());
  const fresh = await start();
  const { members, check } = await gather(balancer, fresh.url, 40);
  balancer.use(old[1].ports.ws, fresh.ports.ws);
  balancer.pickAtRandom();
  for (const gateway of old) await setCeiling(gateway, { connections: 5, shedPerSecond: 20 });
  await until(async () => (await look(old[0])).shed.moved >= 3, { what: 'some to move' });
  // Those who were asked already are told that they must go, and go also where they would be refused.
  await setCeiling(old[1], { connections: 0, shedPerSecond: 0, expiresAfterMs: 60_000 });
  await setCeiling(fresh, { connections: 0, shedPerSecond: 0, expiresAfterMs: 60_000 });
  await old[0].stop();
  expect((await look(old[1])).connections + (await look(fresh)).connections).toBe(members.length + 1);
  await check();
});

it('loses nothing of a quiet channel, of which the old pod hears later than the new one', async () => {
  const line = await startProxy({ target: redis.port });
  const [old, fresh] = [await start({ REDIS_URL: `redis://127.0.0.1:${line.port}` }), await start()];
  const door = await startProxy({ target: fresh.ports.ws });
  const balancer = await startBalancer(old.ports.ws);
  onTestFinished(async () => void (await Promise.all([line.stop(), door.stop(), balancer.stop()])));
  const names = { room: 'room:late', quiet: 'quiet:late', doc: 'doc:late' };
  const member = join(`ws://127.0.0.1:${balancer.port}/ws`, 'late', names);
  await member.ready;
  const publisher = connect({ url: `${fresh.url}/ws/publisher` });
  onTestFinished(() => publisher.close());
  const say = async (number: number) => {
    await Promise.all([
      ...Object.values(names).map((name) => publisher.channel(name).publish(number)),
      publisher.sendTo('late', number),
    ]);
  };
  await say(0);
  await until(() => member.heard.direct.length === 1, { what: 'the first' });
  balancer.use(door.port);
  door.stall();
  await setCeiling(old, { connections: 0 });
  await until(() => door.connections > 0, { what: 'the client to come to the new pod' });
  // What is said while it waits at the door the old pod hears late, and the new one never delivers.
  line.stall('tidegate-subscriber');
  await say(1);
  door.resume();
  const isIn = async () => (await fresh.metric('tidegate_channels')) === 3;
  await until(isIn, { what: 'the client to be subscribed at the new pod' });
  await say(2);
  expect(member.heard.quiet).toEqual([0]);
  line.resume();
  await until(() => member.moves === 1, { what: 'the move to be over' });
  await say(3);
  await until(() => member.heard.direct.at(-1) === 3, { what: 'the last' });
  expect(member.troubles).toEqual([]);
  expect(member.heard).toEqual({ room: numbers(4), quiet: numbers(4), doc: numbers(4), direct: numbers(4) });
});

it('stays where it is where every try is refused, and misses nothing', async () => {
  const [full, other] = [await start(), await start()];
  const balancer = await startBalancer(full.ports.ws);
  onTestFinished(() => balancer.stop());
  const { members, check } = await gather(balancer, other.url, 10);
  balancer.use(full.ports.ws, other.ports.ws);
  balancer.pickAtRandom();
  await setCeiling(other, { connections: 0, shedPerSecond: 0, expiresAfterMs: 60_000 });
  await setCeiling(full, { connections: 0, expiresAfterMs: 60_000 });
  const tries = async () =>
    sum((await Promise.all([look(full), look(other)])).map((it) => it.refused.moving ?? 0));
  await until(async () => (await tries()) === 8 * members.length, {
    what: 'all of them to have tried eight times',
  });
  await until(async () => (await look(full)).shed.stayed === 10, { what: 'all of them to have said so' });
  expect(await look(full)).toMatchObject({ connections: 10, shed: { asked: 10, moved: 0, outstanding: 0 } });
  expect(members.map(({ moves }) => moves)).toEqual(Array(10).fill(0));
  await check();
});

it('leaves no trace of an operator that has disappeared', async () => {
  const [full, other] = [await start(), await start()];
  const balancer = await startBalancer(full.ports.ws);
  onTestFinished(() => balancer.stop());
  const { members, check } = await gather(balancer, other.url, 40);
  balancer.use(full.ports.ws, other.ports.ws);
  await setCeiling(full, { connections: 5, shedPerSecond: 10, expiresAfterMs: 2000 });
  await until(async () => (await look(full)).ceiling === null, { what: 'the ceiling to expire' });
  const { asked } = (await look(full)).shed;
  expect(asked).toBeGreaterThan(0);
  expect(asked).toBeLessThanOrEqual(21);
  await until(async () => (await look(full)).shed.outstanding === 0, {
    what: 'those who were asked to have moved',
  });
  const pods = await Promise.all([look(full), look(other)]);
  expect(sum(pods.map(({ connections }) => connections))).toBe(41);
  expect(sum(members.map(({ moves }) => moves))).toBe(asked);
  expect(pods[0]?.shed.asked).toBe(asked);
  await check();
});
