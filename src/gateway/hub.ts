// The hub: who is connected here. Channel to connections, user to connections, and one bus subscription for each.

import { isUtf8 } from 'node:buffer';
import { type Bus, channelTopic, userTopic } from '../bus/bus.ts';
import { decodeEnvelope } from '../bus/envelope.ts';
import type { Metrics } from '../platform/metrics.ts';
import type { Namespace } from './channels.ts';
import type { Connection } from './connection.ts';
import type { Fanout, Run } from './fanout.ts';

/** Messages to users have no namespace; this stands for it in policies and metrics. */
const DIRECT: Namespace = {
  name: 'direct',
  subscribe: 'api',
  publish: 'api',
  raw: false,
  presence: false,
  presenceEvents: false,
  slow: 'disconnect',
  maxMessageBytes: 0,
};

/** How long a topic stays subscribed after its last connection left: people reload pages. */
const LINGER_MS = 5000;

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
  readonly namespace: Namespace;
  readonly connections = new Set<Connection>();
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

/** The metrics of one namespace, looked up once instead of at every message. */
type NamespaceMetrics = ReturnType<typeof metricsOf>;

function metricsOf(metrics: Metrics, namespace: string) {
  return {
    busMessages: metrics.busMessages.labels({ namespace }),
    deliveries: metrics.deliveries.labels({ namespace }),
    dropped: metrics.dropped.labels({ namespace }),
    deliveryLatency: metrics.deliveryLatency.labels({ namespace }),
  };
}

/** Knows who is in which group, and keeps the bus subscribed to just what is needed. */
export class Hub {
  readonly #bus: Bus;
  readonly #fanout: Fanout;
  readonly #metrics: Metrics;
  readonly #groups = new Map<string, Group>();
  readonly #empty = new Set<Group>();
  readonly #namespaceMetrics = new Map<string, NamespaceMetrics>();
  readonly #sweeper: NodeJS.Timeout;
  #users = 0;
  /** Topics that stay subscribed whether anybody is there or not. */
  readonly #pinned = new Set<string>();

  constructor(bus: Bus, fanout: Fanout, metrics: Metrics) {
    this.#bus = bus;
    this.#fanout = fanout;
    this.#metrics = metrics;
    this.#sweeper = setInterval(() => this.#sweep(), LINGER_MS / 2).unref();
    metrics.users.read = () => this.#users;
    metrics.channels.read = () => this.#groups.size - this.#empty.size - this.#users;
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
    this.#pinned.add(group.topic);
    return group.ready;
  }

  /** Puts a connection into its user's group. Resolves when the bus delivers to it. */
  addUser(connection: Connection): Promise<void> | undefined {
    const group = this.#group(userTopic(connection.user), undefined, DIRECT);
    if (group.connections.size === 0) this.#users += 1;
    this.#join(connection, group);
    return group.ready;
  }

  /** Puts a connection into a channel's group. Resolves when the bus delivers to it. */
  join(connection: Connection, channel: string, namespace: Namespace): Promise<void> | undefined {
    const group = this.#channelGroup(channel, namespace);
    this.#join(connection, group);
    return group.ready;
  }

  /** Takes a connection out of a channel's group. Returns whether it was in it. */
  leave(connection: Connection, channel: string, namespace: Namespace): boolean {
    const group = this.#groups.get(topicOf(channel, namespace));
    if (group === undefined || !connection.groups.has(group)) return false;
    this.#leave(connection, group);
    return true;
  }

  /** Takes a connection out of every group it is in, and returns the channels. */
  remove(connection: Connection): Group[] {
    const groups = [...connection.groups];
    for (const group of groups) {
      this.#leave(connection, group);
      if (group.channel === undefined && group.connections.size === 0) this.#users -= 1;
    }
    return groups.filter((group) => group.channel !== undefined);
  }

  /** Whether the connection is in the channel's group. */
  has(connection: Connection, channel: string, namespace: Namespace): boolean {
    return this.#groups.get(topicOf(channel, namespace))?.connections.has(connection) ?? false;
  }

  connectionsOf(user: string): readonly Connection[] {
    return [...(this.#groups.get(userTopic(user))?.connections ?? [])];
  }

  countOf(user: string): number {
    return this.#groups.get(userTopic(user))?.connections.size ?? 0;
  }

  /** Takes a message from the bus to everybody here who hears its topic. */
  receive(topic: string, bytes: Buffer): void {
    const group = this.#groups.get(topic);
    if (group === undefined) return;
    group.metrics.busMessages.inc();
    if (group.connections.size === 0) return;
    const { namespace } = group;
    if (namespace.raw) {
      if (bytes.length > rawLimitBytes(namespace)) this.#metrics.busDropped.inc({ reason: 'too_large' });
      else if (!isUtf8(bytes)) this.#metrics.busDropped.inc({ reason: 'not_utf8' });
      else this.#fanout.deliver(group, { kind: 'message', foreign: true, payload: bytes.toString() });
      return;
    }
    const envelope = decodeEnvelope(bytes);
    if (envelope === undefined) {
      this.#metrics.busDropped.inc({ reason: 'foreign' });
      return;
    }
    const { id, sender, timeMs, skip, presence } = envelope.header;
    this.#fanout.deliver(group, {
      kind: presence ? 'presence' : 'message',
      id,
      from: sender,
      foreign: false,
      payload: envelope.payload,
      timeMs,
      skip,
    });
  }

  /** Tells everybody who hears one of the topics that messages may be missing. */
  interrupted(topics: readonly string[]): void {
    for (const topic of topics) {
      const group = this.#groups.get(topic);
      for (const connection of group?.connections ?? []) if (group) this.#fanout.tellGap(connection, group, 'bus');
    }
  }

  stop(): void {
    clearInterval(this.#sweeper);
  }

  #channelGroup(channel: string, namespace: Namespace): Group {
    return this.#group(topicOf(channel, namespace), channel, namespace);
  }

  #group(topic: string, channel: string | undefined, namespace: Namespace): Group {
    let group = this.#groups.get(topic);
    if (group !== undefined) return group;
    let metrics = this.#namespaceMetrics.get(namespace.name);
    if (metrics === undefined) {
      metrics = metricsOf(this.#metrics, namespace.name);
      this.#namespaceMetrics.set(namespace.name, metrics);
    }
    const made = new Group(topic, channel, namespace, metrics);
    group = made;
    this.#groups.set(topic, made);
    made.emptySinceMs = performance.now();
    this.#empty.add(made);
    made.ready = this.#bus.subscribe(topic)?.then(() => {
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

  #leave(connection: Connection, group: Group): void {
    this.#fanout.settle(group);
    group.connections.delete(connection);
    connection.groups.delete(group);
    if (group.connections.size > 0) return;
    group.emptySinceMs = performance.now();
    this.#empty.add(group);
  }

  /** Lets go of topics that nobody has heard for a while. */
  #sweep(): void {
    const before = performance.now() - LINGER_MS;
    for (const group of this.#empty) {
      if (group.emptySinceMs > before || this.#pinned.has(group.topic)) continue;
      this.#empty.delete(group);
      this.#groups.delete(group.topic);
      this.#bus.unsubscribe(group.topic);
    }
  }
}

/** Where a channel is on the bus: raw ones under their own name, for other programs. */
export function topicOf(channel: string, namespace: Namespace): string {
  return namespace.raw ? channel : channelTopic(channel);
}
