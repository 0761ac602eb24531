import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import type { RawData } from 'ws';
import { startGateway, type TestGateway } from '../../test/gateway.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { type Frame, maskedFrame, opcodes, RawPeer, readFrames } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { type Json, TestClient } from '../../test/websocket.ts';
import { textFrame } from '../protocol/frames.ts';
import { Batch, type Outgoing, Run } from './fanout.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const channels = JSON.stringify({
  namespaces: {
    room: { subscribe: 'anyone', publish: 'anyone' },
    ticks: { subscribe: 'anyone', publish: 'anyone', slow: 'drop' },
    hall: { subscribe: 'anyone', publish: 'anyone', raw: true, slow: 'drop' },
  },
});
const [small, large, compressing] = await Promise.all([
  startGateway({ CHANNELS: channels, MAX_BACKLOG_BYTES: String(64 * KIB), PLAIN_CHANNEL: 'hall:all' }),
  startGateway({
    CHANNELS: channels,
    MAX_BACKLOG_BYTES: String(64 * MIB),
    MAX_TOTAL_BACKLOG_BYTES: String(4 * MIB),
  }),
  startLocalGateway({ CHANNELS: channels, COMPRESSION: 'true' }),
]);
afterAll(() => Promise.all([small.stop(), large.stop(), compressing.stop()]));

const message = (payload: string, more: Partial<Outgoing> = {}): Outgoing => ({
  kind: 'message',
  foreign: false,
  payload,
  ...more,
});

// --- What is shared

test('gives connections with the same frames the same buffer', () => {
  const [a, b, c] = ['a', 'b', 'c'].map(textFrame) as [Buffer, Buffer, Buffer];
  const root = new Batch();
  const [one, two] = [root.with(a).with(b), root.with(a).with(b)];
  expect(two).toBe(one);
  expect(two.buffer).toBe(one.buffer);
  expect(one.buffer).toEqual(Buffer.concat([a, b]));
  expect(root.with(a).with(c)).not.toBe(one);
  expect(root.with(a).with(c).buffer).toEqual(Buffer.concat([a, c]));
  // A single frame is not copied.
  expect(root.with(c).buffer).toBe(c);
});

test('puts any frames together in their order, and shares whatever is the same', () => {
  const frames = ['a', 'b', 'c', 'd'].map(textFrame);
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.nat(frames.length - 1), { minLength: 1, maxLength: 8 }), { maxLength: 12 }),
      (lists) => {
        const root = new Batch();
        const batches = lists.map((list) => {
          const chosen = list.map((at) => frames[at] ?? Buffer.alloc(0));
          const batch = chosen.reduce((so, frame) => so.with(frame), root);
          expect(batch.buffer).toEqual(Buffer.concat(chosen));
          expect(batch.bytes).toBe(batch.buffer.length);
          return batch;
        });
        for (const [i, one] of lists.entries()) {
          for (const [j, two] of lists.entries()) {
            if (one.join() === two.join()) expect(batches[i]).toBe(batches[j]);
          }
        }
      },
    ),
  );
});

test('encodes a message once for each way of encoding, whoever gets it', () => {
  const long = JSON.stringify('x'.repeat(5000));
  const run = new Run('room:1', [message(long, { id: 'AAAA', from: 'ann' }), message('2', { id: 'BBBB' })]);
  const buffers = new Set<Buffer>();
  for (const protocol of ['plain', 'v1'] as const) {
    for (const compressed of [false, true]) {
      const buffer = run.bufferFor({ protocol, compressed, traced: false });
      expect(run.bufferFor({ protocol, compressed, traced: false })).toBe(buffer);
      buffers.add(buffer);
      const texts = readFrames(buffer).map(({ firstByte, payload }) => textOf(firstByte, payload));
      expect(texts).toEqual(
        protocol === 'plain'
          ? [long, '2']
          : [
              `{"type":"message","channel":"room:1","id":"AAAA","from":"ann","data":${long}}`,
              '{"type":"message","channel":"room:1","id":"BBBB","data":2}',
            ],
      );
    }
  }
  expect(buffers.size).toBe(4);
});

