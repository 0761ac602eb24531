import { describe, expect, it, vi } from 'vitest';
import { connectFake, FakePlatform, FakeSocket, settle } from '../../test/fake-client.ts';
import { Client, ClientError } from './client.ts';

/** What a promise came to so far. */
function watch<T>(promise: Promise<T>) {
  const outcome: { value?: T; error?: ClientError } = {};
  promise.then(
    (value) => {
      outcome.value = value;
    },
    (error: ClientError) => {
      outcome.error = error;
    },
  );
  return outcome;
}

/** A client that is open and subscribed to these channels. */
async function openFake(channels: string[] = [], options: Parameters<typeof connectFake>[0] = {}) {
  const world = await connectFake(options);
  const heard: [string | undefined, unknown][] = [];
  const subscriptions = channels.map((name) =>
    world.client.channel(name).subscribe(({ channel, data }) => heard.push([channel, data])),
  );
  world.socket.welcome();
  await settle();
  world.socket.subscribeAll();
  return { ...world, first: world.socket, heard, subscriptions };
}

describe('connecting', () => {
  it('offers tidegate.v1, and is open with the welcome', async () => {
    const { client, socket, all } = await connectFake();
    expect(socket.url).toBe('ws://gateway/ws?moves=true');
    expect(socket.protocols).toEqual(['tidegate.v1']);
    expect(client.state).toBe('connecting');
    socket.welcome({ user: 'ann' });
    expect(client.state).toBe('open');
    expect(client.user).toBe('ann');
    expect(all('state')).toEqual([{ state: 'open' }]);
  });

  it('gives up on a connection that has no welcome in time', async () => {
    const { platform, socket, sockets, all } = await connectFake({ connectTimeoutMs: 4000 });
    await platform.pass(3999);
    expect(socket.closedWith).toBeUndefined();
    await platform.pass(1);
    expect(socket.closedWith).toBeNull();
    expect(all('state')).toMatchObject([
      { state: 'reconnecting', reason: { code: 1006, reason: 'no welcome in time' } },
    ]);
    await platform.pass(1000);
    expect(sockets).toHaveLength(2);
  });

  it('closes for good where the URL is none', async () => {
    class NoSocket extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        throw new SyntaxError('bad URL');
      }
    }
    const { client, all, platform } = await connectFake({ WebSocket: NoSocket });
    expect(client.state).toBe('closed');
    expect(all('error')).toMatchObject([{ code: 'connect', message: expect.stringContaining('bad URL') }]);
    expect(platform.leftovers).toBe(0);
  });

  it('waits a random time within bounds that double up to a cap', async () => {
    for (const chance of [0, 0.25, 0.999]) {
      const { platform, sockets } = await connectFake({ backoffMs: 100, maxBackoffMs: 1000 });
      platform.chance = chance;
      for (const boundMs of [100, 200, 400, 800, 1000, 1000]) {
        const before = sockets.length;
        sockets.at(-1)?.end();
        expect(platform.nextTimerMs).toBeCloseTo(chance * boundMs);
        await platform.pass(chance * boundMs);
        expect(sockets).toHaveLength(before + 1);
      }
    }
  });

  it('counts its tries anew only after a connection has been open for a while', async () => {
    const { platform, sockets } = await connectFake({ backoffMs: 100, stableMs: 5000 });
    platform.chance = 0.999_999;
    const failAfter = async (openMs: number) => {
      sockets.at(-1)?.welcome();
      await platform.pass(openMs);
      sockets.at(-1)?.end();
      const waitMs = platform.nextTimerMs ?? 0;
      await platform.pass(waitMs);
      return Math.round(waitMs);
    };
    expect(await failAfter(10)).toBe(100);
    expect(await failAfter(4999)).toBe(200);
    expect(await failAfter(5000)).toBe(100);
  });

  it('tells why and for how long it waits', async () => {
    const { platform, first, all } = await openFake();
    platform.chance = 0.5;
    first.end(4401, 'slow consumer');
    expect(all('state').at(-1)).toEqual({
      state: 'reconnecting',
      reason: { code: 4401, reason: 'slow consumer' },
      retryInMs: 500,
    });
  });

  it('comes back when the gateway that closed it said', async () => {
    const { platform, first, sockets } = await openFake();
    first.end(1012, 'gateway is restarting; reconnect after 1730 ms');
    await platform.pass(1729);
    expect(sockets).toHaveLength(1);
    await platform.pass(1);
    expect(sockets).toHaveLength(2);
  });

  it('tries at once when the network is back', async () => {
    const { platform, first, sockets } = await openFake();
    platform.chance = 0.9;
    platform.goOnline();
    await settle();
    expect(sockets).toHaveLength(1);
    first.end();
    platform.goOnline();
    await settle();
    expect(sockets).toHaveLength(2);
    await platform.pass(5000);
    expect(sockets).toHaveLength(2);
  });

  it.each([1003, 1009, 4403, 4405])('stops for good after %i', async (code) => {
    const { client, platform, first, sockets, all } = await openFake();
    const waiting = watch(client.channel('room:1').publish('x'));
    first.end(code, 'no more');
    await platform.pass(100_000);
    expect(sockets).toHaveLength(1);
    expect(client.state).toBe('closed');
    expect(all('state').at(-1)).toMatchObject({ state: 'closed', reason: { code, reason: 'no more' } });
    expect(waiting.error).toMatchObject({ code: 'closed', message: expect.stringContaining('no more') });
    expect(platform.leftovers).toBe(0);
  });
});

describe('closing', () => {
  it('closes the socket, rejects what waits, and leaves no timer', async () => {
    const { client, platform, first, subscriptions, all } = await openFake(['room:1']);
    const late = client.channel('room:2').subscribe(() => {});
    const publishing = watch(client.channel('room:1').publish('x'));
    const ready = watch(late.ready);
    const closing = client.close();
    expect(first.closedWith).toBe(1000);
    await settle();
    expect(publishing.error).toMatchObject({ code: 'closed', retryable: false });
    expect(ready.error).toMatchObject({ code: 'closed' });
    expect(all('state').at(-1)).toMatchObject({ state: 'closed', reason: { code: 1000 } });
    first.end(1000);
    await closing;
    expect(platform.leftovers).toBe(0);
    subscriptions[0]?.unsubscribe();
    await client.close();
    await expect(client.channel('room:1').publish('x')).rejects.toMatchObject({ code: 'closed' });
    expect(() => client.channel('room:1').subscribe(() => {})).toThrow('closed');
  });

  it('does not wait for ever for the other side', async () => {
    const { client, platform } = await openFake();
    const closed = watch(client.close().then(() => true));
    await platform.pass(999);
    expect(closed.value).toBeUndefined();
    await platform.pass(1);
    expect(closed.value).toBe(true);
    expect(platform.leftovers).toBe(0);
  });

  it('closes by a signal, also by one that was given before', async () => {
    const controller = new AbortController();
    const { client, platform, sockets } = await connectFake({ signal: controller.signal });
    expect(sockets).toHaveLength(1);
    controller.abort();
    expect(client.state).toBe('closed');
    sockets[0]?.end();
    await settle();
    expect(platform.leftovers).toBe(0);
    const late = await connectFake({ signal: AbortSignal.abort() });
    expect(late.client.state).toBe('closed');
    expect(late.sockets).toHaveLength(0);
  });

  it('closes at the end of a block, with await using', async () => {
    const { client, socket } = await connectFake();
    {
      await using using = client;
      using.on('state', () => {});
      queueMicrotask(() => queueMicrotask(() => socket.end(1000)));
    }
    expect(client.state).toBe('closed');
  });
});

