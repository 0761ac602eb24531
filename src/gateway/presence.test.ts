import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { startGateway, type TestGateway } from '../../test/gateway.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';
import { channelTopic } from '../bus/bus.ts';
import { decodeEnvelope } from '../bus/envelope.ts';
import { MemoryBus } from '../bus/memory.ts';
import { createMetrics } from '../platform/metrics.ts';
import { readChannels } from './channels.ts';
import { MAX_MEMBERS_NAMED, Presence } from './presence.ts';

const policy = `{namespaces: {
  room: {subscribe: anyone, publish: anyone, presence: true, presenceEvents: true},
  quiet: {subscribe: anyone, publish: anyone, presence: true},
  plain: {subscribe: anyone, publish: anyone},
  secret: {subscribe: claim, publish: claim, presence: true}}}`;

const redis = await startRedis();
const env = {
  REDIS_URL: redis.url,
  CHANNELS: policy,
  PRESENCE_TTL_SECONDS: '3',
  PLAIN_CHANNEL: 'room:lobby',
};
const [one, two] = await Promise.all([startGateway(env), startGateway(env)]);
const admin = redis.client();

const clients: TestClient[] = [];
async function v1(gateway: TestGateway, user: string, ...channels: string[]): Promise<TestClient> {
  const client = await TestClient.v1(`${gateway.url}/ws/${user}`);
  clients.push(client);
  for (const channel of channels)
    expect(await client.call({ type: 'subscribe', channel })).toMatchObject({ type: 'ok' });
  return client;
}

beforeEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.leave()));
});
afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await redis.stop();
});

/** Who is in the channel, as a client is told, in alphabetical order. */
async function membersOf(client: TestClient, channel: string): Promise<string[]> {
  const answer = await client.call({ type: 'presence', channel });
  const members = answer.members as string[];
  expect(answer).toEqual({ type: 'ok', ref: answer.ref, channel, members, total: members.length });
  return members.sort();
}

async function untilMembers(client: TestClient, channel: string, ...users: string[]): Promise<void> {
  await until(async () => (await membersOf(client, channel)).join() === users.sort().join(), {
    what: `${users.join(' and ')} in ${channel}`,
  });
}

/** The presence events that have arrived so far. */
function eventsOf(
  client: TestClient,
  channel: string,
): { joined: string[]; left: string[]; total: number }[] {
  const events = client.inbox
    .map((text) => JSON.parse(text) as Json)
    .filter((it) => it.type === 'presence' && it.channel === channel);
  return events as unknown as ReturnType<typeof eventsOf>;
}

const told = (client: TestClient, channel: string, what: 'joined' | 'left') =>
  eventsOf(client, channel).flatMap((event) => event[what]);

/** How many scripts Redis has run: each renewal of a channel is two. */
async function scriptsRun(): Promise<number> {
  const stats = await admin.info('commandstats');
  return [...stats.matchAll(/cmdstat_(?:eval|evalsha|fcall)(?:_ro)?:calls=(\d+)/g)].reduce(
    (sum, [, calls]) => sum + Number(calls),
    0,
  );
}

