// The client against real gateways, over networks that misbehave.

import { SignJWT } from 'jose';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket as WsWebSocket } from 'ws';
import { startBalancer } from '../../test/balancer.ts';
import { startGateway } from '../../test/gateway.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { startProxy } from '../../test/proxy.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { type Client, type ClientEvents, type ConnectOptions, connect } from './client.ts';
import type { WebSocketConstructor } from './platform.ts';

const CHANNELS = `
namespaces:
  room: {subscribe: anyone, publish: anyone, presence: true, presenceEvents: true}
  doc: {subscribe: anyone, publish: anyone, durable: {messages: 10000, ageSeconds: 3600}}
  secret: {subscribe: claim, publish: claim}
send: anyone
`;

const redis = await startRedis();
const env = { REDIS_URL: redis.url, CHANNELS };
const local = await startLocalGateway({ ...env, MAX_CHANNELS_PER_CONNECTION: '3000' });
afterAll(async () => {
  await local.stop();
  await redis.stop();
});

/** Short waits, so that tests need not wait for long ones. */
const quick = { backoffMs: 50, maxBackoffMs: 500 };

let names = 0;
/** A name that no other test uses. */
function fresh(prefix: string): string {
  names += 1;
  return `${prefix}${names}`;
}

/** A client that keeps what it tells, and is closed with the test. */
function open(url: string, options: Partial<ConnectOptions> = {}) {
  const client = connect({ url, ...quick, ...options });
  onTestFinished(() => client.close());
  const told = { state: [], gap: [], recovery: [], move: [], direct: [], presence: [], error: [] } as {
    [E in keyof ClientEvents]: ClientEvents[E][];
  };
  for (const event of Object.keys(told) as (keyof ClientEvents)[]) {
    client.on(event, (value) => void (told[event] as unknown[]).push(value));
  }
  return { client, told };
}

/** What comes on a channel, from when it is subscribed. */
async function listen<T>(client: Client, channel: string) {
  const heard: T[] = [];
  const subscription = client.channel<T>(channel).subscribe(({ data }) => void heard.push(data));
  await subscription.ready;
  return { heard, subscription };
}

/** Sends numbers, one after the other, until it is stopped; resolves with how many there were. */
function count(send: (number: number) => Promise<unknown>, everyMs = 10) {
  const publishing: Promise<unknown>[] = [];
  let unanswered = 0;
  const timer = setInterval(() => {
    // A slow machine has less to carry.
    if (unanswered >= 100) return;
    unanswered += 1;
    publishing.push(send(publishing.length).finally(() => (unanswered -= 1)));
  }, everyMs);
  onTestFinished(() => clearInterval(timer));
  return {
    get published() {
      return publishing.length;
    },
    async stop() {
      clearInterval(timer);
      await Promise.all(publishing);
      return publishing.length;
    },
  };
}

const numbers = (count: number, from = 0) => Array.from({ length: count - from }, (_, at) => from + at);