test('has nothing for a plain connection where there are only presence events', () => {
  const event = message('{"joined":["ann"],"left":[],"total":1}', { kind: 'presence' });
  const run = new Run('hall:1', [event]);
  expect(run.bufferFor({ protocol: 'plain', compressed: false, traced: false })).toHaveLength(0);
  const [frame] = readFrames(run.bufferFor({ protocol: 'v1', compressed: false, traced: false }));
  expect(JSON.parse(String(frame?.payload))).toEqual({
    type: 'presence',
    channel: 'hall:1',
    joined: ['ann'],
    left: [],
    total: 1,
  });
});

test.each([
  ['a sampled trace', `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`, true],
  ['a trace that is not sampled', `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`, false],
  ['what is no trace', `00-${'"'.repeat(32)}-${'b'.repeat(16)}-01`, false],
])('tells %s to none but those who asked, where there is one', (_, traceparent, told) => {
  const run = new Run('room:1', [message('1', { id: 'AAAA', traceparent })]);
  const asked = { protocol: 'v1', compressed: false } as const;
  const [untraced, traced] = [false, true].map(
    (it) => readFrames(run.bufferFor({ ...asked, traced: it }))[0],
  );
  expect(JSON.parse(String(untraced?.payload))).not.toHaveProperty('traceparent');
  expect(JSON.parse(String(traced?.payload)).traceparent).toBe(told ? traceparent : undefined);
});

function textOf(firstByte: number, payload: Buffer): string {
  if (firstByte === 0x81) return payload.toString();
  expect(firstByte).toBe(0xc1);
  const tail = Buffer.from([0, 0, 0xff, 0xff]);
  return inflateRawSync(Buffer.concat([payload, tail]), { finishFlush: constants.Z_SYNC_FLUSH }).toString();
}

// --- Compression

test('compresses for clients that agreed to it, and a real client inflates it', async () => {
  const text = 'a text that repeats itself; '.repeat(200);
  const plain = await TestClient.open(`${compressing.url}/ws/ann`);
  const v1 = await TestClient.v1(`${compressing.url}/ws/bob`);
  expect(plain.ws.extensions).toContain('permessage-deflate');
  await v1.call({ type: 'subscribe', channel: 'ws_broadcast' });
  for (let at = 0; at < 3; at += 1) {
    plain.send(`${at} ${text}`);
    const expected = JSON.stringify({ sender: 'ann', text: `${at} ${text}` });
    expect(await plain.text()).toBe(expected);
    expect(await v1.json()).toMatchObject({ type: 'message', data: expected });
  }
  await Promise.all([plain.leave(), v1.leave()]);
});

test('sends frames with the compressed bit to who agreed, bare ones to who did not or asked for a small window', async () => {
  const offers = {
    agreed: 'permessage-deflate; client_max_window_bits',
    small: 'permessage-deflate; server_max_window_bits=9',
    none: undefined,
  };
  const peers = await Promise.all(
    Object.values(offers).map((offer) =>
      RawPeer.upgrade(
        compressing.ports.ws,
        '/ws',
        offer === undefined ? {} : { 'Sec-WebSocket-Extensions': offer },
      ),
    ),
  );
  const ann = await TestClient.open(`${compressing.url}/ws/ann`);
  const text = 'x'.repeat(3000);
  ann.send(text);
  const expected = await ann.text();
  const firstBytes = [];
  for (const peer of peers) {
    const isText = (frame: Frame) => (frame.firstByte & 0x0f) === opcodes.text;
    const { firstByte, payload } = await until(() => peer.frames.find(isText), { what: 'a text' });
    firstBytes.push(firstByte);
    expect(textOf(firstByte, payload)).toBe(expected);
    peer.socket.destroy();
  }
  expect(firstBytes).toEqual([0xc1, 0x81, 0x81]);
  await ann.leave();
});

