import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { churn } from '../../test/churn.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';
import { channelTopic } from '../bus/bus.ts';
import { encodeEnvelope } from '../bus/envelope.ts';
import { MemoryBus } from '../bus/memory.ts';
import { newId } from '../platform/ids.ts';
import { createMetrics } from '../platform/metrics.ts';
import { NO_GRANTS, readChannels } from './channels.ts';
import { Connection, ConnectionSocket } from './connection.ts';
import { Fanout } from './fanout.ts';
import { Hub } from './hub.ts';

const channels = JSON.stringify({ namespaces: { room: { subscribe: 'anyone', publish: 'anyone' } } });
const gateway = await startLocalGateway({ CHANNELS: channels });
afterAll(() => gateway.stop());

test('gives each subscriber just what is published while it is subscribed, in order, under churn', async () => {
  const { faults, checked } = await churn({
    publisherUrl: gateway.url,
    subscriberUrls: Array.from({ length: 20 }, () => gateway.url),
    channel: 'room:churn',
    rounds: 15,
  });
  expect(faults).toEqual([]);
  expect(checked).toBeGreaterThan(20 * 15);
});

test('counts users and channels, not connections and subscriptions', async () => {
  const clients = await Promise.all([
    TestClient.v1(`${gateway.url}/ws/ann`),
    TestClient.v1(`${gateway.url}/ws/ann`),
    TestClient.v1(`${gateway.url}/ws/bob`),
  ]);
  for (const client of clients) await client.call({ type: 'subscribe', channels: ['room:1', 'room:2'] });
  const counts = async () => [
    await gateway.metric('tidegate_connections'),
    await gateway.metric('tidegate_users'),
    await gateway.metric('tidegate_channels'),
  ];
  // Those of the test before may not be gone yet.
  await until(async () => (await counts()).join() === '3,2,2', { what: 'three connections to be counted' });
  await clients[2]?.leave();
  await clients[1]?.call({ type: 'unsubscribe', channel: 'room:2' });
  await until(async () => (await counts()).join() === '2,1,2', { what: 'bob to be gone' });
  await Promise.all([clients[0]?.leave(), clients[1]?.leave()]);
  await until(async () => (await counts()).join() === '0,0,0', { what: 'all to be gone' });
});

test('keeps a bounded number of topics for one client that joins and leaves without end', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws/mallory`);
  for (let round = 0; round < 15; round += 1) {
    const names = Array.from({ length: 1000 }, (_, n) => `room:${round}.${n}`);
    expect(await client.call({ type: 'subscribe', channels: names })).toMatchObject({ type: 'ok' });
    expect(await client.call({ type: 'unsubscribe', channels: names })).toMatchObject({ type: 'ok' });
  }
  expect(await gateway.metric('tidegate_bus_subscriptions')).toBeLessThan(11_000);
  await client.leave();
  await until(async () => (await gateway.metric('tidegate_bus_subscriptions')) === 1, {
    what: 'all but the plain channel to be let go',
  });
});

test('gives who comes or goes in the middle of a turn of the event loop just what is published in between', async () => {
  const metrics = createMetrics('test');
  const fanout = new Fanout({ perConnectionBytes: 1e6, totalBytes: 1e6 }, metrics, () => {});
  const bus = new MemoryBus();
  const hub = new Hub(bus, fanout, metrics, (stage, error) => expect.unreachable(`${stage}: ${error}`));
  const policy = await readChannels(channels, {
    plainChannel: 'plain',
    maxMessageBytes: 1000,
    anonymous: true,
  });
  const namespace = policy.namespace('room:1');
  if (namespace === undefined) throw new Error('there is no namespace');
  const sockets = new WebSocketServer<typeof ConnectionSocket>({
    port: 0,
    host: '127.0.0.1',
    WebSocket: ConnectionSocket,
  });
  await once(sockets, 'listening');
  const connect = async (user: string) => {
    const accepted = once(sockets, 'connection') as Promise<[ConnectionSocket, IncomingMessage]>;
    const client = await TestClient.open(`ws://127.0.0.1:${(sockets.address() as AddressInfo).port}`);
    const [ws, { socket }] = await accepted;
    const identity = { user, grants: NO_GRANTS, expiresAtMs: undefined };
    const connection = new Connection({
      ws,
      socket,
      identity,
      protocol: 'v1',
      compressed: false,
      toldOfGaps: true,
      moves: false,
      traced: false,
      address: '',
    });
    return { client, connection };
  };
  const [first, second] = [await connect('first'), await connect('second')];
  const enter = ({ connection }: typeof first) => {
    const entering = hub.arrive(connection, 'room:1', namespace);
    hub.admit(entering);
    return entering.group;
  };
  const receive = (n: number) => {
    hub.receive(channelTopic('room:1'), encodeEnvelope({ id: newId(), timeMs: Date.now() }, String(n)));
  };
  // All of this happens before anything is written.
  const group = enter(first);
  receive(1);
  enter(second);
  receive(2);
  hub.leave(first.connection, group);
  receive(3);
  hub.leave(second.connection, group);
  receive(4);
  const numbersOf = ({ client }: typeof first) => client.inbox.map((text) => (JSON.parse(text) as Json).data);
  await until(() => second.client.inbox.length >= 2 && first.client.inbox.length >= 2, {
    what: 'the messages',
  });
  expect([numbersOf(first), numbersOf(second)]).toEqual([
    [1, 2],
    [2, 3],
  ]);
  await Promise.all([first.client.leave(), second.client.leave()]);
  sockets.close();
  hub.stop();
});
