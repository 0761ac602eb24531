// Listening: the public listener. A ladder of checks that every upgrade climbs; each exit has its own status.

import { createServer, type IncomingMessage, type Server, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { Report } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import { listen } from '../platform/ports.ts';
import { type Close, closes } from '../protocol/close.ts';
import { V1_SUBPROTOCOL } from '../protocol/commands.ts';
import { isName } from '../protocol/names.ts';
import { PLAIN_SUBPROTOCOL } from '../protocol/plain.ts';
import { type Authenticator, type Identity, TokenRefused, tokenOf } from './authenticate.ts';
import { ConnectionSocket } from './connection.ts';
import type { DemoPage } from './demo.ts';
import type { AddressRates } from './rates.ts';
import type { Sessions } from './session.ts';
import type { Shedder } from './shed.ts';

/** What the listener is made with. */
export interface ListenOptions {
  readonly port: number;
  readonly host: string | undefined;
  readonly maxConnections: number;
  readonly maxMessageBytes: number;
  readonly handshakeTimeoutMs: number;
  readonly compression: boolean;
  readonly allowedOrigins: readonly string[];
  readonly trustedProxies: number;
  /** Name of the cookie that may hold a token; undefined: none may. */
  readonly cookie: string | undefined;
  readonly plainHeartbeat: boolean;
  readonly demo: DemoPage | undefined;
  readonly addressRates: AddressRates;
  readonly authenticator: Authenticator;
  readonly sessions: Sessions;
  readonly shedder: Shedder;
  readonly metrics: Metrics;
  readonly report: Report;
}

/** Connections the kernel may keep waiting while the process is busy: a whole pod's clients may come at once. */
const ACCEPT_QUEUE = 4096;

/** A request line and headers are at most this long: room for a token in the URL and one in a cookie. */
const MAX_HEADER_BYTES = 16_384;

/** In how many pieces a message may come, fragments as well as packets: each piece costs some hundred bytes beside its
 * own, so that the limit in bytes alone would let a message of 64 KiB take 20 MiB. */
const MIN_PIECES = 1024;
const PIECE_BYTES = 64;
const maxPieces = (messageBytes: number) => Math.max(MIN_PIECES, Math.ceil(messageBytes / PIECE_BYTES));

/** How many sockets may be open: those of connections, and of handshakes and refusals that are under way. */
const maxSockets = (connections: number) => 2 * connections + 1000;

/** How long a peer may take to answer a close frame before its connection is cut. */
const CLOSE_TIMEOUT_MS = 5000;

/** Seconds after which a refused client may come back: spread, so that those refused together do not return so. */
const retryAfterSeconds = () => 1 + Math.floor(Math.random() * 10);

/** A moving client is still connected to the pod that it leaves, and tries another at its own pace. */
const MOVING_RETRY_AFTER_SECONDS = 1;

/** An upgrade that is refused before it is done. `reason` is the metric's label. */
class Refusal extends Error {
  readonly status: number;
  readonly reason: string;
  readonly retryAfterSeconds: number | undefined;

  constructor(status: number, reason: string, message: string, retryAfter?: number) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfterSeconds = retryAfter;
  }
}

/** The public listener: `/ws` and `/ws/{user}`, the demo page where it is on, and 404 for all else. */
export class Listener {
  readonly #options: ListenOptions;
  readonly #server: Server;
  readonly #upgrader: WebSocketServer;
  /** Upgrades whose token is being checked. They count as connections, or a flood of them would pass the cap. */
  #upgrading = 0;
  #refusing = false;

