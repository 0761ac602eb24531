import { expect } from 'vitest';
import { Random } from '../test/random.ts';
import { exchange, RawPeer, upgradeRequest } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { many, statusOf } from './peers.ts';
import { openStage } from './stage.ts';

const { gateway, attack } = await openStage('handshakes', {
  // Long enough for thousands to connect before the first of them are ended, also on a slow machine.
  HANDSHAKE_TIMEOUT_SECONDS: '5',
  MAX_CONNECTIONS: '500',
});
const port = gateway.ports.ws;

attack(
  { does: '1000 handshakes with a few bytes changed', answer: '101, or refused with a status' },
  async () => {
    const seed = 6455;
    const random = new Random(seed);
    const seen = new Set<number>();
    await many(1000, async () => {
      const bytes = Buffer.from(upgradeRequest('/ws/mallory', { 'Sec-WebSocket-Protocol': 'tidegate.v1' }));
      for (let changes = random.integer(1, 4); changes > 0; changes -= 1)
        bytes[random.integer(0, bytes.length - 1)] = random.integer(0, 255);
      const peer = await RawPeer.connect(port);
      peer.socket.end(bytes);
      seen.add(statusOf(await peer.end()));
    });
    for (const status of seen)
      expect([101, 400, 404, 405, 408, 426, 431, 501], `seed ${seed}`).toContain(status);
    expect(seen).toContain(101);
    expect(seen).toContain(400);
  },
);

attack(
  { does: '300 header floods: a million bytes, in one header or in ten thousand', answer: '431' },
  async () => {
    const one = `GET /ws HTTP/1.1\r\nHost: x\r\nX-Flood: ${'y'.repeat(1_000_000)}`;
    const lines = Array.from({ length: 10_000 }, (_, at) => `X-${at}: ${'y'.repeat(90)}\r\n`).join('');
    const ten_thousand = `GET /ws HTTP/1.1\r\nHost: x\r\n${lines}`;
    const cookies = `GET /ws HTTP/1.1\r\nHost: x\r\n${'Cookie: a=b; c=d\r\n'.repeat(60_000)}`;
    await many(300, async (at) => {
      const answer = await exchange(port, [one, ten_thousand, cookies][at % 3] ?? '');
      // What was not read when the gateway ended the connection resets it, sometimes before the answer is read.
      expect(statusOf(answer)).toBeOneOf([431, 0]);
    });
    expect(await gateway.metric('tidegate_refusals_total', { reason: 'bad_request' })).toBeGreaterThanOrEqual(
      300,
    );
  },
);

attack(
  {
    does: '1400 sockets that send nothing, or a byte at a time',
    answer: '408 after HANDSHAKE_TIMEOUT_SECONDS',
  },
  async () => {
    const peers = await Promise.all(Array.from({ length: 1400 }, () => RawPeer.connect(port)));
    const dripping = peers.filter((_, at) => at % 2 === 0);
    for (const { socket } of dripping) socket.write('GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ');
    const drip = setInterval(() => {
      for (const { socket } of dripping) if (socket.writable) socket.write('x');
    }, 200);
    for (const peer of peers) expect(statusOf(await peer.end())).toBeOneOf([408, 0]);
    clearInterval(drip);
    expect(await gateway.metric('tidegate_refusals_total', { reason: 'handshake_timeout' })).toBeGreaterThan(
      1000,
    );
  },
);

attack(
  {
    does: '4000 sockets that send nothing, where 2000 may be open',
    answer: 'closed as soon as they are accepted',
  },
  async () => {
    const before = await gateway.metric('tidegate_refusals_total', { reason: 'capacity' });
    const peers = await Promise.all(Array.from({ length: 4000 }, () => RawPeer.connect(port)));
    for (const peer of peers) await peer.end();
    // Those who came after the time-out of others have had their places.
    expect(await gateway.metric('tidegate_refusals_total', { reason: 'capacity' })).toBeGreaterThan(before);
  },
);

attack({ does: 'more upgrades than MAX_CONNECTIONS, held open', answer: '503 and Retry-After' }, async () => {
  const answers = await Promise.all(
    Array.from({ length: 800 }, async () => {
      const peer = await RawPeer.connect(port);
      peer.socket.write(upgradeRequest('/ws'));
      await until(() => peer.received.includes('\r\n\r\n') || peer.ended, {
        what: 'an answer',
      });
      return peer;
    }),
  );
  const heads = answers.map(({ received }) => received.toString('latin1'));
  expect(heads.filter((head) => statusOf(head) === 101)).toHaveLength(498);
  for (const head of heads.filter((it) => statusOf(it) !== 101)) {
    expect(statusOf(head)).toBe(503);
    expect(head).toMatch(/\r\nRetry-After: \d+\r\n/);
  }
  for (const { socket } of answers) socket.destroy();
});

attack(
  {
    does: 'frames in the same packet as a handshake that is refused',
    answer: 'the refusal, and nothing is read after it',
  },
  async () => {
    const tail = Buffer.alloc(200_000, 0x81);
    await many(100, async (at) => {
      const target = ['/elsewhere', '/ws/a%20b'][at % 2] ?? '';
      const peer = await RawPeer.connect(port);
      peer.socket.write(upgradeRequest(target));
      peer.socket.write(tail);
      expect(statusOf(await peer.end())).toBeOneOf([404, 400, 0]);
    });
  },
);

attack(
  {
    does: 'requests smuggled behind one another: two lengths, a length and chunks, folded headers',
    answer: '400',
  },
  async () => {
    const smuggled = [
      'POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde',
      'POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      'POST /ws HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n',
      'GET /ws HTTP/1.1\r\nHost : x\r\n\r\n',
      'GET /ws HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n',
      'GET /ws HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n',
      'GET /ws HTTP/1.1\r\nHost: x\nX: y\r\n\r\n',
    ];
    for (const request of smuggled) expect(statusOf(await exchange(port, request)), request).toBe(400);
    // Its head is answered before its body is looked at; what is wrong with that ends the connection.
    const chunk = 'POST /ws HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n';
    expect((await exchange(port, chunk)).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 426', 'HTTP/1.1 400']);
  },
);

attack(
  { does: '2000 requests pipelined on one connection', answer: 'each answered in its turn: 404 or 426' },
  async () => {
    const requests = Array.from(
      { length: 2000 },
      (_, at) => `GET ${at % 2 ? '/ws' : '/x'} HTTP/1.1\r\nHost: x\r\n\r\n`,
    );
    const answer = await exchange(
      port,
      `${requests.join('')}GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
    );
    const statuses = answer.match(/HTTP\/1\.1 \d{3}/g) ?? [];
    expect(statuses).toHaveLength(2001);
    expect(new Set(statuses)).toEqual(new Set(['HTTP/1.1 404', 'HTTP/1.1 426']));
  },
);
