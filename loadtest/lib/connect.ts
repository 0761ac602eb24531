// Connecting: the product's own client on k6's sockets, so that what is measured is what its users get: it recovers,
// moves and backs off as a browser does.

import { WebSocket as K6WebSocket } from 'k6/websockets';
import { Client } from './client.js';
import { nowMs } from './clock.ts';
import { connectionsDropped, connectionsOpened, connectionsRefused, connectTime, moves } from './metrics.ts';
import { jwtSecret, url } from './settings.ts';
import { tokenOf } from './token.ts';

// k6 lacks it.
globalThis.queueMicrotask ??= (action: () => void) => void Promise.resolve().then(action);

const ABNORMAL_CLOSE = 1006;
const NORMAL_CLOSE = 1000;
const MAX_QUEUED = 100_000;
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;

/** When the frame that is being handled came in, stamped as it was read: see clock.ts. */
let frameAtMs = 0;

/** When the message that is being handled was read from its socket, in milliseconds since 1970. */
export function receivedAtMs(): number {
  return frameAtMs;
}

/** The part of k6's events that its types leave out. */
interface CloseEvent {
  readonly code?: number;
  readonly reason?: string;
}

/** k6's WebSocket with the face of a browser's: k6 ignores `protocols`, but takes them as a header. */
export class Socket {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly socket: K6WebSocket;
  #closed = false;

  constructor(address: string, protocols: string[]) {
    const startedAtMs = nowMs();
    let opened = false;
    const headers = { 'Sec-WebSocket-Protocol': protocols.join(', ') };
    this.socket = new K6WebSocket(address, null, { headers });
    this.socket.onopen = () => {
      opened = true;
      connectionsOpened.add(1);
      connectTime.add(nowMs() - startedAtMs);
    };
    this.socket.onmessage = (event) => {
      frameAtMs = event?.timestamp ?? 0;
      this.onmessage?.({ data: event?.data });
    };
    this.socket.onclose = ((event: CloseEvent) => {
      if (!opened) connectionsRefused.add(1);
      else if (!this.#closed) connectionsDropped.add(1);
      this.onclose?.({ code: event.code ?? ABNORMAL_CLOSE, reason: event.reason ?? '' });
    }) as () => void;
    this.socket.onerror = () => {};
  }

  send(text: string): void {
    this.socket.send(text);
  }

  close(code = NORMAL_CLOSE, reason = ''): void {
    this.#closed = true;
    this.socket.close(code, reason);
  }
}

const platform = {
  now: () => Date.now(),
  after(ms: number, action: () => void) {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
  random: Math.random,
  newKey: () => Array.from({ length: 3 }, () => Math.random().toString(36).slice(2)).join(''),
  onOnline: () => () => {},
};

/** A client that stays connected until it is closed, and what a test can do to it. */
export interface Connection {
  readonly client: Client;
  readonly user: string;
  /** Cuts the socket, as a network does. The client comes back by itself, and `back` is called when it has. */
  cut(back: () => void): void;
}

/** Connects a user. Returns at once; {@link opened} waits. */
export function connect(user: string): Connection {
  let latest: Socket | undefined;
  class Kept extends Socket {
    constructor(address: string, protocols: string[]) {
      super(address, protocols);
      latest = this;
    }
  }
  const client = new Client(
    {
      url: `${url}/${user}`,
      WebSocket: Kept,
      ...(jwtSecret !== undefined && { token: () => tokenOf(user) ?? '' }),
      // What the gateway's answers are late for is measured, not refused.
      maxQueued: MAX_QUEUED,
      maxQueuedBytes: MAX_QUEUED_BYTES,
    },
    platform,
  );
  client.on('move', () => moves.add(1));
  return {
    client,
    user,
    cut(back) {
      const off = client.on('state', ({ state }) => {
        if (state !== 'open') return;
        off();
        back();
      });
      latest?.socket.close();
    },
  };
}

/** Resolves when the client is connected. */
export function opened({ client }: Connection): Promise<void> {
  return new Promise((resolve) => {
    if (client.state === 'open') return resolve();
    const off = client.on('state', ({ state }) => {
      if (state !== 'open' && state !== 'closed') return;
      off();
      resolve();
    });
  });
}
