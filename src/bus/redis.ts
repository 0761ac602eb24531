// The Redis bus: Pub/Sub between pods. Standalone and Sentinel have one lane; a Cluster has one for each master.

import calculateSlot from 'cluster-key-slot';
import { Cluster, type Redis } from 'ioredis';
import type { Report } from '../platform/logs.ts';
import { TidegateError } from '../protocol/errors.ts';
import { type Bus, type BusListener, type BusState, TOPIC_PREFIX } from './bus.ts';
import { type RedisAddress, RedisConnector } from './redis-connect.ts';
import { RedisLog } from './redis-log.ts';
import { RedisStore } from './redis-store.ts';
import { RedisSubscriber } from './redis-subscriber.ts';
import { Probe } from './probe.ts';

/** One subscriber and the probe that shows whether messages reach it. */
interface Lane {
  /** `host:port` of the master on a Cluster, else empty. */
  readonly node: string;
  readonly subscriber: RedisSubscriber;
  readonly probe: Probe;
}

/** What a Redis bus is told, and what it tells beside messages. */
export interface RedisBusOptions {
  readonly address: RedisAddress;
  /** Unique to this gateway process. */
  readonly pod: string;
  readonly report: Report;
  readonly onProbe: (seconds: number) => void;
  readonly onReconnect: () => void;
}

/** Publishes that may wait for Redis's answer; more are refused, because memory is bounded and Redis is not keeping up. */
const MAX_PENDING_PUBLISHES = 20_000;
const MAX_PENDING_BYTES = 64 * 1_048_576;

/** A connection that took no probe for so long is made anew: a line that was cut without a word would be waited
 * on for minutes. */
const STALLED_AFTER_MS = 2500;

/** How long the nodes of a Cluster take to tell each other who owns a slot. */
const GOSSIP_MS = 1000;

/** How often a Cluster's slots are looked at when nothing says that they moved. */
const SLOTS_INTERVAL_MS = 5000;
const SLOTS = 16_384;

/** {@link Bus} over Redis Pub/Sub. */
export class RedisBus implements Bus {
  readonly kind = 'redis';
  readonly store: RedisStore;
  readonly log: RedisLog;
  readonly #options: RedisBusOptions;
  readonly #connector: RedisConnector;
  readonly #commands: Redis | Cluster;
  readonly #lanes = new Map<string, Lane>();
  /** By node, as lanes are. */
  readonly #waiting = new Map<string, Redis>();
  /** Owner (`host:port`) of each slot, on a Cluster. */
  #owners: readonly string[] = [];
  #listener: BusListener | undefined;
  #pendingPublishes = 0;
  #pendingBytes = 0;
  #slotsTimer: NodeJS.Timeout | undefined;
  #refreshing: Promise<void> | undefined;
  #stopped = false;

