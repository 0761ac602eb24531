import { queryObjects } from 'node:v8';
import { afterAll, expect, test } from 'vitest';
import type { LogLine } from '../../test/gateway.ts';
import { type LocalGateway, startLocalGateway } from '../../test/local-gateway.ts';
import { opcodes, RawPeer } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';
import { Connection } from './connection.ts';

const channels = JSON.stringify({
  namespaces: {
    room: { subscribe: 'anyone', publish: 'anyone' },
    hall: { subscribe: 'anyone', publish: 'anyone', presence: true, presenceEvents: true },
  },
});
const gateway = await startLocalGateway({ CHANNELS: channels, MAX_MESSAGE_BYTES: '1000' });
afterAll(() => gateway.stop());

/** What a close is counted as, before and after something is done. */
async function countedCloses(it: LocalGateway, code: string, doIt: () => Promise<unknown>): Promise<number> {
  const before = await it.metric('tidegate_closes_total', { code });
  await doIt();
  await until(async () => (await it.metric('tidegate_closes_total', { code })) > before, {
    what: `a close counted as ${code}`,
  });
  return (await it.metric('tidegate_closes_total', { code })) - before;
}

test('publishes every text of a plain client as exactly sender and text', async () => {
  const ann = await TestClient.open(`${gateway.url}/ws/ann`);
  const bob = await TestClient.open(`${gateway.url}/ws/bob`);
  for (const text of [
    'hello',
    '',
    '{"json":1}',
    '"quoted"',
    'line\nline',
    'Grüße 🌊\u2028',
    'TG1 {}\n{}',
    '{"type":"pingpong"}',
  ]) {
    ann.send(text);
    const expected = JSON.stringify({ sender: 'ann', text });
    expect(await bob.text()).toBe(expected);
    expect(await ann.text()).toBe(expected);
  }
  await Promise.all([ann.leave(), bob.leave()]);
});

test('puts the fragments of a message together', async () => {
  const bob = await TestClient.open(`${gateway.url}/ws/bob`);
  const ann = await RawPeer.upgrade(gateway.ports.ws, '/ws/ann');
  ann.send(opcodes.text, 'in ', false);
  ann.send(opcodes.ping, 'between');
  ann.send(opcodes.continuation, 'three ', false);
  ann.send(opcodes.continuation, 'pieces');
  expect(await bob.text()).toBe('{"sender":"ann","text":"in three pieces"}');
  expect(ann.frames).toContainEqual({ firstByte: 0x80 | opcodes.pong, payload: Buffer.from('between') });
  ann.socket.destroy();
  await bob.leave();
});

test('answers the heartbeat of a plain client and never publishes it', async () => {
  const ann = await TestClient.open(`${gateway.url}/ws/ann`);
  for (const ping of ['{"type":"ping"}', ' { "type" : "ping" }\n']) {
    ann.send(ping);
    expect(await ann.text()).toBe('{"type":"pong"}');
  }
  ann.send('{"type":"pong"}');
  ann.send('after');
  expect(await ann.text()).toBe('{"sender":"ann","text":"after"}');
  await ann.leave();
});

test('closes with 1003 after a binary frame, in both protocols', async () => {
  for (const protocols of [[], ['tidegate.v1']]) {
    const client = await TestClient.open(`${gateway.url}/ws`, { protocols });
    const count = await countedCloses(gateway, '1003', async () => {
      client.ws.send(Buffer.from('hello'));
      expect(await client.close()).toMatchObject({ code: 1003 });
    });
    expect(count).toBe(1);
  }
});

test('takes a frame of just the largest size, and closes with 1009 after one byte more', async () => {
  const ann = await TestClient.open(`${gateway.url}/ws/ann`);
  ann.send('x'.repeat(1000));
  expect(await ann.text()).toHaveLength('{"sender":"ann","text":""}'.length + 1000);
  expect(
    await countedCloses(gateway, '1009', async () => {
      ann.send('x'.repeat(1001));
      expect(await ann.close()).toMatchObject({ code: 1009 });
    }),
  ).toBe(1);
});

