import { describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Frame, opcodes, RawPeer } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { type Case, cases } from './conformance.ts';
import { frame } from './frame.ts';
import { MIB } from './memory.ts';
import { openStage } from './stage.ts';

/** The suite sends 1000 messages a case to measure a mean; what is asked here is whether they are right. */
const ROUND_TRIPS = 25;

const { gateway, attack } = await openStage('conformance', {
  MAX_MESSAGE_BYTES: String(16 * MIB),
  MAX_BACKLOG_BYTES: String(64 * MIB),
  COMPRESSION: 'true',
  MAX_CONNECTIONS_PER_USER: '0',
});

/** What is echoed goes to everybody, so that only those that are refused can be played at once. */
const refused = cases.filter(({ expected }) => 'closes' in expected);

const connect = () => RawPeer.upgrade(gateway.ports.ws, '/ws/autobahn');
const isClose = ({ firstByte }: Frame) => firstByte === 0x88;

/** How an echo comes: the plain protocol wraps what was published with its sender. */
const echoOf = (payload: string | Buffer) => JSON.stringify({ sender: 'autobahn', text: payload.toString() });

async function play({ sends, expected }: Case): Promise<void> {
  const peer = await connect();
  // So that pieces of frames arrive as pieces.
  peer.socket.setNoDelay(true);
  for (const bytes of sends) peer.socket.write(bytes);
  if ('closes' in expected) {
    expect(expected.closes).toContain(await peer.closed());
    return;
  }
  const { echoes, pongs = [] } = expected;
  const total = echoes.reduce((sum, echo) => sum + echoOf(echo).length, 0);
  await until(() => peer.received.length >= total && peer.frames.length >= echoes.length + pongs.length, {
    what: 'everything to come back',
  });
  peer.socket.write(frame({ opcode: opcodes.close, payload: Buffer.from([0x03, 0xe8]) }));
  await peer.end();
  expect(peer.texts).toEqual(echoes.map(echoOf));
  expect(peer.frames.filter(({ firstByte }) => firstByte === 0x8a).map(({ payload }) => payload)).toEqual(
    pongs.map((it) => Buffer.from(it)),
  );
  expect(peer.frames.filter(isClose).map(({ payload }) => payload.readUInt16BE(0))).toEqual([1000]);
}

/** Sends texts one after another, each when the one before has come back. */
async function echoInTurn(ws: WebSocket, texts: readonly string[], fragmentBytes = 0): Promise<void> {
  const got: string[] = [];
  ws.on('message', (data) => got.push(data.toString()));
  for (const [at, text] of texts.entries()) {
    if (fragmentBytes === 0) ws.send(text);
    else
      for (let from = 0; from < text.length; from += fragmentBytes)
        ws.send(text.slice(from, from + fragmentBytes), { fin: from + fragmentBytes >= text.length });
    await until(() => got.length > at || ws.readyState !== WebSocket.OPEN, {
      what: `echo ${at}`,
      pollIntervalMs: 1,
    });
    expect(got[at]).toBe(echoOf(text));
  }
  ws.close(1000);
  await until(() => ws.readyState === WebSocket.CLOSED, { what: 'the close' });
}

async function open(options: ConstructorParameters<typeof WebSocket>[2] = {}): Promise<WebSocket> {
  const ws = new WebSocket(`${gateway.url}/ws/autobahn`, options);
  ws.on('error', () => {});
  await until(() => ws.readyState === WebSocket.OPEN, { what: 'a connection' });
  return ws;
}

const title = ({ id, expected, differs }: Case) => {
  const then = 'closes' in expected ? `closes with ${expected.closes.join(' or ')}` : 'comes back';
  return `case ${id} ${then}${differs === undefined ? '' : ` (${differs})`}`;
};

