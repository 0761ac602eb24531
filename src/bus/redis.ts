// The Redis bus: Pub/Sub between pods. Standalone and Sentinel have one lane; a Cluster has one for each master.

import { once } from 'node:events';
import type { Report } from '../platform/logs.ts';
import { TidegateError } from '../protocol/errors.ts';
import { Barrier } from './barrier.ts';
import { type Bus, type BusListener, type BusState, TOPIC_PREFIX } from './bus.ts';
import { Probe } from './probe.ts';
import { type RedisAddress, RedisConnector } from './redis-connect.ts';
import { type Arguments, type RedisCommands, type RedisConnection, reasonOf } from './redis-connection.ts';
import { LOG_SCRIPTS, RedisLog } from './redis-log.ts';
import { RedisMemory } from './redis-memory.ts';
import { RedisSentinels } from './redis-sentinels.ts';
import { type Host, readRedirect, Slots } from './redis-slots.ts';
import { RedisStore, STORE_SCRIPTS } from './redis-store.ts';
import { RedisSubscriber } from './redis-subscriber.ts';
import { preload } from './scripts.ts';

/** What leads to one server: connections, and the probe that shows whether messages come back through them. */
interface Lane {
  /** `host:port` of the master on a Cluster, else empty. */
  readonly node: string;
  /** Where that is; undefined where it is for Sentinel to say. */
  readonly host: Host | undefined;
  readonly commands: RedisConnection;
  /** What the subscriber has for itself, because nothing else may be asked there. */
  readonly subscriptions: RedisConnection;
  readonly subscriber: RedisSubscriber;
  readonly probe: Probe;
  readonly barrier: Barrier;
  /** For appends that wait for replicas; made when it is first needed. */
  waiting: RedisConnection | undefined;
}

/** What a Redis bus is told, and what it tells beside messages. */
export interface RedisBusOptions {
  readonly address: RedisAddress;
  /** Unique to this gateway process. */
  readonly pod: string;
  readonly report: Report;
  readonly onProbe: (seconds: number) => void;
  /** A probe failed where one had come back before: a Redis that is not there yet is no way that breaks. */
  readonly onProbeFailure: (reason: 'refused' | 'missed' | 'stalled') => void;
  readonly onReconnect: () => void;
}

/** Publishes that may wait for Redis's answer; more are refused, because memory is bounded and Redis is not keeping up. */
const MAX_PENDING_PUBLISHES = 20_000;
const MAX_PENDING_BYTES = 64 * 1_048_576;

/** How often a Cluster's slots are looked at when nothing says that they moved, and while nobody answers. */
const SLOTS_INTERVAL_MS = 5000;
const SLOTS_RETRY_MS = 200;

/** How often a command follows its key to another node, and how long it waits there for a connection. */
const MAX_REDIRECTS = 3;
const REDIRECT_TIMEOUT_MS = 1000;

const PROBE_PREFIX = `${TOPIC_PREFIX}{probe:`;