describe('presence on two pods', () => {
  it('knows the members of both, whichever is asked', async () => {
    const ann = await v1(one, 'ann', 'room:who');
    const bob = await v1(two, 'bob', 'room:who', 'quiet:who');
    for (const client of [ann, bob]) await untilMembers(client, 'room:who', 'ann', 'bob');
    await untilMembers(ann, 'quiet:who', 'bob');
    await bob.call({ type: 'unsubscribe', channel: 'quiet:who' });
    await untilMembers(ann, 'quiet:who');
  });

  it('counts a user on both once, who joins with the first connection and leaves with the last', async () => {
    const watcher = await v1(one, 'watcher', 'room:once');
    await until(() => told(watcher, 'room:once', 'joined').includes('watcher'), {
      what: 'the watcher to see itself',
    });
    const anns = [
      await v1(one, 'ann', 'room:once'),
      await v1(one, 'ann', 'room:once'),
      await v1(two, 'ann', 'room:once'),
    ];
    await untilMembers(watcher, 'room:once', 'ann', 'watcher');
    // The same connection twice is no second time.
    expect(await anns[2]?.call({ type: 'subscribe', channel: 'room:once' })).toMatchObject({ type: 'ok' });
    await until(() => told(watcher, 'room:once', 'joined').includes('ann'), {
      what: 'the event of the first',
    });
    for (const ann of anns.slice(0, 2)) {
      await ann.leave();
      expect(await membersOf(watcher, 'room:once')).toEqual(['ann', 'watcher']);
    }
    anns[2]?.ws.terminate();
    await untilMembers(watcher, 'room:once', 'watcher');
    await until(() => told(watcher, 'room:once', 'left').length > 0, { what: 'the event of the last' });
    expect(told(watcher, 'room:once', 'joined').filter((user) => user === 'ann')).toEqual(['ann']);
    expect(told(watcher, 'room:once', 'left')).toEqual(['ann']);
    expect(eventsOf(watcher, 'room:once').at(-1)).toMatchObject({ total: 1 });
  });

  it('gathers those who come and go at once into few events', async () => {
    const watcher = await v1(two, 'watcher', 'room:crowd');
    const crowd = await Promise.all(
      Array.from({ length: 60 }, (_, at) => v1(at % 2 === 0 ? one : two, `user-${at}`)),
    );
    const users = crowd.map((_, at) => `user-${at}`);
    await Promise.all(crowd.map((client) => client.call({ type: 'subscribe', channel: 'room:crowd' })));
    await until(() => told(watcher, 'room:crowd', 'joined').length === 61, { what: 'all to join' });
    expect(told(watcher, 'room:crowd', 'joined').sort()).toEqual([...users, 'watcher'].sort());
    expect(eventsOf(watcher, 'room:crowd').at(-1)).toMatchObject({ total: 61 });
    expect(eventsOf(watcher, 'room:crowd').length).toBeLessThan(30);

    await Promise.all(crowd.map((client) => client.leave()));
    await until(() => told(watcher, 'room:crowd', 'left').length === 60, { what: 'all to leave' });
    expect(told(watcher, 'room:crowd', 'left').sort()).toEqual(users.sort());
    expect(eventsOf(watcher, 'room:crowd').at(-1)).toMatchObject({ joined: [], total: 1 });
    expect(eventsOf(watcher, 'room:crowd').length).toBeLessThan(60);
  });

  it('tells events only where the namespace asks for them', async () => {
    const watcher = await v1(one, 'watcher', 'quiet:events', 'room:events');
    const ann = await v1(two, 'ann', 'quiet:events', 'room:events');
    await until(() => told(watcher, 'room:events', 'joined').includes('ann'), {
      what: 'the event of the other channel',
    });
    await ann.leave();
    await until(() => told(watcher, 'room:events', 'left').includes('ann'), {
      what: 'the event of the other channel',
    });
    expect(eventsOf(watcher, 'quiet:events')).toEqual([]);
  });

  it('counts plain clients in, and tells them nothing', async () => {
    const watcher = await v1(two, 'watcher', 'room:lobby');
    const plain = await TestClient.open(`${one.url}/ws/ann`);
    clients.push(plain);
    await untilMembers(watcher, 'room:lobby', 'ann', 'watcher');
    await v1(two, 'bob', 'room:lobby');
    await until(() => told(watcher, 'room:lobby', 'joined').includes('bob'), { what: 'the event' });
    expect(
      await watcher.call({ type: 'publish', channel: 'room:lobby', data: 'after the event' }),
    ).toMatchObject({ type: 'ok' });
    expect(await plain.text()).toBe('"after the event"');
  });

  it('needs the right to subscribe, not the subscription', async () => {
    const ann = await v1(one, 'ann');
    await v1(two, 'bob', 'room:rights');
    await untilMembers(ann, 'room:rights', 'bob');
    expect(await ann.call({ type: 'presence', channel: 'secret:1' })).toMatchObject({
      type: 'error',
      code: 'forbidden',
    });
    expect(await ann.call({ type: 'presence', channel: 'nowhere:1' })).toMatchObject({
      type: 'error',
      code: 'forbidden',
    });
    expect(await ann.call({ type: 'presence', channel: 'plain:1' })).toMatchObject({
      type: 'error',
      code: 'no_presence',
    });
    expect(await ann.call({ type: 'presence', channel: 'room:*' })).toMatchObject({
      type: 'error',
      code: 'bad_name',
    });
    await untilMembers(ann, 'room:empty');
  });

  it('loses the members of a pod that is killed, and says so once', async () => {
    const doomed = await startGateway(env);
    const watchers = [await v1(one, 'ann', 'room:kill'), await v1(two, 'bob', 'room:kill')] as const;
    const lost = [await v1(doomed, 'carl', 'room:kill'), await v1(doomed, 'dora', 'room:kill')];
    // Who is on another pod too stays.
    lost.push(await v1(doomed, 'bob', 'room:kill'));
    await untilMembers(watchers[0], 'room:kill', 'ann', 'bob', 'carl', 'dora');
    for (const watcher of watchers)
      await until(() => told(watcher, 'room:kill', 'joined').includes('dora'), {
        what: 'the events of the joins',
      });

    await doomed.stop('SIGKILL');
    await untilMembers(watchers[0], 'room:kill', 'ann', 'bob');
    for (const watcher of watchers)
      await until(() => told(watcher, 'room:kill', 'left').length >= 2, { what: 'the event' });
    // Both pods have looked for those who are gone again, more than once.
    const runs = await scriptsRun();
    await until(async () => (await scriptsRun()) >= runs + 10, { what: 'more renewals' });
    for (const watcher of watchers) {
      expect(told(watcher, 'room:kill', 'left').sort()).toEqual(['carl', 'dora']);
      expect(eventsOf(watcher, 'room:kill').at(-1)).toMatchObject({ total: 2 });
    }
    for (const client of lost) clients.splice(clients.indexOf(client), 1);
  });

  it('has nobody left of a pod that stops in order, without waiting for their time to run out', async () => {
    const patient = { ...env, PRESENCE_TTL_SECONDS: '600' };
    const [stays, stops] = await Promise.all([startGateway(patient), startGateway(patient)]);
    const watcher = await v1(stays, 'watcher', 'room:stop');
    const users = Array.from({ length: 40 }, (_, at) => `user-${at}`);
    await Promise.all(users.map((user) => v1(stops, user, 'room:stop')));
    await until(() => told(watcher, 'room:stop', 'joined').length === 41, { what: 'all to join' });
    expect(await stops.stop()).toBe(0);
    await until(() => told(watcher, 'room:stop', 'left').length === 40, { what: 'all to leave' });
    expect(told(watcher, 'room:stop', 'left').sort()).toEqual(users.sort());
    expect(await membersOf(watcher, 'room:stop')).toEqual(['watcher']);
    await watcher.leave();
    await stays.stop();
  });

  it('has everybody back after Redis has lost them', async () => {
    const ann = await v1(one, 'ann', 'room:lost', 'quiet:lost');
    const bob = await v1(two, 'bob', 'room:lost', 'quiet:lost');
    for (const channel of ['room:lost', 'quiet:lost']) await untilMembers(ann, channel, 'ann', 'bob');
    await redis.restart();
    const answers = async (client: TestClient) =>
      (await client.call({ type: 'presence', channel: 'quiet:lost' })).type === 'ok';
    for (const client of [ann, bob]) await until(() => answers(client), { what: 'Redis to be back' });
    for (const channel of ['room:lost', 'quiet:lost']) await untilMembers(bob, channel, 'ann', 'bob');
  });

  it('answers with a retryable error while Redis is away', async () => {
    const ann = await v1(one, 'ann', 'room:away');
    await redis.kill();
    expect(await ann.call({ type: 'presence', channel: 'room:away' })).toMatchObject({
      type: 'error',
      code: 'bus_unavailable',
      retryable: true,
    });
    await redis.restart();
    await until(async () => (await ann.call({ type: 'presence', channel: 'room:away' })).total === 1, {
      what: 'the member to be back',
    });
  });

  it('keeps nothing of those who have left', async () => {
    const many = await Promise.all(
      Array.from({ length: 20 }, (_, at) =>
        v1(at % 2 === 0 ? one : two, `user-${at % 7}`, 'room:leak', `room:leak-${at}`, 'quiet:leak'),
      ),
    );
    await Promise.all(many.map((client, at) => (at % 3 === 0 ? client.ws.terminate() : client.leave())));
    clients.length = 0;
    for (const gateway of [one, two]) {
      await until(async () => (await gateway.metric('tidegate_connections')) === 0, {
        what: 'the connections to end',
      });
      expect(await gateway.metric('tidegate_presence_members')).toBe(0);
      expect(await gateway.metric('tidegate_channels')).toBe(0);
      expect(await gateway.metric('tidegate_users')).toBe(0);
    }
    await until(async () => (await admin.keys('tg:{p:*')).length === 0, {
      what: 'Redis to forget them',
    });
  });
});

