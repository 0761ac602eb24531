// The client: keeps one connection to a Tidegate, whichever pod it is to, and everything that was asked of it.

import { actionAfter } from '../protocol/close-action.ts';
import type { MAX_CHANNELS_PER_COMMAND } from '../protocol/commands.ts';
import { isName } from '../protocol/names.ts';
import { type Backoff, backoffMs } from './backoff.ts';
import { ClientError } from './errors.ts';
import { type ClientEvents, type CloseReason, Events, type Message, type PresenceChange, type State } from './events.ts';
import { type Answer, type Frame, Link, type LinkOwner } from './link.ts';
import { errorOf, Outbox, type Sending } from './outbox.ts';
import { type Cancel, type Platform, system, type WebSocketConstructor } from './platform.ts';
import { type Item, Stream, type StreamSink, type Subscribed } from './stream.ts';
import { Tokens } from './tokens.ts';

export { ClientError, type ClientErrorCode } from './errors.ts';
export type { ClientEvents, CloseReason, Gap, Message, Move, PresenceChange, Recovery, State, StateChange } from './events.ts';
export type { WebSocketConstructor, WebSocketLike } from './platform.ts';

const MAX_CHANNELS = 1000 satisfies typeof MAX_CHANNELS_PER_COMMAND;

/** How long `close` waits for the closing handshake. */
const CLOSE_TIMEOUT_MS = 1000;

/** What `connect` takes. All times are in milliseconds. */
export interface ConnectOptions {
  /** `wss://host/ws`, or `wss://host/ws/USER`. */
  readonly url: string;
  /** Gets a token. Called before the first connection, before the token expires, and when it was refused. */
  readonly token?: (() => Promise<string> | string) | undefined;
  /** A WebSocket class, where the global one will not do. */
  readonly WebSocket?: WebSocketConstructor | undefined;
  /** Closes the client. */
  readonly signal?: AbortSignal | undefined;
  /** The first try to reconnect comes after up to so long, at random; each further one up to twice as long. Default: 1000. */
  readonly backoffMs?: number;
  /** No try comes later than this. Default: 30000. */
  readonly maxBackoffMs?: number;
  /** How long a connection may take to be open, and `token()` to answer. Default: 10000. */
  readonly connectTimeoutMs?: number;
  /** How long a gateway that was asked whether it is there may take to answer. Default: 10000. */
  readonly pongTimeoutMs?: number;
  /** How long a gateway may take to answer a command before the connection is given up. Default: 30000. */
  readonly answerTimeoutMs?: number;
  /** After a connection has been open for so long, tries are counted anew. Default: 5000. */
  readonly stableMs?: number;
  /** How long the old connection is kept open after a move, for what is on its way over it. Default: 1000. */
  readonly overlapMs?: number;
  /** How many publishes and other calls may be unanswered, offline or not; one more is rejected. Default: 1000. */
  readonly maxQueued?: number;
  /** How many bytes they may have together. Default: 1048576. */
  readonly maxQueuedBytes?: number;
}

/** How a message is published. */
export interface PublishOptions {
  /** Names this message, so that publishing it again lands once. Default: one that nobody else makes. */
  readonly key?: string;
  /** Whether this client gets it, too. Default: true. */
  readonly echo?: boolean;
}

/** What became of a message that was published or sent. */
export interface Published {
  /** Absent on raw channels. */
  readonly id?: string;
  /** Where it stands in a durable channel. */
  readonly position?: string;
}

/** Who is in a channel. The list is capped, `total` is not. */
export interface Presence {
  readonly members: readonly string[];
  readonly total: number;
}

/** How a channel is subscribed to. */
export interface SubscribeOptions {
  /** A position of a durable channel: what came after it is replayed. Counts for a channel's first handler. */
  readonly after?: string;
}

/** One handler's place in a channel. */
export interface Subscription {
  readonly channel: string;
  /** Resolves when the gateway delivers, and rejects where it refuses. Need not be looked at: a refusal is told by
   * the `error` event, too. */
  readonly ready: Promise<void>;
  /** Where the channel stands: what to come back with as `after`, also in another client. */
  readonly position: string | undefined;
  /** Takes the handler away. Without handlers the channel is left. */
  unsubscribe(): void;
  [Symbol.dispose](): void;
}