test('closes with 1009 as soon as fragments are too much together', async () => {
  const count = await countedCloses(gateway, '1009', async () => {
    const peer = await RawPeer.upgrade(gateway.ports.ws, '/ws/ann');
    peer.send(opcodes.text, 'x'.repeat(600), false);
    peer.send(opcodes.continuation, 'x'.repeat(600), false);
    expect(await peer.closed()).toBe(1009);
  });
  expect(count).toBe(1);
});

test('closes with 1009 after a message of too many pieces, and counts it so', async () => {
  const count = await countedCloses(gateway, '1009', async () => {
    const peer = await RawPeer.upgrade(gateway.ports.ws, '/ws/ann');
    peer.send(opcodes.text, '', false);
    for (let piece = 0; piece < 1024; piece += 1) peer.send(opcodes.continuation, '', false);
    expect(await peer.closed()).toBe(1009);
  });
  expect(count).toBe(1);
});

test('closes with 1007 after what is not UTF-8, with 1002 after what is no frame, and counts them so', async () => {
  const cases: [number, (peer: RawPeer) => void][] = [
    [1007, (peer) => peer.send(opcodes.text, Buffer.from([0xc3, 0x28]))],
    [1002, (peer) => peer.socket.write(Buffer.from([0xf1, 0x80, 0, 0, 0, 0]))],
    [1002, (peer) => peer.socket.write(Buffer.from([0x81, 0x01, 0x61]))], // not masked
    [1002, (peer) => peer.send(3)],
    [1002, (peer) => peer.send(opcodes.continuation, 'of nothing')],
    [1002, (peer) => peer.send(opcodes.ping, 'x'.repeat(126))],
    [1002, (peer) => peer.send(opcodes.close, Buffer.from([0]))],
    [1002, (peer) => peer.send(opcodes.close, Buffer.from([0x03, 0xed]))], // 1005 is never sent
  ];
  for (const [code, offend] of cases) {
    const peer = await RawPeer.upgrade(gateway.ports.ws, '/ws/ann');
    expect(
      await countedCloses(gateway, String(code), async () => {
        offend(peer);
        expect(await peer.closed()).toBe(code);
      }),
    ).toBe(1);
  }
});

test('counts what a client closes with, codes it made up together', async () => {
  for (const [code, label] of [
    [1000, '1000'],
    [1001, '1001'],
    [4321, 'other'],
    [3000, 'other'],
  ] as const) {
    const client = await TestClient.open(`${gateway.url}/ws`);
    expect(
      await countedCloses(gateway, label, async () => {
        client.ws.close(code);
        expect(await client.close()).toMatchObject({ code });
      }),
    ).toBe(1);
  }
});