describe('with one gateway', () => {
  it.each([
    ['the global WebSocket', undefined],
    ['the WebSocket of ws', WsWebSocket as unknown as WebSocketConstructor],
  ])('subscribes, publishes, and closes politely with %s', async (_name, WebSocket) => {
    const channel = fresh('room:');
    const { client, told } = open(`${local.url}/ws/ann`, { WebSocket });
    const { heard } = await listen(client, channel);
    expect(client.user).toBe('ann');
    const { id } = await client.channel(channel).publish({ text: 'hällo' });
    expect(id).toMatch(/^[\w-]{16}$/);
    await client.channel(channel).publish('not back to me', { echo: false });
    await client.channel(channel).publish('last');
    await until(() => heard.length === 2, { what: 'two messages' });
    expect(heard).toEqual([{ text: 'hällo' }, 'last']);
    await client.close();
    expect(told.error).toEqual([]);
    expect(told.state.map(({ state }) => state)).toEqual(['open', 'closed']);
    await until(
      () =>
        local.log.some(
          (line) => line.msg === 'connection closed' && line.user === 'ann' && line.code === 1000,
        ),
      {
        what: 'the gateway to log a normal close',
      },
    );
  });

  it('sends to a user, and tells who is there and who comes', async () => {
    const [ann, bob, channel] = [fresh('ann'), fresh('bob'), fresh('room:')];
    const one = open(`${local.url}/ws/${ann}`);
    const two = open(`${local.url}/ws/${bob}`);
    await listen(one.client, channel);
    await listen(two.client, channel);
    await until(async () => (await one.client.channel(channel).presence()).total === 2, {
      what: 'both to be present',
    });
    expect((await one.client.channel(channel).presence()).members).toEqual(
      expect.arrayContaining([ann, bob]),
    );
    await until(() => one.told.presence.some(({ joined }) => joined.includes(bob)), {
      what: 'bob to be announced',
    });
    await one.client.sendTo(bob, 'psst');
    await until(() => two.told.direct.length > 0, { what: 'the message to bob' });
    expect(two.told.direct).toMatchObject([{ from: ann, data: 'psst' }]);
  });

  it('publishes once what is published twice with one key', async () => {
    const { client } = open(`${local.url}/ws`);
    for (const channel of [fresh('room:'), fresh('doc:')]) {
      const { heard } = await listen(client, channel);
      const first = await client.channel(channel).publish('x', { key: 'k' });
      expect(await client.channel(channel).publish('x', { key: 'k' })).toEqual(first);
      await expect(client.channel(channel).publish('y', { key: 'k' })).rejects.toMatchObject({
        code: 'key_reused',
      });
      await client.channel(channel).publish('last');
      await until(() => heard.includes('last'), { what: 'the last message' });
      expect(heard).toEqual(['x', 'last']);
    }
  });

  it('sends to a user once what is sent twice with one key', async () => {
    const bob = fresh('bob');
    const one = open(`${local.url}/ws/${fresh('ann')}`);
    const two = open(`${local.url}/ws/${bob}`);
    await until(() => two.client.state === 'open', { what: 'bob to be there' });
    const first = await one.client.sendTo(bob, 'x', { key: 'k' });
    expect(await one.client.sendTo(bob, 'x', { key: 'k' })).toEqual(first);
    await expect(one.client.sendTo(bob, 'y', { key: 'k' })).rejects.toMatchObject({ code: 'key_reused' });
    // A key is of its sender.
    await two.client.sendTo(bob, 'z', { key: 'k' });
    await until(() => two.told.direct.length === 2, { what: 'both messages' });
    expect(two.told.direct.map(({ data }) => data)).toEqual(['x', 'z']);
  });

  it('subscribes to thousands of channels at once', async () => {
    const { client, told } = open(`${local.url}/ws`);
    const subscriptions = numbers(2500).map((at) => client.channel(`room:many-${at}`).subscribe(() => {}));
    await Promise.all(subscriptions.map(({ ready }) => ready));
    // On a slow machine the bus may not keep up, and the client tries again.
    expect(told.error.filter(({ retryable }) => !retryable)).toEqual([]);
  });

  it('replays from a position, also one of another client', async () => {
    const channel = fresh('doc:');
    const one = open(`${local.url}/ws`);
    const positions: (string | undefined)[] = [];
    for (const at of numbers(5)) positions.push((await one.client.channel(channel).publish(at)).position);
    const two = open(`${local.url}/ws`);
    const heard: unknown[] = [];
    const subscription = two.client
      .channel(channel)
      .subscribe(({ data }) => heard.push(data), { after: positions[1] });
    await until(() => heard.length === 3, { what: 'what came after the second' });
    expect(heard).toEqual([2, 3, 4]);
    expect(subscription.position).toBe(positions[4]);
    expect(two.told.recovery).toEqual([{ channel }]);
    const lost = two.client.channel(fresh('doc:')).subscribe(() => {}, { after: '7-nowhere' });
    await lost.ready;
    expect(two.told.gap).toMatchObject([{ channel: lost.channel, reason: expect.any(String) }]);
  });

  it('is refused a channel that it may not have', async () => {
    const { client, told } = open(`${local.url}/ws`);
    await expect(client.channel('secret:1').subscribe(() => {}).ready).rejects.toMatchObject({
      code: 'forbidden',
    });
    await expect(client.channel('secret:1').publish('x')).rejects.toMatchObject({ code: 'forbidden' });
    expect(told.error).toMatchObject([{ code: 'forbidden', channel: 'secret:1' }]);
    expect(client.state).toBe('open');
  });

  it('brings everything through a rate limit, without being closed for it', async () => {
    const limited = await startLocalGateway({ ...env, MESSAGE_RATE: '50' });
    onTestFinished(() => limited.stop());
    const { client, told } = open(`${limited.url}/ws`);
    const { heard } = await listen<number>(client, fresh('room:'));
    const channel = client.channel<number>(`room:${names}`);
    await Promise.all(numbers(200).map((at) => channel.publish(at)));
    await until(() => heard.length === 200, { what: 'all messages' });
    expect(told.state.map(({ state }) => state)).toEqual(['open']);
    expect(heard.toSorted((a, b) => a - b)).toEqual(numbers(200));
    expect(await limited.metric('tidegate_errors_total', { code: 'rate_limited' })).toBeGreaterThan(0);
  });
});