describe('the cases of the Autobahn suite', () => {
  it.each(cases.map((it): [string, Case] => [title(it), it]))('%s', (_title, it) => play(it));

  it.each([0, 16, 64, 256, 1024, 4096].map((size, at) => [`9.7.${at + 1}`, size] as const))(
    `case %s: ${ROUND_TRIPS} round trips of %i bytes come back`,
    async (_id, size) => {
      await echoInTurn(
        await open(),
        Array.from({ length: ROUND_TRIPS }, () => '*'.repeat(size)),
      );
    },
  );

  it.each([0, 16, 64, 256, 1024, 4096].map((size, at) => [`9.8.${at + 1}`, size] as const))(
    'case %s: %i binary bytes close with 1003 (binary frames are refused by design)',
    async (_id, size) => {
      const peer = await connect();
      peer.socket.write(frame({ opcode: opcodes.binary, payload: Buffer.alloc(size, 0xfe) }));
      expect(await peer.closed()).toBe(1003);
    },
  );
});

/** Sizes of messages and of their fragments in the sections of compression. */
const compressed = [
  ...[16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072].map((size) => [size, 0] as const),
  ...[8192, 16_384, 32_768, 65_536, 131_072].map((size) => [size, 256] as const),
  ...[1024, 4096, 32_768].map((each) => [131_072, each] as const),
];

/** The suite's own data are not here: these are of the same kinds, large JSON and large HTML, and repeat as little. */
const data = {
  json: textOf((at) =>
    JSON.stringify({ id: at, name: `user ${at * 7919}`, tags: ['a', 'b'], score: at / 7 }),
  ),
  html: textOf(
    (at) => `<tr class="row-${at % 3}"><td>${at}</td><td><a href="/item/${at * 31}">Größe</a></td></tr>`,
  ),
};

function textOf(line: (at: number) => string): string {
  return Array.from({ length: 4000 }, (_, at) => line(at)).join('\n');
}

async function compressedCase(
  kind: keyof typeof data,
  [size, each]: readonly [number, number],
  offer: object,
): Promise<void> {
  const ws = await open({ perMessageDeflate: { threshold: 0, ...offer } });
  expect(ws.extensions).toContain('permessage-deflate');
  const source = data[kind];
  const texts = Array.from({ length: 5 }, (_, at) => source.slice(at * 1000, at * 1000 + size));
  await echoInTurn(ws, texts, each);
}

const offers = [
  {},
  { serverNoContextTakeover: true },
  { serverMaxWindowBits: 9 },
  { serverMaxWindowBits: 15 },
  { serverNoContextTakeover: true, serverMaxWindowBits: 9 },
  { serverNoContextTakeover: true, serverMaxWindowBits: 15 },
  { serverNoContextTakeover: true, clientNoContextTakeover: true },
];

describe('the cases of the Autobahn suite about compression, with 5 messages instead of 1000', () => {
  const numbers = compressed.map((it, at) => [at + 1, it] as const);
  it.each(numbers)('12.1.%i and 12.4.%i: JSON and HTML come back', async (_n, it) => {
    await compressedCase('json', it, {});
    await compressedCase('html', it, {});
  });

  it('12.2, 12.3 and 12.5 send binary frames: closes with 1003 (by design)', async () => {
    const ws = await open({ perMessageDeflate: { threshold: 0 } });
    let code = 0;
    ws.on('close', (it) => {
      code = it;
    });
    ws.send(Buffer.alloc(1000, 0xfe));
    await until(() => code, { what: 'the close' });
    expect(code).toBe(1003);
  });

  it.each(offers.map((offer, at) => [at + 1, JSON.stringify(offer), offer] as const))(
    '13.%i: with the offer %s everything comes back',
    async (_n, _offer, offer) => {
      for (const it of compressed) await compressedCase('json', it, offer);
    },
  );
});

attack(
  {
    does: `${refused.length} conformance cases that break the protocol, all at once`,
    answer: 'each as it is when alone',
    boundMib: 768,
  },
  async () => {
    await Promise.all(refused.map(play));
  },
);
