// Peers that speak TCP by hand: for what no WebSocket library would do, such as half a header, or never reading.

import { connect, type Socket } from 'node:net';
import { until } from './until.ts';

/** The WebSocket opcodes that tests send. */
export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A TCP connection that does only what it is told. */
export class RawPeer {
  readonly socket: Socket;
  /** Everything that has arrived. */
  received: Buffer = Buffer.alloc(0);
  /** The other side has ended it, or it broke. */
  ended = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.received = Buffer.concat([this.received, chunk]);
    });
    socket.on('end', () => {
      this.ended = true;
    });
    socket.on('close', () => {
      this.ended = true;
    });
    socket.on('error', () => {}); // a reset is one way to end
  }

  /** Connects to a port of 127.0.0.1, from there or another address of this machine, and says nothing. */
  static async connect(port: number, localAddress?: string): Promise<RawPeer> {
    const socket = connect({ port, host: '127.0.0.1', localAddress, allowHalfOpen: true });
    const peer = new RawPeer(socket);
    await until(() => socket.readyState === 'open' || peer.ended, { what: 'a TCP connection' });
    return peer;
  }

  /** Connects, upgrades, and resolves when the upgrade is done. From then on `received` holds frames. */
  static async upgrade(
    port: number,
    path: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<RawPeer> {
    const peer = await RawPeer.connect(port);
    peer.socket.write(upgradeRequest(path, headers));
    const end = await until(() => peer.received.indexOf('\r\n\r\n') + 1 || peer.ended, {
      what: 'an upgrade',
    });
    const head = peer.received.toString('latin1');
    if (end === true || !head.startsWith('HTTP/1.1 101 ')) throw new Error(`not upgraded: ${head}`);
    peer.received = peer.received.subarray(end + 3);
    return peer;
  }

  /** Sends a frame, masked with zeros. */
  send(opcode: number, payload: Buffer | string = '', final = true): void {
    this.socket.write(maskedFrame(opcode, Buffer.from(payload), final));
  }

  /** Reads nothing more until `resume`: what is sent to it waits in the kernel, and then at the sender. */
  stopReading(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** The frames that have arrived. */
  get frames(): Frame[] {
    return readFrames(this.received);
  }

  /** The uncompressed texts that have arrived, without the pings and whatever else stands between them. */
  get texts(): string[] {
    const isText = ({ firstByte }: Frame) => firstByte === (0x80 | opcodes.text);
    return this.frames.filter(isText).map(({ payload }) => payload.toString());
  }

  /** Waits to be closed, answers that, and resolves with the code when the connection has ended. */
  async closed(): Promise<number> {
    const isClose = ({ firstByte }: Frame) => firstByte === (0x80 | opcodes.close);
    const close = await until(() => this.frames.find(isClose), { what: 'a close frame' });
    this.send(opcodes.close, close.payload);
    await this.end();
    return close.payload.length === 0 ? 1005 : close.payload.readUInt16BE(0);
  }

  /** Resolves with everything received when the other side has ended the connection. */
  async end(): Promise<string> {
    await until(() => this.ended, { what: 'the connection to be ended' });
    this.socket.destroy();
    return this.received.toString('latin1');
  }
}

/** An upgrade request as a client would send it. */
export function upgradeRequest(path: string, headers: Readonly<Record<string, string>> = {}): string {
  const fields = {
    Host: 'localhost',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

/** Sends bytes and resolves with everything that came back until the other side ended the connection. */
export async function exchange(port: number, bytes: string | Buffer): Promise<string> {
  const peer = await RawPeer.connect(port);
  peer.socket.write(bytes);
  return peer.end();
}

/** A frame as a server sends it. */
export type Frame = { readonly firstByte: number; readonly payload: Buffer };

/** The frames in these bytes, as far as they are complete. */
export function readFrames(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  let at = 0;
  while (at + 2 <= bytes.length) {
    const short = bytes.readUInt8(at + 1) & 0x7f;
    const header = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (at + header > bytes.length) break;
    const length =
      short < 126
        ? short
        : short === 126
          ? bytes.readUInt16BE(at + 2)
          : Number(bytes.readBigUInt64BE(at + 2));
    if (at + header + length > bytes.length) break;
    frames.push({
      firstByte: bytes.readUInt8(at),
      payload: bytes.subarray(at + header, at + header + length),
    });
    at += header + length;
  }
  return frames;
}

/** A client's frame. The mask is zeros, which is a mask like any other. */
export function maskedFrame(opcode: number, payload: Buffer, final = true): Buffer {
  const { length } = payload;
  const header = Buffer.alloc(length < 126 ? 6 : length < 65_536 ? 8 : 14);
  header[0] = (final ? 0x80 : 0) | opcode;
  if (length < 126) header[1] = 0x80 | length;
  else if (length < 65_536) {
    header[1] = 0x80 | 126;
    header.writeUInt16BE(length, 2);
  } else {
    header[1] = 0x80 | 127;
    header.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([header, payload]);
}