  constructor(options: ListenOptions) {
    this.#options = options;
    const upgraderOptions = {
      noServer: true,
      clientTracking: false,
      autoPong: false,
      WebSocket: ConnectionSocket,
      maxPayload: options.maxMessageBytes,
      maxFragments: maxPieces(options.maxMessageBytes),
      maxBufferedChunks: maxPieces(options.maxMessageBytes),
      closeTimeout: CLOSE_TIMEOUT_MS,
      handleProtocols: chooseProtocol,
      perMessageDeflate: options.compression && {
        serverNoContextTakeover: true,
        clientNoContextTakeover: true,
      },
    };
    this.#upgrader = new WebSocketServer<typeof ConnectionSocket>(upgraderOptions);
    this.#server = createServer({
      headersTimeout: options.handshakeTimeoutMs,
      requestTimeout: options.handshakeTimeoutMs,
      connectionsCheckingInterval: Math.min(1000, options.handshakeTimeoutMs / 2),
      maxHeaderSize: MAX_HEADER_BYTES,
      keepAliveTimeout: 5000,
      noDelay: true,
      // A client that would rather speak HTTP/2 (h2c) gets its page, as the standard wants.
      shouldUpgradeCallback: (request) => request.headers.upgrade?.toLowerCase() === 'websocket',
    });
    // One more is closed as soon as it is accepted: those who say nothing must not take the memory of those who do.
    this.#server.maxConnections = maxSockets(options.maxConnections);
    this.#server.on('drop', () => options.metrics.refusals.inc({ reason: 'capacity' }));
    this.#server.on('request', (request, response) => {
      request.resume();
      const { status, headers, body } = this.#page(request);
      response.writeHead(status, headers).end(body);
    });
    this.#server.on('upgrade', (request, socket, head) => {
      socket.on('error', ignore);
      void this.#upgrade(request, socket, head);
    });
    // What cannot be parsed gets a plain answer; the default one is the same, but keeps the socket of a slow reader.
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      const status =
        error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : error.code === 'HPE_HEADER_OVERFLOW' ? 431 : 400;
      options.metrics.refusals.inc({ reason: status === 408 ? 'handshake_timeout' : 'bad_request' });
      refuse(socket, status, 'The request cannot be understood.');
    });
  }

  /** Begins to listen and returns the port. @throws where the port is taken. */
  async start(): Promise<number> {
    const { port, host } = this.#options;
    const taken = await listen(this.#server, { port, host, backlog: ACCEPT_QUEUE });
    // A connection that could not be accepted must not end those that were.
    this.#server
      .removeAllListeners('error')
      .on('error', (error) => this.#options.report('listen.accept', error));
    return taken;
  }

  /** From now on every new upgrade is refused with 503, while the port stays open: a load balancer that has not
   * heard yet gets an answer to act on. */
  refuseNew(): void {
    this.#refusing = true;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #page(request: IncomingMessage): {
    status: number;
    headers: Record<string, string>;
    body: string | Buffer;
  } {
    const { path } = splitTarget(request.url ?? '');
    const page = request.method === 'GET' ? this.#options.demo?.page(path) : undefined;
    if (page !== undefined) return { status: 200, ...page };
    const isWebSocket = path === '/ws' || path.startsWith('/ws/');
    const headers = { 'content-type': 'text/plain; charset=utf-8' };
    if (!isWebSocket) return { status: 404, headers, body: 'Not found. Connect a WebSocket to /ws.\n' };
    return {
      status: 426,
      headers: { ...headers, upgrade: 'websocket' },
      body: 'This is a WebSocket: connect with ws:// or wss://.\n',
    };
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    this.#upgrading += 1;
    try {
      await this.#climb(request, socket, head);
    } catch (error) {
      if (!(error instanceof Refusal)) {
        this.#options.report('listen.upgrade', error);
        return refuse(socket, 500, 'The gateway failed.');
      }
      this.#options.metrics.refusals.inc({ reason: error.reason });
      refuse(socket, error.status, error.message, error.retryAfterSeconds, error.reason);
    } finally {
      this.#upgrading -= 1;
    }
  }

  /** The ladder. What is cheap comes first; what a browser could not read as a status comes last, as a close code. */
  async #climb(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { allowedOrigins, authenticator, maxConnections, sessions, addressRates, cookie, trustedProxies } =
      this.#options;
    const { ceiling } = this.#options.shedder;
    const { user: claimedUser, query } = readPath(request.url ?? '');
    const { origin } = request.headers;
    if (allowedOrigins.length > 0 && origin !== undefined && !allowedOrigins.includes(origin)) {
      throw new Refusal(403, 'origin', 'This origin may not connect: ALLOWED_ORIGINS does not list it.');
    }
    if (this.#refusing) throw this.#draining();
    const others = sessions.size + this.#upgrading - 1;
    if (others >= maxConnections) {
      throw new Refusal(503, 'capacity', 'This gateway is full.', retryAfterSeconds());
    }
    if (ceiling !== undefined && query.get('moving') === 'true' && others >= ceiling.connections) {
      const message = 'This gateway has its share: try another.';
      throw new Refusal(503, 'moving', message, MOVING_RETRY_AFTER_SECONDS);
    }
    const address = addressOf(request, trustedProxies);
    const waitMs = addressRates.take(address, performance.now());
    if (waitMs > 0)
      throw new Refusal(429, 'rate', 'Too many connections from this address.', Math.ceil(waitMs / 1000));

    // Without an origin it is no browser, and nobody can have been tricked into sending the cookie along; but then
    // it has no use for one either.
    const token = tokenOf(request, query, origin === undefined ? undefined : cookie);
    const heartbeat = this.#options.plainHeartbeat || query.get('heartbeat') === 'true';
    let identity: Identity;
    try {
      const connecting = authenticator.connect(token, claimedUser);
      // Anonymous ones are not a promise: no turn of the event loop is lost over them.
      identity = connecting instanceof Promise ? await connecting : connecting;
    } catch (error) {
      if (!(error instanceof TokenRefused)) throw error;
      this.#options.metrics.refusals.inc({ reason: error.retryable ? 'keys_unavailable' : 'token' });
      return this.#closeAtOnce(
        request,
        socket,
        head,
        error.retryable ? closes.overload : closes.refused,
        error.message,
      );
    }
    // The drain may have begun while the token was checked, and would not know this connection.
    if (this.#refusing) throw this.#draining();
    this.#upgrader.handleUpgrade(request, socket, head, (ws) => {
      const protocol = ws.protocol === V1_SUBPROTOCOL ? 'v1' : 'plain';
      // All share one compression with the full window; who asked for a smaller one gets frames uncompressed.
      const compressed = ws.extensions.includes('permessage-deflate') && !asksForSmallWindow(request);
      sessions.open(ws as ConnectionSocket, socket, {
        identity,
        protocol,
        compressed,
        heartbeat,
        moves: query.get('moves') === 'true',
        traced: query.get('traces') === 'true',
        lastEventId: query.get('lastEventId') ?? undefined,
        address,
      });
    });
  }

  #draining(): Refusal {
    return new Refusal(503, 'draining', 'This gateway is stopping.', retryAfterSeconds());
  }

  /** A refused token: upgrade, then close with a reason, because browsers cannot read an HTTP status. It counts as
   * one that is upgrading until it is gone, or those who do not answer the close would pass the cap. */
  #closeAtOnce(request: IncomingMessage, socket: Duplex, head: Buffer, close: Close, reason: string): void {
    this.#upgrader.handleUpgrade(request, socket, head, (ws) => {
      this.#upgrading += 1;
      ws.once('close', () => {
        this.#upgrading -= 1;
      });
      ws.on('error', ignore);
      (ws as ConnectionSocket).closeWith(close.code, reason);
    });
  }
}

