// Presence: who is in a channel, on all pods, and the events that tell who came and left.

import { type Bus, channelTopic, type Members } from '../bus/bus.ts';
import { encodeEnvelope } from '../bus/envelope.ts';
import { newId } from '../platform/ids.ts';
import type { Report } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import type { Namespace } from './channels.ts';

/** How many members a query and an event name at the most; the total is always exact. */
export const MAX_MEMBERS_NAMED = 1000;
const MAX_CHANGES_NAMED = 100;

/** Changes of one channel are gathered for this long, so that a crowd that comes at once is one event. */
const COALESCE_MS = 250;

/** Members are renewed this many times before they would expire, in pieces, a few at once. */
const RENEWALS_PER_TTL = 3;
const USERS_PER_CALL = 200;
const CALLS_AT_ONCE = 32;

interface Channel {
  namespace: Namespace;
  /** How many connections each user has in it on this pod. */
  readonly users: Map<string, number>;
}

interface Changes {
  readonly joined: Set<string>;
  readonly left: Set<string>;
}

/** Keeps the members of this pod present, and tells of those who come and go. */
export class Presence {
  readonly #bus: Bus;
  readonly #ttlMs: number;
  readonly #report: Report;
  readonly #channels = new Map<string, Channel>();
  readonly #changes = new Map<string, Changes>();
  readonly #renewer: NodeJS.Timeout;
  #renewing = false;
  #stopped = false;
  /** How many members are being taken out, and who waits for that. */
  #leaving = 0;
  #allLeft: (() => void) | undefined;

  constructor(bus: Bus, ttlMs: number, metrics: Metrics, report: Report) {
    this.#bus = bus;
    this.#ttlMs = ttlMs;
    this.#report = report;
    this.#renewer = setInterval(() => void this.#renewAll(), ttlMs / RENEWALS_PER_TTL).unref();
    metrics.presenceMembers.read = () => {
      let members = 0;
      for (const { users } of this.#channels.values()) members += users.size;
      return members;
    };
  }

  /** How many channels this pod keeps members in: for leak tests. */
  get size(): number {
    return this.#channels.size;
  }

  /** A connection of the user has joined the channel. */
  join(channel: string, namespace: Namespace, user: string): void {
    let here = this.#channels.get(channel);
    if (here === undefined) {
      here = { namespace, users: new Map() };
      this.#channels.set(channel, here);
    }
    const count = here.users.get(user) ?? 0;
    here.users.set(user, count + 1);
    if (count > 0) return;
    this.#bus.store.join(channel, [user], this.#ttlMs).then(
      (joined) => this.#note(channel, namespace, { joined }),
      // The bus is away: the next renewal says it again.
      () => {},
    );
  }

  /** A connection of the user has left the channel. */
  leave(channel: string, user: string): void {
    const here = this.#channels.get(channel);
    const count = here?.users.get(user);
    if (here === undefined || count === undefined) return;
    if (count > 1) {
      here.users.set(user, count - 1);
      return;
    }
    here.users.delete(user);
    if (here.users.size === 0) this.#channels.delete(channel);
    this.#leaving += 1;
    this.#bus.store
      .leave(channel, user)
      .then(
        (wasLast) => wasLast && this.#note(channel, here.namespace, { left: [user] }),
        // The bus is away: the membership expires by itself.
        () => {},
      )
      .finally(() => {
        this.#leaving -= 1;
        if (this.#leaving === 0) this.#allLeft?.();
      });
  }

  /** The channel's namespace has changed, for those who are in it as well. */
  replace(channel: string, namespace: Namespace): void {
    const here = this.#channels.get(channel);
    if (here !== undefined) here.namespace = namespace;
  }

  /** Who is in the channel, on all pods. */
  members(channel: string): Promise<Members> {
    return this.#bus.store.members(channel, MAX_MEMBERS_NAMED);
  }

  /** Waits until those who left are known to have left, and tells of them at once. Call it when all have gone. */
  async stop(): Promise<void> {
    clearInterval(this.#renewer);
    this.#stopped = true;
    if (this.#leaving > 0) {
      await new Promise<void>((resolve) => {
        this.#allLeft = resolve;
      });
    }
    await Promise.allSettled([...this.#changes.keys()].map((channel) => this.#announce(channel)));
  }

  #note(
    channel: string,
    namespace: Namespace,
    { joined = [], left = [] }: { joined?: string[]; left?: string[] },
  ): void {
    if (!namespace.presenceEvents || joined.length + left.length === 0) return;
    let changes = this.#changes.get(channel);
    if (changes === undefined) {
      changes = { joined: new Set(), left: new Set() };
      this.#changes.set(channel, changes);
      const announce = () =>
        void this.#announce(channel).catch((error) => this.#report('presence.announce', error));
      // What comes while it stops, `stop` announces itself.
      if (!this.#stopped) setTimeout(announce, COALESCE_MS).unref();
    }
    // Who came and went while changes were gathered was never seen by anybody.
    for (const user of joined) if (!changes.left.delete(user)) changes.joined.add(user);
    for (const user of left) if (!changes.joined.delete(user)) changes.left.add(user);
  }

  async #announce(channel: string): Promise<void> {
    const changes = this.#changes.get(channel);
    this.#changes.delete(channel);
    if (changes === undefined || changes.joined.size + changes.left.size === 0) return;
    const { total } = await this.#bus.store.members(channel, 0);
    const named = (users: Set<string>) => [...users].slice(0, MAX_CHANGES_NAMED);
    const payload = JSON.stringify({ joined: named(changes.joined), left: named(changes.left), total });
    await this.#bus.publish(
      channelTopic(channel),
      encodeEnvelope({ id: newId(), timeMs: Date.now(), presence: true }, payload),
    );
  }

  /** Says again who is here, and buries those whose pod no longer does. */
  async #renewAll(): Promise<void> {
    if (this.#renewing || this.#bus.health.state !== 'up') return;
    this.#renewing = true;
    try {
      const channels = [...this.#channels];
      for (let at = 0; at < channels.length; at += CALLS_AT_ONCE) {
        const some = channels.slice(at, at + CALLS_AT_ONCE);
        await Promise.all(some.map(([channel, here]) => this.#renew(channel, here)));
      }
    } catch {
      // The bus went away meanwhile. The next round begins again.
    } finally {
      this.#renewing = false;
    }
  }

  async #renew(channel: string, { namespace, users }: Channel): Promise<void> {
    const all = [...users.keys()];
    for (let at = 0; at < all.length; at += USERS_PER_CALL) {
      const some = all.slice(at, at + USERS_PER_CALL).filter((user) => users.has(user));
      if (some.length > 0) {
        this.#note(channel, namespace, { joined: await this.#bus.store.join(channel, some, this.#ttlMs) });
      }
    }
    this.#note(channel, namespace, { left: await this.#bus.store.expire(channel) });
  }
}