describe('with tokens', () => {
  const secret = 'a secret of the length that is asked for';
  const sign = (user: string, seconds: number) =>
    new SignJWT({ sub: user })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
      .sign(new TextEncoder().encode(secret));

  it('renews its token in time, and stays where it is', async () => {
    const gateway = await startLocalGateway({ ...env, AUTH: '', JWT_SECRET: secret });
    onTestFinished(() => gateway.stop());
    let tokens = 0;
    const { client, told } = open(`${gateway.url}/ws`, {
      token: () => {
        tokens += 1;
        return sign('ann', 8);
      },
    });
    await until(() => tokens >= 3, { what: 'a third token' });
    expect(told.state.map(({ state }) => state)).toEqual(['open']);
    expect(told.error).toEqual([]);
    expect(client.user).toBe('ann');
  });

  it('gets a new token where the first is refused, and stops where there is none', async () => {
    const gateway = await startLocalGateway({ ...env, AUTH: '', JWT_SECRET: secret });
    onTestFinished(() => gateway.stop());
    let tokens = 0;
    const { client, told } = open(`${gateway.url}/ws/ann`, {
      token: () => {
        tokens += 1;
        return sign(tokens === 1 ? 'bob' : 'ann', 60);
      },
    });
    await until(() => client.state === 'open', { what: 'the second token to be accepted' });
    expect(told.state[0]).toMatchObject({ state: 'reconnecting', reason: { code: 1008 } });
    const stranger = open(`${gateway.url}/ws`);
    await until(() => stranger.client.state === 'closed', { what: 'the client without a token to give up' });
    expect(stranger.told.state).toMatchObject([{ state: 'closed', reason: { code: 1008 } }]);
  });
});