test('closes with 1009 when a small frame inflates to more than is allowed, and with 1007 when it cannot be inflated', async () => {
  const bomb = deflateRawSync(Buffer.alloc(50 * MIB), { finishFlush: constants.Z_SYNC_FLUSH }).subarray(
    0,
    -4,
  );
  for (const [payload, code] of [
    [bomb, 1009],
    [Buffer.from([0xff, 0xff, 0xff, 0xff]), 1007],
  ] as const) {
    const peer = await RawPeer.upgrade(compressing.ports.ws, '/ws', {
      'Sec-WebSocket-Extensions': 'permessage-deflate',
    });
    const frame = maskedFrame(opcodes.text, payload);
    frame[0] = 0xc1;
    peer.socket.write(frame);
    expect(await peer.closed()).toBe(code);
    await until(
      async () => (await compressing.metric('tidegate_closes_total', { code: String(code) })) === 1,
      {
        what: `a close counted as ${code}`,
      },
    );
  }
});

// --- Slow consumers

/** A v1 connection that subscribes and then reads nothing. */
async function slowPeer(gateway: TestGateway, channel: string): Promise<RawPeer> {
  const peer = await RawPeer.upgrade(gateway.ports.ws, '/ws/slow', {
    'Sec-WebSocket-Protocol': 'tidegate.v1',
  });
  peer.send(opcodes.text, JSON.stringify({ type: 'subscribe', channel, ref: 'sub' }));
  await until(() => framesOf(peer).some((it) => it.ref === 'sub'), { what: 'a subscription' });
  peer.stopReading();
  return peer;
}

async function residentBytes(gateway: TestGateway): Promise<number> {
  const bytes = await gateway.metric('tidegate_process_resident_memory_bytes');
  expect(bytes).toBeGreaterThan(0);
  return bytes;
}

function framesOf(peer: RawPeer): Json[] {
  return peer.texts.map((text) => JSON.parse(text) as Json);
}

/** Publishes numbered messages of 32 KiB, and waits for each to come back, until the condition is fulfilled. */
async function publishUntil(
  publisher: TestClient,
  channel: string,
  isEnough: () => Promise<boolean>,
): Promise<number> {
  const padding = 'x'.repeat(32 * KIB);
  for (let n = 1; ; n += 1) {
    const arrival = nextMessage(publisher);
    publisher.send({ type: 'publish', channel, data: { n, padding } });
    const { data } = await arrival;
    expect((data as { n: number }).n).toBe(n);
    if (n % 8 === 0 && (await isEnough())) return n;
    if (n > 3000) throw new Error('100 MB were published, and nothing happened');
  }
}

/** The next message on the connection, as soon as it comes. */
function nextMessage({ ws, inbox }: TestClient): Promise<Json> {
  return new Promise((resolve) => {
    const onFrame = (bytes: RawData) => {
      const frame = JSON.parse(bytes.toString()) as Json;
      if (frame.type === 'ok') return;
      ws.off('message', onFrame);
      inbox.length = 0;
      resolve(frame);
    };
    ws.on('message', onFrame);
  });
}

const numbersOf = (frames: Json[]) =>
  frames.filter((it) => it.type === 'message').map((it) => (it.data as { n: number }).n);

test('closes a slow consumer with 4401, and delays nobody else over it', async () => {
  const slow = await slowPeer(small, 'room:slow');
  const other = await TestClient.v1(`${small.url}/ws/other`);
  await other.call({ type: 'subscribe', channel: 'room:slow' });
  const disconnected = () => small.metric('tidegate_slow_consumers_total', { action: 'disconnect' });
  const before = await disconnected();
  // It waits for each message to come back before it publishes the next: nobody is held up.
  const last = await publishUntil(other, 'room:slow', async () => (await disconnected()) > before);
  // What it has not read yet stays in memory and is counted until it is gone.
  expect(await small.metric('tidegate_backlog_bytes')).toBeGreaterThan(0);
  expect(await small.metric('tidegate_backlog_bytes')).toBeLessThanOrEqual(64 * KIB + KIB);
  slow.resume();
  expect(await slow.closed()).toBe(4401);
  // All that came before has come in order, and without a hole.
  const numbers = numbersOf(framesOf(slow));
  expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, at) => at + 1));
  expect(numbers.length).toBeLessThan(last);
  await until(async () => (await small.metric('tidegate_closes_total', { code: '4401' })) > 0, {
    what: 'its end',
  });
  await until(async () => (await small.metric('tidegate_backlog_bytes')) === 0, { what: 'no backlog' });
  await other.leave();
});