/** {@link Bus} over Redis Pub/Sub. */
export class RedisBus implements Bus {
  readonly kind = 'redis';
  readonly store: RedisStore;
  readonly log: RedisLog;
  readonly memory = new RedisMemory(() =>
    [...this.#lanes.values()].map(({ commands }) => commands.call('info', ['memory'])),
  );
  readonly #options: RedisBusOptions;
  readonly #connector: RedisConnector;
  readonly #isCluster: boolean;
  readonly #lanes = new Map<string, Lane>();
  /** Who owns which slot, on a Cluster. */
  #slots = new Slots(undefined, { host: '', port: 0 });
  /** Why the slots are not known, for people. */
  #slotsFailure = '';
  #slotsTimer: NodeJS.Timeout | undefined;
  #sentinels: RedisSentinels | undefined;
  /** Looks at the slots that have not begun yet, by the node that is asked first. */
  readonly #looks = new Map<string, Promise<void>>();
  #lastLook: Promise<void> = Promise.resolve();
  #listener: BusListener | undefined;
  #pendingPublishes = 0;
  #pendingBytes = 0;
  #stopped = false;

  /** @throws {Error} where the address cannot be used. Connects to nothing yet. */
  constructor(options: RedisBusOptions) {
    this.#options = options;
    this.#connector = new RedisConnector(options.address);
    this.#isCluster = this.#connector.mode === 'cluster';
    const commands: RedisCommands = {
      call: (command, args) => this.#call(keyOf(command, args), (lane) => lane.commands.call(command, args)),
      callBuffer: (command, args) =>
        this.#call(keyOf(command, args), (lane) => lane.commands.callBuffer(command, args)),
    };
    this.store = new RedisStore(commands, options.pod);
    this.log = new RedisLog({
      redis: commands,
      sharded: this.#isCluster,
      connectionFor: (topic) => this.#waitingConnection(topic),
      bounded: (bytes, run) => this.#bounded(bytes, run),
    });
  }

  get health(): { state: BusState; reason?: string } {
    const lanes = [...this.#lanes.values()];
    if (lanes.length === 0)
      return { state: 'starting', reason: `Redis has not been reached yet${this.#slotsFailure}` };
    for (const state of ['starting', 'down', 'deaf'] as const) {
      const lane = lanes.find((it) => it.probe.state === state);
      if (lane !== undefined) return { state, reason: reasonOfLane(lane) };
    }
    return { state: 'up' };
  }

  async start(listener: BusListener): Promise<void> {
    this.#listener = listener;
    if (this.#isCluster) {
      while (this.#lanes.size === 0 && !this.#stopped) {
        await this.#lookAtSlots();
        if (this.#lanes.size === 0) await new Promise((resolve) => setTimeout(resolve, SLOTS_RETRY_MS));
      }
      this.#slotsTimer = setInterval(() => void this.#lookAtSlots(), SLOTS_INTERVAL_MS).unref();
    } else {
      this.#openLane('', undefined, `${PROBE_PREFIX}0}:${this.#options.pod}`);
      if (this.#connector.mode === 'sentinel') this.#watchSentinels();
    }
    await Promise.all([...this.#lanes.values()].map((lane) => lane.probe.firstReturn));
    this.memory.start();
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
    return this.#laneHolding(topic)?.subscriber.subscribe(topic);
  }

  unsubscribe(topic: string): void {
    for (const { subscriber } of this.#lanes.values()) subscriber.unsubscribe(topic);
  }

  async catchUp(topics: readonly string[]): Promise<void> {
    const lanes = new Set<Lane>();
    for (const topic of topics) {
      const lane = this.#laneHolding(topic);
      if (lane !== undefined) lanes.add(lane);
    }
    try {
      await Promise.all([...lanes].map(({ barrier }) => barrier.pass()));
    } catch (cause) {
      throw new TidegateError('bus_unavailable', 'The bus does not answer.', { cause, retryAfterMs: 1000 });
    }
    // A topic that was lost and is not there again has missed messages of which nobody has been told yet.
    if (topics.every((topic) => this.#laneHolding(topic)?.subscriber.isActive(topic))) return;
    throw new TidegateError('bus_unavailable', 'The bus is being subscribed to anew.', {
      retryAfterMs: 1000,
    });
  }

  async topics(prefix: string, limit: number): Promise<string[]> {
    const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}*`;
    // Each node tells of its own subscribers; on a Cluster Tidegate's topics are sharded, and raw ones are not.
    const kinds = this.#isCluster ? ['SHARDCHANNELS', 'CHANNELS'] : ['CHANNELS'];
    const asked = [...this.#lanes.values()].flatMap(({ commands }) =>
      kinds.map((kind) => commands.call('pubsub', [kind, pattern])),
    );
    try {
      const topics = new Set((await Promise.all(asked)).flat().map(String));
      return [...topics].filter((topic) => !topic.startsWith(PROBE_PREFIX)).slice(0, limit);
    } catch (error) {
      throw new TidegateError('bus_unavailable', undefined, { cause: error });
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#listener = undefined;
    clearInterval(this.#slotsTimer);
    this.memory.stop();
    this.#sentinels?.close();
    for (const lane of this.#lanes.values()) this.#closeLane(lane);
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

  #publish(topic: string, bytes: Buffer): Promise<unknown> {
    const command = this.#isSharded(topic) ? 'spublish' : 'publish';
    return this.#call(topic, (lane) => lane.commands.call(command, [topic, bytes]));
  }

  /** Sends a command to the server that has its key, and on a Cluster after the key where it has moved. Only what
   * was refused is sent again, so nothing happens twice. */
  async #call<T>(key: string, send: (lane: Lane) => Promise<T>): Promise<T> {
    let lane = this.#laneOf(key);
    for (let redirects = 0; ; redirects += 1) {
      if (lane === undefined) throw new Error(`Redis has not been reached yet${this.#slotsFailure}`);
      try {
        return await send(lane);
      } catch (error) {
        const redirect = lane.host && readRedirect(error, lane.host);
        if (redirect === undefined || redirects === MAX_REDIRECTS) throw error;
        if (redirect.kind === 'ASK') {
          const asked = this.#lanes.get(redirect.node);
          if (asked === undefined) throw error;
          asked.commands.call('asking', []).catch(() => {});
          return await send(asked);
        }
        // The node that sent it on knows where the slot is now; others may not have heard of it yet.
        await this.#lookAtSlots(lane.node);
        lane = this.#laneOf(key);
        if (lane?.commands.ready === false) {
          await once(lane.commands.redis, 'ready', { signal: AbortSignal.timeout(REDIRECT_TIMEOUT_MS) });
        }
      }
    }
  }

  #isSharded(topic: string): boolean {
    return this.#isCluster && topic.startsWith(TOPIC_PREFIX);
  }

  /** The lane to the owner of a key or topic. Raw topics have one too: any node would do, but only where all
   * gateways use the same do all hear the messages in one order. */
  #laneOf(key: string): Lane | undefined {
    const owner = this.#isCluster ? this.#slots.ownerOf(key) : undefined;
    return (owner === undefined ? undefined : this.#lanes.get(owner)) ?? this.#lanes.values().next().value;
  }

  /** The lane that is subscribed to a topic, or should be. Raw topics stay where they are when slots move. */
  #laneHolding(topic: string): Lane | undefined {
    if (this.#isCluster) for (const lane of this.#lanes.values()) if (lane.subscriber.has(topic)) return lane;
    return this.#laneOf(topic);
  }

  #openLane(node: string, host: Host | undefined, probeTopic: string): void {
    const commands = this.#connector.connection('tidegate', host);
    const subscriptions = this.#connector.connection('tidegate-subscriber', host);
    const subscriber = new RedisSubscriber(subscriptions, this.#isCluster, {
      message: (topic, bytes) => {
        if (topic === probe.topic && barrier.hear(bytes)) return;
        if (!probe.hear(topic, bytes)) this.#listener?.message(topic, bytes);
      },
      interrupted: (topics) => {
        const others = topics.filter((topic) => topic !== probe.topic);
        if (others.length < topics.length) {
          probe.again();
          barrier.again();
        }
        if (others.length > 0) this.#listener?.interrupted(others);
      },
      moved: () => void this.#lookAtSlots(node),
      refused: (error) => this.#options.report('bus.subscribe', error),
      reconnected: () => this.#options.onReconnect(),
    });
    const publish = (topic: string, bytes: Buffer) =>
      commands.call(this.#isCluster ? 'spublish' : 'publish', [topic, bytes]);
    const barrier = new Barrier((bytes) => publish(probe.topic, bytes));
    const failed = (reason: 'refused' | 'missed' | 'stalled') => {
      if (probe.state !== 'starting') this.#options.onProbeFailure(reason);
    };
    const probe = new Probe({
      topic: probeTopic,
      publish: async (topic, bytes) => {
        try {
          await publish(topic, bytes);
        } catch (error) {
          // Afterwards this probe is no more, and another topic is used.
          if (host && readRedirect(error, host)) await this.#lookAtSlots(node);
          throw error;
        }
      },
      subscribe: (topic) => subscriber.subscribe(topic),
      onReturn: this.#options.onProbe,
      onDeaf: (missed) => {
        failed('missed');
        void this.#lookAtSlots();
        // Ever more rarely: a subscriber with very many topics needs a while to be there again.
        if (!Number.isInteger(Math.log2(missed))) return;
        subscriptions.renew();
        // After a failover the two may have ended up at different servers.
        if (missed > 1) commands.renew();
      },
      onRefusal: () => {
        failed('refused');
        void this.#lookAtSlots();
      },
      onStall: () => {
        failed('stalled');
        commands.renew();
        subscriptions.renew();
        void this.#lookAtSlots();
      },
    });
    commands.redis.on('ready', () => {
      preload(commands, [...LOG_SCRIPTS, ...STORE_SCRIPTS]);
      probe.again();
    });
    this.#lanes.set(node, {
      node,
      host,
      commands,
      subscriptions,
      subscriber,
      probe,
      barrier,
      waiting: undefined,
    });
    commands.open();
    subscriptions.open();
    probe.start();
  }

  /** After a failover the old master may well go on answering, to nobody but those who have not heard of it. */
  #watchSentinels(): void {
    const name = this.#options.address.sentinelName;
    this.#sentinels = new RedisSentinels(this.#connector.sentinels(), name, (host, port) => {
      for (const { commands, subscriptions, waiting } of this.#lanes.values()) {
        for (const connection of [commands, subscriptions, waiting]) {
          if (connection?.isAt(host, port) === false) connection.renew();
        }
      }
    });
    this.#sentinels.open();
  }

  #closeLane(lane: Lane): void {
    lane.probe.stop();
    lane.subscriber.stop();
    lane.subscriptions.close();
    lane.commands.close();
    lane.waiting?.close();
    this.#lanes.delete(lane.node);
  }

