// Sessions: from an upgraded socket to its end. Reads frames, keeps clients to their rates, and speaks both protocols.

import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Log } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import { type Close, closeCodeLabel, closes } from '../protocol/close.ts';
import { type Command, decodeCommand, type Ref, type Undecodable } from '../protocol/commands.ts';
import { TidegateError } from '../protocol/errors.ts';
import { encodePlain, PLAIN_PONG, plainHeartbeat } from '../protocol/plain.ts';
import type { Identity } from './authenticate.ts';
import type { Bans } from './bans.ts';
import { placeOfPlainId } from './chain.ts';
import type { Channels } from './channels.ts';
import { type Commands, settlesWithin } from './commands.ts';
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

/** A command may name a thousand channels, and then costs what many messages cost: it counts as one for so many. */
const CHANNELS_A_MESSAGE = 20;

/** Bursts are allowed up to this many seconds' worth of the rate. */
const BURST_SECONDS = 2;

/** How long a v1 client waits for its welcome while the bus does not take the subscription to its own messages. */
const MAX_WELCOME_WAIT_MS = 3000;

/** What the library closes with after a protocol error, by the error's code. */
const PROTOCOL_ERROR = 1002;
const CODE_AFTER_ERROR: Readonly<Record<string, number>> = {
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: closes.tooLarge.code,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: closes.tooLarge.code,
  WS_ERR_INVALID_UTF8: 1007,
  Z_DATA_ERROR: 1007,
  WS_ERR_TOO_MANY_BUFFERED_PARTS: closes.tooLarge.code,
};

/** What one connection, or one user, may take. Rates are a second; 0 is no limit to a rate. */
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
}

/** What is known of a connection when its upgrade is done. */
export interface Opening {
  readonly identity: Identity;
  readonly protocol: Protocol;
  readonly compressed: boolean;
  /** A plain client that asked for heartbeats, and so knows frames that are no messages. */
  readonly heartbeat: boolean;
  /** The client can move: see `goodbye` in docs/protocol.md. */
  readonly moves: boolean;
  /** It asked for the traces of messages. */
  readonly traced: boolean;
  /** The last `id` a plain client has had of a durable channel. */
  readonly lastEventId: string | undefined;
  readonly address: string;
}