describe('heartbeats', () => {
  it('asks a gateway that is silent, and leaves it when it does not answer', async () => {
    const { platform, first, sockets, all } = await openFake([], { pongTimeoutMs: 5000 });
    first.take();
    await platform.pass(24_999);
    expect(first.take()).toEqual([]);
    await platform.pass(1);
    first.ok(first.takeOne('ping'));
    await platform.pass(25_000);
    first.takeOne('ping');
    await platform.pass(4999);
    expect(first.closedWith).toBeUndefined();
    await platform.pass(1);
    expect(first.closedWith).toBeNull();
    expect(all('state').at(-1)).toMatchObject({
      state: 'reconnecting',
      reason: { reason: 'no answer to a ping' },
    });
    await platform.pass(1000);
    expect(sockets).toHaveLength(2);
  });

  it('asks nobody who is heard, by the interval of the welcome', async () => {
    const { platform, socket } = await connectFake();
    socket.welcome({ pingIntervalMs: 1000 });
    for (let at = 0; at < 20; at += 1) {
      await platform.pass(900);
      socket.say({ type: 'message', channel: 'room:1', id: `m${at}`, data: at });
    }
    expect(socket.take()).toEqual([]);
    await platform.pass(1000);
    socket.takeOne('ping');
  });

  it('gives a ping that comes late its whole time, as after a machine has slept', async () => {
    const { platform, first } = await openFake([], { pongTimeoutMs: 5000 });
    platform.nowMs += 3_600_000;
    await platform.pass(0);
    const ping = first.takeOne('ping');
    await platform.pass(4000);
    expect(first.closedWith).toBeUndefined();
    first.ok(ping);
    await platform.pass(20_000);
    expect(first.closedWith).toBeUndefined();
  });

  it('leaves a gateway that goes on talking but does not answer', async () => {
    const { client, platform, first, sockets } = await openFake([], { answerTimeoutMs: 30_000 });
    const publishing = watch(client.channel('room:1').publish('x'));
    for (let at = 0; at < 60 && sockets.length === 1; at += 1) {
      first.say({ type: 'message', channel: 'room:1', id: `m${at}`, data: at });
      await platform.pass(1000);
    }
    expect(sockets).toHaveLength(2);
    sockets[1]?.welcome();
    await settle();
    const retried = sockets[1]?.takeOne('publish') ?? {};
    sockets[1]?.ok(retried, { id: 'm' });
    await settle();
    expect(publishing.value).toMatchObject({ id: 'm' });
  });
});

describe('tokens', () => {
  const tokenOptions = () => {
    let count = 0;
    return {
      token: vi.fn(async () => {
        count += 1;
        return `token-${count}`;
      }),
    };
  };

  it('sends the token as a subprotocol entry, and never in the URL', async () => {
    const { socket } = await connectFake(tokenOptions());
    expect(socket.protocols).toEqual(['tidegate.v1', 'bearer.token-1']);
    expect(socket.url).toBe('ws://gateway/ws?moves=true');
  });

  it('renews a token in good time, at a random moment, and again with what the answer says', async () => {
    for (const [chance, atMs] of [
      [0, 70_000],
      [0.999, 84_985],
    ] as const) {
      const { platform, socket } = await connectFake(tokenOptions());
      platform.chance = chance;
      socket.welcome({ tokenExpiresInMs: 100_000, pingIntervalMs: 1_000_000 });
      await platform.pass(atMs - 1);
      expect(socket.take()).toEqual([]);
      await platform.pass(1);
      const refresh = socket.takeOne('refresh');
      expect(refresh.token).toBe('token-2');
      socket.ok(refresh, { tokenExpiresInMs: 10_000 });
      await platform.pass(10_000);
      expect(socket.takeOne('refresh').token).toBe('token-3');
    }
  });

  it('uses a token that still holds again, and gets a new one where it does not', async () => {
    const options = tokenOptions();
    const { platform, sockets } = await connectFake(options);
    sockets[0]?.welcome({ tokenExpiresInMs: 600_000 });
    await platform.pass(10_000);
    sockets[0]?.end();
    await platform.pass(1000);
    expect(sockets[1]?.protocols).toContain('bearer.token-1');
    sockets[1]?.end(4402, 'token expired');
    await platform.pass(2000);
    expect(sockets[2]?.protocols).toContain('bearer.token-2');
    sockets[2]?.end(1008, 'token refused');
    await platform.pass(4000);
    expect(sockets[3]?.protocols).toContain('bearer.token-3');
    expect(options.token).toHaveBeenCalledTimes(3);
  });

  it('stops where a token is refused and there is no way to another', async () => {
    const { client, socket, all } = await connectFake();
    socket.end(1008, 'a token is required');
    expect(client.state).toBe('closed');
    expect(all('state')).toMatchObject([{ state: 'closed', reason: { code: 1008 } }]);
  });

  it('tells of a token that cannot be had, and tries again', async () => {
    const token = vi.fn(() => Promise.reject(new Error('no session')));
    const { platform, sockets, all } = await connectFake({ token, backoffMs: 100 });
    await platform.pass(100);
    expect(token.mock.calls.length).toBeGreaterThanOrEqual(2);
    expect(sockets).toHaveLength(0);
    expect(all('error')[0]).toMatchObject({
      code: 'token',
      retryable: true,
      message: expect.stringContaining('no session'),
    });
    expect(all('state')[0]).toMatchObject({ state: 'reconnecting' });
  });

  it('does not wait for ever for a token', async () => {
    const token = vi.fn(() => new Promise<string>(() => {}));
    const { platform, all } = await connectFake({ token, connectTimeoutMs: 3000 });
    await platform.pass(3000);
    expect(all('error')).toMatchObject([{ code: 'token' }]);
    await platform.pass(1000);
    expect(token).toHaveBeenCalledTimes(2);
  });

  it('tries a renewal that failed again, while the token holds', async () => {
    const options = tokenOptions();
    const { platform, socket, all } = await connectFake(options);
    platform.chance = 0;
    socket.welcome({ tokenExpiresInMs: 100_000, pingIntervalMs: 1_000_000 });
    await platform.pass(70_000);
    platform.chance = 0.5;
    socket.refuse(socket.takeOne('refresh'), 'token_refused');
    expect(all('error')).toMatchObject([{ code: 'token_refused' }]);
    options.token.mockRejectedValueOnce(new Error('busy'));
    await platform.pass(500);
    expect(all('error')).toMatchObject([{ code: 'token_refused' }, { code: 'token' }]);
    await platform.pass(1000);
    expect(socket.takeOne('refresh').token).toBe('token-3');
  });

  it('tells of the channels that a new token does not allow, and forgets them', async () => {
    const { client, platform, socket, all } = await connectFake(tokenOptions());
    platform.chance = 0;
    const heard: unknown[] = [];
    client.channel('room:1').subscribe(({ data }) => heard.push(data));
    socket.welcome({ tokenExpiresInMs: 10_000 });
    socket.subscribeAll();
    await platform.pass(7000);
    socket.ok(socket.takeOne('refresh'), { tokenExpiresInMs: 10_000, left: ['room:1'] });
    expect(all('error')).toMatchObject([{ code: 'forbidden', channel: 'room:1' }]);
    socket.say({ type: 'message', channel: 'room:1', id: 'a', data: 'a' });
    expect(heard).toEqual([]);
  });
});