test('answers what is no command, with the ref where it has one, and goes on', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws`);
  const cases: [string, object][] = [
    ['nonsense', { code: 'malformed' }],
    ['[]', { code: 'malformed' }],
    ['null', { code: 'malformed' }],
    ['{"type":"subscribe","ref":1}', { ref: 1, code: 'bad_name' }],
    ['{"type":"dance","ref":"a"}', { ref: 'a', code: 'unknown_type' }],
    ['{"ref":{}}', { code: 'malformed' }],
    ['{"type":"publish","channel":"room:1","ref":7}', { ref: 7, code: 'malformed' }],
  ];
  for (const [text, answer] of cases) {
    client.send(text);
    expect(await client.json()).toMatchObject({ type: 'error', retryable: false, ...answer });
  }
  expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  await client.leave();
});

test('closes with 4405 after a flood of malformed commands, and not where good ones stand between', async () => {
  const client = await TestClient.v1(`${gateway.url}/ws`);
  for (let at = 0; at < 9; at += 1) client.send('nonsense');
  expect(await client.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  for (let at = 0; at < 50; at += 1) client.send('nonsense');
  expect(await client.close()).toMatchObject({ code: 4405 });
  expect(client.inbox.filter((text) => text.includes('"malformed"'))).toHaveLength(19);
});

test('brings a message to a user to all connections of the user, and the channel to each once', async () => {
  const anns = [await TestClient.v1(`${gateway.url}/ws/ann`), await TestClient.v1(`${gateway.url}/ws/ann`)];
  const bob = await TestClient.v1(`${gateway.url}/ws/bob`);
  for (const ann of anns) await ann.call({ type: 'subscribe', channel: 'room:1' });
  expect(await bob.call({ type: 'send', user: 'ann', data: { n: 1 } })).toMatchObject({ type: 'ok' });
  expect(await bob.call({ type: 'publish', channel: 'room:1', data: 2 })).toMatchObject({ type: 'ok' });
  for (const ann of anns) {
    expect(await ann.json()).toMatchObject({ type: 'message', direct: true, from: 'bob', data: { n: 1 } });
    expect(await ann.json()).toMatchObject({ type: 'message', channel: 'room:1', from: 'bob', data: 2 });
    expect(ann.inbox).toEqual([]);
  }
  // One leaves, the other still hears.
  await anns[0]?.leave();
  await bob.call({ type: 'send', user: 'ann', data: 3 });
  expect(await anns[1]?.json()).toMatchObject({ direct: true, data: 3 });
  await Promise.all([anns[1]?.leave(), bob.leave()]);
});

test('logs one line when a connection opens and one when it closes, without what was said', async () => {
  const from = gateway.log.length;
  const eve = await TestClient.open(`${gateway.url}/ws/eve?token=top-secret`);
  eve.send('whisper');
  await eve.text();
  eve.ws.close(1000, 'whisper');
  await eve.close();
  const isEves = (line: LogLine) => line.user === 'eve';
  await until(() => gateway.log.slice(from).filter(isEves).length === 2, { what: 'two lines' });
  const [open, close] = gateway.log.slice(from).filter(isEves);
  expect(open).toMatchObject({ msg: 'connection open', protocol: 'plain', address: '127.0.0.1' });
  expect(close).toMatchObject({ msg: 'connection closed', code: 1000, messagesIn: 1, messagesOut: 1 });
  expect(close?.durationMs).toBeGreaterThanOrEqual(0);
  expect(close?.connection).toBe(open?.connection);
  expect(JSON.stringify(gateway.log.slice(from))).not.toMatch(/secret|whisper/);
});

test('keeps nothing of connections that are gone, however they went', async () => {
  const away = async () => {
    await until(async () => (await gateway.metric('tidegate_connections')) === 0, { what: 'all to be gone' });
  };
  for (let round = 0; round < 5; round += 1) {
    const clients = await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        n % 2 === 0
          ? TestClient.v1(`${gateway.url}/ws/user${n % 10}`)
          : TestClient.open(`${gateway.url}/ws/user${n % 10}?heartbeat=true`),
      ),
    );
    const v1 = clients.filter((_, n) => n % 2 === 0);
    await Promise.all(
      v1.map((it, n) => it.call({ type: 'subscribe', channels: [`hall:${n % 3}`, `room:${n}`] })),
    );
    for (const [n, client] of clients.entries()) {
      if (n % 2 === 0) client.send({ type: 'publish', channel: `hall:${n % 3}`, data: n });
      else client.send(`text ${n}`);
      // Ways to go: in order, with the line cut, by a frame that is not allowed, after commands that are not answered yet.
      if (n % 4 === 0) client.ws.close(1000);
      else if (n % 4 === 1) client.ws.terminate();
      else if (n % 4 === 2) {
        client.send({ type: 'subscribe', channels: [`hall:${n}`, `late:${n}`, `room:late${n}`] });
        client.ws.terminate();
      } else client.ws.send(Buffer.alloc(1));
    }
    await away();
  }
  expect(await gateway.metric('tidegate_users')).toBe(0);
  expect(await gateway.metric('tidegate_channels')).toBe(0);
  expect(await gateway.metric('tidegate_presence_members')).toBe(0);
  expect(await gateway.metric('tidegate_congested_connections')).toBe(0);
  expect(await gateway.metric('tidegate_backlog_bytes')).toBe(0);
  // No wheel, group, timer or promise holds one of them.
  await until(() => queryObjects(Connection, { format: 'count' }) === 0, {
    what: 'connections to be collected',
  });
});
