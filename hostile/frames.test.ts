import { deflateRawSync } from 'node:zlib';
import { expect } from 'vitest';
import { Random } from '../test/random.ts';
import { opcodes, RawPeer } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { fragments, frame } from './frame.ts';
import { MIB } from './memory.ts';
import { many, pour } from './peers.ts';
import { openStage } from './stage.ts';

const { gateway, attack } = await openStage('frames', { COMPRESSION: 'true' });

const v1 = { 'Sec-WebSocket-Protocol': 'tidegate.v1' };
const deflate = { ...v1, 'Sec-WebSocket-Extensions': 'permessage-deflate' };
const upgrade = (headers: Record<string, string> = v1) =>
  RawPeer.upgrade(gateway.ports.ws, '/ws/mallory', headers);

attack(
  { does: '2000 connections that send random bytes', answer: 'closed with 1002, 1003, 1007 or 1009' },
  async () => {
    const seen = new Set<number>();
    // The same at each run: once in thirty, a close frame of random bytes has a code that the gateway gives back.
    const random = new Random(20_261_122);
    const noises = Array.from({ length: 2000 }, (_, at) =>
      Buffer.from(Array.from({ length: 1 + (at % 300) }, () => random.integer(0, 255))),
    );
    await many(noises.length, async (at) => {
      const peer = await upgrade();
      // What begins like a frame gets further than noise does.
      const noise = noises[at] ?? Buffer.alloc(0);
      peer.socket.write(
        at % 2 === 0 ? noise : Buffer.concat([frame({ opcode: (at >> 1) % 16, payload: noise }), noise]),
      );
      peer.socket.end();
      await peer.end();
      const close = peer.frames.find(({ firstByte }) => firstByte === 0x88);
      if (close !== undefined && close.payload.length > 1) seen.add(close.payload.readUInt16BE(0));
    });
    for (const code of seen) expect([1002, 1003, 1007, 1009]).toContain(code);
    expect([...seen]).toEqual(expect.arrayContaining([1002, 1003, 1007]));
  },
);

attack(
  {
    does: '2000 valid conversations with a few bits changed on the way',
    answer: 'a command’s answer, or closed with 1002, 1003, 1007, 1009 or 4405',
  },
  async () => {
    const seed = 20_261_122;
    const random = new Random(seed);
    const conversation = [
      frame({ opcode: opcodes.text, payload: '{"type":"subscribe","ref":1,"channel":"room:fuzz"}' }),
      ...fragments(opcodes.text, '{"type":"publish","ref":2,"channel":"room:fuzz","data":"Grüße"}', 20),
      frame({ opcode: opcodes.ping, payload: 'hello' }),
      frame({ opcode: opcodes.text, payload: '{"type":"unsubscribe","ref":3,"channel":"room:fuzz"}' }),
      frame({ opcode: opcodes.close, payload: Buffer.from([0x03, 0xe8]) }),
    ];
    await many(2000, async () => {
      const bytes = Buffer.concat(conversation);
      for (let flips = random.integer(1, 5); flips > 0; flips -= 1) {
        const at = random.integer(0, bytes.length - 1);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.integer(0, 7));
      }
      const cut = random.integer(0, bytes.length);
      const peer = await upgrade();
      peer.socket.write(bytes.subarray(0, cut));
      peer.socket.write(bytes.subarray(cut));
      peer.socket.end();
      await peer.end();
      for (const { firstByte, payload } of peer.frames) {
        expect([0x81, 0x88, 0x8a, 0xc1], `seed ${seed}`).toContain(firstByte);
        if (firstByte !== 0x88 || payload.length < 2) continue;
        // Who closes gets its own code back, whatever the bits have made of it.
        const code = payload.readUInt16BE(0);
        expect(code >= 1000 && code < 5000, `seed ${seed}: ${code}`).toBe(true);
      }
    });
  },
);

attack(
  {
    does: 'frames that claim up to 2^64 bytes, 500 times',
    answer: 'closed with 1009 before any of it has come',
  },
  async () => {
    const lengths = [65_537n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n];
    await many(500, async (at) => {
      const peer = await upgrade();
      const length = lengths[at % lengths.length] ?? 0n;
      peer.socket.write(frame({ opcode: opcodes.text, payload: 'x', length, lengthBits: 64 }));
      expect(await peer.closed()).toBe(1009);
    });
  },
);

attack(
  {
    does: '100 messages that begin and never end, 65,535 bytes each',
    answer: 'held, within the bound of a message each',
  },
  async () => {
    const peers = await Promise.all(Array.from({ length: 100 }, () => upgrade()));
    const most = 'x'.repeat(65_535);
    for (const peer of peers) peer.socket.write(frame({ opcode: opcodes.text, payload: most, final: false }));
    await Promise.all(
      peers.map(async (peer) => {
        peer.socket.write(frame({ opcode: opcodes.ping, payload: 'still here?' }));
        await until(() => peer.received.includes('still here?'), { what: 'a pong' });
      }),
    );
    for (const peer of peers) peer.socket.destroy();
  },
);

attack(
  {
    does: '50 messages of fragments without a byte in them, without end',
    answer: 'closed with 1009 after 1024 fragments',
  },
  async () => {
    await many(50, async () => {
      const peer = await upgrade();
      const empty = frame({ opcode: opcodes.continuation, final: false });
      const chunk = Buffer.concat(Array.from({ length: 500 }, () => empty));
      peer.socket.write(frame({ opcode: opcodes.text, final: false }));
      await pour(
        peer,
        Array.from({ length: 1000 }, () => chunk),
      );
      expect(await peer.closed()).toBe(1009);
    });
  },
);

attack(
  {
    does: '50 messages of one byte a fragment, each fragment in a packet',
    answer: 'closed with 1009 after 1024 fragments',
  },
  async () => {
    await many(
      50,
      async () => {
        const peer = await upgrade();
        peer.socket.setNoDelay(true);
        const piece = frame({ opcode: opcodes.continuation, payload: 'x', final: false });
        peer.socket.write(frame({ opcode: opcodes.text, payload: 'x', final: false }));
        await pour(
          peer,
          Array.from({ length: 20_000 }, () => piece),
        );
        expect(await peer.closed()).toBe(1009);
      },
      50,
    );
  },
);

attack(
  {
    does: '50 compression bombs: 60 MiB in less than 64 KiB',
    answer: 'closed with 1009 once inflated beyond MAX_MESSAGE_BYTES',
  },
  async () => {
    const bomb = deflateRawSync(Buffer.alloc(60 * MIB), { level: 9 });
    expect(bomb.length).toBeLessThan(65_536);
    await many(50, async () => {
      const peer = await upgrade(deflate);
      peer.socket.write(frame({ opcode: opcodes.text, payload: bomb, reserved: 4 }));
      expect(await peer.closed()).toBe(1009);
    });
  },
);

attack(
  { does: '200 messages that claim to be compressed and are not', answer: 'closed with 1007' },
  async () => {
    await many(200, async () => {
      const peer = await upgrade(deflate);
      peer.socket.write(frame({ opcode: opcodes.text, payload: Buffer.alloc(100, 0xff), reserved: 4 }));
      expect(await peer.closed()).toBe(1007);
    });
  },
);