describe('subscriptions', () => {
  it('asks for many channels in one command, also for those of before the connection was there', async () => {
    const { client, socket } = await connectFake();
    client.channel('room:1').subscribe(() => {});
    client.channel('room:2').subscribe(() => {}, { after: '5-a' });
    await settle();
    socket.welcome();
    expect(socket.take()).toEqual([
      { type: 'subscribe', ref: 1, channels: [{ channel: 'room:1' }, { channel: 'room:2', after: '5-a' }] },
    ]);
    for (const name of ['room:3', 'room:4']) client.channel(name).subscribe(() => {});
    await settle();
    expect(socket.take()).toEqual([
      { type: 'subscribe', ref: 2, channels: [{ channel: 'room:3' }, { channel: 'room:4' }] },
    ]);
  });

  it('asks for no more than a thousand channels, or what a frame may hold, at once', async () => {
    const { client, socket } = await connectFake();
    for (let at = 0; at < 2500; at += 1) client.channel(`room:${at}`).subscribe(() => {});
    socket.welcome({ maxMessageBytes: 10_000_000 });
    expect(socket.take().map((it) => (it.channels as []).length)).toEqual([1000, 1000, 500]);
    socket.end();
    const small = await connectFake();
    const name = 'x'.repeat(100);
    for (let at = 0; at < 50; at += 1) small.client.channel(`${name}${at}`).subscribe(() => {});
    small.socket.welcome({ maxMessageBytes: 1024 });
    const commands = small.socket.take();
    expect(commands.flatMap((it) => it.channels)).toHaveLength(50);
    for (const command of commands) expect(JSON.stringify(command).length).toBeLessThanOrEqual(1024);
  });

  it('delivers to every handler of a channel, and leaves the channel with the last', async () => {
    const { client, socket } = await connectFake();
    const heard: string[] = [];
    const room = client.channel<string>('room:1');
    const one = room.subscribe(({ data }) => heard.push(`one ${data}`));
    const two = room.subscribe(({ data }) => heard.push(`two ${data}`));
    socket.welcome();
    socket.subscribeAll();
    await Promise.all([one.ready, two.ready]);
    socket.say({ type: 'message', channel: 'room:1', id: 'a', from: 'bob', data: 'a' });
    one.unsubscribe();
    one.unsubscribe();
    await settle();
    expect(socket.take()).toEqual([]);
    socket.say({ type: 'message', channel: 'room:1', id: 'b', from: 'bob', data: 'b' });
    two[Symbol.dispose]();
    await settle();
    expect(socket.takeOne('unsubscribe')).toMatchObject({ channels: ['room:1'] });
    socket.say({ type: 'message', channel: 'room:1', id: 'c', from: 'bob', data: 'c' });
    expect(heard).toEqual(['one a', 'two a', 'two b']);
  });

  it('tells the gateway nothing of what is left and entered again in one turn', async () => {
    const { client, first, subscriptions } = await openFake(['room:1']);
    first.take();
    subscriptions[0]?.unsubscribe();
    client.channel('room:1').subscribe(() => {});
    const fleeting = client.channel('room:2').subscribe(() => {});
    fleeting.unsubscribe();
    await settle();
    expect(first.take()).toEqual([]);
    await expect(fleeting.ready).rejects.toMatchObject({ code: 'not_subscribed' });
  });

  it('asks for every channel again after a reconnect, with its position, and tells gaps and recoveries', async () => {
    const { client, platform, socket, sockets, told } = await connectFake();
    for (const name of ['doc:1', 'doc:2', 'room:1']) client.channel(name).subscribe(() => {});
    socket.welcome();
    socket.subscribeAll((channel) => (channel.startsWith('doc') ? { position: '5-a' } : {}));
    socket.say({ type: 'message', channel: 'doc:1', position: '6-b', data: 1 });
    told.length = 0;
    socket.end();
    await platform.pass(1000);
    sockets[1]?.welcome();
    expect(sockets[1]?.sent[0]?.channels).toEqual([
      { channel: 'doc:1', after: '6-b' },
      { channel: 'doc:2', after: '5-a' },
      { channel: 'room:1' },
    ]);
    sockets[1]?.subscribeAll((channel) =>
      channel === 'doc:1'
        ? { recovered: true, position: '9-e' }
        : channel === 'doc:2'
          ? { recovered: false, reason: 'trimmed', position: '9-f' }
          : {},
    );
    expect(told.filter(({ event }) => event !== 'state').map(({ event, value }) => [event, value])).toEqual([
      ['gap', { direct: true, reason: 'reconnect' }],
      ['recovery', { channel: 'doc:1' }],
      ['gap', { channel: 'doc:2', reason: 'trimmed', position: '9-f' }],
      ['gap', { channel: 'room:1', reason: 'reconnect' }],
    ]);
  });

  it('tells of a channel that is refused, once, and asks no more for it', async () => {
    const { client, platform, socket, sockets, all } = await connectFake();
    const bad = client.channel('secret:1').subscribe(() => {});
    const good = client.channel('room:1').subscribe(() => {});
    socket.welcome();
    const error = { code: 'forbidden', message: 'You may not.', retryable: false };
    socket.subscribeAll((channel) => (channel === 'secret:1' ? { error } : {}));
    await good.ready;
    await expect(bad.ready).rejects.toMatchObject({ code: 'forbidden', channel: 'secret:1' });
    expect(all('error')).toMatchObject([{ code: 'forbidden', channel: 'secret:1', retryable: false }]);
    socket.end();
    await platform.pass(1000);
    sockets[1]?.welcome();
    expect(sockets[1]?.sent[0]?.channels).toEqual([{ channel: 'room:1' }]);
  });

  it('asks again for a channel that could not be had, no earlier than the gateway says', async () => {
    const { client, platform, socket } = await connectFake({ backoffMs: 10 });
    const { ready } = client.channel('room:1').subscribe(() => {});
    socket.welcome();
    const error = { code: 'bus_unavailable', message: 'No bus.', retryable: true, retryAfterMs: 1000 };
    socket.subscribeAll(() => ({ error }));
    await platform.pass(999);
    expect(socket.take()).toEqual([]);
    await platform.pass(1);
    socket.refuse(socket.takeOne('subscribe'), 'rate_limited', { retryable: true, retryAfterMs: 50 });
    await platform.pass(50);
    socket.subscribeAll();
    await ready;
  });

  it('refuses a name that would fail a whole command', async () => {
    const { client } = await connectFake();
    expect(() => client.channel('a b')).toThrow(ClientError);
  });

  it('survives handlers that throw, at once or later, and tells of them', async () => {
    const { client, socket, all } = await connectFake();
    const heard: unknown[] = [];
    const room = client.channel('room:1');
    room.subscribe(() => {
      throw new Error('at once');
    });
    room.subscribe(() => Promise.reject(new Error('later')));
    room.subscribe(({ data }) => heard.push(data));
    client.on('direct', () => {
      throw new Error('direct');
    });
    client.on('error', () => {
      throw new Error('the last straw');
    });
    const silenced = vi.spyOn(console, 'error').mockImplementation(() => {});
    socket.welcome();
    socket.subscribeAll();
    socket.say({ type: 'message', channel: 'room:1', id: 'a', data: 'a' });
    socket.say({ type: 'message', direct: true, id: 'b', from: 'bob', data: 'b' });
    await settle();
    expect(heard).toEqual(['a']);
    expect(all('error').map(({ code, cause }) => [code, String(cause)])).toEqual([
      ['handler', 'Error: at once'],
      ['handler', 'Error: direct'],
      ['handler', 'Error: later'],
    ]);
    expect(silenced).toHaveBeenCalledTimes(3);
    silenced.mockRestore();
    expect(client.state).toBe('open');
  });

  it('writes errors to the console where nobody listens to them', async () => {
    const silenced = vi.spyOn(console, 'error').mockImplementation(() => {});
    const sockets: FakeSocket[] = [];
    class WebSocket extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        sockets.push(this);
      }
    }
    const client = new Client({ url: 'ws://gateway/ws', WebSocket }, new FakePlatform());
    await settle();
    sockets[0]?.say({ type: 'error', code: 'malformed', message: 'What?', retryable: false });
    expect(silenced).toHaveBeenCalledWith(expect.objectContaining({ code: 'malformed' }));
    silenced.mockRestore();
    void client.close();
  });

  it('hears what it does not know, and what is no JSON, without harm', async () => {
    const { client, socket } = await connectFake();
    socket.welcome();
    for (const data of [
      'nonsense',
      '[]',
      'null',
      '{"type":"novelty"}',
      '{"type":"ok","ref":99}',
      new ArrayBuffer(3),
    ]) {
      socket.onmessage?.({ data });
    }
    expect(client.state).toBe('open');
  });
});