/** Every open session. One set of listeners serves all sockets: each socket names its connection. */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #connections = new Set<Connection>();
  readonly #onMessage = ofSocket((connection, data: RawData, isBinary: boolean) =>
    this.#message(connection, data, isBinary),
  );
  readonly #onPing = ofSocket((connection, data: Buffer) => this.#ping(connection, data));
  readonly #onPong = ofSocket((connection, data: Buffer) => this.#pong(connection, data));
  readonly #onError = ofSocket((connection, error: NodeJS.ErrnoException) => this.#failed(connection, error));
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
    const { bans, hub, limits, metrics, expiries } = this.#options;
    const { user } = opening.identity;
    const { protocol } = opening;
    const connection = new Connection({
      ws,
      socket,
      ...opening,
      toldOfGaps: protocol === 'v1' || opening.heartbeat,
      // The plain protocol has no words for it.
      moves: protocol === 'v1' && opening.moves,
    });
    ws.connection = connection;
    ws.on('message', this.#onMessage);
    ws.on('ping', this.#onPing);
    ws.on('pong', this.#onPong);
    ws.on('close', this.#onClose);
    ws.on('error', this.#onError);
    this.#connections.add(connection);
    metrics.opens.inc({ protocol });
    const isOverCap = limits.maxConnectionsPerUser > 0 && hub.countOf(user) >= limits.maxConnectionsPerUser;
    const refusal = bans.isBanned(user) ? closes.revoked : isOverCap ? closes.userLimit : undefined;
    if (refusal !== undefined) {
      this.close(connection, refusal);
      return;
    }
    expiries.add(connection);
    const hears = hub.addUser(connection);
    if (protocol === 'plain') this.#enterPlain(connection, opening.lastEventId);
    else if (hears === undefined) this.#welcome(connection);
    else void this.#welcomeWhen(connection, hears);
    const { id, address } = connection;
    this.#options.log.info({ connection: id, user, protocol, address }, 'connection open');
  }

  /** Closes with a handshake, after everything that waits for the connection; it gets nothing more. */
  close(connection: Connection, close: Close, reason = close.reason): void {
    if (connection.closedWith !== undefined) return;
    this.#options.fanout.flushOne(connection);
    // What waited may have been so much that the connection was closed over it.
    if (connection.closedWith !== undefined) return;
    connection.closedWith = close.code;
    this.#leaveAll(connection);
    connection.ws.closeWith(close.code, reason);
  }

  /** Ends the connection at once, without a handshake: for peers that would not answer it. */
  cut(connection: Connection, close: Close): void {
    connection.closedWith ??= close.code;
    this.#leaveAll(connection);
    connection.ws.terminate();
  }

  /** A welcome says that the client hears what is sent to it, and is the first that it gets: commands that are here
   * before it wait. If the bus takes too long it comes all the same, and a gap tells when messages to it begin. */
  async #welcomeWhen(connection: Connection, hears: Promise<void>): Promise<void> {
    connection.ws.pause();
    const heard = await settlesWithin(hears, MAX_WELCOME_WAIT_MS);
    this.#welcome(connection);
    connection.ws.resume();
    if (heard) return;
    await hears;
    for (const group of connection.groups) {
      if (group.channel === undefined) this.#options.fanout.tellGap(connection, group, 'bus');
    }
  }

  #welcome(connection: Connection): void {
    if (!connection.isOpen) return;
    const { id, user, expiresAtMs } = connection;
    const { limits, fanout, heartbeat } = this.#options;
    heartbeat.add(connection);
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
  #enterPlain(connection: Connection, lastEventId: string | undefined): void {
    const { commands, heartbeat, plainChannel } = this.#options;
    heartbeat.add(connection);
    commands
      .enterPlain(
        connection,
        plainChannel,
        lastEventId === undefined ? undefined : placeOfPlainId(lastEventId),
      )
      .catch((error: unknown) => {
        if (error instanceof TidegateError && error.code === 'forbidden') return;
        commands.answerError(connection, undefined, error);
        // It would never hear the channel: only who connects is let in.
        this.close(connection, closes.overload);
      });
  }

  #message(connection: Connection, data: RawData, isBinary: boolean): void {
    connection.heard = true;
    // The library gives one Buffer for each message unless it is told otherwise.
    if (!connection.isOpen || !Buffer.isBuffer(data)) return;
    if (isBinary) {
      this.close(connection, closes.binary);
      return;
    }
    const { metrics } = this.#options;
    metrics.bytesIn.inc(data.length);
    const text = data.toString();
    const command = connection.protocol === 'v1' ? decodeCommand(text) : undefined;
    const messages = command === undefined ? 1 : messagesOf(command);
    const retryAfterMs = this.#overRateForMs(connection, data.length, messages);
    if (retryAfterMs > 0) {
      this.#refuseForRate(connection, command?.ref, retryAfterMs);
      return;
    }
    connection.messagesIn += 1;
    if (command !== undefined) this.#takeCommand(connection, command);
    else if (!this.#tookHeartbeat(connection, text)) this.#publishPlain(connection, text);
  }

  #takeCommand(connection: Connection, command: Command | Undecodable): void {
    const { commands } = this.#options;
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
      const error = new TidegateError('forbidden', channels.refusal(plainChannel, 'publish'));
      commands.answerError(connection, undefined, error);
      return;
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
  #overRateForMs(connection: Connection, bytes: number, messages = 1): number {
    const { messageRate, byteRate } = this.#options.limits;
    if (messageRate === 0 && byteRate === 0) return 0;
    const nowMs = performance.now();
    connection.messageBucket ??= new TokenBucket(messageRate, messageRate * BURST_SECONDS, nowMs);
    connection.byteBucket ??= new TokenBucket(byteRate, byteRate * BURST_SECONDS, nowMs);
    const waitMs = connection.messageBucket.take(messages, nowMs) || connection.byteBucket.take(bytes, nowMs);
    if (waitMs === 0) connection.overRate = Math.max(0, connection.overRate - 1);
    else if (++connection.overRate > MAX_OVER_RATE) this.close(connection, closes.rate);
    return waitMs;
  }

  #refuseForRate(connection: Connection, ref: Ref | undefined, retryAfterMs: number): void {
    if (!connection.isOpen) return;
    this.#options.commands.answerError(
      connection,
      ref,
      new TidegateError('rate_limited', undefined, { retryAfterMs }),
    );
  }

  /** Pings are answered here and not by the library, so that a client cannot make a backlog by pinging and not reading. */
  #ping(connection: Connection, data: Buffer): void {
    connection.heard = true;
    if (this.#overRateForMs(connection, data.length) > 0 || !connection.isOpen) return;
    if (connection.backlogBytes < this.#options.limits.maxBacklogBytes) connection.ws.pong(data);
  }

  /** A pong that no ping asked for counts like a ping, or a client could keep the process busy with them. */
  #pong(connection: Connection, data: Buffer): void {
    const isAnswer = !connection.heard;
    connection.heard = true;
    if (!isAnswer) this.#overRateForMs(connection, data.length);
  }

  /** The library has found something that is no WebSocket frame, and closes the connection by itself. */
  #failed(connection: Connection, { code = '' }: NodeJS.ErrnoException): void {
    connection.closedWith ??= CODE_AFTER_ERROR[code] ?? PROTOCOL_ERROR;
    this.#leaveAll(connection);
  }

  #ended(connection: Connection, code: number): void {
    this.#leaveAll(connection);
    this.#options.fanout.forget(connection);
    if (!this.#connections.delete(connection)) return;
    const { metrics, log } = this.#options;
    const closeCode = connection.closedWith ?? code;
    metrics.closes.inc({ code: closeCodeLabel(closeCode) });
    const { id, user, openedAtMs, messagesIn, messagesOut } = connection;
    const durationMs = Math.round(performance.now() - openedAtMs);
    log.info(
      { connection: id, user, code: closeCode, durationMs, messagesIn, messagesOut },
      'connection closed',
    );
  }

  /** Takes the connection out of everything but the count of those that have not ended, and of the backlogs: its
   * own stays in memory until it has ended. */
  #leaveAll(connection: Connection): void {
    const { hub, presence, heartbeat, expiries } = this.#options;
    for (const { channel, namespace } of hub.remove(connection)) {
      if (channel !== undefined && namespace.presence) presence.leave(channel, connection.user);
    }
    heartbeat.remove(connection);
    expiries.remove(connection);
  }
}

/** How many messages a command counts as. */
function messagesOf(command: Command | Undecodable): number {
  switch (command.type) {
    case 'subscribe':
      return Math.ceil(command.items.length / CHANNELS_A_MESSAGE);
    case 'unsubscribe':
      return Math.ceil(command.channels.length / CHANNELS_A_MESSAGE);
    default:
      return 1;
  }
}

/** One listener for all sockets: it finds the connection on the socket that it is called for. */
function ofSocket<A extends unknown[]>(handle: (connection: Connection, ...args: A) => void) {
  return function listener(this: WebSocket, ...args: A): void {
    if (this instanceof ConnectionSocket && this.connection !== undefined) handle(this.connection, ...args);
  };
}