  /** @throws {Error} where the address cannot be used. Connects to nothing yet. */
  constructor(options: RedisBusOptions) {
    this.#options = options;
    this.#connector = new RedisConnector(options.address);
    this.#commands = this.#connector.commands();
    // Every command that fails rejects its own promise; the event would say it a second time.
    this.#commands.on('error', () => {});
    this.store = new RedisStore(this.#commands, options.pod);
    this.log = new RedisLog({
      redis: this.#commands,
      sharded: this.#connector.mode === 'cluster',
      connectionFor: (topic) => this.#waitingConnection(topic),
      bounded: (bytes, run) => this.#bounded(bytes, run),
    });
  }

  get health(): { state: BusState; reason?: string } {
    const lanes = [...this.#lanes.values()];
    if (lanes.length === 0) return { state: 'starting', reason: 'Redis has not been reached yet' };
    for (const state of ['starting', 'down', 'deaf'] as const) {
      const lane = lanes.find((it) => it.probe.state === state);
      if (lane !== undefined) return { state, reason: lane.probe.reason };
    }
    return { state: 'up' };
  }

  async start(listener: BusListener): Promise<void> {
    this.#listener = listener;
    this.#commands.connect().catch(() => {});
    if (this.#commands instanceof Cluster) {
      while (this.#lanes.size === 0 && !this.#stopped) {
        await this.#refreshLanes();
        if (this.#lanes.size === 0) await new Promise((resolve) => setTimeout(resolve, 100));
      }
      this.#slotsTimer = setInterval(() => void this.#refreshLanes(), SLOTS_INTERVAL_MS);
    } else {
      this.#openLane('', undefined);
    }
    await Promise.all([...this.#lanes.values()].map((lane) => lane.probe.firstReturn));
  }

  async publish(topic: string, bytes: Buffer): Promise<void> {
    try {
      await this.#bounded(bytes.length, () => this.#publish(topic, bytes));
    } catch (error) {
      if (error instanceof TidegateError) throw error;
      throw new TidegateError('bus_unavailable', undefined, { cause: error, retryAfterMs: 1000 });
    }
  }

  subscribe(topic: string): Promise<void> | undefined {
    return this.#laneOf(topic)?.subscriber.subscribe(topic);
  }

  unsubscribe(topic: string): void {
    for (const lane of this.#lanes.values()) lane.subscriber.unsubscribe(topic);
  }

  async topics(prefix: string, limit: number): Promise<string[]> {
    const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}*`;
    try {
      const found =
        this.#commands instanceof Cluster
          ? await Promise.all(this.#commands.nodes('master').map((node) => node.pubsub('SHARDCHANNELS', pattern)))
          : [await this.#commands.pubsub('CHANNELS', pattern)];
      return [...new Set(found.flat().map(String))].slice(0, limit);
    } catch (error) {
      throw new TidegateError('bus_unavailable', undefined, { cause: error });
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#listener = undefined;
    clearInterval(this.#slotsTimer);
    for (const lane of this.#lanes.values()) this.#closeLane(lane);
    this.#lanes.clear();
    this.#commands.disconnect();
    for (const connection of this.#waiting.values()) connection.disconnect();
  }

  /** Runs something that waits for Redis. @throws {TidegateError} `overloaded` where too much does so already. */
  async #bounded<T>(bytes: number, run: () => Promise<T>): Promise<T> {
    if (this.#pendingPublishes >= MAX_PENDING_PUBLISHES || this.#pendingBytes >= MAX_PENDING_BYTES) {
      throw new TidegateError('overloaded', undefined, { retryAfterMs: 500 });
    }
    this.#pendingPublishes += 1;
    this.#pendingBytes += bytes;
    try {
      return await run();
    } finally {
      this.#pendingPublishes -= 1;
      this.#pendingBytes -= bytes;
    }
  }

  /** The connection for appends that wait for replicas, made when it is first needed. */
  #waitingConnection(topic: string): Redis {
    const node = this.#isSharded(topic) ? (this.#owners[calculateSlot(topic)] ?? '') : '';
    let connection = this.#waiting.get(node);
    if (connection === undefined) {
      const [host = '', port = ''] = node === '' ? [] : splitNode(node);
      connection = this.#connector.waiting(node === '' ? undefined : { host, port: Number(port) });
      this.#waiting.set(node, connection);
    }
    return connection;
  }

  #publish(topic: string, bytes: Buffer): Promise<unknown> {
    return this.#isSharded(topic) ? this.#commands.spublish(topic, bytes) : this.#commands.publish(topic, bytes);
  }

  #isSharded(topic: string): boolean {
    return this.#connector.mode === 'cluster' && topic.startsWith(TOPIC_PREFIX);
  }

  #laneOf(topic: string): Lane | undefined {
    if (this.#isSharded(topic)) {
      const lane = this.#lanes.get(this.#owners[calculateSlot(topic)] ?? '');
      if (lane !== undefined) return lane;
    }
    // PUBLISH reaches every node of a Cluster, so any will do for raw channels.
    return this.#lanes.values().next().value;
  }

  #openLane(node: string, probeTopic: string | undefined): Lane {
    const [host = '', port = ''] = node === '' ? [] : splitNode(node);
    const redis = this.#connector.subscriber(node === '' ? undefined : { host, port: Number(port) });
    const subscriber = new RedisSubscriber(redis, this.#connector.mode === 'cluster', {
      message: (topic, bytes) => {
        if (!probe.hear(topic, bytes)) this.#listener?.message(topic, bytes);
      },
      interrupted: (topics) => this.#listener?.interrupted(topics),
      moved: () => {
        void this.#refreshLanes();
        // The node that was asked may itself not have heard yet where the slot went.
        setTimeout(() => void this.#refreshLanes(), GOSSIP_MS).unref();
      },
      reconnected: () => this.#options.onReconnect(),
    });
    const probe: Probe = new Probe({
      topic: probeTopic ?? `${TOPIC_PREFIX}probe:${this.#options.pod}`,
      publish: (topic, bytes) => this.#publish(topic, bytes),
      subscribe: (topic) => subscriber.subscribe(topic),
      onReturn: this.#options.onProbe,
      onDeaf: () => {
        subscriber.reconnect();
        void this.#refreshLanes();
      },
      onSilence: (silentMs) => {
        void this.#refreshLanes();
        if (silentMs > STALLED_AFTER_MS) this.#reconnectStalled(node, subscriber);
      },
    });
    const lane = { node, subscriber, probe };
    this.#lanes.set(node, lane);
    subscriber.connect();
    probe.start();
    return lane;
  }

  #reconnectStalled(node: string, subscriber: RedisSubscriber): void {
    const connections = this.#commands instanceof Cluster ? this.#commands.nodes('master') : [this.#commands];
    for (const redis of connections) {
      const isThis = node === '' || `${redis.options.host}:${redis.options.port}` === node;
      if (isThis && redis.status === 'ready') redis.disconnect(true);
    }
    if (subscriber.ready) subscriber.reconnect();
  }

  #closeLane(lane: Lane): void {
    lane.probe.stop();
    lane.subscriber.stop();
    this.#lanes.delete(lane.node);
  }

  /** Looks up a Cluster's masters, opens and closes lanes to match, and moves topics to the lane of their slot. */
  async #refreshLanes(): Promise<void> {
    if (this.#connector.mode !== 'cluster' || this.#stopped) return;
    this.#refreshing ??= this.#refresh()
      .catch((error: unknown) => {
        if (!this.#stopped) this.#options.report('bus.slots', error);
      })
      .finally(() => {
        this.#refreshing = undefined;
      });
    await this.#refreshing;
  }

  async #refresh(): Promise<void> {
    if (!(this.#commands instanceof Cluster) || this.#commands.status !== 'ready') return;
    const owners = readOwners(await this.#commands.cluster('SLOTS'));
    if (this.#stopped || owners.size === 0) return;
    const slots: string[] = new Array(SLOTS).fill('');
    for (const [node, ranges] of owners) for (const [start, end] of ranges) slots.fill(node, start, end + 1);
    this.#owners = slots;
    for (const node of owners.keys()) {
      const lane = this.#lanes.get(node);
      if (lane === undefined) this.#openLane(node, this.#probeTopicOn(node));
      else if (slots[calculateSlot(lane.probe.topic)] !== node) {
        lane.subscriber.unsubscribe(lane.probe.topic);
        lane.probe.moveTo(this.#probeTopicOn(node));
      }
    }
    for (const lane of [...this.#lanes.values()]) {
      for (const topic of [...lane.subscriber.topics]) {
        if (topic === lane.probe.topic) continue;
        const target = owners.has(lane.node) && !this.#isSharded(topic) ? lane : this.#laneOf(topic);
        if (target !== undefined && target !== lane) target.subscriber.adopt(topic, lane.subscriber.release(topic));
      }
      if (!owners.has(lane.node)) this.#closeLane(lane);
    }
  }

  /** A topic whose slot the node owns. Found after about as many tries as there are masters. */
  #probeTopicOn(node: string): string {
    for (let salt = 0; ; salt += 1) {
      const topic = `${TOPIC_PREFIX}probe:${this.#options.pod}:${salt}`;
      if (this.#owners[calculateSlot(topic)] === node) return topic;
    }
  }
}

/** The slot ranges of each master in the answer of CLUSTER SLOTS: [start, end, [host, port, ...], replicas...]. */
function readOwners(answer: unknown): Map<string, [start: number, end: number][]> {
  const owners = new Map<string, [number, number][]>();
  if (!Array.isArray(answer)) return owners;
  for (const [start, end, master] of answer as [unknown, unknown, unknown][]) {
    if (!Array.isArray(master)) continue;
    const node = `${String(master[0])}:${String(master[1])}`;
    const ranges = owners.get(node) ?? [];
    ranges.push([Number(start), Number(end)]);
    owners.set(node, ranges);
  }
  return owners;
}

/** Host and port of `host:port`, where the host may itself hold colons (IPv6). */
function splitNode(node: string): [host: string, port: string] {
  const at = node.lastIndexOf(':');
  return [node.slice(0, at), node.slice(at + 1)];
}
