// A connection: one WebSocket, from upgrade to close, and what the gateway knows about it.

import type { Duplex } from 'node:stream';
import { WebSocket } from 'ws';
import { newId } from '../platform/ids.ts';
import { closes } from '../protocol/close.ts';
import type { Identity } from './authenticate.ts';
import type { Grants } from './channels.ts';
import type { Batch } from './fanout.ts';
import type { Group } from './hub.ts';
import type { TokenBucket } from './rates.ts';

/** Which of the two protocols a connection speaks. */
export type Protocol = 'plain' | 'v1';

/** The reason in a close frame has room for this many bytes (RFC 6455 5.5). */
const MAX_REASON_BYTES = 123;

/** The WebSocket of a connection. It names its connection, so that one listener serves all sockets. */
export class ConnectionSocket extends WebSocket {
  connection: Connection | undefined;

  /** What the library calls, too. It closes a message of too many pieces with 1008, which tells a client to come back
   * with another token; it is to send less at once, or not to come back. */
  override close(code?: number, reason?: string): void {
    super.close(code === closes.refused.code && reason === undefined ? closes.tooLarge.code : code, reason);
  }

  /** Begins the closing handshake. A reason that is too long is cut, as the library would throw. */
  closeWith(code: number, reason: string): void {
    const text = Buffer.from(reason).subarray(0, MAX_REASON_BYTES).toString();
    // The cut may have gone through a character.
    this.close(code, text.replace(/\uFFFD$/, ''));
  }
}

/** What a connection is made with. */
export interface ConnectionOptions {
  readonly ws: ConnectionSocket;
  readonly socket: Duplex;
  readonly identity: Identity;
  readonly protocol: Protocol;
  /** Permessage-deflate was agreed on. */
  readonly compressed: boolean;
  /** May be told of gaps: always in v1, in the plain protocol where the client asked for heartbeats. */
  readonly toldOfGaps: boolean;
  /** The client has said that it can move to another pod while this connection goes on. */
  readonly moves: boolean;
  /** It asked for the traces of messages. */
  readonly traced: boolean;
  readonly address: string;
}

/** State of one connection. Kept small, and without closures or timers of its own: there are tens of thousands. */
export class Connection {
  readonly id = newId();
  readonly user: string;
  readonly protocol: Protocol;
  readonly compressed: boolean;
  readonly toldOfGaps: boolean;
  readonly moves: boolean;
  readonly traced: boolean;
  readonly address: string;
  /** In ms of a monotonic clock. */
  readonly openedAtMs = performance.now();
  readonly ws: ConnectionSocket;
  readonly socket: Duplex;
  readonly groups = new Set<Group>();
  grants: Grants;
  expiresAtMs: number | undefined;

  /** Something came from the client since its last ping. */
  heard = true;
  /** Frames of this turn of the event loop, not written yet. */
  pending: Batch | undefined = undefined;
  /** The socket has a backlog. */
  congested = false;
  /** Groups whose messages were dropped and whose gap has not been told yet. */
  missed: Set<Group> | undefined = undefined;
  /** The code that the gateway closed it with; undefined while it is open, and where the client did. */
  closedWith: number | undefined = undefined;
  /** When it was last asked to move, in ms of a monotonic clock. */
  askedAtMs: number | undefined = undefined;
  /** It has said since then that it found no other pod. */
  stays = false;

  messagesIn = 0;
  messagesOut = 0;
  /** Commands in a row that were malformed, and messages in a row that were over the rate. */
  malformed = 0;
  overRate = 0;
  messageBucket: TokenBucket | undefined = undefined;
  byteBucket: TokenBucket | undefined = undefined;

  constructor(options: ConnectionOptions) {
    this.ws = options.ws;
    this.socket = options.socket;
    this.user = options.identity.user;
    this.grants = options.identity.grants;
    this.expiresAtMs = options.identity.expiresAtMs;
    this.protocol = options.protocol;
    this.compressed = options.compressed;
    this.toldOfGaps = options.toldOfGaps;
    this.moves = options.moves;
    this.traced = options.traced;
    this.address = options.address;
  }

  /** Frames may still be written. */
  get isOpen(): boolean {
    return this.closedWith === undefined && this.ws.readyState === WebSocket.OPEN;
  }

  /** Nothing is left of it. */
  get hasEnded(): boolean {
    return this.ws.readyState === WebSocket.CLOSED;
  }

  /** Bytes that wait in this process because the client has not read them. */
  get backlogBytes(): number {
    return this.socket.writableLength;
  }
}
