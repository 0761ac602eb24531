import { expect } from 'vitest';
import { type Frame, opcodes, RawPeer } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { TestClient } from '../test/websocket.ts';
import { fragments, frame } from './frame.ts';
import { many, pour } from './peers.ts';
import { openStage } from './stage.ts';

// The limits are those that a gateway has unless it is told otherwise.
const { gateway, attack } = await openStage('floods', {
  MESSAGE_RATE: '100',
  MAX_CONNECTIONS_PER_USER: '1000',
});

const v1 = { 'Sec-WebSocket-Protocol': 'tidegate.v1' };
const upgrade = (user = 'mallory') => RawPeer.upgrade(gateway.ports.ws, `/ws/${user}`, v1);
const text = (command: object | string) =>
  frame({
    opcode: opcodes.text,
    payload: typeof command === 'string' ? command : JSON.stringify(command),
  });

const isClose = ({ firstByte }: Frame) => firstByte === 0x88;

/** Sends the same from some connections until each is closed, and checks the code. */
async function flood(bytes: Buffer, code: number, clients = 30): Promise<RawPeer[]> {
  const chunk = Buffer.concat(Array.from({ length: Math.ceil(4096 / bytes.length) }, () => bytes));
  const peers: RawPeer[] = [];
  await many(clients, async () => {
    const peer = await upgrade();
    peers.push(peer);
    const closed = peer.closed();
    const chunks = function* () {
      // It would be read to the end, and cut before it has answered the close.
      for (let sent = 0; sent < 2000 && !peer.frames.some(isClose); sent += 1) yield chunk;
    };
    await pour(peer, chunks());
    expect(await closed).toBe(code);
  });
  return peers;
}

attack(
  { does: '30 clients that publish as fast as they can', answer: '`rate_limited`, then closed with 4404' },
  async () => {
    const peers = await flood(text({ type: 'publish', ref: 1, channel: 'room:flood', data: 1 }), 4404);
    for (const peer of peers) expect(peer.received.includes('"rate_limited"')).toBe(true);
  },
);

attack(
  {
    does: '3 clients that send large messages as fast as they can',
    answer: '`rate_limited`, then closed with 4404',
    boundMib: 256,
  },
  async () => {
    const data = 'x'.repeat(60_000);
    await flood(text({ type: 'publish', channel: 'room:flood', data }), 4404, 3);
  },
);

attack({ does: '30 clients that ping as fast as they can', answer: 'closed with 4404' }, async () => {
  await flood(frame({ opcode: opcodes.ping, payload: 'x'.repeat(125) }), 4404);
});

attack({ does: '30 clients that send pongs nobody asked for', answer: 'closed with 4404' }, async () => {
  await flood(frame({ opcode: opcodes.pong, payload: 'x'.repeat(125) }), 4404);
});

attack(
  { does: '30 clients that send what is no command', answer: '`malformed`, then closed with 4405' },
  async () => {
    for (const nonsense of ['{"type":', '[[[[[[[[', '{"type":"publish"}', '"'.repeat(1000)])
      await flood(text(nonsense), 4405);
  },
);

attack(
  {
    does: 'JSON nested 30,000 deep, keys of prototypes, 1e999, lone surrogates',
    answer: 'an answer to each: `ok` or `malformed`',
  },
  async () => {
    const hostile = [
      `${'['.repeat(30_000)}${']'.repeat(30_000)}`,
      `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`,
      '{"__proto__":{"type":"x"},"constructor":{"prototype":{}}}',
      '1e999',
      '"\\ud800"',
      '-0.0000000000000000000000000000000000001e-400',
    ];
    const client = await TestClient.v1(`${gateway.url}/ws/mallory`);
    for (const data of hostile) {
      client.send(`{"type":"publish","ref":"r","channel":"room:flood","data":${data}}`);
      expect((await client.json(({ ref }) => ref === 'r')).type).toBeOneOf(['ok', 'error']);
    }
    for (const ref of ['"x".repeat(65)', '1e99', '{}', `"${'r'.repeat(60_000)}"`]) {
      client.send(`{"type":"ping","ref":${ref}}`);
      expect(await client.json()).toMatchObject({ type: 'error', code: 'malformed' });
    }
    await client.leave();
  },
);

attack(
  {
    does: '8 clients that enter and leave 1000 new channels again and again',
    answer: '`ok`, `rate_limited`, and 4404 in the end; not more than 10,000 topics linger',
    boundMib: 256,
  },
  async () => {
    let round = 0;
    await many(8, async () => {
      const peer = await upgrade();
      const rounds = function* () {
        for (let at = 0; at < 200; at += 1) {
          round += 1;
          const names = Array.from({ length: 1000 }, (_, n) => `room:${round}-${n}`);
          for (const type of ['subscribe', 'unsubscribe']) yield text({ type, ref: at, channels: names });
        }
      };
      await pour(peer, rounds());
      peer.socket.destroy();
    });
    expect(await gateway.metric('tidegate_bus_subscriptions')).toBeLessThan(10_100);
  },
);

attack(
  {
    does: 'two plain clients that publish whatever they hear',
    answer: 'held to their rate, then closed with 4404',
  },
  async () => {
    const loops = await Promise.all(
      [1, 2].map(async () => {
        const client = await TestClient.open(`${gateway.url}/ws/mallory`);
        client.ws.on('message', (data) => client.ws.send(data.toString().slice(0, 200)));
        return client;
      }),
    );
    for (const loop of loops) loop.send('again');
    for (const loop of loops) await until(() => loop.ended, { what: 'the loop to be closed' });
    expect(loops.map(({ ended }) => ended?.code)).toContain(4404);
  },
);

attack(
  {
    does: 'clients that send to themselves and each other whatever they hear, twice',
    answer: 'held to their rate, then closed with 4404',
  },
  async () => {
    const loops = await Promise.all(
      Array.from({ length: 5 }, async (_, at) => {
        const client = await TestClient.v1(`${gateway.url}/ws/loop${at}`);
        expect(await client.call({ type: 'subscribe', channel: 'room:loop' })).toMatchObject({ type: 'ok' });
        client.ws.on('message', (data) => {
          if (!data.toString().startsWith('{"type":"message"')) return;
          for (let twice = 0; twice < 2; twice += 1)
            client.send({ type: 'publish', channel: 'room:loop', data: 1 });
        });
        return client;
      }),
    );
    loops[0]?.send({ type: 'publish', channel: 'room:loop', data: 0 });
    for (const loop of loops) await until(() => loop.ended, { what: 'the loop to be closed' });
    expect(new Set(loops.map(({ ended }) => ended?.code))).toEqual(new Set([4404]));
  },
);

attack(
  { does: 'a message in fragments with a ping between any two, from 30 clients', answer: 'closed with 4404' },
  async () => {
    const pieces = fragments(opcodes.text, JSON.stringify({ type: 'ping', ref: 'x'.repeat(60) }), 1);
    await flood(Buffer.concat(pieces.flatMap((piece) => [piece, frame({ opcode: opcodes.ping })])), 4404);
  },
);