/** A channel of a client.
 * @example
 * const room = client.channel<{ text: string }>('room:42');
 * const subscription = room.subscribe(({ from, data }) => console.log(from, data.text));
 * await room.publish({ text: 'hello' });
 * subscription.unsubscribe();
 */
export interface Channel<T = unknown> {
  readonly name: string;
  subscribe(handler: (message: Message<T>) => unknown, options?: SubscribeOptions): Subscription;
  /** Publishes, or keeps it until there is a connection. Resolves when the gateway has it. @throws {ClientError} */
  publish(data: T, options?: PublishOptions): Promise<Published>;
  /** @throws {ClientError} */
  presence(): Promise<Presence>;
}

/** A channel that is subscribed to, or to be. */
interface Entry {
  readonly name: string;
  readonly stream: Stream;
  readonly handlers: Set<{ handle: (message: Message<never>) => unknown }>;
  readonly ready: Promise<void>;
  readonly isReady: () => void;
  readonly isRefused: (error: ClientError) => void;
  /** The connection that was asked for it. */
  link: Link | undefined;
}

/** Connects to a Tidegate. Returns at once, and goes on trying until the client is closed.
 * @example
 * await using client = connect({ url: 'wss://example.com/ws', token: () => fetchToken() });
 * client.on('state', ({ state }) => console.log(state));
 * client.on('gap', ({ channel, reason }) => console.log('messages may be missing on', channel, reason));
 * client.channel('room:42').subscribe(({ from, data }) => console.log(from, data));
 */
export function connect(options: ConnectOptions): Client {
  return new Client(options, system);
}

/** A client: made by {@link connect}. */
export class Client {
  readonly #options: ConnectOptions;
  readonly #platform: Platform;
  readonly #backoff: Backoff;
  readonly #events = new Events();
  readonly #entries = new Map<string, Entry>();
  /** Entries whose gateway has to be told of a change. */
  readonly #changed = new Set<Entry>();
  readonly #outbox: Outbox;
  readonly #tokens: Tokens | undefined;
  readonly #direct: Stream;
  readonly #owner: LinkOwner;
  readonly #cancelOnline: Cancel;
  readonly #onAbort = () => void this.#close({ code: 1000, reason: 'aborted' });
  #state: State = 'connecting';
  #reason: CloseReason | undefined;
  /** The connection that is used. */
  #link: Link | undefined;
  /** The one that is to be used next. */
  #opening: Link | undefined;
  /** The one that was used before, and is open for what is still on its way. */
  #leaving: Link | undefined;
  /** Counts the tries to open, so that one that was overtaken notices. */
  #opens = 0;
  #attempt = 0;
  #user: string | undefined;
  #moving: number | undefined;
  #cancelRetry: Cancel | undefined;
  #cancelStable: Cancel | undefined;
  #cancelLeaving: Cancel | undefined;
  /** Tries to subscribe that failed in a row. */
  #resubscribes = 0;
  #cancelResubscribe: Cancel | undefined;
  #closing: Promise<unknown> | undefined;

