import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect } from 'vitest';
import { MAX_SOCKETS } from '../src/platform/sockets.ts';
import { exchange, RawPeer } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { MIB } from './memory.ts';
import { many, pour, statusOf } from './peers.ts';
import { openStage } from './stage.ts';

const key = 'key-of-the-attacked-0123456789';
const folder = mkdtempSync(join(tmpdir(), 'tidegate-hostile-'));
writeFileSync(join(folder, 'keys'), `${key}\n`);
afterAll(() => rmSync(folder, { recursive: true }));

const { gateway, attack } = await openStage('HTTP API', { API_KEYS_FILE: join(folder, 'keys') });
const port = gateway.ports.api;

/** A request to publish, with whatever is to be wrong with it. */
const request = (body: string, { authorization = `Bearer ${key}`, length = body.length, more = '' } = {}) =>
  `POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n${more}\r\n${body}`;
const closing = { more: 'Connection: close\r\n' };
const statuses = (text: string) => (text.match(/HTTP\/1\.1 \d{3}/g) ?? []).map((it) => Number(it.slice(9)));

attack(
  { does: '200 bodies that claim 10 GB, or never end in chunks', answer: '413, and the connection is ended' },
  async () => {
    const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65_536, 0x20), Buffer.from('\r\n')]);
    await many(200, async (at) => {
      const peer = await RawPeer.connect(port);
      if (at % 2 === 0) peer.socket.write(request('{', { length: 10_000_000_000 }));
      else {
        const head = request('', closing).replace(/Content-Length: \d+/, 'Transfer-Encoding: chunked');
        peer.socket.write(head);
        await pour(
          peer,
          Array.from({ length: 100 }, () => chunk),
        );
      }
      await until(() => statusOf(peer.received.toString('latin1')) || peer.ended, {
        what: 'an answer',
      });
      expect(statusOf(peer.received.toString('latin1'))).toBeOneOf([413, 0]);
      peer.socket.destroy();
    });
  },
);

attack(
  { does: '300 bodies that are no JSON, nested 100,000 deep, or poison a prototype', answer: '400, or 413' },
  async () => {
    const data = [
      '['.repeat(100_000),
      `${'['.repeat(30_000)}${']'.repeat(30_000)}`,
      '{"__proto__":{"x":1}}',
      '{"constructor":{"prototype":{"x":1}}}',
      '\u0000',
      '1e999',
      '{"a":1,"a":',
      `"${'\\u0000'.repeat(11_000)}`,
    ];
    await many(300, async (at) => {
      const body = `{"channel":"room:api","data":${data[at % data.length]}}`;
      const status = statusOf(await exchange(port, request(body, closing)));
      // A number beyond all others is null in JSON, and an array is valid however deep it is, up to a bound.
      expect(status, body.slice(0, 60)).toBeOneOf(
        at % data.length === 5 || at % data.length === 1 ? [200, 400] : [400, 413],
      );
    });
  },
);

attack(
  { does: '500 requests pipelined on each of 20 connections', answer: 'each answered in its turn, with 200' },
  async () => {
    await many(20, async () => {
      const one = request('{"channel":"room:api","data":1}');
      const last = request('{"channel":"room:api","data":2}', closing);
      expect(statuses(await exchange(port, one.repeat(499) + last))).toEqual(
        Array.from({ length: 500 }, () => 200),
      );
    });
  },
);

attack({ does: '2000 guesses at a key, some a megabyte long', answer: '401, or 431' }, async () => {
  await many(2000, async (at) => {
    const guess = at % 50 === 0 ? 'x'.repeat(MIB) : `${key.slice(0, at % key.length)}${at}`;
    const answer = await exchange(
      port,
      request('{"channel":', { authorization: `Bearer ${guess}`, ...closing }),
    );
    expect(statusOf(answer)).toBeOneOf(at % 50 === 0 ? [431, 0] : [401]);
  });
});

attack(
  {
    does: '400 bodies that come a byte at a time, and 400 idle connections',
    answer: 'held for 30 seconds at most; others are answered meanwhile',
  },
  async () => {
    const peers = await Promise.all(Array.from({ length: 800 }, () => RawPeer.connect(port, '127.0.0.2')));
    for (const [at, { socket }] of peers.entries()) {
      if (at % 2 === 0) socket.write(request('{"channel"', { length: 60_000 }));
      else socket.write('GET /v1/channels HTTP/1.1\r\nHost: x\r\n\r\n');
    }
    const drip = setInterval(() => {
      for (const [at, { socket }] of peers.entries()) if (at % 2 === 0 && socket.writable) socket.write(' ');
    }, 100);
    await until(() => peers.every((peer, at) => at % 2 === 0 || peer.received.includes('HTTP/1.1 401')), {
      what: 'those who asked to be answered',
    });
    const body = '{"channel":"room:api","data":1}';
    expect(statusOf(await exchange(port, request(body, closing)))).toBe(200);
    clearInterval(drip);
    for (const { socket } of peers) socket.destroy();
  },
);

attack(
  {
    does: 'header floods, folded headers, two lengths, a length and chunks, unknown expectations',
    answer: '400, 417 or 431',
  },
  async () => {
    const body = '{"channel":"room:api","data":1}';
    const bad = [
      request(body, { more: `X-Flood: ${'y'.repeat(1_000_000)}\r\n` }),
      request(body, { more: 'X: y\r\n'.repeat(100_000) }),
      request(body, { more: 'Content-Length: 3\r\n' }),
      request(body, { more: 'Transfer-Encoding: chunked\r\n' }),
      request(body, { more: ' folded: y\r\n' }),
      request(body, { more: 'Expect: 200-ok\r\nConnection: close\r\n' }),
      request(body).replace('Host: x\r\n', ''),
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    ];
    for (const it of bad)
      expect(statusOf(await exchange(port, it)), it.slice(0, 200)).toBeOneOf([400, 417, 431, 505, 0]);
  },
);

attack({ does: 'paths that climb, repeat or hide their names', answer: '400 or 404' }, async () => {
  const paths = [
    '/v1/users/../channels',
    '/v1/users/%2e%2e/messages',
    '/v1//publish',
    '//v1/publish',
    '/v1/publish/',
    '/v1/publish%00',
    '/v1/channels/room:*/messages',
    '/v1/channels/%7Bx%7D/messages',
    '/v1/users/%0d%0aX:%20y/messages',
    `/v1/users/${'a'.repeat(4000)}/messages`,
  ];
  for (const path of paths) {
    const answer = await exchange(port, request('{"data":1}', closing).replace('/v1/publish', path));
    expect(statusOf(answer), path).toBeOneOf(path.includes('%2e%2e') ? [200, 400, 404] : [400, 404]);
    expect(answer).not.toMatch(/\r\nX: y/);
  }
});

attack(
  {
    does: '3000 sockets of one address that say nothing, on the API listener',
    answer: 'at most 1000 are held; backends elsewhere publish all the while',
  },
  async () => {
    const held: RawPeer[] = [];
    const body = '{"channel":"log:sockets","data":1}';
    await many(3000, async (at) => {
      held.push(await RawPeer.connect(port, '127.0.0.2'));
      if (at % 100 === 0) expect(statusOf(await exchange(port, request(body, closing)))).toBe(200);
    });
    const open = () => held.filter(({ ended }) => !ended).length;
    await until(() => open() <= MAX_SOCKETS, { what: 'all but a thousand to be closed' });
    expect(statusOf(await exchange(port, request(body, closing)))).toBe(200);
    for (const peer of held) peer.socket.destroy();
  },
);
