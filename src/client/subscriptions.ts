// Subscriptions: the channels that the application wants, over all changes of connection, and who handles what comes.

import type { MAX_CHANNELS_PER_COMMAND } from '../protocol/commands.ts';
import { ClientError, errorOf } from './errors.ts';
import type { Events, Message } from './events.ts';
import type { Frame, Link } from './link.ts';
import type { Platform } from './platform.ts';
import { backoffMs, type Settings } from './settings.ts';
import { Stream, type Subscribed } from './stream.ts';
import { Timer } from './timer.ts';

const MAX_CHANNELS = 1000 satisfies typeof MAX_CHANNELS_PER_COMMAND;

/** What a subscribe has beside its channels, with room to spare. */
const COMMAND_BYTES = 96;

/** How a channel is subscribed to. */
export interface SubscribeOptions {
  /** A position of a durable channel: what came after it is replayed. Counts for a channel's first handler. */
  readonly after?: string | undefined;
}

/** One handler's place in a channel. */
export interface Subscription {
  readonly channel: string;
  /** Resolves when the gateway delivers, and rejects where it refuses, or the channel is left before. Need not be
   * looked at: a refusal is told by the `error` event, too. */
  readonly ready: Promise<void>;
  /** Where the application stands in a durable channel: what to come back with as `after`, also in another client. */
  readonly position: string | undefined;
  /** Takes the handler away. Without handlers the channel is left. */
  unsubscribe(): void;
  [Symbol.dispose](): void;
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

/** Every channel of a client. */
export class Subscriptions {
  readonly #settings: Settings;
  readonly #platform: Platform;
  readonly #events: Events;
  readonly #entries = new Map<string, Entry>();
  /** Those of which the gateway has to be told something. */
  readonly #changed = new Set<Entry>();
  #link: Link | undefined;
  /** Commands that failed in a row. */
  #attempt = 0;
  readonly #retryTimer: Timer;

  constructor(settings: Settings, platform: Platform, events: Events) {
    this.#settings = settings;
    this.#platform = platform;
    this.#events = events;
    this.#retryTimer = new Timer(platform);
  }

  /** Adds a handler to a channel. The gateway is told at the end of this turn, of all changes together. */
  add<T>(name: string, handle: (message: Message<T>) => unknown, after: string | undefined): Subscription {
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

  /** The stream of a channel that is subscribed to, or to be. */
  stream(name: string): Stream | undefined {
    return this.#entries.get(name)?.stream;
  }

  *streams(): Iterable<Stream> {
    for (const { stream } of this.#entries.values()) yield stream;
  }

  /** From now on this connection is asked; first, for everything. Resolves when that is answered. */
  use(link: Link | undefined): Promise<void> {
    this.#link = link;
    return new Promise((resolve) => this.#askForAll(resolve));
  }

  /** Tells the gateway of all changes so far, in as few commands as can be. */
  flush(answered: () => void = () => {}): void {
    const link = this.#link;
    const entries = [...this.#changed];
    this.#changed.clear();
    const leave = entries.filter(({ handlers }) => handlers.size === 0);
    for (const entry of leave) {
      this.#forget(entry);
      entry.isRefused(new ClientError('not_subscribed', 'The channel was left.'));
    }
    if (link === undefined) return;
    let unanswered = 1;
    const done = () => {
      unanswered -= 1;
      if (unanswered === 0) answered();
    };
    const left = leave.filter((entry) => entry.link === link);
    for (const { texts } of chunks(left, ({ name }) => name, link)) {
      link.request(`{"type":"unsubscribe","channels":[${texts.join()}]}`, () => {});
    }
    const enter = entries.filter((entry) => entry.handlers.size > 0 && entry.link !== link);
    const itemOf = ({ name, stream }: Entry) => ({ channel: name, after: stream.position });
    for (const { chunk, texts } of chunks(enter, itemOf, link)) {
      unanswered += 1;
      for (const entry of chunk) {
        entry.link = link;
        entry.stream.begin(link);
      }
      link.request(`{"type":"subscribe","channels":[${texts.join()}]}`, (answer) => {
        // Without an answer, the next connection is asked.
        if (answer !== undefined) this.#decided(link, chunk, answer);
        done();
      });
    }
    done();
  }

  /** The gateway does not let this client have the channel. Its handlers will hear nothing more. */
  refuse(name: string, error: ClientError): void {
    const entry = this.#entries.get(name);
    if (entry === undefined) return;
    this.#forget(entry);
    entry.isRefused(error);
    this.#events.emit('error', error);
  }

  /** Forgets everything, for good. */
  close(error: ClientError): void {
    this.#link = undefined;
    this.#retryTimer.clear();
    for (const { isRefused } of this.#entries.values()) isRefused(error);
    this.#entries.clear();
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
    const stream = new Stream(name, after, this.#events, (message) => {
      for (const { handle } of [...handlers]) this.#events.call(handle, message as Message<never>);
    });
    const entry = { name, stream, handlers, ready, isReady, isRefused, link: undefined };
    this.#entries.set(name, entry);
    this.#change(entry);
    return entry;
  }

  #change(entry: Entry): void {
    if (this.#changed.size === 0) queueMicrotask(() => this.flush());
    this.#changed.add(entry);
  }

  #askForAll(answered?: () => void): void {
    for (const entry of this.#entries.values()) this.#changed.add(entry);
    this.flush(answered);
  }

  #decided(link: Link, entries: readonly Entry[], answer: Frame): void {
    const results = (answer.channels ?? []) as (Subscribed & { channel: string; error?: Frame })[];
    const byName = new Map(results.map((result) => [result.channel, result]));
    for (const entry of entries) {
      const { name } = entry;
      if (this.#entries.get(name) !== entry) continue;
      const result = byName.get(name);
      const body = answer.type === 'error' ? answer : result?.error;
      if (body === undefined) {
        this.#attempt = 0;
        entry.stream.subscribed(link, result ?? {});
        entry.isReady();
        continue;
      }
      const error = errorOf(body, name);
      if (!error.retryable) {
        this.refuse(name, error);
        continue;
      }
      entry.link = undefined;
      const waitMs = backoffMs(this.#settings, this.#attempt++, this.#platform.random());
      this.#retryTimer.set(Math.max(error.retryAfterMs ?? 0, waitMs), () => this.#askForAll());
      this.#events.emit('error', error);
    }
  }

  #forget(entry: Entry): void {
    if (this.#entries.get(entry.name) === entry) this.#entries.delete(entry.name);
  }
}

/** Entries with their texts, as many together as one command may have. */
function* chunks(entries: readonly Entry[], itemOf: (entry: Entry) => unknown, { maxMessageBytes }: Link) {
  let chunk: Entry[] = [];
  let texts: string[] = [];
  let bytes = COMMAND_BYTES;
  for (const entry of entries) {
    const text = JSON.stringify(itemOf(entry));
    const more = text.length + 1; // names and positions are ASCII
    if (chunk.length === MAX_CHANNELS || (bytes + more > maxMessageBytes && chunk.length > 0)) {
      yield { chunk, texts };
      chunk = [];
      texts = [];
      bytes = COMMAND_BYTES;
    }
    chunk.push(entry);
    texts.push(text);
    bytes += more;
  }
  if (chunk.length > 0) yield { chunk, texts };
}
