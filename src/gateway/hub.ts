// The hub: who is connected here. Channel to connections, user to connections, and one bus subscription for each.

import { isUtf8 } from 'node:buffer';
import { type Bus, channelTopic, userTopic } from '../bus/bus.ts';
import { decodeEnvelope } from '../bus/envelope.ts';
import type { Report } from '../platform/logs.ts';
import { type Metrics, metricsOfNamespace } from '../platform/metrics.ts';
import type { Namespace } from './channels.ts';
import type { Connection } from './connection.ts';
import type { Fanout, Run } from './fanout.ts';
import { Follower } from './follower.ts';
import type { Traces } from './traces.ts';

/** Messages to users have no namespace; this stands for it in policies and metrics. */
export const DIRECT: Namespace = {
  name: 'direct',
  subscribe: 'api',
  publish: 'api',
  raw: false,
  presence: false,
  presenceEvents: false,
  slow: 'disconnect',
  maxMessageBytes: 0,
  durable: undefined,
};

/** How long a topic stays subscribed after its last connection left: people reload pages. */
const LINGER_MS = 5000;

/** So many topics may linger at the most; then some of the oldest go at once. Somebody who joins and leaves one
 * channel after another would fill the memory otherwise. */
const MAX_LINGERING = 10_000;
const DROPPED_AT_ONCE = 1000;

/** How often each durable channel's head is compared with what was delivered, so that the loss of a last message is
 * found in time to be repaired within ten seconds even if one comparison fails. */
const COMPARE_MS = 3000;

/** A raw payload may be this much larger than a client's frame: {"sender","text"} around it, and escapes in it. */
const RAW_GROWTH = 2;
const RAW_OVERHEAD_BYTES = 1024;

/** The largest payload that a raw channel takes. */
export function rawLimitBytes(namespace: Namespace): number {
  return namespace.maxMessageBytes * RAW_GROWTH + RAW_OVERHEAD_BYTES;
}

/** The connections on this pod that hear one topic: a channel's, or a user's own. */
export class Group {
  readonly topic: string;
  /** Undefined for a user's own messages. */
  readonly channel: string | undefined;
  /** The channel's policy, which may be replaced by a newer one of the same name. */
  namespace: Namespace;
  readonly connections = new Set<Connection>();
  /** On their way in: they hear nothing of the topic yet, but it is kept for them. */
  readonly arriving = new Map<Connection, Entering>();
  /** Where this pod stands in the channel, if it is durable. */
  follower: Follower | undefined;
  readonly metrics: NamespaceMetrics;
  /** Messages of this turn of the event loop; the fan-out's. */
  readonly runs: Run[] = [];
  /** Pending until the bus delivers the topic; undefined from then on. */
  ready: Promise<void> | undefined;
  /** Since when nobody is in it, in ms of a monotonic clock. */
  emptySinceMs = 0;

  constructor(topic: string, channel: string | undefined, namespace: Namespace, metrics: NamespaceMetrics) {
    this.topic = topic;
    this.channel = channel;
    this.namespace = namespace;
    this.metrics = metrics;
  }
}

/** One way of a connection into a group. Who leaves before it is in, and comes again, is on another: what was begun for
 * the first must not go on for the second. */
export interface Entering {
  readonly connection: Connection;
  readonly group: Group;
}

type NamespaceMetrics = ReturnType<typeof metricsOfNamespace>;

/** Knows who is in which group, and keeps the bus subscribed to just what is needed. */
export class Hub {
  readonly #bus: Bus;
  readonly #fanout: Fanout;
  readonly #metrics: Metrics;
  readonly #groups = new Map<string, Group>();
  readonly #empty = new Set<Group>();
  readonly #namespaceMetrics = new Map<string, NamespaceMetrics>();
  readonly #sweeper: NodeJS.Timeout;
  readonly #comparer: NodeJS.Timeout;
  readonly #report: Report;
  readonly #traces: Traces | undefined;
  #comparing = false;
  #users = 0;
  /** Groups that stay subscribed whether anybody is there or not. */
  readonly #pinned = new Set<Group>();