  /** The connection for appends that wait for replicas. @throws {Error} where no server has been reached yet. */
  #waitingConnection(topic: string): RedisConnection {
    const lane = this.#laneOf(topic);
    if (lane === undefined) throw new Error('Redis has not been reached yet');
    if (lane.waiting === undefined) {
      lane.waiting = this.#connector.connection('tidegate-wait', lane.host);
      lane.waiting.open();
    }
    return lane.waiting;
  }

  /** Looks up a Cluster's masters, opens and closes lanes to match, and moves topics to the lane of their slot. One
   * look at a time; those who ask for one while it runs share the next. */
  #lookAtSlots(askFirst = ''): Promise<void> {
    if (!this.#isCluster || this.#stopped) return Promise.resolve();
    const planned = this.#looks.get(askFirst);
    if (planned !== undefined) return planned;
    const look = this.#lastLook.then(async () => {
      this.#looks.delete(askFirst);
      try {
        const slots = await this.#readSlots(askFirst);
        this.#slotsFailure = '';
        if (!this.#stopped) this.#follow(slots);
      } catch (error) {
        this.#slotsFailure = `: ${reasonOf(error)}`;
      }
    });
    this.#looks.set(askFirst, look);
    this.#lastLook = look;
    return look;
  }

  /** Asks one node after the other, and where none is connected, those of the address. */
  async #readSlots(askFirst: string): Promise<Slots> {
    let failure: unknown = new Error('no node owns any slot');
    const ask = async (connection: RedisConnection, host: Host) => {
      try {
        const slots = new Slots(await connection.call('cluster', ['SLOTS']), host);
        return slots.nodes.size > 0 ? slots : undefined;
      } catch (error) {
        failure = error;
        return undefined;
      }
    };
    // Not always the same one: it might be alone in what it believes.
    const lanes = [...this.#lanes.values()];
    const named = lanes.findIndex(({ node }) => node === askFirst);
    const first = named === -1 ? Math.floor(Math.random() * lanes.length) : named;
    lanes.push(...lanes.splice(0, first));
    for (const { commands, host } of lanes) {
      const slots = commands.ready && host !== undefined ? await ask(commands, host) : undefined;
      if (slots !== undefined) return slots;
    }
    for (const host of this.#connector.hosts) {
      const connection = this.#connector.connection('tidegate-slots', host);
      try {
        await connection.redis.connect().catch(() => {});
        const slots = await ask(connection, host);
        if (slots !== undefined) return slots;
      } finally {
        connection.close();
      }
    }
    throw failure;
  }

  #follow(slots: Slots): void {
    if (slots.equals(this.#slots)) return;
    this.#slots = slots;
    for (const [node, host] of slots.nodes) {
      const lane = this.#lanes.get(node);
      if (lane === undefined) this.#openLane(node, host, this.#probeTopicOn(node));
      else if (slots.ownerOf(lane.probe.topic) !== node) {
        lane.subscriber.unsubscribe(lane.probe.topic);
        lane.probe.moveTo(this.#probeTopicOn(node));
      }
    }
    const gone = [...this.#lanes.values()].filter(({ node }) => !slots.nodes.has(node));
    // First, so that no topic is given to one of them: any lane is as good as another for a slot that nobody owns.
    for (const { node } of gone) this.#lanes.delete(node);
    for (const lane of [...this.#lanes.values(), ...gone]) {
      const isGone = gone.includes(lane);
      for (const topic of [...lane.subscriber.topics]) {
        if (topic === lane.probe.topic || (!isGone && !this.#isSharded(topic))) continue;
        const target = this.#laneOf(topic);
        if (target !== undefined && target !== lane)
          target.subscriber.adopt(topic, lane.subscriber.release(topic));
      }
      if (isGone) this.#closeLane(lane);
    }
  }

  /** A topic whose slot the node owns. Found after about as many tries as there are masters. */
  #probeTopicOn(node: string): string {
    for (let salt = 0; ; salt += 1) {
      const topic = `${PROBE_PREFIX}${salt}}:${this.#options.pod}`;
      if (this.#slots.ownerOf(topic) === node) return topic;
    }
  }
}

/** What decides where a command goes: its first key, or just any text where it has none. */
function keyOf(command: string, args: Arguments): string {
  return String(command.startsWith('eval') ? args[2] : args[0]);
}

function reasonOfLane({ node, probe, subscriber }: Lane): string {
  const why = probe.state !== 'down' && subscriber.failure !== undefined ? `: ${subscriber.failure}` : '';
  return `${probe.reason}${why}${node && ` (${node})`}`;
}
