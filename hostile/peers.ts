// Attackers in numbers: run for each, poured at full speed, connected by the thousand.

import { connect, type Socket } from 'node:net';
import { type RawPeer, upgradeRequest } from '../test/raw.ts';
import { until } from '../test/until.ts';

/** Runs it for each number from 0, some at a time. */
export async function many(count: number, run: (at: number) => Promise<void>, atOnce = 25): Promise<void> {
  let at = 0;
  const work = async () => {
    while (at < count) await run(at++);
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}

/** Writes as fast as the other side reads, until it ends the connection or there is nothing more. */
export async function pour(peer: RawPeer, chunks: Iterable<Buffer | string>): Promise<void> {
  for (const chunk of chunks) {
    if (peer.ended || peer.socket.destroyed) return;
    if (peer.socket.write(chunk)) continue;
    await until(() => peer.ended || peer.socket.destroyed || !peer.socket.writableNeedDrain, {
      what: 'the gateway to read',
      pollIntervalMs: 1,
    });
  }
}

/** The status of an HTTP response; 0 where none came. */
export function statusOf(response: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(response)?.[1] ?? 0);
}

/** Sockets that ask for an upgrade and keep nothing but the status: light enough for ten thousand. */
export class Crowd {
  readonly sockets: Socket[] = [];
  /** How many were answered with which status; 0 stands for a connection that broke before. */
  readonly statuses = new Map<number, number>();

  /** Connects so many, some at a time. Headers of their own come of a function. */
  async join(
    port: number,
    count: number,
    path: string,
    headers: Record<string, string> | (() => Record<string, string>) = {},
  ): Promise<void> {
    await many(
      count,
      async () => {
        const status = await this.#joinOne(
          port,
          upgradeRequest(path, typeof headers === 'function' ? headers() : headers),
        );
        this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
      },
      200,
    );
  }

  leave(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  #joinOne(port: number, request: string): Promise<number> {
    const socket = connect({ port, host: '127.0.0.1' }, () => socket.write(request));
    this.sockets.push(socket);
    return new Promise((resolve) => {
      socket.once('data', (head: Buffer) => {
        resolve(statusOf(head.toString('latin1')));
        socket.resume(); // what comes after it is read, and let go
      });
      socket.once('close', () => resolve(0));
      socket.on('error', () => {});
    });
  }
}