  constructor(bus: Bus, fanout: Fanout, metrics: Metrics, report: Report, traces?: Traces) {
    this.#bus = bus;
    this.#fanout = fanout;
    this.#metrics = metrics;
    this.#report = report;
    this.#traces = traces;
    this.#comparer = setInterval(() => void this.#compareHeads(), COMPARE_MS).unref();
    this.#sweeper = setInterval(() => this.#sweep(), LINGER_MS / 2).unref();
    metrics.users.read = () => this.#users;
    metrics.channels.read = () => {
      const deserted = [...this.#pinned].filter((group) => group.connections.size === 0);
      return this.#groups.size - this.#empty.size - deserted.length - this.#users;
    };
    metrics.busSubscriptions.read = () => this.#groups.size;
  }

  get users(): number {
    return this.#users;
  }

  /** How many topics are held: for leak tests. */
  get size(): number {
    return this.#groups.size;
  }

  /** Keeps a channel subscribed from now on, so that those who come find it so at once. */
  pin(channel: string, namespace: Namespace): Promise<void> | undefined {
    const group = this.#channelGroup(channel, namespace);
    this.#pinned.add(group);
    this.#empty.delete(group);
    return group.ready;
  }

  /** Puts a connection into its user's group. Resolves when the bus delivers to it. */
  addUser(connection: Connection): Promise<void> | undefined {
    const group = this.#group(userTopic(connection.user), undefined, DIRECT);
    if (group.connections.size === 0) this.#users += 1;
    this.#join(connection, group);
    return group.ready;
  }

  /** Keeps a channel's group for a connection that is on its way in. It hears nothing before {@link admit}. */
  arrive(connection: Connection, channel: string, namespace: Namespace): Entering {
    const group = this.#channelGroup(channel, namespace);
    const entering = { connection, group };
    this.#empty.delete(group);
    group.arriving.set(connection, entering);
    connection.groups.add(group);
    return entering;
  }

  /** Whether the connection is on this way still: neither in, nor gone. */
  isEntering(entering: Entering): boolean {
    return entering.group.arriving.get(entering.connection) === entering;
  }

  /** Lets a connection that was on its way in hear what comes from now on. Returns false where it has left meanwhile. */
  admit(entering: Entering): boolean {
    if (!this.isEntering(entering)) return false;
    const { connection, group } = entering;
    group.arriving.delete(connection);
    this.#join(connection, group);
    return true;
  }

  /** Takes a connection out of a channel's group, or stops it on its way in. */
  leave(connection: Connection, group: Group): void {
    this.#fanout.settle(group);
    group.connections.delete(connection);
    group.arriving.delete(connection);
    connection.groups.delete(group);
    connection.missed?.delete(group);
    if (group.connections.size + group.arriving.size === 0) this.#linger(group);
  }

  /** Takes a connection out of every group, and returns those of channels that it had entered. */
  remove(connection: Connection): Group[] {
    const groups = [...connection.groups];
    const entered = groups.filter(
      (group) => group.channel !== undefined && group.connections.has(connection),
    );
    for (const group of groups) {
      this.leave(connection, group);
      if (group.channel === undefined && group.connections.size === 0) this.#users -= 1;
    }
    return entered;
  }

  /** The channel's group, if the connection is in it or on its way in. */
  groupOf(connection: Connection, channel: string, namespace: Namespace): Group | undefined {
    const group = this.#groups.get(topicOf(channel, namespace));
    return group !== undefined && connection.groups.has(group) ? group : undefined;
  }

  /** The groups of all channels that this pod hears. */
  *channels(): Generator<Group & { readonly channel: string }> {
    for (const group of this.#groups.values()) if (isOfChannel(group)) yield group;
  }

  connectionsOf(user: string): readonly Connection[] {
    return [...(this.#groups.get(userTopic(user))?.connections ?? [])];
  }

  countOf(user: string): number {
    return this.#groups.get(userTopic(user))?.connections.size ?? 0;
  }

  /** Resolves when the connection has been given everything that the bus had taken before, in the channels that it is
   * in and of the messages to its user. @throws {TidegateError} `bus_unavailable` */
  async catchUp(connection: Connection): Promise<void> {
    await this.#bus.catchUp([...connection.groups].map(({ topic }) => topic));
    for (const group of connection.groups) this.#fanout.settle(group);
  }

  /** Takes a message from the bus to everybody here who hears its topic. */
  receive(topic: string, bytes: Buffer): void {
    const group = this.#groups.get(topic);
    if (group === undefined) return;
    group.metrics.busMessages.inc();
    const { namespace, follower } = group;
    // A durable channel is followed whether anybody hears it or not: those who arrive are brought up to it.
    if (group.connections.size === 0 && follower === undefined) return;
    if (namespace.raw) {
      if (bytes.length > rawLimitBytes(namespace)) this.#metrics.busDropped.inc({ reason: 'too_large' });
      else if (!isUtf8(bytes)) this.#metrics.busDropped.inc({ reason: 'not_utf8' });
      else this.#fanout.deliver(group, { kind: 'message', foreign: true, payload: bytes.toString() });
      return;
    }
    if (follower?.take(bytes)) return;
    const envelope = decodeEnvelope(bytes);
    if (envelope === undefined) {
      this.#metrics.busDropped.inc({ reason: 'foreign' });
      return;
    }
    if (follower !== undefined && !envelope.header.presence) {
      // A pod published it to which the channel is not durable. It has no place among the others, and nobody can read
      // it again.
      this.#metrics.busDropped.inc({ reason: 'kind' });
      this.#fanout.gap(group, 'bus', follower.last);
      return;
    }
    const { id, sender, timeMs, skip, presence, traceparent } = envelope.header;
    this.#fanout.deliver(group, {
      kind: presence ? 'presence' : 'message',
      id,
      from: sender,
      foreign: false,
      payload: envelope.payload,
      timeMs,
      skip,
      traceparent,
    });
  }

  /** Messages on these topics may be missing: durable channels are repaired, and of the others everybody who hears
   * them is told. */
  interrupted(topics: readonly string[]): void {
    for (const topic of topics) {
      const group = this.#groups.get(topic);
      if (group?.follower !== undefined) void group.follower.repair();
      else if (group !== undefined) this.#fanout.gap(group, 'bus', undefined);
    }
  }

  stop(): void {
    clearInterval(this.#sweeper);
    clearInterval(this.#comparer);
    for (const { follower } of this.#groups.values()) follower?.stop();
  }

  /** Compares every durable channel's head with what was delivered here. */
  async #compareHeads(): Promise<void> {
    const followers = [...this.#groups.values()].flatMap(({ follower }) =>
      follower?.last === undefined ? [] : [follower],
    );
    if (this.#comparing || followers.length === 0 || this.#bus.health.state !== 'up') return;
    this.#comparing = true;
    try {
      const heads = await this.#bus.log.heads(followers.map((follower) => follower.channel));
      for (const [index, follower] of followers.entries()) void follower.check(heads[index]);
    } catch {
      // The bus went away meanwhile, and everything is compared again when it is back.
    } finally {
      this.#comparing = false;
    }
  }

  /** A follower that delivers to the group. */
  #follow(group: Group, channel: string): Follower {
    return new Follower({
      channel,
      log: this.#bus.log,
      deliver: (entry) => this.#fanout.deliver(group, entry.message),
      gap: (reason, position) => this.#fanout.gap(group, reason, position),
      mended: (reading) => {
        this.#metrics.repairs.inc({ outcome: reading.outcome });
        this.#traces?.repaired(group, reading);
      },
      report: this.#report,
    });
  }

  #channelGroup(channel: string, namespace: Namespace): Group {
    return this.#group(topicOf(channel, namespace), channel, namespace);
  }

  #group(topic: string, channel: string | undefined, namespace: Namespace): Group {
    const group = this.#groups.get(topic);
    if (group !== undefined) return group;
    let metrics = this.#namespaceMetrics.get(namespace.name);
    if (metrics === undefined) {
      metrics = metricsOfNamespace(this.#metrics, namespace.name);
      this.#namespaceMetrics.set(namespace.name, metrics);
    }
    const made = new Group(topic, channel, namespace, metrics);
    this.#groups.set(topic, made);
    this.#linger(made);
    if (channel !== undefined && namespace.durable !== undefined) made.follower = this.#follow(made, channel);
    const subscribed = this.#bus.subscribe(topic);
    if (subscribed === undefined && made.follower === undefined) return made;
    made.ready = (subscribed ?? Promise.resolve())
      .then(() => made.follower?.start())
      .then(() => {
        made.ready = undefined;
      });
    return made;
  }

  #join(connection: Connection, group: Group): void {
    this.#fanout.settle(group);
    this.#empty.delete(group);
    group.connections.add(connection);
    connection.groups.add(group);
  }

  /** Nobody is in the group. The set keeps the order in which that came about. */
  #linger(group: Group): void {
    if (this.#pinned.has(group)) return;
    group.emptySinceMs = performance.now();
    this.#empty.add(group);
    if (this.#empty.size <= MAX_LINGERING) return;
    let dropped = 0;
    for (const oldest of this.#empty) {
      this.#drop(oldest);
      if (++dropped === DROPPED_AT_ONCE) break;
    }
  }

  /** Lets go of topics that nobody has heard for a while. */
  #sweep(): void {
    const before = performance.now() - LINGER_MS;
    for (const group of this.#empty) {
      if (group.emptySinceMs > before) break;
      this.#drop(group);
    }
  }

  #drop(group: Group): void {
    this.#empty.delete(group);
    this.#groups.delete(group.topic);
    group.follower?.stop();
    this.#bus.unsubscribe(group.topic);
  }
}

function isOfChannel(group: Group): group is Group & { readonly channel: string } {
  return group.channel !== undefined;
}

/** Where a channel is on the bus: raw ones under their own name, for other programs. */
export function topicOf(channel: string, namespace: Namespace): string {
  return namespace.raw ? channel : channelTopic(channel);
}