describe('publishing', () => {
  it('sends data with a key of its own, and resolves with the position', async () => {
    const { client, socket } = await connectFake();
    socket.welcome();
    const publishing = client.channel('doc:1').publish({ x: 1 });
    await settle();
    const command = socket.takeOne('publish');
    expect(command).toEqual({
      type: 'publish',
      ref: 1,
      channel: 'doc:1',
      key: expect.any(String),
      echo: true,
      data: { x: 1 },
    });
    socket.ok(command, { id: 'i', position: '6-i' });
    expect(await publishing).toEqual({ id: 'i', position: '6-i' });
    void client.channel('doc:1').publish(null, { key: 'mine', echo: false });
    await settle();
    expect(socket.takeOne('publish')).toMatchObject({ key: 'mine', echo: false, data: null });
  });

  it('keeps what is published offline, in order, and sends it when it is open', async () => {
    const { client, socket } = await connectFake();
    const room = client.channel('room:1');
    const publishing: Promise<unknown>[] = [room.publish('a'), room.publish('b'), client.sendTo('bob', 'c')];
    const outcomes = [...publishing, room.presence()].map((promise) => watch(promise));
    await settle();
    expect(socket.sent).toEqual([]);
    socket.welcome();
    await settle();
    const commands = socket.take();
    expect(commands.map(({ type, data }) => [type, data])).toEqual([
      ['publish', 'a'],
      ['publish', 'b'],
      ['send', 'c'],
      ['presence', undefined],
    ]);
    for (const command of commands) socket.ok(command, { id: 'i', members: ['ann'], total: 1 });
    await settle();
    expect(outcomes.map(({ value }) => value)).toEqual([
      { id: 'i' },
      { id: 'i' },
      { id: 'i' },
      { members: ['ann'], total: 1 },
    ]);
  });

  it('publishes after what was subscribed to before, so that the message comes back', async () => {
    const { client, socket, sockets, platform } = await connectFake();
    const room = client.channel('room:1');
    room.subscribe(() => {});
    void room.publish('a').catch(() => {});
    await settle();
    socket.welcome();
    expect(socket.sent.map(({ type }) => type)).toEqual(['subscribe']);
    socket.subscribeAll();
    await settle();
    expect(socket.sent.map(({ type }) => type)).toEqual(['subscribe', 'publish']);
    client.channel('room:2').subscribe(() => {});
    void client
      .channel('room:2')
      .publish('b')
      .catch(() => {});
    await settle();
    expect(socket.sent.map(({ type }) => type)).toEqual(['subscribe', 'publish', 'subscribe', 'publish']);
    socket.end();
    await platform.pass(1000);
    sockets[1]?.welcome();
    expect(sockets[1]?.sent.map(({ type }) => type)).toEqual(['subscribe']);
    const error = { code: 'bus_unavailable', message: 'No bus.', retryable: true };
    sockets[1]?.subscribeAll(() => ({ error }));
    await settle();
    expect(sockets[1]?.sent.map(({ type }) => type)).toEqual(['subscribe', 'publish', 'publish']);
  });

  it('sends again, with the same key, what was not answered when the connection was lost', async () => {
    const { client, platform, socket, sockets } = await connectFake();
    socket.welcome();
    const room = client.channel('room:1');
    const [lost, answered] = [watch(room.publish('lost')), watch(room.publish('answered'))];
    const sent = watch(client.sendTo('bob', 'sent'));
    const named = watch(client.sendTo('bob', 'named', { key: 'k' }));
    const asked = watch(room.presence());
    await settle();
    const commands = socket.take();
    socket.ok(commands[1] ?? {}, { id: 'i' });
    socket.end();
    await platform.pass(1000);
    sockets[1]?.welcome();
    await settle();
    const again = sockets[1]?.take() ?? [];
    expect(again.map(({ type }) => type)).toEqual(['publish', 'send', 'send', 'presence']);
    expect(again[0]).toMatchObject({ key: commands[0]?.key, data: 'lost' });
    expect(again[1]).toMatchObject({ key: commands[2]?.key, data: 'sent' });
    expect(again[2]).toMatchObject({ key: 'k', data: 'named' });
    for (const command of again) sockets[1]?.ok(command, { id: 'j', members: [], total: 0 });
    await settle();
    expect(answered.value).toMatchObject({ id: 'i' });
    expect(lost.value).toMatchObject({ id: 'j' });
    expect(asked.value).toEqual({ members: [], total: 0 });
    expect([sent.value, named.value]).toMatchObject([{ id: 'j' }, { id: 'j' }]);
  });

  it('rejects what is more than it may keep, by count and by bytes, and takes more when there is room', async () => {
    const { client, socket } = await connectFake({ maxQueued: 3, maxQueuedBytes: 1000 });
    const room = client.channel('room:1');
    const kept = ['a', 'b', 'c'].map((data) => watch(room.publish(data)));
    await expect(room.publish('d')).rejects.toMatchObject({ code: 'queue_full', retryable: true });
    socket.welcome();
    await settle();
    for (const command of socket.take()) socket.ok(command, { id: 'i' });
    await settle();
    expect(kept.every(({ value }) => value !== undefined)).toBe(true);
    await expect(room.publish('ü'.repeat(500))).rejects.toMatchObject({ code: 'queue_full' });
    const fits = watch(room.publish('u'.repeat(500)));
    await settle();
    socket.ok(socket.takeOne('publish'), { id: 'i' });
    await settle();
    expect(fits.value).toBeDefined();
  });

  it('rejects what is larger than the gateway takes, and what is no JSON, and stays open', async () => {
    const { client, socket } = await connectFake();
    const room = client.channel('room:1');
    const early = watch(room.publish('x'.repeat(2000)));
    socket.welcome({ maxMessageBytes: 1024 });
    await settle();
    expect(early.error).toMatchObject({ code: 'too_large', retryable: false });
    await expect(room.publish('ü'.repeat(600))).rejects.toMatchObject({ code: 'too_large' });
    await expect(room.publish(10n)).rejects.toThrow(TypeError);
    expect(socket.take()).toEqual([]);
    expect(client.state).toBe('open');
  });

  it('rejects with what the gateway says', async () => {
    const { client, socket } = await connectFake();
    socket.welcome();
    const publishing = watch(client.channel('news:1').publish('x'));
    await settle();
    socket.refuse(socket.takeOne('publish'), 'forbidden');
    await settle();
    expect(publishing.error).toBeInstanceOf(ClientError);
    expect(publishing.error).toMatchObject({ code: 'forbidden', retryable: false });
  });

  it('tries again with the same key where the gateway says that it may, no earlier than it says', async () => {
    const { client, platform, socket } = await connectFake({ backoffMs: 10 });
    socket.welcome();
    const publishing = watch(client.channel('room:1').publish('x'));
    await settle();
    const command = socket.takeOne('publish');
    socket.refuse(command, 'bus_unavailable', { retryable: true, retryAfterMs: 700 });
    await platform.pass(699);
    expect(socket.take()).toEqual([]);
    await platform.pass(1);
    const again = socket.takeOne('publish');
    expect(again).toEqual({ ...command, ref: again.ref });
    socket.ok(again, { id: 'i' });
    await settle();
    expect(publishing.value).toMatchObject({ id: 'i' });
  });

  it('gives up after some tries', async () => {
    const { client, platform, socket } = await connectFake({ backoffMs: 10, maxBackoffMs: 100 });
    socket.welcome();
    const publishing = watch(client.channel('room:1').publish('x'));
    let tries = 0;
    for (; publishing.error === undefined && tries < 50; tries += 1) {
      await settle();
      for (const command of socket.take()) socket.refuse(command, 'bus_unavailable', { retryable: true });
      await platform.pass(100);
    }
    expect(tries).toBe(8);
    expect(publishing.error).toMatchObject({ code: 'bus_unavailable', retryable: true });
  });

  it('keeps to a rate that it is told of only by being refused, without being refused often', async () => {
    const { client, platform, socket } = await connectFake({ maxQueued: 10_000 });
    socket.welcome({ pingIntervalMs: 1_000_000 });
    // A gateway's token bucket: 100 a second, 200 at once; the 21st refusal in a row, not counting those that are
    // made good by what passes, closes the connection.
    let tokens = 200;
    let filledAtMs = 0;
    let [refused, worst, passed] = [0, 0, 0];
    const outcomes = Array.from({ length: 2000 }, (_, at) => watch(client.channel('room:1').publish(at)));
    await settle();
    for (let turn = 0; turn < 100_000 && passed < outcomes.length; turn += 1) {
      tokens = Math.min(200, tokens + (platform.nowMs - filledAtMs) / 10);
      filledAtMs = platform.nowMs;
      for (const command of socket.take()) {
        if (tokens >= 1) {
          tokens -= 1;
          passed += 1;
          refused = Math.max(0, refused - 1);
          socket.ok(command, { id: 'i' });
        } else {
          refused += 1;
          worst = Math.max(worst, refused);
          socket.refuse(command, 'rate_limited', {
            retryable: true,
            retryAfterMs: Math.ceil((1 - tokens) * 10),
          });
        }
      }
      await platform.pass(1);
    }
    expect(passed).toBe(outcomes.length);
    expect(worst).toBeLessThanOrEqual(20);
    // 1800 at 100 a second, and not much longer.
    expect(platform.nowMs).toBeLessThan(40_000);
    await settle();
    expect(outcomes.every(({ value }) => value !== undefined)).toBe(true);
  });
});