test('cuts a slow consumer that does not read its close either', async () => {
  await slowPeer(small, 'room:deaf');
  const other = await TestClient.v1(`${small.url}/ws/other`);
  await other.call({ type: 'subscribe', channel: 'room:deaf' });
  const disconnected = () => small.metric('tidegate_slow_consumers_total', { action: 'disconnect' });
  const before = await disconnected();
  await publishUntil(other, 'room:deaf', async () => (await disconnected()) > before);
  await until(async () => (await small.metric('tidegate_connections')) === 1, {
    what: 'its end',
  });
  expect(await small.metric('tidegate_congested_connections')).toBe(0);
  await other.leave();
});

test('drops messages to a slow consumer where the namespace says so, and tells it afterwards', async () => {
  const slow = await slowPeer(small, 'ticks:1');
  const other = await TestClient.v1(`${small.url}/ws/other`);
  await other.call({ type: 'subscribe', channel: 'ticks:1' });
  const dropped = () => small.metric('tidegate_dropped_total', { channel_namespace: 'ticks' });
  const dropping = await publishUntil(other, 'ticks:1', async () => (await dropped()) >= 16);
  slow.resume();
  await until(() => framesOf(slow).some((it) => it.type === 'gap'), { what: 'a gap' });
  other.send({ type: 'publish', channel: 'ticks:1', data: { n: dropping + 1 } });
  await until(() => numbersOf(framesOf(slow)).includes(dropping + 1), { what: 'a message after the gap' });
  const frames = framesOf(slow).filter((it) => it.type !== 'welcome' && it.type !== 'ok');
  const gaps = frames.filter((it) => it.type === 'gap');
  expect(gaps).toMatchObject([{ channel: 'ticks:1', reason: 'slow' }]);
  const at = frames.findIndex((it) => it.type === 'gap');
  const before = numbersOf(frames.slice(0, at));
  expect(before).toEqual(Array.from({ length: before.length }, (_, index) => index + 1));
  expect(numbersOf(frames.slice(at))).toEqual([dropping + 1]);
  expect(before.length + (await dropped())).toBe(dropping);
  expect(await small.metric('tidegate_gaps_total', { reason: 'slow' })).toBe(1);
  expect(slow.ended).toBe(false);
  slow.socket.destroy();
  await other.leave();
});

test('closes a slow plain client that could not be told of a drop, and tells one that could', async () => {
  const bare = await RawPeer.upgrade(small.ports.ws, '/ws/bare');
  const beating = await RawPeer.upgrade(small.ports.ws, '/ws/beating?heartbeat=true');
  const publisher = await TestClient.open(`${small.url}/ws/ann`);
  const disconnected = () => small.metric('tidegate_slow_consumers_total', { action: 'disconnect' });
  const dropped = () => small.metric('tidegate_dropped_total', { channel_namespace: 'hall' });
  const before = await disconnected();
  const text = 'x'.repeat(32 * KIB);
  bare.stopReading();
  beating.stopReading();
  await until(
    async () => {
      for (let at = 0; at < 8; at += 1) {
        const arrival = nextMessage(publisher);
        publisher.send(text);
        await arrival;
      }
      return (await disconnected()) > before && (await dropped()) > 0;
    },
    { what: 'one to be closed and one to be dropped from' },
  );
  bare.resume();
  expect(await bare.closed()).toBe(4401);
  expect(beating.ended).toBe(false);
  beating.resume();
  await until(() => beating.received.includes('{"type":"gap","channel":"hall:all","reason":"slow"}'), {
    what: 'a gap',
  });
  beating.socket.destroy();
  await publisher.leave();
});

