// The client: keeps one connection to a Tidegate, whichever pod it is to, and everything that was asked of it.

import { actionAfter } from '../protocol/close-action.ts';
import { isName } from '../protocol/names.ts';
import { ClientError, errorOf } from './errors.ts';
import {
  type ClientEvents,
  type CloseReason,
  Events,
  type Message,
  type PresenceChange,
  type State,
} from './events.ts';
import { type Answer, type Frame, Link, type LinkOwner } from './link.ts';
import { Outbox, type Sending } from './outbox.ts';
import { type Platform, system } from './platform.ts';
import { backoffMs, type ConnectOptions, type Settings, settingsOf } from './settings.ts';
import { type Item, Stream } from './stream.ts';
import { type SubscribeOptions, type Subscription, Subscriptions } from './subscriptions.ts';
import { Timer } from './timer.ts';
import { Tokens } from './tokens.ts';

export { ClientError, type ClientErrorCode, type ClientErrorDetails } from './errors.ts';
export type {
  ClientEvents,
  CloseReason,
  Gap,
  Message,
  Move,
  PresenceChange,
  Recovery,
  State,
  StateChange,
} from './events.ts';
export type { WebSocketConstructor, WebSocketLike } from './platform.ts';
export type { ConnectOptions } from './settings.ts';
export type { SubscribeOptions, Subscription } from './subscriptions.ts';

/** Of the time that a gateway leaves for a move, this share is used: what comes last must come before it closes. */
const LEAVE_SHARE = 0.8;
const OPEN_SHARE = 0.5;

/** How often a client that may stay looks for another pod. Where half of the pods are full, one of 250 finds none. */
const MAX_TRIES = 8;

/** How long to wait before it is asked again whether everything has come. */
const ASK_AGAIN_MS = 100;

/** What the gateway said: that this client should go, or must. */
interface Going {
  readonly code: number;
  /** It need not go: the connection is not closed. */
  readonly mayStay: boolean;
  /** Until when it looks for another pod, or has its connection, which is closed a little later. */
  readonly untilMs: number;
  tries: number;
}

/** How a message is sent. */
export interface SendOptions {
  /** The `traceparent` of what the application is doing: the message's trace is linked to it. */
  readonly traceparent?: string | undefined;
  /** Names this message, so that it lands once though it is sent twice, as long as the gateway takes the client for the
   * same user. Default: one that nobody else makes. */
  readonly key?: string;
}

/** How a message is published. */
export interface PublishOptions extends SendOptions {
  /** Whether this client gets it, too. Default: true. */
  readonly echo?: boolean;
}

/** What became of a message that was published or sent. */
export interface Published {
  /** Absent on raw channels. */
  readonly id: string | undefined;
  /** Where it stands in a durable channel. */
  readonly position: string | undefined;
  /** Whether as many replicas as the namespace asks for have it; undefined where it asks for none. */
  readonly replicated: boolean | undefined;
}

