// The memory log: durable channels inside one process. They live as long as it does.

import { TidegateError } from '../protocol/errors.ts';
import { GENESIS, type Position } from '../protocol/positions.ts';
import { channelTopic } from './bus.ts';
import { encodeEnvelope } from './envelope.ts';
import { type Append, type Appended, HEAD_OUTLIVES_MS, type Log, type Slice } from './log.ts';

interface Entry extends Position {
  readonly timeMs: number;
  readonly bytes: Buffer;
}

interface Channel {
  head: Position;
  entries: Entry[];
  /** When its last message is too old. */
  untilMs: number;
}

interface Key {
  readonly payload: string;
  readonly untilMs: number;
  readonly appended: Appended;
}

/** So many idempotency keys are remembered at the most, the latest. */
const MAX_KEYS = 100_000;
const FORGET_MS = 10_000;

/** {@link Log} in memory. */
export class MemoryLog implements Log {
  readonly #publish: (topic: string, bytes: Buffer) => Promise<void>;
  /** By topic. */
  readonly #channels = new Map<string, Channel>();
  readonly #keys = new Map<string, Key>();
  #forgotAtMs = 0;

  constructor(publish: (topic: string, bytes: Buffer) => Promise<void>) {
    this.#publish = publish;
  }

  async append(message: Append): Promise<Appended> {
    const { topic, id, sender, timeMs, skip, traceparent, payload, retention } = message;
    const nowMs = Date.now();
    this.#forget(nowMs);
    const key = JSON.stringify([topic, sender, message.key]);
    const known = this.#keys.get(key);
    if (known !== undefined && known.untilMs > nowMs) {
      if (known.payload !== payload) throw new TidegateError('key_reused');
      return { ...known.appended, repeated: true };
    }
    const header = {
      id,
      ...(sender !== undefined && { sender }),
      timeMs,
      ...(skip !== undefined && { skip }),
      ...(traceparent !== undefined && { traceparent }),
    };
    let position: Position | undefined;
    let bytes: Buffer;
    if (retention === undefined) {
      bytes = encodeEnvelope(header, payload);
    } else {
      const kept = this.#channels.get(topic) ?? { head: GENESIS, entries: [], untilMs: 0 };
      this.#channels.set(topic, kept);
      kept.untilMs = nowMs + retention.ageMs;
      position = { offset: kept.head.offset + 1, id };
      bytes = encodeEnvelope({ offset: position.offset, prev: kept.head.id, ...header }, payload);
      kept.head = position;
      kept.entries.push({ ...position, timeMs: nowMs, bytes });
      const keepFrom = kept.entries.findIndex((entry) => entry.timeMs > nowMs - retention.ageMs);
      kept.entries.splice(0, Math.max(keepFrom, kept.entries.length - retention.messages));
    }
    // One process has no replicas: whoever asks for some is told that there are none.
    const replicated = message.replicas === undefined ? undefined : false;
    const appended = { id, position, repeated: false, replicated };
    this.#keys.set(key, { payload, untilMs: nowMs + message.keyTtlMs, appended });
    await this.#publish(topic, bytes);
    return appended;
  }

  /** Seldom and in one go: to take one key out for each that comes would walk over all those taken out before. */
  #forget(nowMs: number): void {
    const isFull = this.#keys.size >= MAX_KEYS;
    if (!isFull && nowMs - this.#forgotAtMs < FORGET_MS) return;
    this.#forgotAtMs = nowMs;
    let surplus = isFull ? MAX_KEYS / 2 : 0;
    for (const [key, { untilMs }] of this.#keys) {
      if (surplus-- > 0 || untilMs <= nowMs) this.#keys.delete(key);
    }
    for (const [topic, channel] of this.#channels) {
      if (channel.untilMs <= nowMs) channel.entries = [];
      if (channel.untilMs + HEAD_OUTLIVES_MS <= nowMs) this.#channels.delete(topic);
    }
  }

  async read(channel: string, fromOffset: number, limit: number): Promise<Slice> {
    const kept = this.#channels.get(channelTopic(channel));
    if (kept === undefined) return { entries: [], head: undefined };
    const first = kept.entries[0]?.offset ?? 0;
    const from = Math.max(0, fromOffset - first);
    return { entries: kept.entries.slice(from, from + limit).map((entry) => entry.bytes), head: kept.head };
  }

  async heads(channels: readonly string[]): Promise<(Position | undefined)[]> {
    return channels.map((channel) => this.#channels.get(channelTopic(channel))?.head);
  }

  async warnings(): Promise<string[]> {
    return ['the memory bus keeps durable channels only as long as this process lives: set REDIS_URL'];
  }
}