  /** Use {@link connect}. Tests bring a platform of their own. */
  constructor(options: ConnectOptions, platform: Platform) {
    this.#options = options;
    this.#platform = platform;
    const { backoffMs: baseMs = 1000, maxBackoffMs: capMs = 30_000, token, signal } = options;
    const { maxQueued = 1000, maxQueuedBytes = 1_048_576 } = options;
    this.#backoff = { baseMs, capMs };
    this.#outbox = new Outbox({ maxQueued, maxQueuedBytes, backoff: this.#backoff, platform });
    this.#tokens = token && new Tokens({
      fetch: token,
      timeoutMs: options.connectTimeoutMs ?? 10_000,
      backoff: this.#backoff,
      platform,
      renew: () => void this.#renewToken(),
    });
    const sink = this.#sink((message) => this.#events.emit('direct', message));
    this.#direct = new Stream(undefined, undefined, sink);
    this.#owner = {
      welcomed: (link, welcome) => this.#welcomed(link, welcome),
      received: (link, frame) => this.#received(link, frame),
      ended: (link, reason) => this.#ended(link, reason),
    };
    this.#cancelOnline = platform.onOnline(() => {
      if (this.#cancelRetry !== undefined && this.#link === undefined) void this.#open();
    });
    signal?.addEventListener('abort', this.#onAbort);
    if (signal?.aborted) this.#onAbort();
    else void this.#open();
  }

  get state(): State {
    return this.#state;
  }

  /** Who the gateway takes this client for; undefined until it has said so. */
  get user(): string | undefined {
    return this.#user;
  }

  /** Listens to an event, and returns what ends that. */
  on<E extends keyof ClientEvents>(event: E, listener: (event: ClientEvents[E]) => unknown): () => void {
    return this.#events.on(event, listener);
  }

  /** A channel. Costs nothing until it is used. @throws {ClientError} `bad_name` */
  channel<T = unknown>(name: string): Channel<T> {
    if (!isName(name)) throw new ClientError('bad_name', `${name} is no name of a channel.`, { channel: name });
    return {
      name,
      subscribe: (handle, options) => this.#subscribe(name, handle, options?.after),
      publish: async (data, { key = this.#platform.newKey(), echo = true } = {}) => {
        const command = withData({ type: 'publish', channel: name, key, ...(!echo && { echo }) }, data);
        const answer = published(await this.#ask({ command, repeatable: true, alone: !echo }));
        if (!echo) this.#entries.get(name)?.stream.own(answer);
        return answer;
      },
      presence: async () => {
        const command = JSON.stringify({ type: 'presence', channel: name });
        const { members, total } = await this.#ask({ command, repeatable: true, alone: false });
        return { members: listOf(members).map(String), total: Number(total) };
      },
    };
  }

  /** Sends to every connection of a user. It has no key: where the connection is lost before the answer, it is not
   * sent again but rejected as `unanswered`. @throws {ClientError} */
  async sendTo(user: string, data: unknown): Promise<Published> {
    const command = withData({ type: 'send', user }, data);
    return published(await this.#ask({ command, repeatable: false, alone: false }));
  }

  /** Closes for good. What is unanswered is rejected as `closed`. */
  close(): Promise<void> {
    return this.#close({ code: 1000, reason: 'closed by the application' });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // ── Connections ───────────────────────────────────────────────────────────────────────────────

  async #open(): Promise<void> {
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    const open = ++this.#opens;
    const { url, connectTimeoutMs = 10_000, pongTimeoutMs = 10_000, answerTimeoutMs = 30_000 } = this.#options;
    const WebSocket = this.#options.WebSocket ?? (globalThis.WebSocket as WebSocketConstructor);
    let token: string | undefined;
    try {
      token = await this.#tokens?.current();
    } catch (error) {
      if (open !== this.#opens) return;
      this.#emitError(error);
      return this.#retry({ code: 1006, reason: String(error) });
    }
    if (open !== this.#opens) return;
    try {
      const timings = { connectTimeoutMs, pongTimeoutMs, answerTimeoutMs };
      this.#opening = new Link({ url, token, WebSocket, platform: this.#platform, ...timings }, this.#owner);
    } catch (error) {
      // The URL is none, or the token has characters that no token has: trying again would not help.
      this.#emitError(error);
      void this.#close({ code: 1006, reason: String(error) });
    }
  }

  #welcomed(link: Link, welcome: Frame): void {
    const old = this.#link;
    this.#leave(false);
    this.#opening = undefined;
    this.#link = link;
    this.#leaving = old;
    this.#user = String(welcome.user);
    this.#tokens?.accepted(numberOf(welcome.tokenExpiresInMs));
    this.#cancelStable?.();
    this.#cancelStable = this.#platform.after(this.#options.stableMs ?? 5000, () => {
      this.#attempt = 0;
    });
    this.#direct.begin(link);
    this.#direct.subscribed(link, {});
    this.#flushAll(() => {
      if (old === undefined || this.#leaving !== old) return;
      this.#cancelLeaving = this.#platform.after(this.#options.overlapMs ?? 1000, () => this.#leave(true));
    });
    this.#outbox.use(link, old !== undefined);
    if (old !== undefined) this.#events.emit('move', { code: this.#moving ?? 0 });
    this.#moving = undefined;
    if (this.#state !== 'open') this.#setState('open');
  }

  /** Closes the connection that was used before. */
  #leave(emptied: boolean): void {
    const old = this.#leaving;
    if (old === undefined) return;
    void old.close();
    this.#left(old, emptied);
  }

  #left(link: Link, emptied: boolean): void {
    if (link === this.#leaving) {
      this.#leaving = undefined;
      this.#cancelLeaving?.();
      this.#outbox.use(this.#link, false);
    }
    for (const stream of this.#streams()) stream.left(link, emptied);
  }

  #ended(link: Link, reason: CloseReason): void {
    if (link === this.#leaving) return this.#left(link, false);
    if (link === this.#opening) this.#opening = undefined;
    if (link === this.#link) {
      this.#link = undefined;
      this.#moving = undefined;
      this.#cancelStable?.();
      this.#tokens?.stop();
      this.#outbox.use(undefined, false);
      this.#leave(false);
      this.#left(link, false);
    }
    const action = actionAfter(reason.code);
    if (action === 'refresh') this.#tokens?.refused();
    if (action === 'stop' || (action === 'refresh' && this.#tokens === undefined)) return void this.#close(reason);
    // Where the next one is on its way already, it is waited for.
    if (this.#opening === undefined) this.#retry(reason);
    else this.#setState('reconnecting', reason);
  }

  /** Tries again: when the gateway said, or after a while. */
  #retry(reason: CloseReason): void {
    const hint = /reconnect after (\d+) ms/.exec(reason.reason)?.[1];
    const random = this.#platform.random();
    const waitMs = hint === undefined ? backoffMs(this.#backoff, this.#attempt++, random) : Number(hint);
    const retryInMs = Math.min(waitMs, this.#backoff.capMs);
    this.#openAfter(retryInMs);
    if (this.#link === undefined) this.#setState('reconnecting', reason, retryInMs);
  }

  #openAfter(ms: number): void {
    this.#opens += 1;
    this.#cancelRetry?.();
    this.#cancelRetry = this.#platform.after(ms, () => void this.#open());
  }

  /** The gateway wants this client to go. It has its reasons for the time that it names; but what is left after it must
   * be enough to open the next connection. */
  #goodbye(link: Link, { code, reconnectAfterMs, closeAfterMs }: Frame): void {
    if (link !== this.#link || this.#moving !== undefined) return;
    this.#moving = Number(code);
    for (const stream of this.#streams()) stream.expectMove();
    this.#openAfter(Math.min(Number(reconnectAfterMs), Number(closeAfterMs) / 2));
  }

  async #renewToken(): Promise<void> {
    const link = this.#link;
    if (link === undefined || this.#tokens === undefined) return;
    try {
      const token = await this.#tokens.next();
      if (link !== this.#link) return;
      link.request(JSON.stringify({ type: 'refresh', token }), (answer) => {
        if (answer === undefined) return;
        if (answer.type !== 'ok') {
          this.#tokens?.refused();
          this.#tokens?.renewLater();
          return this.#emitError(errorOf(answer));
        }
        this.#tokens?.accepted(numberOf(answer.tokenExpiresInMs));
        for (const name of listOf(answer.left)) this.#refused(String(name), 'The new token does not allow it.');
      });
    } catch (error) {
      if (link !== this.#link) return;
      this.#tokens.renewLater();
      this.#emitError(error);
    }
  }

  async #close(reason: CloseReason): Promise<void> {
    if (this.#closing === undefined) {
      for (const cancel of [
        this.#cancelRetry,
        this.#cancelStable,
        this.#cancelLeaving,
        this.#cancelResubscribe,
        this.#cancelOnline,
      ]) {
        cancel?.();
      }
      this.#options.signal?.removeEventListener('abort', this.#onAbort);
      this.#tokens?.stop();
      this.#opens += 1;
      const links = [this.#link, this.#opening, this.#leaving];
      this.#link = this.#opening = this.#leaving = undefined;
      this.#outbox.use(undefined, false);
      this.#closing = Promise.all(links.map((link) => link?.close()));
      this.#setState('closed', reason);
      const error = this.#closedError();
      this.#outbox.close(error);
      for (const { isRefused } of this.#entries.values()) isRefused(error);
      this.#entries.clear();
    }
    let cancel: Cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#platform.after(CLOSE_TIMEOUT_MS, resolve);
    });
    await Promise.race([this.#closing, late]);
    cancel();
  }

  #closedError(): ClientError {
    const { code, reason } = this.#reason ?? {};
    return new ClientError('closed', `The client is closed: ${reason} (${code}).`);
  }

  #setState(state: State, reason?: CloseReason, retryInMs?: number): void {
    this.#state = state;
    this.#reason = reason;
    this.#events.emit('state', { state, reason, retryInMs });
  }

  // ── What comes ────────────────────────────────────────────────────────────────────────────────

  #received(link: Link, frame: Frame): void {
    const { type, channel } = frame;
    switch (type) {
      case 'message':
      case 'gap': {
        const stream = frame.direct ? this.#direct : this.#entries.get(String(channel))?.stream;
        return stream?.receive(link, frame as unknown as Item);
      }
      case 'presence':
        // From both connections during a move: to hear twice of somebody who came does no harm.
        return this.#events.emit('presence', frame as unknown as PresenceChange);
      case 'goodbye':
        return this.#goodbye(link, frame);
      case 'error':
        return this.#emitError(errorOf(frame));
      default:
        this.#emitError(new ClientError('protocol', `The gateway sent what this client does not know: ${type}.`));
    }
  }

  #sink(message: StreamSink['message']): StreamSink {
    return {
      message,
      gap: (gap) => this.#events.emit('gap', gap),
      recovery: (recovery) => this.#events.emit('recovery', recovery),
    };
  }

  #emitError(error: unknown): void {
    const known = error instanceof ClientError ? error : new ClientError('protocol', String(error), { cause: error });
    this.#events.emit('error', known);
  }

  *#streams(): Iterable<Stream> {
    yield this.#direct;
    for (const { stream } of this.#entries.values()) yield stream;
  }

  // ── What is asked ─────────────────────────────────────────────────────────────────────────────

  #ask(sending: Sending): Promise<Frame> {
    if (this.#state === 'closed') throw this.#closedError();
    return this.#outbox.add(sending);
  }

  #subscribe<T>(name: string, handle: (message: Message<T>) => unknown, after: string | undefined): Subscription {
    if (this.#state === 'closed') throw this.#closedError();
    const entry = this.#entries.get(name) ?? this.#newEntry(name, after);
    const handler = { handle: handle as (message: Message<never>) => unknown };
    entry.handlers.add(handler);
    const unsubscribe = () => {
      if (entry.handlers.delete(handler) && entry.handlers.size === 0) this.#change(entry);
    };
    return {
      channel: name,
      ready: entry.ready,
      get position() {
        return entry.stream.position;
      },
      unsubscribe,
      [Symbol.dispose]: unsubscribe,
    };
  }

  #newEntry(name: string, after: string | undefined): Entry {
    let isReady = () => {};
    let isRefused: Entry['isRefused'] = () => {};
    const ready = new Promise<void>((resolve, reject) => {
      isReady = resolve;
      isRefused = reject;
    });
    ready.catch(() => {}); // who does not look at it hears of it by the `error` event
    const handlers: Entry['handlers'] = new Set();
    const sink = this.#sink((message) => {
      for (const { handle } of [...handlers]) this.#events.call(handle, message as Message<never>);
    });
    const stream = new Stream(name, after, sink);
    const entry = { name, stream, handlers, ready, isReady, isRefused, link: undefined };
    this.#entries.set(name, entry);
    this.#change(entry);
    return entry;
  }

  /** The gateway is told at the end of this turn, of all changes together. */
  #change(entry: Entry): void {
    if (this.#changed.size === 0) queueMicrotask(() => this.#flush());
    this.#changed.add(entry);
  }

  #flushAll(answered?: () => void): void {
    for (const entry of this.#entries.values()) this.#changed.add(entry);
    this.#flush(answered);
  }

  /** Subscribes and unsubscribes, many channels a command, and calls `answered` when all of that is done. */
  #flush(answered: () => void = () => {}): void {
    const link = this.#link;
    const entries = [...this.#changed];
    this.#changed.clear();
    for (const entry of entries) if (entry.handlers.size === 0) this.#forget(entry);
    if (link === undefined) return;
    const leave = entries.filter((entry) => entry.handlers.size === 0 && entry.link === link);
    const enter = entries.filter((entry) => entry.handlers.size > 0 && entry.link !== link);
    let unanswered = 1;
    const done = () => {
      unanswered -= 1;
      if (unanswered === 0) answered();
    };
    for (const chunk of chunks(leave, ({ name }) => JSON.stringify(name), link.maxMessageBytes)) {
      link.request(`{"type":"unsubscribe","channels":[${chunk.texts.join()}]}`, () => {});
    }
    const itemOf = ({ name, stream }: Entry) => JSON.stringify({ channel: name, after: stream.position });
    for (const chunk of chunks(enter, itemOf, link.maxMessageBytes)) {
      unanswered += 1;
      for (const entry of chunk.entries) {
        entry.link = link;
        entry.stream.begin(link);
      }
      link.request(`{"type":"subscribe","channels":[${chunk.texts.join()}]}`, (answer) => {
        this.#subscribed(link, chunk.entries, answer);
        done();
      });
    }
    done();
  }

  #subscribed(link: Link, entries: readonly Entry[], answer: Answer): void {
    if (answer === undefined) return; // the next connection is asked
    const results = listOf(answer.channels) as (Frame & { channel: string })[];
    const byName = new Map(results.map((result) => [result.channel, result]));
    for (const entry of entries) {
      if (this.#entries.get(entry.name) !== entry) continue;
      const result = byName.get(entry.name);
      const error = answer.type === 'error' ? answer : (result?.error as Frame | undefined);
      if (error === undefined) {
        this.#resubscribes = 0;
        entry.stream.subscribed(link, (result ?? {}) as Subscribed);
        entry.isReady();
      } else if (error.retryable) {
        this.#emitError(errorOf(error, entry.name));
        entry.link = undefined;
        this.#resubscribeLater(numberOf(error.retryAfterMs) ?? 0);
      } else {
        this.#refused(entry.name, errorOf(error, entry.name));
      }
    }
  }

  #resubscribeLater(atLeastMs: number): void {
    const waitMs = backoffMs(this.#backoff, this.#resubscribes++, this.#platform.random());
    this.#cancelResubscribe?.();
    this.#cancelResubscribe = this.#platform.after(Math.max(atLeastMs, waitMs), () => this.#flushAll());
  }

  /** The gateway does not let this client have the channel. Its handlers will hear nothing more. */
  #refused(name: string, why: ClientError | string): void {
    const entry = this.#entries.get(name);
    const error = typeof why === 'string' ? new ClientError('forbidden', why, { channel: name }) : why;
    if (entry === undefined) return;
    this.#forget(entry);
    entry.isRefused(error);
    this.#emitError(error);
  }

  #forget(entry: Entry): void {
    if (this.#entries.get(entry.name) === entry) this.#entries.delete(entry.name);
  }
}

