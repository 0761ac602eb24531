// A stream: the messages of one channel, or of this user, over all changes of connection. It knows the position, says
// where messages may be missing, and goes over from one link to another without losing or doubling any.

import type { Gap, Message, Recovery } from './events.ts';
import type { Link } from './link.ts';

/** Who is told of a stream. */
export interface StreamOwner {
  emit(event: 'gap', gap: Gap): void;
  emit(event: 'recovery', recovery: Recovery): void;
}

/** What the gateway said to a subscription. Without `recovered` and `position` the channel keeps no history. */
export interface Subscribed {
  readonly recovered?: boolean;
  readonly reason?: Gap['reason'];
  readonly position?: string;
}

/** How many messages of its own a stream keeps in mind, and how many of the old link that the new one may bring: more
 * than a gateway that works is behind. */
const MAX_OWN = 1000;
const MAX_SEEN = 10_000;

/** What arrives on a link: a message or a gap. */
export type Item = (Message & { type: 'message' }) | (Gap & { type: 'gap' });

/** A link on which the stream is subscribed, or is being subscribed. */
interface Source {
  readonly link: Link;
  /** The position that was sent along. */
  readonly after: string | undefined;
  /** It is subscribed. */
  live: boolean;
  /** What it brings follows what was there before. */
  seamless: boolean;
}

/** One channel's messages; without a channel, those to this user. */
export class Stream {
  readonly channel: string | undefined;
  /** Where the application stands in a durable channel. Once known it moves by messages and gaps alone. */
  position: string | undefined;
  readonly #owner: StreamOwner;
  readonly #deliver: (message: Message) => void;
  /** Whose messages count. */
  #source: Source | undefined;
  /** While it goes over: whose messages will count, what it brought that the old link has not, and whether both have
   * brought the same message. */
  #next: (Source & { readonly held: Map<unknown, Item>; met: boolean }) | undefined;
  /** While it goes over: names of what the old link brought that the new one has not; undefined stands for messages
   * without a name, of either. */
  #seen: Set<string | undefined> | undefined;
  /** After a move: names of messages that the new link may bring once more. */
  #known: Set<string | undefined> | undefined;
  /** Names of the last messages that this client published and does not want. The gateway leaves them out on the
   * connection they came from, but not in a history, nor on another connection. */
  readonly #own = new Set<string>();
  /** It was subscribed before, so that something can have been missed. */
  #lived = false;

  constructor(
    channel: string | undefined,
    position: string | undefined,
    owner: StreamOwner,
    deliver: (message: Message) => void,
  ) {
    this.channel = channel;
    this.position = position;
    this.#owner = owner;
    this.#deliver = deliver;
  }

  /** A move begins: from now on it is kept in mind what comes. The new link must bring nothing of before. */
  expectMove(): void {
    this.#seen = new Set();
  }

  /** It is being subscribed on this link, with its position. Where another one brings its messages, that one counts
   * until it is left. */
  begin(link: Link): void {
    const source = { link, after: this.position, live: false };
    if (!this.#source?.live) this.#source = { ...source, seamless: false };
    else if (this.#source.link !== link)
      this.#next = { ...source, seamless: true, held: new Map(), met: false };
  }

  /** It is subscribed on this link. */
  subscribed(link: Link, { recovered, reason, position }: Subscribed): void {
    const moving = this.#next?.link === link;
    const source = moving ? this.#next : this.#source;
    if (source?.link !== link || source.live) return;
    const hasHistory = recovered !== undefined || position !== undefined;
    if (!hasHistory) this.position = undefined;
    else if (source.after === undefined || recovered === false) this.position = position;

    const couldMiss = this.#lived || source.after !== undefined;
    if (!(recovered ?? source.seamless) && couldMiss) this.#tellGap(reason ?? 'reconnect', position);
    if (recovered && !moving) this.#owner.emit('recovery', { channel: this.channel ?? '' });
    source.live = true;
    this.#lived = true;
    // What the old link goes on with is not what the new one knows.
    if (moving && recovered === false) this.#goOver();
  }

  /** Whether it is subscribed on this link. */
  isLive(link: Link): boolean {
    return [this.#source, this.#next].some((source) => source?.link === link && source.live);
  }

  /** This client has published the message and does not want it. */
  own({ id, position = id }: { id: string | undefined; position: string | undefined }): void {
    if (position !== undefined) addUpTo(MAX_OWN, this.#own, position);
  }

  /** Takes a message or a gap from any link. */
  receive(link: Link, item: Item): void {
    const next = this.#next;
    const name = nameOf(item);
    if (link === this.#source?.link) {
      // Until it is subscribed, what comes is of a subscription before this one, which was left.
      if (this.#source.live) this.#take(item);
    } else if (link === next?.link) {
      if (name !== undefined && this.#seen?.delete(name)) next.met = true;
      else if (name === undefined && item.type === 'message') this.#seen?.add(name);
      else next.held.set(name ?? item, item);
    }
  }

  /** The link is gone. `emptied`: it had brought everything that the next one was not there for. */
  left(link: Link, emptied: boolean): void {
    const next = this.#next;
    if (link !== this.#source?.link || next === undefined) {
      // Where it was the new one, the old one brings what was held, too.
      if (link === this.#source?.link) this.#source = undefined;
      this.#next = this.#seen = undefined;
      return;
    }
    // With a history the new link brings all that the old one has not. Otherwise something may be lost, unless the old
    // one had come to where the new one begins; and messages of raw channels have no name to compare.
    if (next.after === undefined && (this.#seen?.has(undefined) || !(emptied || next.met))) {
      next.seamless = false;
      if (next.live) this.#tellGap('reconnect', undefined);
    }
    this.#goOver();
  }

  /** From now on the new link counts. */
  #goOver(): void {
    const next = this.#next;
    this.#source = next;
    this.#next = undefined;
    this.#known = this.#seen;
    this.#seen = undefined;
    for (const item of next?.held.values() ?? []) this.#take(item);
  }

  #take(item: Item): void {
    const { type, ...rest } = item;
    if (type === 'gap') {
      this.position = item.position ?? this.position;
      this.#owner.emit('gap', rest as Gap);
      return;
    }
    const name = nameOf(item);
    if (name !== undefined && this.#known?.has(name)) return;
    if (name !== undefined && this.#next?.held.delete(name)) this.#next.met = true;
    else if (this.#seen !== undefined) addUpTo(MAX_SEEN, this.#seen, name);
    this.position = item.position ?? this.position;
    if (name !== undefined && this.#own.delete(name)) return;
    // Both links bring messages in the same order: after one that is new, there are no more that are known.
    this.#known = undefined;
    this.#deliver(rest as Message);
  }

  #tellGap(reason: Gap['reason'], position: string | undefined): void {
    const where = this.channel === undefined ? ({ direct: true } as const) : { channel: this.channel };
    this.#owner.emit('gap', { ...where, reason, ...(position !== undefined && { position }) });
  }
}

/** Adds to the latest, and forgets the oldest where there are too many. */
function addUpTo<T>(max: number, latest: Set<T>, value: T): void {
  latest.add(value);
  for (const oldest of latest) {
    if (latest.size <= max) return;
    latest.delete(oldest);
  }
}

/** What a message is told apart by: gaps, and messages of raw channels, have no name. */
function nameOf(item: Item): string | undefined {
  return item.type === 'message' ? (item.position ?? item.id) : undefined;
}