describe('Presence', async () => {
  const channels = await readChannels(policy, {
    plainChannel: 'lobby',
    maxMessageBytes: 1000,
    anonymous: true,
  });
  const room = channels.namespace('room:1');
  if (room === undefined) throw new Error('the namespace is missing');

  /** Presence on a bus of its own, with the events that it published. */
  async function start() {
    const bus = new MemoryBus();
    const events: Json[] = [];
    await bus.start({
      message: (_topic, bytes) => events.push(JSON.parse(decodeEnvelope(bytes)?.payload ?? '') as Json),
      interrupted() {},
    });
    bus.subscribe(channelTopic('room:1'));
    const metrics = createMetrics('test');
    const presence = new Presence(bus, 30_000, metrics, (_stage, error) => {
      throw error;
    });
    return { bus, presence, events, metrics };
  }
  const users = (count: number) => Array.from({ length: count }, (_, at) => `user-${at}`);

  it('names at most a hundred in an event, and counts them all', async () => {
    const { presence, events } = await start();
    for (const user of users(1200)) presence.join('room:1', room, user);
    await until(() => events.length > 0, { what: 'the event' });
    expect(events).toEqual([{ joined: users(100), left: [], total: 1200 }]);
    const { users: named, total } = await presence.members('room:1');
    expect(total).toBe(1200);
    expect(named).toHaveLength(MAX_MEMBERS_NAMED);
    await presence.stop();
  });

  it('says nothing of who came and went in between', async () => {
    const { presence, events } = await start();
    presence.join('room:1', room, 'stays');
    presence.join('room:1', room, 'passes');
    presence.leave('room:1', 'passes');
    await until(() => events.length > 0, { what: 'the event' });
    expect(events).toEqual([{ joined: ['stays'], left: [], total: 1 }]);
    presence.leave('room:1', 'stays');
    presence.join('room:1', room, 'stays');
    presence.join('room:1', room, 'last');
    await until(() => events.length > 1, { what: 'the next event' });
    expect(events[1]).toEqual({ joined: ['last'], left: [], total: 2 });
    await presence.stop();
  });

  it('counts the connections of a user', async () => {
    const { bus, presence, metrics } = await start();
    for (let at = 0; at < 3; at += 1) presence.join('room:1', room, 'ann');
    presence.leave('room:1', 'nobody');
    presence.leave('room:2', 'ann');
    for (let at = 0; at < 2; at += 1) presence.leave('room:1', 'ann');
    expect(await bus.store.members('room:1', 10)).toEqual({ users: ['ann'], total: 1 });
    expect(metrics.presenceMembers.read()).toBe(1);
    presence.leave('room:1', 'ann');
    expect(await bus.store.members('room:1', 10)).toEqual({ users: [], total: 0 });
    presence.leave('room:1', 'ann');
    expect(presence.size).toBe(0);
    expect(metrics.presenceMembers.read()).toBe(0);
    await presence.stop();
  });

  it('tells before it stops of those who left last, in one event', async () => {
    const { bus, presence, events } = await start();
    for (const user of users(50)) presence.join('room:1', room, user);
    await until(() => events.length === 1, { what: 'the event of those who came' });
    for (const user of users(50)) presence.leave('room:1', user);
    await presence.stop();
    await until(() => events.length === 2, { what: 'the event of those who left' });
    expect(events[1]).toEqual({ joined: [], left: users(50), total: 0 });
    expect(await bus.store.members('room:1', 10)).toEqual({ users: [], total: 0 });
  });
});