describe('over a bad line', () => {
  it('loses and doubles nothing of a durable channel while the line is reset again and again', async () => {
    const proxy = await startProxy({ target: local.ports.ws });
    onTestFinished(() => proxy.stop());
    const channel = fresh('doc:');
    const { client, told } = open(`ws://127.0.0.1:${proxy.port}/ws/ann`);
    const { heard } = await listen<number>(client, channel);
    const straight = await listen<number>(open(`${local.url}/ws`).client, channel);
    const counting = count((number) => client.channel(channel).publish(number));
    for (const round of numbers(5)) {
      const recovered = () => told.recovery.length === round && counting.published > (round + 1) * 20;
      await until(recovered, { what: 'the line to be up for a while' });
      proxy.delay(round * 5);
      proxy.reset();
    }
    proxy.delay(0);
    const published = await counting.stop();
    for (const list of [straight.heard, heard]) {
      await until(() => list.length >= published, { what: 'everything that was published' });
      expect(list).toEqual(numbers(published));
    }
    expect(told.gap.filter((gap) => gap.channel !== undefined)).toEqual([]);
    expect(told.error).toEqual([]);
  });

  it('notices a line that brings nothing any more, and comes back when it does', async () => {
    const gateway = await startLocalGateway({
      ...env,
      PING_INTERVAL_SECONDS: '3',
      PONG_TIMEOUT_SECONDS: '3',
    });
    onTestFinished(() => gateway.stop());
    const proxy = await startProxy({ target: gateway.ports.ws });
    onTestFinished(() => proxy.stop());
    const channel = fresh('doc:');
    const { client, told } = open(`ws://127.0.0.1:${proxy.port}/ws/ann`, {
      pongTimeoutMs: 2000,
      connectTimeoutMs: 5000,
    });
    const { heard } = await listen<number>(client, channel);
    proxy.stall();
    const publishing = client.channel(channel).publish(1);
    await open(`${local.url}/ws`).client.channel(channel).publish(0);
    await until(() => client.state === 'reconnecting', { what: 'the client to notice' });
    expect(told.state.at(-1)).toMatchObject({ reason: { code: 1006, reason: 'no answer to a ping' } });
    proxy.reset();
    proxy.resume();
    await publishing;
    await until(() => heard.length === 2, { what: 'both messages' });
    expect(heard.toSorted()).toEqual([0, 1]);
    expect(told.gap).toEqual([{ direct: true, reason: 'reconnect' }]);
  });

  it('tells that messages may be missing where a channel keeps none', async () => {
    const proxy = await startProxy({ target: local.ports.ws });
    onTestFinished(() => proxy.stop());
    const channel = fresh('room:');
    const { client, told } = open(`ws://127.0.0.1:${proxy.port}/ws`);
    const { heard } = await listen(client, channel);
    proxy.refuse();
    proxy.reset();
    await until(() => client.state === 'reconnecting', { what: 'the client to notice' });
    const other = open(`${local.url}/ws`).client;
    await other.channel(channel).publish('missed');
    proxy.accept();
    await until(() => told.gap.some((gap) => gap.channel === channel), { what: 'the gap' });
    await other.channel(channel).publish('heard');
    await until(() => heard.length > 0, { what: 'a message' });
    expect(heard).toEqual(['heard']);
    expect(told.gap).toEqual([
      { direct: true, reason: 'reconnect' },
      { channel, reason: 'reconnect' },
    ]);
  });
});