/** A gateway welcomes a client that comes from another one, and is asked for everything. */
async function enter(to: FakeSocket | undefined, fields?: Parameters<FakeSocket['subscribeAll']>[0]) {
  to?.welcome();
  to?.sync();
  await settle();
  to?.subscribeAll(fields);
  await settle();
}

const message = (id: string) => ({ type: 'message', channel: 'room:1', id, data: id });

describe('moving', () => {
  const goodbye = { type: 'goodbye', code: 1012, reconnectAfterMs: 1000, closeAfterMs: 6000 };

  it('opens the new connection before it leaves the old one, when the gateway said', async () => {
    const { client, platform, first, sockets, all, heard } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(999);
    expect(sockets).toHaveLength(1);
    await platform.pass(1);
    expect(sockets.map(({ url }) => url)).toEqual(Array(2).fill('ws://gateway/ws?moves=true'));
    first.say(message('a'));
    await enter(sockets[1]);
    first.say(message('b'));
    sockets[1]?.say(message('b'), message('c'));
    expect(first.closedWith).toBeUndefined();
    expect(all('move')).toEqual([]);
    expect(first.sync()).toBe(1);
    await settle();
    expect(first.closedWith).toBe(1000);
    sockets[1]?.say(message('d'));
    expect(heard.map(([, data]) => data)).toEqual(['a', 'b', 'c', 'd']);
    expect(all('gap')).toEqual([]);
    expect(all('move')).toEqual([{ code: 1012 }]);
    expect(all('state').map(({ state }) => state)).toEqual(['open']);
    expect(client.state).toBe('open');
  });

  it('asks the new gateway whether it has caught up, and subscribes there only then', async () => {
    const { platform, first, sockets, heard, all } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    const [, next] = sockets;
    next?.welcome();
    await settle();
    expect(next?.sent).toEqual([{ type: 'sync', ref: expect.any(Number) }]);
    // What it brings of before, it brings late: the old one has brought it already.
    first.say({ type: 'message', direct: true, id: 'a', data: 'a' });
    next?.say({ type: 'message', direct: true, id: 'a', data: 'a' });
    next?.refuse(next.takeOne('sync'), 'bus_unavailable', { retryable: true });
    await platform.pass(100);
    first.say(message('b'));
    next?.ok(next.takeOne('sync'));
    await settle();
    next?.subscribeAll();
    await settle();
    first.sync();
    await settle();
    next?.say(message('b'), message('c'));
    expect(first.closedWith).toBe(1000);
    expect(all('direct').map(({ data }) => data)).toEqual(['a']);
    expect(heard.map(([, data]) => data)).toEqual(['b', 'c']);
    expect(all('gap')).toEqual([]);
  });

  it('leaves itself time to move where the gateway leaves little', async () => {
    const { platform, first, sockets, all } = await openFake();
    first.say({ ...goodbye, reconnectAfterMs: 5000, closeAfterMs: 2000 });
    await platform.pass(800);
    expect(sockets).toHaveLength(2);
    await platform.pass(700);
    await enter(sockets[1]);
    await platform.pass(99);
    expect(first.closedWith).toBeUndefined();
    // The old gateway has not said that it has brought everything.
    await platform.pass(1);
    expect(first.closedWith).toBe(1000);
    expect(all('gap')).toEqual([{ direct: true, reason: 'reconnect' }]);
  });

  it('does not leave the old connection before that has brought everything, until its time is over', async () => {
    const { platform, first, sockets, all, heard } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    await enter(sockets[1]);
    sockets[1]?.say(message('b'));
    await platform.pass(3000);
    expect(first.closedWith).toBeUndefined();
    first.say(message('a'), message('b'));
    expect(heard.map(([, data]) => data)).toEqual(['a', 'b']);
    first.sync();
    await settle();
    expect(first.closedWith).toBe(1000);
    expect(all('gap')).toEqual([]);

    const slow = await openFake(['room:1']);
    slow.first.say(goodbye);
    await slow.platform.pass(1000);
    await enter(slow.sockets[1]);
    slow.sockets[1]?.say(message('b'));
    await slow.platform.pass(3800);
    expect(slow.first.closedWith).toBe(1000);
    expect(slow.all('gap')).toEqual([
      { direct: true, reason: 'reconnect' },
      { channel: 'room:1', reason: 'reconnect' },
    ]);
    expect(slow.heard.map(([, data]) => data)).toEqual(['b']);
  });

  it('asks the new gateway again for what the old one had not answered when its time was over', async () => {
    const { client, platform, first, sockets } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    sockets[1]?.welcome();
    // The new gateway has not caught up yet, so this takes the old way.
    const publishing = watch(client.channel('room:1').publish('x', { key: 'k' }));
    await settle();
    expect(first.takeOne('publish')).toMatchObject({ key: 'k' });
    await platform.pass(3800);
    expect(first.closedWith).toBe(1000);
    sockets[1]?.sync();
    await settle();
    sockets[1]?.subscribeAll();
    await settle();
    const [again = {}] = sockets[1]?.sent.filter(({ type }) => type === 'publish') ?? [];
    expect(again).toMatchObject({ key: 'k' });
    sockets[1]?.ok(again, { id: 'i' });
    await settle();
    expect(publishing.value).toMatchObject({ id: 'i' });
  });

  it('does not ask for ever where a gateway does not know how to catch up', async () => {
    const { platform, first, sockets } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    sockets[1]?.welcome();
    sockets[1]?.refuse(sockets[1].takeOne('sync'), 'unknown_type');
    await settle();
    sockets[1]?.subscribeAll();
    await settle();
    first.refuse(first.takeOne('sync'), 'unknown_type');
    await settle();
    expect(first.closedWith).toBe(1000);
  });

  it('goes on with the old connection while the new one cannot be had', async () => {
    const { client, platform, first, sockets, all, heard } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    sockets[1]?.end(1006);
    first.say(message('a'));
    const publishing = watch(client.channel('room:1').publish('x'));
    await settle();
    first.ok(first.takeOne('publish'), { id: 'i' });
    await platform.pass(1000);
    expect(sockets).toHaveLength(3);
    await enter(sockets[2]);
    first.sync();
    await platform.pass(1000);
    expect(publishing.value).toBeDefined();
    expect(heard).toEqual([['room:1', 'a']]);
    expect(all('gap')).toEqual([]);
    expect(all('state').map(({ state }) => state)).toEqual(['open']);
  });

  it('goes back to the old connection where the new one is lost before that was left', async () => {
    const { client, platform, first, sockets, all, heard } = await openFake(['room:1', 'room:2']);
    first.say(goodbye);
    await platform.pass(1000);
    await enter(sockets[1]);
    sockets[1]?.say(message('b'));
    first.take();
    sockets[1]?.end(1006);
    expect(client.state).toBe('open');
    first.say(message('a'), message('b'));
    first.subscribeAll();
    const publishing = watch(client.channel('room:1').publish('x'));
    await settle();
    first.ok(first.takeOne('publish'), { id: 'i' });
    await settle();
    expect(publishing.value).toBeDefined();
    await platform.pass(1000);
    expect(sockets).toHaveLength(3);
    await enter(sockets[2]);
    first.say(message('c'));
    first.sync();
    await platform.pass(100);
    sockets[2]?.say(message('c'), message('d'));
    expect(first.closedWith).toBe(1000);
    expect(heard.map(([, data]) => data)).toEqual(['a', 'b', 'c', 'd']);
    expect(all('gap')).toEqual([]);
    expect(all('move')).toEqual([{ code: 1012 }]);
    expect(all('state').map(({ state }) => state)).toEqual(['open']);
  });

  it('takes the connection that is on its way where the old one is lost meanwhile, and tells a gap', async () => {
    const { client, platform, first, sockets, all } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    first.end(1006, 'cut');
    expect(client.state).toBe('reconnecting');
    sockets[1]?.welcome();
    sockets[1]?.subscribeAll();
    expect(client.state).toBe('open');
    expect(sockets).toHaveLength(2);
    expect(all('gap')).toEqual([
      { direct: true, reason: 'reconnect' },
      { channel: 'room:1', reason: 'reconnect' },
    ]);
  });

  it('comes back when the gateway said, where that closes before the move', async () => {
    const { platform, first, sockets } = await openFake();
    first.say({ ...goodbye, reconnectAfterMs: 3000 });
    first.end(1012, 'gateway is restarting; reconnect after 200 ms');
    await platform.pass(200);
    expect(sockets).toHaveLength(2);
    await platform.pass(10_000);
    expect(sockets.filter(({ closedWith }) => closedWith === undefined).length).toBeLessThanOrEqual(2);
  });

  it('moves durable channels with their positions, and hears what it must not hear twice once', async () => {
    const { client, platform, socket, sockets, all } = await connectFake();
    const heard: unknown[] = [];
    client.channel('doc:1').subscribe(({ position }) => heard.push(position));
    const say = (to: FakeSocket | undefined, ...positions: string[]) => {
      for (const position of positions)
        to?.say({ type: 'message', channel: 'doc:1', position, data: position });
    };
    socket.welcome();
    socket.subscribeAll(() => ({ position: '1-a' }));
    socket.say(goodbye);
    say(socket, '2-b');
    await platform.pass(1000);
    sockets[1]?.welcome();
    sockets[1]?.sync();
    await settle();
    expect(sockets[1]?.sent[1]?.channels).toEqual([{ channel: 'doc:1', after: '2-b' }]);
    say(socket, '3-c');
    sockets[1]?.subscribeAll(() => ({ recovered: true, position: '4-d' }));
    say(sockets[1], '3-c', '4-d', '5-e');
    say(socket, '4-d');
    await settle();
    socket.sync();
    await settle();
    expect(heard).toEqual(['2-b', '3-c', '4-d', '5-e']);
    expect(all('gap')).toEqual([]);
    expect(all('recovery')).toEqual([]);
  });

  it('leaves what is on its way over the old connection to it, and sends nothing twice', async () => {
    const { client, platform, first, sockets } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    first.take();
    const before = watch(client.channel('room:1').publish('before'));
    await settle();
    const command = first.takeOne('publish');
    sockets[1]?.welcome();
    sockets[1]?.sync();
    const between = watch(client.channel('room:1').publish('between'));
    await settle();
    first.ok(first.takeOne('publish'), { id: 'b' });
    sockets[1]?.subscribeAll();
    await settle();
    const after = watch(client.channel('room:1').publish('after'));
    await settle();
    expect(first.take().map(({ type }) => type)).toEqual(['sync']);
    sockets[1]?.ok(sockets[1].takeOne('publish'), { id: 'j' });
    // It is not left while it owes an answer.
    first.sync();
    await platform.pass(99);
    expect(first.closedWith).toBeUndefined();
    first.ok(command, { id: 'i' });
    await platform.pass(1);
    first.sync();
    await settle();
    expect(first.closedWith).toBe(1000);
    expect(before.value).toMatchObject({ id: 'i' });
    expect(between.value).toMatchObject({ id: 'b' });
    expect(after.value).toMatchObject({ id: 'j' });
    expect(sockets[1]?.take()).toEqual([]);
  });

  it('keeps what it does not want back until there is one connection only', async () => {
    const { client, platform, first, sockets } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    await enter(sockets[1]);
    sockets[1]?.take();
    void client.channel('room:1').publish('mine', { echo: false });
    await platform.pass(999);
    expect(sockets[1]?.take()).toEqual([]);
    expect(first.take().filter(({ type }) => type === 'publish')).toEqual([]);
    first.sync();
    await settle();
    expect(sockets[1]?.takeOne('publish')).toMatchObject({ data: 'mine', echo: false });
  });

  it('moves on where the gateway that it moves to says goodbye as well', async () => {
    const { client, platform, first, sockets, all } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    await enter(sockets[1]);
    sockets[1]?.say({ ...goodbye, reconnectAfterMs: 100 });
    await platform.pass(100);
    expect(sockets).toHaveLength(3);
    await enter(sockets[2]);
    sockets[1]?.sync();
    await settle();
    expect(first.closedWith).toBe(1000);
    expect(sockets[1]?.closedWith).toBe(1000);
    expect(sockets[2]?.closedWith).toBeUndefined();
    expect(all('move')).toHaveLength(2);
    expect(client.state).toBe('open');
  });

  it('moves on where two gateways, one after the other, cannot say that they have caught up', async () => {
    const { client, platform, first, sockets, heard } = await openFake(['room:1']);
    first.say({ ...goodbye, closeAfterMs: 60_000 });
    await platform.pass(1000);
    sockets[1]?.welcome();
    await settle();
    sockets[1]?.say({ ...goodbye, reconnectAfterMs: 100, closeAfterMs: 60_000 });
    await platform.pass(100);
    sockets[2]?.welcome();
    await settle();
    // The bus is away: both are asked, and neither knows. The one that is left says so last.
    const away = { retryable: true };
    sockets[2]?.refuse(sockets[2].takeOne('sync'), 'bus_unavailable', away);
    await settle();
    sockets[1]?.refuse(sockets[1].takeOne('sync'), 'bus_unavailable', away);
    await platform.pass(100);
    sockets[2]?.ok(sockets[2].takeOne('sync'));
    await settle();
    sockets[2]?.subscribeAll();
    await settle();
    sockets[2]?.say(message('a'));
    sockets[1]?.end(1012);
    expect(heard.map(([, data]) => data)).toEqual(['a']);
    expect(client.state).toBe('open');
  });

  it('closes every connection it has', async () => {
    const { client, platform, first, sockets } = await openFake(['room:1']);
    first.say(goodbye);
    await platform.pass(1000);
    sockets[1]?.welcome();
    const closing = client.close();
    expect(first.closedWith).toBe(1000);
    expect(sockets[1]?.closedWith).toBe(1000);
    await platform.pass(1000);
    await closing;
    expect(platform.leftovers).toBe(0);
  });
});