/** The command with its data, whose text is made once. @throws where there is none. */
function withData(fields: object, data: unknown): string {
  const text = JSON.stringify(data) as string | undefined;
  if (text === undefined) throw new ClientError('malformed', 'The data cannot be written as JSON.');
  return `${JSON.stringify(fields).slice(0, -1)},"data":${text}}`;
}

/** Entries with their texts, as many together as one command may have. */
function* chunks(entries: readonly Entry[], textOf: (entry: Entry) => string, maxBytes: number) {
  let chunk: { entries: Entry[]; texts: string[]; bytes: number } | undefined;
  for (const entry of entries) {
    const text = textOf(entry);
    const bytes = text.length + 1; // names and positions are ASCII
    if (chunk && (chunk.entries.length === MAX_CHANNELS || chunk.bytes + bytes > maxBytes)) {
      yield chunk;
      chunk = undefined;
    }
    chunk ??= { entries: [], texts: [], bytes: COMMAND_BYTES };
    chunk.entries.push(entry);
    chunk.texts.push(text);
    chunk.bytes += bytes;
  }
  if (chunk) yield chunk;
}

/** What a subscribe has beside its channels, with room to spare. */
const COMMAND_BYTES = 96;

function published({ id, position }: Frame): Published {
  return {
    ...(typeof id === 'string' && { id }),
    ...(typeof position === 'string' && { position }),
  };
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
