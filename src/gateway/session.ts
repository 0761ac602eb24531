// Sessions: from an upgraded socket to its end. Reads frames, keeps clients to their rates, and speaks both protocols.

import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Log, Report } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import { type Close, closeCodeLabel, closes } from '../protocol/close.ts';
import { decodeCommand } from '../protocol/commands.ts';
import { TidegateError } from '../protocol/errors.ts';
import { encodePlain, PLAIN_PONG, plainHeartbeat } from '../protocol/plain.ts';
import type { Identity } from './authenticate.ts';
import type { Bans } from './bans.ts';
import type { Channels } from './channels.ts';
import type { Commands } from './commands.ts';
import { Connection, ConnectionSocket, type Protocol } from './connection.ts';
import type { Expiries } from './expiries.ts';
import type { Fanout } from './fanout.ts';
import type { Heartbeat } from './heartbeat.ts';
import type { Hub } from './hub.ts';
import type { Presence } from './presence.ts';
import type { Publisher } from './publish.ts';
import { TokenBucket } from './rates.ts';

/** So many malformed commands in a row, or messages in a row over the rate, and the connection is closed. */
const MAX_MALFORMED = 10;
const MAX_OVER_RATE = 20;

/** Bursts are allowed up to this many seconds' worth of the rate. */
const BURST_SECONDS = 2;

/** The reason in a close frame has room for this many bytes (RFC 6455 5.5). */
const MAX_REASON_BYTES = 123;

export interface SessionLimits {
  readonly messageRate: number;
  readonly byteRate: number;
  readonly maxConnectionsPerUser: number;
  readonly maxMessageBytes: number;
  readonly maxBacklogBytes: number;
  readonly pingIntervalMs: number;
}

/** What sessions work with. */
export interface SessionsOptions {
  readonly plainChannel: string;
  readonly limits: SessionLimits;
  readonly bans: Bans;
  readonly channels: Channels;
  readonly commands: Commands;
  readonly expiries: Expiries;
  readonly fanout: Fanout;
  readonly heartbeat: Heartbeat;
  readonly hub: Hub;
  readonly presence: Presence;
  readonly publisher: Publisher;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly report: Report;
}

/** What is known of a connection when its upgrade is done. */
export interface Opening {
  readonly identity: Identity;
  readonly protocol: Protocol;
  readonly compressed: boolean;
  /** A plain client that asked for heartbeats, and so knows frames that are no messages. */
  readonly heartbeat: boolean;
  readonly address: string;
}

