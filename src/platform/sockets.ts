// Sockets: how many an HTTP listener holds, of whom, and for how long one on which nothing happens.

import type { Server as HttpServer } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import { peerOf } from './addresses.ts';

/** Far more than backends and probes need at once, and little memory. */
export const MAX_SOCKETS = 1000;

/** Longer than any answer takes to begin, and than a reader who is there takes to read on. */
const STALLED_MS = 30_000;

/** Bounds a listener's sockets. Past the bound the peer that has the most gives way: its new ones are closed at once, and
 * its oldest for the new ones of others. So one peer that takes all it can get keeps nobody out, least of all the probes,
 * without which the pod would be restarted. */
export function boundSockets(server: HttpServer | HttpsServer, max = MAX_SOCKETS): void {
  const peers = new Map<string, Set<Socket>>();
  let count = 0;
  server.setTimeout(STALLED_MS);
  server.on('connection', (socket: Socket) => {
    const peer = peerOf(socket.remoteAddress ?? '');
    const own = peers.get(peer) ?? new Set();
    peers.set(peer, own.add(socket));
    count += 1;
    socket.once('close', () => {
      own.delete(socket);
      count -= 1;
      if (own.size === 0) peers.delete(peer);
    });
    if (count <= max) return;
    let most = own;
    for (const sockets of peers.values()) if (sockets.size > most.size) most = sockets;
    const [oldest = socket] = most;
    (most === own ? socket : oldest).destroy();
  });
}