/** Who is in a channel. The list is capped, `total` is not. */
export interface Presence {
  readonly members: readonly string[];
  readonly total: number;
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
  /** @throws {ClientError} `closed` */
  subscribe(handler: (message: Message<T>) => unknown, options?: SubscribeOptions): Subscription;
  /** Publishes, or keeps the message until there is a connection. Resolves when the gateway has it, and rejects with a
   * {@link ClientError}. */
  publish(data: T, options?: PublishOptions): Promise<Published>;
  /** Who is there. Rejects with a {@link ClientError}. */
  presence(): Promise<Presence>;
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
  readonly #settings: Settings;
  readonly #platform: Platform;
  readonly #events = new Events();
  readonly #outbox: Outbox;
  readonly #tokens: Tokens | undefined;
  readonly #owner: LinkOwner;
  readonly #offOnline: () => void;
  readonly #onAbort = () => void this.#close({ code: 1000, reason: 'aborted' });
  #state: State = 'connecting';
  #user: string | undefined;
  /** The connection that is used. */
  #link: Link | undefined;
  /** The one that is to be used next. */
  #opening: Link | undefined;
  /** The one that was used before, and is open for what is still on its way. */
  #leaving: Link | undefined;
  /** What the gateway of the connection that is used said; undefined where it wants nothing. */
  #going: Going | undefined;
  /** The same of the connection that was used before. */
  #gone: Going | undefined;
  /** Counts the tries to open, so that one that was overtaken notices. */
  #opens = 0;
  #attempt = 0;
  readonly #retryTimer: Timer;
  readonly #stableTimer: Timer;
  readonly #leaveTimer: Timer;
  readonly #pauseTimer: Timer;
  readonly #direct = new Stream(undefined, undefined, this.#events, (message) =>
    this.#events.emit('direct', message),
  );
  readonly #subscriptions: Subscriptions;
  #closedBy: ClientError | undefined;
  #closing: Promise<unknown> | undefined;

  /** Use {@link connect}. Tests bring a platform of their own. */
  constructor(options: ConnectOptions, platform: Platform) {
    const settings = settingsOf(options);
    const { token, signal } = options;
    this.#settings = settings;
    this.#platform = platform;
    this.#retryTimer = new Timer(platform);
    this.#stableTimer = new Timer(platform);
    this.#leaveTimer = new Timer(platform);
    this.#pauseTimer = new Timer(platform);
    this.#subscriptions = new Subscriptions(settings, platform, this.#events);
    this.#outbox = new Outbox(settings, platform);
    this.#tokens = token && new Tokens(token, settings, platform, () => void this.#renewToken());
    this.#owner = {
      welcomed: (link, welcome) => this.#welcomed(link, welcome),
      received: (link, frame) => this.#received(link, frame),
      ended: (link, reason) => this.#ended(link, reason),
    };
    this.#offOnline = platform.onOnline(() => {
      if (this.#retryTimer.isSet && this.#link === undefined) void this.#open();
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
    if (!isName(name))
      throw new ClientError('bad_name', `"${name}" is no name: 1 to 128 of A-Z a-z 0-9 . _ ~ @ : / -`);
    return {
      name,
      subscribe: (handle, { after } = {}) => {
        if (this.#closedBy) throw this.#closedBy;
        return this.#subscriptions.add(name, handle, after);
      },
      publish: async (data, { key = this.#platform.newKey(), echo = true, traceparent } = {}) => {
        const command = JSON.stringify({ type: 'publish', channel: name, key, echo, traceparent, data });
        const published = publishedOf(await this.#ask({ command, alone: !echo }));
        if (!echo) this.#subscriptions.stream(name)?.own(published);
        return published;
      },
      presence: async () => {
        const command = JSON.stringify({ type: 'presence', channel: name });
        const { members, total } = await this.#ask({ command });
        return { members: members as string[], total: total as number };
      },
    };
  }

  /** Sends to every connection of a user, or keeps the message until there is a connection. */
  async sendTo(user: string, data: unknown, options: SendOptions = {}): Promise<Published> {
    const { key = this.#platform.newKey(), traceparent } = options;
    const command = JSON.stringify({ type: 'send', user, key, traceparent, data });
    return publishedOf(await this.#ask({ command }));
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
    this.#retryTimer.clear();
    const open = ++this.#opens;
    let token: string | undefined;
    try {
      token = await this.#tokens?.current();
    } catch (error) {
      if (open !== this.#opens) return;
      this.#fail(error);
      return this.#retry({ code: 1006, reason: String(error) });
    }
    if (open !== this.#opens) return;
    try {
      // It can move, and who moves while it may stay is only let in where there is room.
      const query = `moves=true${this.#going?.mayStay ? '&moving=true' : ''}`;
      this.#opening = new Link(this.#settings, this.#platform, token, query, this.#owner);
    } catch (cause) {
      // Trying again would not help.
      this.#fail(new ClientError('connect', String(cause), { cause }));
      void this.#close({ code: 1006, reason: String(cause) });
    }
  }

  #welcomed(link: Link, welcome: Frame): void {
    const old = this.#link;
    this.#leave(false);
    this.#opening = undefined;
    this.#link = link;
    this.#leaving = old;
    this.#gone = this.#going;
    this.#going = undefined;
    this.#user = welcome.user as string;
    this.#tokens?.accepted(welcome.tokenExpiresInMs as number | undefined);
    this.#stableTimer.set(this.#settings.stableMs, () => {
      this.#attempt = 0;
    });
    if (this.#state !== 'open') this.#setState('open');
    // What is published must come back to who has subscribed before, so it waits, or takes the old way as yet.
    this.#outbox.use(old, true);
    void this.#goOver(link, old);
  }

  /** Makes everything on the new connection, and leaves the old one when nothing can be lost by it. What comes is exact
   * because both are asked to catch up: first the new one, which from then on brings nothing that the old one may have
   * brought before; and when it is subscribed to everything the old one, which then has brought all of before. */
  async #goOver(link: Link, old: Link | undefined): Promise<void> {
    if (old !== undefined) {
      for (const stream of this.#streams()) stream.expectMove();
      this.#leaveBy(Infinity);
      while (link === this.#link && old === this.#leaving && !(await caughtUp(link))) await this.#pause(link);
    }
    if (link !== this.#link) return;
    this.#direct.begin(link);
    this.#direct.subscribed(link, {});
    await this.#subscriptions.use(link);
    if (link !== this.#link) return;
    this.#outbox.use(link, this.#leaving !== undefined);
    while (link === this.#link && this.#leaving !== undefined) {
      if ([...this.#streams()].every((stream) => stream.isLive(link))) {
        this.#leaveBy(this.#settings.pongTimeoutMs);
        if ((await caughtUp(this.#leaving)) && this.#leaving?.isIdle) return this.#leave(true);
      }
      await this.#pause(link);
    }
  }

  /** Does not wait where another link is used meanwhile: there is one timer, and it may be that one's already. */
  async #pause(link: Link): Promise<void> {
    if (link !== this.#link) return;
    await new Promise<void>((resolve) => this.#pauseTimer.set(ASK_AGAIN_MS, resolve));
  }

  /** The old connection is left after so long whatever it may still bring, and before the gateway closes it. */
  #leaveBy(ms: number): void {
    const { mayStay, untilMs } = this.#gone ?? {};
    const byMs = Math.min(ms, mayStay ? Infinity : Number(untilMs) - this.#platform.now());
    if (byMs < Infinity) this.#leaveTimer.set(byMs, () => this.#leave(false));
  }

  /** Leaves the connection that was used before, or notices that it is gone. */
  #leave(emptied: boolean): void {
    const old = this.#leaving;
    if (old === undefined) return;
    this.#leaving = undefined;
    this.#leaveTimer.clear();
    // First, so that what it has not answered is not asked there again.
    this.#left(old, emptied);
    void old.close();
    this.#events.emit('move', { code: this.#gone?.code ?? 0 });
  }

  #left(link: Link, emptied: boolean): void {
    this.#outbox.left(link);
    for (const stream of this.#streams()) stream.left(link, emptied);
  }

  #ended(link: Link, reason: CloseReason): void {
    if (link === this.#leaving) {
      this.#leave(false);
      return;
    }
    if (link === this.#opening) this.#opening = undefined;
    if (link === this.#link) {
      // Where there is the old one still, it is used again.
      const old = this.#leaving;
      this.#leaving = undefined;
      this.#leaveTimer.clear();
      this.#link = old;
      this.#going = old && this.#gone;
      this.#stableTimer.clear();
      if (old === undefined) this.#tokens?.stop();
      this.#left(link, false);
      this.#outbox.use(old, false);
      void this.#subscriptions.use(old);
    }
    const action = actionAfter(reason.code);
    if (action === 'refresh') this.#tokens?.refused();
    const isFinal = action === 'stop' || (action === 'refresh' && this.#tokens === undefined);
    if (isFinal && !this.#going?.mayStay) void this.#close(reason);
    // Where the next one is on its way already, it is waited for.
    else if (this.#opening === undefined) this.#retry(reason);
    else if (this.#link === undefined) this.#setState('reconnecting', reason);
  }

  /** Tries again: when the gateway said, or after a while. Who may stay does so after some tries; until then the load
   * balancer may choose another pod the next time. */
  #retry(reason: CloseReason): void {
    const going = this.#going;
    if (going?.mayStay) {
      const waitMs = this.#settings.backoffMs * (0.5 + this.#platform.random());
      const isLast = ++going.tries === MAX_TRIES || this.#platform.now() + waitMs > going.untilMs;
      if (isLast) this.#stay();
      else this.#openAfter(waitMs);
      return;
    }
    const hint = /reconnect after (\d+) ms/.exec(reason.reason)?.[1];
    const waitMs = hint ? Number(hint) : backoffMs(this.#settings, this.#attempt++, this.#platform.random());
    this.#openAfter(waitMs);
    if (this.#link === undefined) this.#setState('reconnecting', reason, waitMs);
  }

  /** Says that it has found no other pod, so that another client can be asked. A gateway that does not know the command
   * refuses it, which changes nothing. */
  #stay(): void {
    this.#going = undefined;
    this.#link?.request('{"type":"stay"}', () => {});
  }

  #openAfter(ms: number): void {
    this.#opens += 1;
    this.#retryTimer.set(ms, () => void this.#open());
  }

  /** The gateway wants this client to go. It has its reasons for the time that it names; but what is left after it must
   * be enough to open the next connection. */
  #goodbye(link: Link, { code, reconnectAfterMs, closeAfterMs, move, giveUpAfterMs }: Frame): void {
    const mayStay = move === true;
    // That it must is more than that it should.
    if (link !== this.#link || (this.#going && (mayStay || !this.#going.mayStay))) return;
    const forMs = mayStay ? Number(giveUpAfterMs) : Number(closeAfterMs) * LEAVE_SHARE;
    this.#going = { code: Number(code), mayStay, untilMs: this.#platform.now() + forMs, tries: 0 };
    if (this.#opening === undefined) this.#openAfter(Math.min(Number(reconnectAfterMs), forMs * OPEN_SHARE));
  }

  async #renewToken(): Promise<void> {
    const link = this.#link;
    const tokens = this.#tokens;
    try {
      const token = await tokens?.next();
      if (link !== this.#link) return;
      link?.request(JSON.stringify({ type: 'refresh', token }), (answer) => {
        if (answer?.type === 'ok') {
          tokens?.accepted(answer.tokenExpiresInMs as number | undefined);
          for (const channel of (answer.left ?? []) as string[]) {
            this.#subscriptions.refuse(
              channel,
              new ClientError('forbidden', 'The new token does not allow it.', { channel }),
            );
          }
        } else if (answer !== undefined) {
          tokens?.refused();
          tokens?.renewLater();
          this.#fail(errorOf(answer));
        }
      });
    } catch (error) {
      if (link !== this.#link) return;
      tokens?.renewLater();
      this.#fail(error);
    }
  }

  async #close(reason: CloseReason): Promise<void> {
    if (this.#closing === undefined) {
      for (const timer of [this.#retryTimer, this.#stableTimer, this.#leaveTimer, this.#pauseTimer])
        timer.clear();
      this.#offOnline();
      this.#settings.signal?.removeEventListener('abort', this.#onAbort);
      this.#tokens?.stop();
      this.#opens += 1;
      const error = new ClientError('closed', `The client is closed: ${reason.reason} (${reason.code}).`);
      this.#closedBy = error;
      const links = [this.#link, this.#opening, this.#leaving];
      this.#link = this.#opening = this.#leaving = undefined;
      this.#outbox.close(error);
      this.#closing = Promise.all(links.map((link) => link?.close()));
      this.#subscriptions.close(error);
      this.#setState('closed', reason);
    }
    await this.#closing;
  }

  #setState(state: State, reason?: CloseReason, retryInMs?: number): void {
    this.#state = state;
    this.#events.emit('state', { state, reason, retryInMs });
  }

  // ── What comes ────────────────────────────────────────────────────────────────────────────────

  #received(link: Link, frame: Frame): void {
    const { type, channel, direct } = frame;
    if (type === 'message' || type === 'gap') {
      const stream = direct ? this.#direct : this.#subscriptions.stream(String(channel));
      stream?.receive(link, frame as unknown as Item);
    } else if (type === 'presence') {
      // From both connections during a move: to hear twice of somebody who came does no harm.
      this.#events.emit('presence', frame as unknown as PresenceChange);
    } else if (type === 'goodbye') {
      this.#goodbye(link, frame);
    } else if (type === 'error') {
      this.#fail(errorOf(frame));
    }
  }

  /** Tells of an error that no promise can tell. */
  #fail(error: unknown): void {
    this.#events.emit('error', error as ClientError);
  }

  *#streams(): Iterable<Stream> {
    yield this.#direct;
    yield* this.#subscriptions.streams();
  }

  // ── What is asked ─────────────────────────────────────────────────────────────────────────────

  async #ask(sending: Sending): Promise<Frame> {
    if (this.#closedBy) throw this.#closedBy;
    // In the order in which the application asked.
    this.#subscriptions.flush();
    return this.#outbox.add(sending);
  }
}

/** Whether everything that was published until now has come over this link: told by the gateway, or never to be. */
async function caughtUp(link: Link): Promise<boolean> {
  const answer = await new Promise<Answer>((resolve) => link.request('{"type":"sync"}', resolve));
  return answer?.type === 'ok' || answer?.retryable === false;
}

function publishedOf({ id, position, replicated }: Frame): Published {
  return { id, position, replicated } as Published;
}
