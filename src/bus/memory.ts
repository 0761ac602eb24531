// The memory bus: carries messages inside one process, for development and for a gateway that runs alone.

import type { Bus, BusListener, Claim, Members, Store } from './bus.ts';
import type { Log } from './log.ts';
import { MemoryLog } from './memory-log.ts';

/** A {@link Bus} without a network. Messages arrive in a later microtask, as they would from a real one. */
export class MemoryBus implements Bus {
  readonly kind = 'memory';
  readonly store: Store = new MemoryStore();
  readonly log: Log = new MemoryLog((topic, bytes) => this.publish(topic, bytes));
  readonly #topics = new Set<string>();
  #listener: BusListener | undefined;
  #queue: { topic: string; bytes: Buffer }[] = [];

  get health() {
    return { state: this.#listener === undefined ? 'starting' : 'up' } as const;
  }

  async start(listener: BusListener): Promise<void> {
    this.#listener = listener;
  }

  async publish(topic: string, bytes: Buffer): Promise<void> {
    if (this.#queue.push({ topic, bytes }) === 1) queueMicrotask(() => this.#deliver());
  }

  subscribe(topic: string): undefined {
    this.#topics.add(topic);
  }

  unsubscribe(topic: string): void {
    this.#topics.delete(topic);
  }

  async catchUp(): Promise<void> {
    // What is queued is delivered in a microtask that was asked for before this one.
    await Promise.resolve();
  }

  async topics(prefix: string, limit: number): Promise<string[]> {
    return [...this.#topics].filter((topic) => topic.startsWith(prefix)).slice(0, limit);
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
    this.#topics.clear();
  }

  #deliver(): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const { topic, bytes } of queue) {
      if (this.#topics.has(topic)) this.#listener?.message(topic, bytes);
    }
  }
}

/** How often idempotency keys whose time is over are thrown away. */
const SWEEP_INTERVAL_MS = 60_000;

/** What gateways would share, for the one that is alone. Members never expire: who keeps them dies with them. */
class MemoryStore implements Store {
  readonly #members = new Map<string, Set<string>>();
  readonly #bans = new Map<string, number>();
  readonly #keys = new Map<string, { hash: string; untilMs: number; answer: string | undefined }>();
  #sweptAtMs = 0;

  async join(channel: string, users: readonly string[]): Promise<string[]> {
    const members = this.#members.get(channel) ?? new Set();
    this.#members.set(channel, members);
    const joined = users.filter((user) => !members.has(user));
    for (const user of joined) members.add(user);
    return joined;
  }

  async leave(channel: string, user: string): Promise<boolean> {
    const members = this.#members.get(channel);
    const left = members?.delete(user) ?? false;
    if (members?.size === 0) this.#members.delete(channel);
    return left;
  }

  async members(channel: string, limit: number): Promise<Members> {
    const users = [...(this.#members.get(channel) ?? [])];
    return { users: users.slice(0, limit), total: users.length };
  }

  async expire(): Promise<string[]> {
    return [];
  }

  async ban(user: string, untilMs: number): Promise<void> {
    this.#bans.set(user, untilMs);
  }

  async bans(): Promise<Map<string, number>> {
    const nowMs = Date.now();
    for (const [user, untilMs] of this.#bans) if (untilMs <= nowMs) this.#bans.delete(user);
    return new Map(this.#bans);
  }

  async claim(key: string, hash: string, ttlMs: number): Promise<Claim> {
    const nowMs = Date.now();
    this.#sweep(nowMs);
    const known = this.#keys.get(key);
    if (known === undefined || known.untilMs <= nowMs) {
      this.#keys.set(key, { hash, untilMs: nowMs + ttlMs, answer: undefined });
      return { kind: 'new' };
    }
    if (known.hash !== hash) return { kind: 'reused' };
    return known.answer === undefined ? { kind: 'in_progress' } : { kind: 'done', answer: known.answer };
  }

  async settle(key: string, hash: string, answer: string | undefined, ttlMs: number): Promise<void> {
    const known = this.#keys.get(key);
    // The claim may have expired meanwhile, and the key be another's.
    if (known !== undefined && known.hash !== hash) return;
    if (answer === undefined) this.#keys.delete(key);
    else this.#keys.set(key, { hash, untilMs: Date.now() + ttlMs, answer });
  }

  #sweep(nowMs: number): void {
    if (nowMs - this.#sweptAtMs < SWEEP_INTERVAL_MS) return;
    this.#sweptAtMs = nowMs;
    for (const [key, { untilMs }] of this.#keys) if (untilMs <= nowMs) this.#keys.delete(key);
  }
}
