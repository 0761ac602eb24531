// Sockets: raw WebSocket clients, read without a library, because a client must cost less than the server it measures.

import { connect, type Socket } from 'node:net';

// One buffer for all sockets: libuv fills it and calls back before it reads the next socket.
const readBuffer = Buffer.alloc(65_536);

/** Where and how to connect. */
export interface Upgrade {
  readonly port: number;
  readonly path: string;
  readonly headers?: readonly string[];
}

/** Opens a connection and resolves when it is upgraded. Chunks lie in a buffer that is filled again afterwards: what is
 * to be kept must be copied. `onEnd` is called when the server closes it.
 * @throws {Error} where the upgrade is refused. */
export function openSocket(
  { port, path, headers = [] }: Upgrade,
  onChunk: (chunk: Buffer) => void,
  onEnd: () => void,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let upgraded = false;
    const socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: (size, buffer) => {
          const chunk = (buffer as Buffer).subarray(0, size);
          if (upgraded) {
            onChunk(chunk);
            return true;
          }
          upgraded = true;
          const end = chunk.indexOf('\r\n\r\n') + 4;
          const answer = chunk.toString('latin1', 0, 60).split('\r\n')[0] ?? '';
          if (answer.startsWith('HTTP/1.1 101')) resolve(socket);
          else reject(new Error(`handshake: ${answer}`));
          if (end < chunk.length) onChunk(chunk.subarray(end));
          return true;
        },
      },
    });
    socket.on('error', reject);
    socket.on('end', () => {
      onEnd();
      reject(new Error('the server closed a connection in its handshake'));
    });
    socket.write(
      [
        `GET ${path} HTTP/1.1`,
        `Host: 127.0.0.1:${port}`,
        'Upgrade: websocket',
        'Connection: Upgrade',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        'Sec-WebSocket-Version: 13',
        ...headers,
        '\r\n',
      ].join('\r\n'),
    );
  });
}

/** A text frame as a client must send it, with the mask 0 that leaves the text as it is. */
export function clientFrame(text: string): Buffer {
  const size = Buffer.byteLength(text);
  const head = size < 126 ? [0x81, 0x80 | size] : [0x81, 0x80 | 126, size >> 8, size & 255];
  return Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), Buffer.from(text)]);
}

/** Counts how often a text occurs in a stream of chunks, also across their borders. */
export class Occurrences {
  readonly #needle: Buffer;
  #rest: Buffer = Buffer.alloc(0);
  count = 0;

  constructor(text: string) {
    this.#needle = Buffer.from(text);
  }

  add(chunk: Buffer): void {
    const data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    for (let found = data.indexOf(this.#needle); found !== -1; found = data.indexOf(this.#needle, at)) {
      this.count += 1;
      at = found + this.#needle.length;
    }
    this.#rest = Buffer.from(data.subarray(Math.max(at, data.length - this.#needle.length + 1)));
  }
}

/** The value that a share of all values does not exceed. Sorts them. */
export function quantile(values: number[], share: number): number {
  values.sort((a, b) => a - b);
  return values[Math.floor(values.length * share)] ?? Number.NaN;
}