/** `/ws` or `/ws/{user}`, and the query. @throws {Refusal} 404 or 400. */
function readPath(url: string): { user: string | undefined; query: URLSearchParams } {
  const { path, search } = splitTarget(url);
  const query = new URLSearchParams(search);
  if (path === '/ws' || path === '/ws/') return { user: undefined, query };
  if (!path.startsWith('/ws/')) throw new Refusal(404, 'path', 'Not found. Connect a WebSocket to /ws.');
  let user: string;
  try {
    user = decodeURIComponent(path.slice('/ws/'.length));
  } catch {
    throw new Refusal(400, 'user', 'The user in the path is not valid.');
  }
  if (!isName(user)) throw new Refusal(400, 'user', 'A user is 1 to 128 of A-Z a-z 0-9 . _ ~ @ : / -');
  return { user, query };
}

/** Path and query of a request target as it is, which may be an absolute URL (RFC 9112 3.2.2). Total: the URL
 * parser would throw at `//`, and normalise what nobody should send. */
function splitTarget(target: string): { path: string; search: string } {
  const local = target.replace(/^https?:\/\/[^/?#]*/i, '');
  const queryAt = local.indexOf('?');
  return queryAt === -1
    ? { path: local, search: '' }
    : { path: local.slice(0, queryAt), search: local.slice(queryAt) };
}

function asksForSmallWindow(request: IncomingMessage): boolean {
  return (request.headers['sec-websocket-extensions'] ?? '').includes('server_max_window_bits');
}

/** The client's address. Each trusted proxy has added the address it saw to the right of X-Forwarded-For, so the
 * client's is as many entries from the right as there are proxies; what stands left of it the client made up. */
function addressOf(request: IncomingMessage, trustedProxies: number): string {
  const peer = request.socket.remoteAddress ?? '';
  if (trustedProxies === 0) return peer;
  const entries = String(request.headers['x-forwarded-for'] ?? '').split(',');
  return entries.at(-trustedProxies)?.trim() || peer;
}

/** Only the protocols themselves are ever chosen: an entry that holds a token is not echoed. */
function chooseProtocol(offered: Set<string>): string | false {
  return [V1_SUBPROTOCOL, PLAIN_SUBPROTOCOL].find((protocol) => offered.has(protocol)) ?? false;
}

function refuse(socket: Duplex, status: number, message: string, retryAfter?: number, reason?: string): void {
  if (!socket.writable || socket.destroyed) return void socket.destroy();
  const body = `${message}\n`;
  const headers = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`,
    'Connection: close',
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...(retryAfter === undefined ? [] : [`Retry-After: ${retryAfter}`]),
    ...(reason === undefined ? [] : [`Tidegate-Refused: ${reason}`]),
  ];
  socket.once('finish', () => socket.destroy());
  socket.end(`${headers.join('\r\n')}\r\n\r\n${body}`);
}

/** A socket's error is followed by its close, which is what is acted on. */
function ignore(): void {}
