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

/** How many messages of its own a stream keeps in mind. */
const MAX_OWN = 1000;

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
  /** While it goes over: whose messages will count, and what came over it before its time. */
  #next: (Source & { readonly held: Item[] }) | undefined;
  /** Names of the messages that came since a move began. */
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
    else if (this.#source.link !== link) this.#next = { ...source, seamless: true, held: [] };
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
    if (position !== undefined) this.#own.add(position);
    for (const oldest of this.#own) if (this.#own.size > MAX_OWN) this.#own.delete(oldest);
  }

  /** Takes a message or a gap from any link. */
  receive(link: Link, item: Item): void {
    if (link === this.#source?.link) this.#take(item);
    else if (link === this.#next?.link) this.#next.held.push(item);
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
    const names = next.held.filter(({ type }) => type === 'message').map(nameOf);
    const isRaw = this.#seen?.has(undefined) || names.includes(undefined);
    const meets = emptied || names.some((name) => this.#seen?.has(name));
    if (next.after === undefined && (isRaw || !meets)) {
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
    for (const item of next?.held ?? []) this.#take(item);
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
    this.#seen?.add(name);
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

/** What a message is told apart by: gaps, and messages of raw channels, have no name. */
function nameOf(item: Item): string | undefined {
  return item.type === 'message' ? (item.position ?? item.id) : undefined;
}
