// A link: one WebSocket that speaks tidegate.v1, from its opening to its end. It pairs commands with their answers,
// and notices when nothing comes any more.

import type { V1_SUBPROTOCOL } from '../protocol/commands.ts';
import type { CloseReason } from './events.ts';
import type { Platform, WebSocketConstructor, WebSocketLike } from './platform.ts';
import type { Settings } from './settings.ts';
import { Timer } from './timer.ts';

const SUBPROTOCOL = 'tidegate.v1' satisfies typeof V1_SUBPROTOCOL;

/** What holds where a welcome does not say: the gateway's own defaults. */
const DEFAULT_PING_INTERVAL_MS = 25_000;
const DEFAULT_MAX_MESSAGE_BYTES = 65_536;

/** How long the other side may take to answer that the connection is closed. */
const CLOSE_TIMEOUT_MS = 1000;

/** A frame of the gateway. Which fields there are depends on `type`: see docs/protocol.md. */
export interface Frame {
  readonly type?: unknown;
  readonly ref?: unknown;
  readonly [field: string]: unknown;
}

/** An answer as it is told to whoever asked; undefined where the link ended before it came. */
export type Answer = Frame | undefined;

/** Who is told what becomes of a link. */
export interface LinkOwner {
  /** It is open, and commands may be sent. */
  welcomed(link: Link, welcome: Frame): void;
  /** Everything that is no answer. */
  received(link: Link, frame: Frame): void;
  /** Told once, and not where {@link Link.close} was called. */
  ended(link: Link, reason: CloseReason): void;
}

/** One connection to a gateway. */
export class Link {
  readonly #settings: Settings;
  readonly #platform: Platform;
  readonly #owner: LinkOwner;
  readonly #socket: WebSocketLike;
  readonly #timer: Timer;
  readonly #waiting = new Map<number, { askedAtMs: number; answered: (answer: Answer) => void }>();
  #lastRef = 0;
  #heardAtMs = 0;
  #pingedAtMs: number | undefined;
  #pingIntervalMs = 0;
  #maxMessageBytes = 0;
  #ended = false;
  #gone = () => {};

  /** Begins to connect. @throws where the URL is none, or the token cannot be one. */
  constructor(
    settings: Settings,
    platform: Platform,
    token: string | undefined,
    query: string,
    owner: LinkOwner,
  ) {
    this.#settings = settings;
    this.#platform = platform;
    this.#owner = owner;
    this.#timer = new Timer(platform);
    const WebSocket = settings.WebSocket ?? (globalThis.WebSocket as WebSocketConstructor | undefined);
    if (!WebSocket) throw new Error('No WebSocket here: use Node 22, or give one as an option.');
    // The token is not in the URL, which proxies log.
    this.#socket = new WebSocket(
      settings.url + (settings.url.includes('?') ? '&' : '?') + query,
      token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${token}`],
    );
    this.#socket.onmessage = ({ data }) => this.#hear(data);
    this.#socket.onclose = ({ code, reason }) => {
      this.#end({ code, reason });
      this.#gone();
    };
    this.#socket.onerror = () => {}; // its close follows
    this.#timer.set(settings.connectTimeoutMs, () => this.#fail('no welcome in time'));
  }

  /** The largest frame that the gateway takes. */
  get maxMessageBytes(): number {
    return this.#maxMessageBytes;
  }

  /** Every command is answered. */
  get isIdle(): boolean {
    return this.#waiting.size === 0;
  }

  /** Sends a command, the JSON text of an object without `ref`, and tells its answer once. */
  request(command: string, answered: (answer: Answer) => void): void {
    const ref = ++this.#lastRef;
    this.#waiting.set(ref, { askedAtMs: this.#platform.now(), answered });
    this.#socket.send(`{"ref":${ref},${command.slice(1)}`);
  }

  /** Ends it from this side, without telling the owner; what was unanswered is told so. Resolves when the socket is
   * closed, or the other side has not answered for a while. */
  close(): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      this.#timer.set(CLOSE_TIMEOUT_MS, resolve);
      this.#gone = () => {
        this.#timer.clear();
        resolve();
      };
    });
    this.#ended = true;
    this.#abandon();
    this.#socket.close(1000);
    return gone;
  }

  #hear(data: unknown): void {
    if (this.#ended) return;
    this.#heardAtMs = this.#platform.now();
    const frame = parse(data);
    const { type, ref } = frame;
    if (type === 'welcome') this.#welcome(frame);
    else if ((type === 'ok' || type === 'error') && typeof ref === 'number') {
      const { answered } = this.#waiting.get(ref) ?? {};
      this.#waiting.delete(ref);
      answered?.(frame);
    } else this.#owner.received(this, frame);
  }

  #welcome(welcome: Frame): void {
    const { pingIntervalMs = DEFAULT_PING_INTERVAL_MS, maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES } =
      welcome;
    this.#pingIntervalMs = Number(pingIntervalMs);
    this.#maxMessageBytes = Number(maxMessageBytes);
    this.#watch(this.#pingIntervalMs);
    this.#owner.welcomed(this, welcome);
  }

  #watch(afterMs: number): void {
    this.#timer.set(afterMs, () => this.#check());
  }

  /** The gateway pings by the protocol, which browsers do not show; so where nothing else was heard, it is asked. A
   * ping that comes late, because the machine slept, has its whole time all the same. */
  #check(): void {
    const { pongTimeoutMs, answerTimeoutMs } = this.#settings;
    const nowMs = this.#platform.now();
    const idleMs = nowMs - this.#heardAtMs;
    const [oldest] = this.#waiting.values();
    if (this.#pingedAtMs !== undefined && this.#heardAtMs < this.#pingedAtMs) {
      this.#fail('no answer to a ping');
    } else if (oldest !== undefined && nowMs - oldest.askedAtMs >= answerTimeoutMs) {
      this.#fail('no answer to a command');
    } else if (idleMs < this.#pingIntervalMs) {
      this.#pingedAtMs = undefined;
      this.#watch(this.#pingIntervalMs - idleMs);
    } else {
      this.#pingedAtMs = nowMs;
      this.request('{"type":"ping"}', () => {});
      this.#watch(pongTimeoutMs);
    }
  }

  /** The other side is not there; nor would it answer a closing handshake, so that is not waited for. */
  #fail(reason: string): void {
    this.#socket.close();
    this.#end({ code: 1006, reason });
  }

  #end(reason: CloseReason): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer.clear();
    // First, so that what is asked again is not asked here.
    this.#owner.ended(this, reason);
    this.#abandon();
  }

  #abandon(): void {
    const unanswered = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { answered } of unanswered) answered(undefined);
  }
}

/** Total: what is no JSON object is a frame without a type. */
function parse(data: unknown): Frame {
  try {
    const value: unknown = JSON.parse(String(data));
    return typeof value === 'object' && value !== null ? (value as Frame) : {};
  } catch {
    return {};
  }
}