test('closes with 4401 who sends commands and never reads the answers', async () => {
  const peer = await RawPeer.upgrade(small.ports.ws, '/ws/mute', { 'Sec-WebSocket-Protocol': 'tidegate.v1' });
  peer.stopReading();
  const disconnected = () => small.metric('tidegate_slow_consumers_total', { action: 'disconnect' });
  const before = await disconnected();
  const ping = maskedFrame(opcodes.text, Buffer.from(JSON.stringify({ type: 'ping', ref: 'r'.repeat(64) })));
  const many = Buffer.concat(Array(1000).fill(ping));
  await until(
    async () => {
      await new Promise((resolve) => peer.socket.write(many, resolve));
      return (await disconnected()) > before;
    },
    { what: 'it to be closed' },
  );
  expect(await small.metric('tidegate_backlog_bytes')).toBeLessThanOrEqual(64 * KIB + KIB);
  peer.socket.destroy();
});

test('keeps a bounded backlog of pongs for who pings and never reads', async () => {
  const peer = await RawPeer.upgrade(small.ports.ws, '/ws/pinger');
  peer.stopReading();
  const ping = maskedFrame(opcodes.ping, Buffer.alloc(125));
  const many = Buffer.concat(Array(2000).fill(ping));
  // 25 MB of pongs: more than the kernel holds for it.
  for (let at = 0; at < 100; at += 1) await new Promise((resolve) => peer.socket.write(many, resolve));
  const other = await TestClient.v1(`${small.url}/ws/other`);
  expect(await other.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  expect(await residentBytes(small)).toBeLessThan(300 * MIB);
  peer.socket.destroy();
  await other.leave();
});

test('cuts the largest backlog first when all together are too much', async () => {
  const first = await TestClient.v1(`${large.url}/ws/one`);
  const second = await TestClient.v1(`${large.url}/ws/two`);
  await first.call({ type: 'subscribe', channel: 'room:lesser' });
  await second.call({ type: 'subscribe', channel: 'room:greater' });
  const lesser = await slowPeer(large, 'room:lesser');
  const backlog = () => large.metric('tidegate_backlog_bytes');
  const cuts = () => large.metric('tidegate_slow_consumers_total', { action: 'cut' });
  const inLesser = await publishUntil(first, 'room:lesser', async () => (await backlog()) > MIB);
  expect(await backlog()).toBeLessThan(2 * MIB);
  const greater = await slowPeer(large, 'room:greater');
  await publishUntil(second, 'room:greater', async () => (await cuts()) > 0);
  expect(await cuts()).toBe(1);
  greater.resume();
  await until(() => greater.ended, { what: 'the larger one to be cut' });
  // The smaller one lives, and lacks nothing.
  lesser.resume();
  await until(() => numbersOf(framesOf(lesser)).length === inLesser, {
    what: 'all messages of the smaller one',
  });
  expect(numbersOf(framesOf(lesser))).toEqual(Array.from({ length: inLesser }, (_, at) => at + 1));
  expect(lesser.ended).toBe(false);
  lesser.socket.destroy();
  await Promise.all([first.leave(), second.leave()]);
});

test('stays within its memory however many read nothing', async () => {
  const peers = await Promise.all(Array.from({ length: 15 }, () => slowPeer(large, 'room:crowd')));
  const publisher = await TestClient.v1(`${large.url}/ws/publisher`);
  await publisher.call({ type: 'subscribe', channel: 'room:crowd' });
  const cuts = () => large.metric('tidegate_slow_consumers_total', { action: 'cut' });
  const before = await cuts();
  let most = 0;
  await publishUntil(publisher, 'room:crowd', async () => {
    most = Math.max(most, await large.metric('tidegate_backlog_bytes'));
    return (await cuts()) >= before + peers.length - 2;
  });
  // Between two looks every peer may get one turn's messages more.
  expect(most).toBeLessThan(4 * MIB + peers.length * 64 * KIB);
  expect(await residentBytes(large)).toBeLessThan(400 * MIB);
  for (const peer of peers) peer.socket.destroy();
  await publisher.leave();
});
