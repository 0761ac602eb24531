// What the client's unit tests put in the world's place: a clock that is moved by hand, chance that is said, and
// WebSockets whose other end is the test.

import { Client, type ClientEvents, type ConnectOptions } from '../src/client/client.ts';
import type { Platform, WebSocketLike } from '../src/client/platform.ts';

type Json = Record<string, unknown>;

/** A platform whose time stands still until it is moved. */
export class FakePlatform implements Platform {
  nowMs = 0;
  /** What chance says next, and from then on. */
  chance = 0.5;
  readonly #timers = new Map<number, { atMs: number; action: () => void }>();
  readonly #onOnline = new Set<() => void>();
  #made = 0;

  now(): number {
    return this.nowMs;
  }

  random(): number {
    return this.chance;
  }

  newKey(): string {
    this.#made += 1;
    return `key-${this.#made}`;
  }

  after(ms: number, action: () => void): () => void {
    this.#made += 1;
    const timer = this.#made;
    this.#timers.set(timer, { atMs: this.nowMs + ms, action });
    return () => void this.#timers.delete(timer);
  }

  onOnline(action: () => void): () => void {
    this.#onOnline.add(action);
    return () => void this.#onOnline.delete(action);
  }

  /** How many timers and listeners are left: none, after a client was closed. */
  get leftovers(): number {
    return this.#timers.size + this.#onOnline.size;
  }

  /** When the next timer goes off, from now; undefined where there is none. */
  get nextTimerMs(): number | undefined {
    const times = [...this.#timers.values()].map(({ atMs }) => atMs - this.nowMs);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  goOnline(): void {
    for (const action of this.#onOnline) action();
  }

  /** Lets time pass; whatever was to happen meanwhile happens in order. */
  async pass(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers]
        .filter(([, { atMs }]) => atMs <= endMs)
        .sort((a, b) => a[1].atMs - b[1].atMs)[0];
      if (due === undefined) break;
      const [timer, { atMs, action }] = due;
      this.#timers.delete(timer);
      this.nowMs = Math.max(this.nowMs, atMs);
      action();
      await settle();
    }
    this.nowMs = endMs;
  }
}

/** Lets everything happen that waits for nothing but its turn. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** A WebSocket whose other end is the test. */
export class FakeSocket implements WebSocketLike {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly url: string;
  readonly protocols: readonly string[];
  /** Everything the client has sent. */
  readonly sent: Json[] = [];
  /** The code with which the client has closed it; null without one. */
  closedWith: number | null | undefined;
  #taken = 0;
  readonly #synced = new Set<Json>();

  constructor(url: string, protocols: string[]) {
    this.url = url;
    this.protocols = protocols;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Json);
  }

  close(code?: number): void {
    this.closedWith = code ?? null;
  }

  /** The gateway says something. */
  say(...frames: Json[]): void {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** The gateway says welcome. */
  welcome(fields: Json = {}): void {
    this.say({
      type: 'welcome',
      connection: 'c',
      user: 'ann',
      pingIntervalMs: 25_000,
      maxMessageBytes: 65_536,
      ...fields,
    });
  }

  /** The connection ends. */
  end(code = 1006, reason = ''): void {
    this.onclose?.({ code, reason });
  }

  /** Takes what the client has sent since the last time. */
  take(): Json[] {
    const taken = this.sent.slice(this.#taken);
    this.#taken = this.sent.length;
    return taken;
  }

  /** Takes the one command of this type that the client has sent since the last time. */
  takeOne(type: string): Json {
    const [command, ...others] = this.take().filter((it) => it.type === type);
    if (command === undefined || others.length > 0)
      throw new Error(`not one ${type}: ${JSON.stringify(this.sent)}`);
    return command;
  }

  /** Answers a command with ok. */
  ok({ ref }: Json, fields: Json = {}): void {
    this.say({ type: 'ok', ref, ...fields });
  }

  /** Answers a command with an error. */
  refuse({ ref }: Json, code: string, fields: Json = {}): void {
    this.say({ type: 'error', ref, code, message: code, retryable: false, ...fields });
  }

  /** Says that everything has come, to every sync that was not answered yet, and returns how many those are. */
  sync(): number {
    const syncs = this.sent.filter((command) => command.type === 'sync' && !this.#synced.has(command));
    for (const command of syncs) {
      this.#synced.add(command);
      this.ok(command);
    }
    return syncs.length;
  }

  /** Answers every subscribe since the last time, each channel with these fields. */
  subscribeAll(fields: (channel: string) => Json = () => ({})): void {
    for (const command of this.take()) {
      if (command.type !== 'subscribe') continue;
      const channels = (command.channels as { channel: string }[]).map(({ channel }) => ({
        channel,
        ...fields(channel),
      }));
      this.ok(command, { channels });
    }
  }
}

/** An event as it was told. */
export type Told = { [E in keyof ClientEvents]: { event: E; value: ClientEvents[E] } }[keyof ClientEvents];

/** A client in a world that the test makes. */
export interface FakeWorld {
  readonly client: Client;
  readonly platform: FakePlatform;
  /** Every socket that the client has opened. */
  readonly sockets: FakeSocket[];
  /** The last of them. */
  readonly socket: FakeSocket;
  /** Everything the client has told of, in order. */
  readonly told: Told[];
  /** What it has told of one kind. */
  all<E extends keyof ClientEvents>(event: E): ClientEvents[E][];
}

/** Connects a client to the test. */
export async function connectFake(options: Partial<ConnectOptions> = {}): Promise<FakeWorld> {
  const platform = new FakePlatform();
  const sockets: FakeSocket[] = [];
  class WebSocket extends FakeSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      sockets.push(this);
    }
  }
  const client = new Client({ url: 'ws://gateway/ws', WebSocket, ...options }, platform);
  const told: Told[] = [];
  const events = ['state', 'gap', 'recovery', 'move', 'direct', 'presence', 'error'] as const;
  for (const event of events) client.on(event, (value) => told.push({ event, value } as Told));
  await settle();
  return {
    client,
    platform,
    sockets,
    get socket() {
      const last = sockets.at(-1);
      if (last === undefined) throw new Error('the client has opened no socket');
      return last;
    },
    told,
    all: (event) => told.filter((it) => it.event === event).map(({ value }) => value) as never,
  };
}