/** Every open session. One set of listeners serves all sockets: each socket names its connection. */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #connections = new Set<Connection>();
  readonly #onMessage = ofSocket((connection, data: RawData, isBinary: boolean) => this.#message(connection, data, isBinary));
  readonly #onPing = ofSocket((connection, data: Buffer) => this.#ping(connection, data));
  readonly #onClose = ofSocket((connection, code: number) => this.#ended(connection, code));

  constructor(options: SessionsOptions) {
    this.#options = options;
    options.metrics.connections.read = () => this.#connections.size;
  }

  get size(): number {
    return this.#connections.size;
  }

  [Symbol.iterator](): IterableIterator<Connection> {
    return this.#connections.values();
  }

  /** Begins a session on a socket whose upgrade is done. */
  open(ws: ConnectionSocket, socket: Duplex, opening: Opening): void {
    const { bans, hub, limits, metrics, heartbeat, expiries } = this.#options;
    const { user } = opening.identity;
    const { protocol } = opening;
    const connection = new Connection({ ws, socket, ...opening, toldOfGaps: protocol === 'v1' || opening.heartbeat });
    ws.connection = connection;
    ws.on('message', this.#onMessage);
    ws.on('ping', this.#onPing);
    ws.on('pong', onPong);
    ws.on('close', this.#onClose);
    ws.on('error', onError);
    this.#connections.add(connection);
    metrics.opens.inc({ protocol });
    if (bans.isBanned(user)) return this.close(connection, closes.revoked);
    if (limits.maxConnectionsPerUser > 0 && hub.countOf(user) >= limits.maxConnectionsPerUser) {
      return this.close(connection, closes.userLimit);
    }
    heartbeat.add(connection);
    expiries.add(connection);
    const hears = hub.addUser(connection);
    if (protocol === 'plain') this.#enterPlain(connection);
    else if (hears === undefined) this.#welcome(connection);
    else hears.then(() => this.#welcome(connection));
    const { id, address } = connection;
    this.#options.log.info({ connection: id, user, protocol, address }, 'connection open');
  }

  /** Closes with a handshake, after everything that waits for the connection; it gets nothing more. */
  close(connection: Connection, close: Close, reason = close.reason): void {
    if (connection.closedBy !== undefined) return;
    this.#options.fanout.flushOne(connection);
    connection.closedBy = close;
    this.#forget(connection);
    connection.ws.close(close.code, Buffer.from(reason).subarray(0, MAX_REASON_BYTES).toString().replace(/\uFFFD$/, ''));
  }

  /** Ends the connection at once, without a handshake: for peers that would not answer it. */
  cut(connection: Connection, close: Close): void {
    connection.closedBy ??= close;
    connection.ws.terminate();
  }

  #welcome(connection: Connection): void {
    const { id, user, expiresAtMs } = connection;
    const { limits, fanout } = this.#options;
    fanout.send(connection, {
      type: 'welcome',
      connection: id,
      user,
      pingIntervalMs: limits.pingIntervalMs,
      maxMessageBytes: limits.maxMessageBytes,
      ...(expiresAtMs !== undefined && { tokenExpiresInMs: Math.max(0, expiresAtMs - Date.now()) }),
    });
  }

  /** A plain client has its channel from the start. Where its token does not allow it, it gets messages of its own only. */
  #enterPlain(connection: Connection): void {
    const { commands, plainChannel } = this.#options;
    commands.enter(connection, plainChannel).catch((error: unknown) => {
      if (!(error instanceof TidegateError) || error.code !== 'forbidden') commands.answerError(connection, undefined, error);
    });
  }

  #message(connection: Connection, data: RawData, isBinary: boolean): void {
    connection.heard = true;
    // The library gives one Buffer for each message unless it is told otherwise.
    if (!connection.isOpen || !Buffer.isBuffer(data)) return;
    if (isBinary) return this.close(connection, closes.binary);
    const { metrics } = this.#options;
    metrics.bytesIn.inc(data.length);
    const text = data.toString();
    const isV1 = connection.protocol === 'v1';
    const retryAfterMs = this.#overRateForMs(connection, data.length);
    if (retryAfterMs > 0) return this.#refuseForRate(connection, isV1 ? text : undefined, retryAfterMs);
    connection.messagesIn += 1;
    if (isV1) this.#takeCommand(connection, text);
    else if (!this.#tookHeartbeat(connection, text)) this.#publishPlain(connection, text);
  }

  #takeCommand(connection: Connection, text: string): void {
    const { commands } = this.#options;
    const command = decodeCommand(text);
    if (command.type !== 'undecodable') {
      connection.malformed = 0;
      void commands.run(connection, command);
      return;
    }
    commands.answerError(connection, command.ref, command.error);
    if (++connection.malformed >= MAX_MALFORMED) this.close(connection, closes.malformed);
  }

  #publishPlain(connection: Connection, text: string): void {
    const { channels, commands, plainChannel, publisher } = this.#options;
    const namespace = channels.namespace(plainChannel);
    if (namespace === undefined || !channels.mayPublish(plainChannel, connection.grants)) {
      const error = new TidegateError('forbidden', 'You may not publish to this channel.');
      return commands.answerError(connection, undefined, error);
    }
    const { user } = connection;
    publisher
      .publish({ channel: plainChannel, namespace, payload: encodePlain(user, text), sender: user })
      .catch((error: unknown) => commands.answerError(connection, undefined, error));
  }

  /** Heartbeats of the plain protocol are answered, and never published; nor are they answered to somebody who
   * does not read. */
  #tookHeartbeat(connection: Connection, text: string): boolean {
    const heartbeat = plainHeartbeat(text);
    if (heartbeat === 'ping' && !connection.congested) this.#options.fanout.sendText(connection, PLAIN_PONG);
    return heartbeat !== undefined;
  }

  /** How long the connection must wait because of its rates; 0 where it need not. Closes it where it has been told
   * often enough: each message over the rate counts, and each within it takes one off. */
  #overRateForMs(connection: Connection, bytes: number): number {
    const { messageRate, byteRate } = this.#options.limits;
    if (messageRate === 0 && byteRate === 0) return 0;
    const nowMs = performance.now();
    connection.messageBucket ??= new TokenBucket(messageRate, messageRate * BURST_SECONDS, nowMs);
    connection.byteBucket ??= new TokenBucket(byteRate, byteRate * BURST_SECONDS, nowMs);
    const waitMs = connection.messageBucket.take(1, nowMs) || connection.byteBucket.take(bytes, nowMs);
    if (waitMs === 0) connection.overRate = Math.max(0, connection.overRate - 1);
    else if (++connection.overRate > MAX_OVER_RATE) this.close(connection, closes.rate);
    return waitMs;
  }

  #refuseForRate(connection: Connection, commandText: string | undefined, retryAfterMs: number): void {
    if (!connection.isOpen) return;
    const ref = commandText === undefined ? undefined : decodeCommand(commandText).ref;
    this.#options.commands.answerError(connection, ref, new TidegateError('rate_limited', undefined, { retryAfterMs }));
  }

  /** Pings are answered here and not by the library, so that a client cannot make a backlog by pinging and not reading. */
  #ping(connection: Connection, data: Buffer): void {
    connection.heard = true;
    if (this.#overRateForMs(connection, data.length) > 0 || !connection.isOpen) return;
    if (connection.backlogBytes < this.#options.limits.maxBacklogBytes) connection.ws.pong(data);
  }

  #ended(connection: Connection, code: number): void {
    this.#forget(connection);
    if (!this.#connections.delete(connection)) return;
    const { metrics, log } = this.#options;
    const closeCode = connection.closedBy?.code ?? code;
    metrics.closes.inc({ code: closeCodeLabel(closeCode) });
    const { id, user, openedAtMs, messagesIn, messagesOut } = connection;
    const durationMs = Date.now() - openedAtMs;
    log.info({ connection: id, user, code: closeCode, durationMs, messagesIn, messagesOut }, 'connection closed');
  }

  /** Takes the connection out of everything but the count of those that have not ended. */
  #forget(connection: Connection): void {
    const { hub, presence, fanout, heartbeat, expiries } = this.#options;
    for (const { channel, namespace } of hub.remove(connection)) {
      if (channel !== undefined && namespace.presence) presence.leave(channel, connection.user);
    }
    fanout.forget(connection);
    heartbeat.remove(connection);
    expiries.remove(connection);
  }
}

/** One listener for all sockets: it finds the connection on the socket that it is called for. */
function ofSocket<A extends unknown[]>(handle: (connection: Connection, ...args: A) => void) {
  return function listener(this: WebSocket, ...args: A): void {
    if (this instanceof ConnectionSocket && this.connection !== undefined) handle(this.connection, ...args);
  };
}

const onPong = ofSocket((connection) => {
  connection.heard = true;
});

/** The library closes the connection by itself after a protocol error, with the right code; the close is logged. */
function onError(): void {}