describe('with two gateways behind a load balancer', () => {
  it('moves off a gateway that is drained, and loses, doubles and reorders nothing', async () => {
    const [one, two] = await Promise.all([
      // A fifth of it is what a client has for its move: enough on a slow machine.
      startGateway({ ...env, DRAIN_SECONDS: '25' }),
      startGateway({ ...env, DRAIN_SECONDS: '0' }),
    ]);
    onTestFinished(async () => void (await Promise.all([one.stop('SIGKILL'), two.stop('SIGKILL')])));
    const balancer = await startBalancer(one.ports.ws);
    onTestFinished(() => balancer.stop());
    const [room, doc] = [fresh('room:'), fresh('doc:')];
    const movers = await Promise.all(
      numbers(3).map(async (at) => {
        const { client, told } = open(`ws://127.0.0.1:${balancer.port}/ws/mover-${at}`);
        return {
          client,
          told,
          room: await listen<number>(client, room),
          doc: await listen<number>(client, doc),
        };
      }),
    );
    const { client } = open(`${two.url}/ws`);
    const [inRoom, inDoc, direct] = [
      count((number) => client.channel(room).publish(number)),
      count((number) => client.channel(doc).publish(number)),
      count((number) => client.sendTo('mover-0', number)),
    ];
    // Those who move publish as well.
    const chatter = fresh('doc:');
    const chat = await listen<number>(client, chatter);
    const own = movers.map(({ client }) => count((number) => client.channel(chatter).publish(number), 50));
    await until(() => movers.every((mover) => mover.room.heard.length > 10), { what: 'a few messages' });

    balancer.use(two.ports.ws);
    expect(await one.stop()).toBe(0);
    const [roomed, documented, sent] = [await inRoom.stop(), await inDoc.stop(), await direct.stop()];
    const chatted = await Promise.all(own.map((it) => it.stop()));

    for (const { client, told, room, doc } of movers) {
      await until(() => room.heard.at(-1) === roomed - 1, {
        what: 'the last message of the room',
      });
      await until(() => doc.heard.length === documented, { what: 'every message of the document' });
      // What it was told comes first: it says why anything is missing.
      expect(told.gap).toEqual([]);
      expect(told.error).toEqual([]);
      expect(told.move).toEqual([{ code: 1012 }]);
      expect(room.heard).toEqual(numbers(roomed));
      expect(doc.heard).toEqual(numbers(documented));
      expect(told.state.map(({ state }) => state)).toEqual(['open']);
      expect(client.state).toBe('open');
    }
    const received = () => movers[0]?.told.direct.map(({ data }) => data);
    await until(() => received()?.at(-1) === sent - 1, { what: 'the last message to the user' });
    expect(received()).toEqual(numbers(sent));
    await until(() => chat.heard.length >= chatted.reduce((sum, each) => sum + each, 0), {
      what: 'all that was said',
    });
    expect(chat.heard).toHaveLength(chatted.reduce((sum, each) => sum + each, 0));
  });

  it('comes back from a gateway that was killed, with all of a durable channel, and knows what it may have missed', async () => {
    const [one, two] = await Promise.all([startGateway(env), startGateway(env)]);
    onTestFinished(async () => void (await Promise.all([one.stop('SIGKILL'), two.stop('SIGKILL')])));
    const balancer = await startBalancer(one.ports.ws, two.ports.ws);
    onTestFinished(() => balancer.stop());
    const [room, doc] = [fresh('room:'), fresh('doc:')];
    const clients = await Promise.all(
      numbers(4).map(async (at) => {
        const { client, told } = open(`ws://127.0.0.1:${balancer.port}/ws/comer-${at}`);
        return {
          client,
          told,
          room: await listen<number>(client, room),
          doc: await listen<number>(client, doc),
        };
      }),
    );
    const counting = clients.map(({ client }) => count((number) => client.channel(doc).publish(number), 20));
    const rooming = clients.map(({ client }) => count((number) => client.channel(room).publish(number), 20));
    await until(() => clients.every((it) => it.doc.heard.length > 20), { what: 'a few messages' });

    await one.stop('SIGKILL');
    const cut = () => clients.filter(({ told }) => told.state.some(({ state }) => state === 'reconnecting'));
    await until(() => cut().length > 0 && clients.every(({ client }) => client.state === 'open'), {
      what: 'everybody to be back',
    });
    const marks = counting.map(({ published }) => published + 10);
    await until(() => counting.every(({ published }, at) => published > (marks[at] ?? 0)), {
      what: 'a few more',
    });
    const published = await Promise.all(counting.map((it) => it.stop()));
    await Promise.all(rooming.map((it) => it.stop()));
    const expected = published.flatMap((each) => numbers(each)).toSorted((a, b) => a - b);
    const [first] = clients;
    for (const { told, doc } of clients) {
      await until(() => doc.heard.length >= expected.length, { what: 'everything that was published' });
      // Each number once from each of the four; and for all in the same order.
      expect(doc.heard.toSorted((a, b) => a - b)).toEqual(expected);
      expect(doc.heard).toEqual(first?.doc.heard);
      expect(told.error).toEqual([]);
    }
    for (const { told } of cut()) {
      expect(told.recovery.some(({ channel }) => channel === doc)).toBe(true);
      expect(told.gap).toEqual([
        { direct: true, reason: 'reconnect' },
        { channel: room, reason: 'reconnect' },
      ]);
    }
    // Those who were on the other gateway have noticed nothing.
    expect(cut().length).toBeLessThan(clients.length);
  });
});