describe('being asked to move', () => {
  const ask = { type: 'goodbye', code: 4400, move: true, reconnectAfterMs: 500, giveUpAfterMs: 15_000 };

  it('says that it is moving, and leaves the old connection when the new one has everything', async () => {
    const { platform, first, sockets, all, heard } = await openFake(['room:1']);
    first.say(ask);
    await platform.pass(500);
    expect(sockets[1]?.url).toBe('ws://gateway/ws?moves=true&moving=true');
    await enter(sockets[1]);
    sockets[1]?.say(message('b'));
    first.say(message('a'), message('b'));
    first.sync();
    await settle();
    expect(first.closedWith).toBe(1000);
    expect(heard.map(([, data]) => data)).toEqual(['a', 'b']);
    expect(all('move')).toEqual([{ code: 4400 }]);
    expect(all('gap')).toEqual([]);
  });

  it('adds to a query that is there already', async () => {
    const { socket } = await connectFake({ url: 'ws://gateway/ws/ann?lang=en' });
    expect(socket.url).toBe('ws://gateway/ws/ann?lang=en&moves=true');
  });

  it('tries again at its own pace where it is refused, and stays where it is after some tries', async () => {
    const { client, platform, first, sockets, all, heard } = await openFake(['room:1']);
    platform.chance = 0;
    first.say({ ...ask, giveUpAfterMs: 1_000_000 });
    await platform.pass(500);
    for (let tries = 1; tries < 8; tries += 1) {
      expect(sockets).toHaveLength(1 + tries);
      sockets[tries]?.end(1006);
      await platform.pass(499);
      expect(sockets).toHaveLength(1 + tries);
      await platform.pass(1);
    }
    expect(sockets).toHaveLength(9);
    expect(first.take()).toEqual([]);
    sockets[8]?.end(1006);
    expect(first.take()).toEqual([{ type: 'stay', ref: expect.any(Number) }]);
    await platform.pass(20_000);
    expect(sockets).toHaveLength(9);
    expect(new Set(sockets.slice(1).map(({ url }) => url)).size).toBe(1);
    first.say(message('a'));
    expect(heard).toHaveLength(1);
    expect(client.state).toBe('open');
    expect([...all('gap'), ...all('move')]).toEqual([]);
    // It can be asked again.
    first.say(ask);
    await platform.pass(500);
    expect(sockets).toHaveLength(10);
  });

  it('looks no longer than the gateway said', async () => {
    const { platform, first, sockets } = await openFake();
    first.say({ ...ask, giveUpAfterMs: 2400 });
    for (const at of [1, 2]) {
      await platform.pass(1000);
      sockets[at]?.end(1006);
    }
    await platform.pass(20_000);
    expect(sockets).toHaveLength(3);
  });

  it.each([1008, 4403, 1003, 4406])(
    'keeps the old connection where the new one is closed with %i',
    async (code) => {
      const { client, platform, first, sockets } = await openFake();
      first.say(ask);
      await platform.pass(500);
      sockets[1]?.welcome();
      sockets[1]?.end(code);
      expect(client.state).toBe('open');
      expect(first.closedWith).toBeUndefined();
      await platform.pass(1000);
      expect(sockets).toHaveLength(3);
    },
  );

  it('stays on both connections until the new one has every channel, however long that takes', async () => {
    const { platform, first, sockets, heard, all } = await openFake(['room:1', 'room:2']);
    first.say(ask);
    await platform.pass(500);
    const [, next] = sockets;
    next?.welcome();
    next?.sync();
    await settle();
    next?.ok(next.takeOne('subscribe'), {
      channels: [
        { channel: 'room:1' },
        {
          channel: 'room:2',
          error: { code: 'bus_unavailable', message: 'no', retryable: true, retryAfterMs: 20_000 },
        },
      ],
    });
    next?.say(message('b'));
    await platform.pass(19_000);
    expect(first.sync()).toBe(0);
    first.say(message('a'), message('b'));
    expect(heard.map(([, data]) => data)).toEqual(['a', 'b']);
    await platform.pass(1000);
    next?.subscribeAll();
    await platform.pass(100);
    expect(first.sync()).toBe(1);
    await settle();
    expect(first.closedWith).toBe(1000);
    expect(all('gap')).toEqual([]);
  });

  it('goes anywhere as soon as it must: where the pod drains, or is lost', async () => {
    const drained = await openFake();
    drained.first.say(ask);
    await drained.platform.pass(100);
    drained.first.say({ type: 'goodbye', code: 1012, reconnectAfterMs: 1000, closeAfterMs: 6000 });
    drained.first.say(ask);
    await drained.platform.pass(1000);
    expect(drained.sockets.map(({ url }) => url)).toEqual(Array(2).fill('ws://gateway/ws?moves=true'));
    await enter(drained.sockets[1]);
    drained.first.sync();
    await settle();
    expect(drained.all('move')).toEqual([{ code: 1012 }]);

    const lost = await openFake();
    lost.first.say(ask);
    await lost.platform.pass(500);
    lost.first.end(1006);
    lost.sockets[1]?.end(1006);
    expect(lost.client.state).toBe('reconnecting');
    await lost.platform.pass(30_000);
    expect(lost.sockets[2]?.url).toBe('ws://gateway/ws?moves=true');
  });

  it('leaves a gateway that does not say whether everything has come, and tells a gap', async () => {
    const { platform, first, sockets, all, heard } = await openFake(['room:1']);
    first.say(ask);
    await platform.pass(500);
    await enter(sockets[1]);
    sockets[1]?.say(message('b'));
    await platform.pass(9999);
    expect(first.closedWith).toBeUndefined();
    await platform.pass(1);
    expect(first.closedWith).toBe(1000);
    expect(all('gap')).toEqual([
      { direct: true, reason: 'reconnect' },
      { channel: 'room:1', reason: 'reconnect' },
    ]);
    expect(heard.map(([, data]) => data)).toEqual(['b']);
  });
});

describe('what is told', () => {
  it('passes on presence, and errors that answer nothing', async () => {
    const { first, all } = await openFake();
    first.say({ type: 'presence', channel: 'room:1', joined: ['bob'], left: [], total: 2 });
    first.say({ type: 'error', code: 'malformed', message: 'What?', retryable: false });
    expect(all('presence')).toMatchObject([{ channel: 'room:1', joined: ['bob'], left: [], total: 2 }]);
    expect(all('error')).toMatchObject([{ code: 'malformed', message: 'What?' }]);
  });

  it('tells nobody who does not listen any more', async () => {
    const { client, socket } = await connectFake();
    const listener = vi.fn();
    const off = client.on('state', listener);
    off();
    socket.welcome();
    expect(listener).not.toHaveBeenCalled();
  });
});
