// The Redis log: a stream and a head for each durable channel, in one hash slot, appended to by one script.

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { newId } from '../platform/ids.ts';
import { TidegateError } from '../protocol/errors.ts';
import type { Position } from '../protocol/positions.ts';
import { channelTopic } from './bus.ts';
import { type Append, type Appended, HEAD_OUTLIVES_MS, type Log, type Slice } from './log.ts';
import type { RedisCommands } from './redis-connection.ts';
import { runScript, type Script, script } from './scripts.ts';

/** KEYS: head, stream, idempotency key, topic. ARGV: id, end of the header, payload, hash of the payload, TTL of
 * the key, messages to keep (0: only publish), their age in ms, TTL of the head, PUBLISH or SPUBLISH.
 *
 * The number of a stream entry is `offset-time`: order by offset, and the time says what is too old. Two old entries
 * at most go with each append, beside what MAXLEN trims: enough, because each append adds but one. The head is
 * derived from the stream's last entry where it is lost, or where the stream has run ahead of it. A repeated append
 * writes too, so that a WAIT behind it waits for the first one as well. */
const APPEND: Script = script(`#!lua
local known = redis.call('GET', KEYS[3])
if known then
  local hash, offset, id = string.match(known, '^(%S+) (%d+) (%S+)$')
  if hash ~= ARGV[4] then return { 'reused' } end
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  return { 'known', offset, id }
end
local id, keep, age = ARGV[1], tonumber(ARGV[6]), tonumber(ARGV[7])
local offset, message = '0', 'TG1 {' .. ARGV[2] .. '\\n' .. ARGV[3]
if keep > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local head = redis.call('HMGET', KEYS[1], 'offset', 'id')
  local function derived()
    local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    if not last then return { '0', '0' } end
    return { string.match(last[1], '^%d+'), last[2][2] }
  end
  local function add()
    offset = string.format('%.0f', tonumber(head[1]) + 1)
    message = 'TG1 {"offset":' .. offset .. ',"prev":"' .. head[2] .. '",' .. ARGV[2] .. '\\n' .. ARGV[3]
    local number = offset .. '-' .. string.format('%.0f', now)
    return redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', keep, number, 'i', id, 'm', message)
  end
  if not head[1] or not head[2] then head = derived() end
  local added = add()
  if added.err then
    head = derived()
    added = add()
    if added.err then return redis.error_reply(added.err) end
  end
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)
  for _, entry in ipairs(oldest) do
    if tonumber(string.match(entry[1], '%d+$')) >= now - age then break end
    redis.call('XDEL', KEYS[2], entry[1])
  end
  redis.call('HSET', KEYS[1], 'offset', offset, 'id', id)
  redis.call('PEXPIRE', KEYS[1], ARGV[8])
  redis.call('PEXPIRE', KEYS[2], age)
end
redis.call('SET', KEYS[3], ARGV[4] .. ' ' .. offset .. ' ' .. id, 'PX', ARGV[5])
redis.call(ARGV[9], KEYS[4], message)
return { 'new', offset, id }`);

/** KEYS: head, stream. ARGV: offset to begin at, how many. One script, so that entries and head are of one moment. */
const READ: Script = script(`#!lua flags=no-writes
local head = redis.call('HMGET', KEYS[1], 'offset', 'id')
if not head[1] or not head[2] then
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  head = last and { string.match(last[1], '^%d+'), last[2][2] } or { '', '' }
end
local entries = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])) do
  entries[#entries + 1] = entry[2][4]
end
return { head[1], head[2], entries }`);

/** An append whose answer was lost is sent again, with its key, for this long. */
const RETRY_FOR_MS = 3000;
const RETRY_EVERY_MS = 150;

const HEADS_AT_ONCE = 256;

/** What every server must know. */
export const LOG_SCRIPTS: readonly Script[] = [APPEND, READ];

/** What the log needs of its bus. */
export interface RedisLogOptions {
  readonly redis: RedisCommands;
  readonly sharded: boolean;
  /** A connection to the master of a topic's slot on which nothing but appends that wait for replicas are sent:
   * WAIT holds up everything behind it, and speaks of the writes of its own connection alone. */
  connectionFor(topic: string): RedisCommands;
  /** Runs something that waits for Redis, unless too much does so already. */
  bounded<T>(bytes: number, run: () => Promise<T>): Promise<T>;
}

/** {@link Log} in Redis. */
export class RedisLog implements Log {
  readonly #redis: RedisCommands;
  readonly #options: RedisLogOptions;

  constructor(options: RedisLogOptions) {
    this.#redis = options.redis;
    this.#options = options;
  }

  /** What waits to be sent again waits for Redis, too, so that all tries together are bounded as one. */
  append(message: Append): Promise<Appended> {
    return this.#options.bounded(message.payload.length, () => this.#persist(message));
  }

  async #persist(message: Append): Promise<Appended> {
    const deadlineMs = performance.now() + RETRY_FOR_MS;
    for (let { id } = message; ; id = newId()) {
      try {
        // Under an id of its own each time: one that was on a branch that is lost must not confirm another branch.
        return await this.#append({ ...message, id });
      } catch (error) {
        if (error instanceof TidegateError) throw error;
        if (performance.now() > deadlineMs) throw unavailable(error);
        await sleep(RETRY_EVERY_MS);
      }
    }
  }

  async read(channel: string, fromOffset: number, limit: number): Promise<Slice> {
    try {
      const answer = await runScript(
        this.#redis,
        READ,
        [headKey(channelTopic(channel)), streamKey(channelTopic(channel))],
        [fromOffset, limit],
        { buffers: true },
      );
      const [offset, id, entries] = answer as [Buffer, Buffer, Buffer[]];
      return { entries, head: positionOf(offset, id) };
    } catch (error) {
      throw unavailable(error);
    }
  }

  async heads(channels: readonly string[]): Promise<(Position | undefined)[]> {
    const heads: (Position | undefined)[] = [];
    for (let at = 0; at < channels.length; at += HEADS_AT_ONCE) {
      const some = channels
        .slice(at, at + HEADS_AT_ONCE)
        .map((channel) => this.#redis.call('hmget', [headKey(channelTopic(channel)), 'offset', 'id']));
      try {
        heads.push(
          ...((await Promise.all(some)) as (string | null)[][]).map(([offset, id]) => positionOf(offset, id)),
        );
      } catch (error) {
        throw unavailable(error);
      }
    }
    return heads;
  }

  async warnings(): Promise<string[]> {
    const info = await Promise.all(
      ['memory', 'persistence'].map((section) => this.#redis.call('info', [section])),
    ).catch(() => undefined);
    if (info === undefined)
      return ['Redis does not tell whether it persists or evicts (INFO is refused): see to it yourself'];
    const fields = new Map(
      info
        .join('\n')
        .split(/\r?\n/)
        .map((line) => line.split(':', 2) as [string, string]),
    );
    const policy = fields.get('maxmemory_policy') ?? 'noeviction';
    const warnings: string[] = [];
    if (fields.get('aof_enabled') !== '1') {
      warnings.push(
        'Redis has no append-only file: durable channels lose what was published since the last snapshot when it restarts (appendonly yes)',
      );
    }
    if (fields.get('maxmemory') !== '0' && policy !== 'noeviction') {
      warnings.push(
        `Redis may evict durable channels when memory runs out (maxmemory-policy ${policy}): use noeviction`,
      );
    }
    return warnings;
  }

  async #append(message: Append): Promise<Appended> {
    const { topic, id, sender, timeMs, skip, traceparent, payload, retention, replicas } = message;
    const header = JSON.stringify({
      id,
      ...(sender !== undefined && { sender }),
      timeMs,
      ...(skip !== undefined && { skip }),
      ...(traceparent !== undefined && { traceparent }),
    });
    const keys = [headKey(topic), streamKey(topic), keyKey(message), topic];
    const ageMs = retention?.ageMs ?? 0;
    const args = [
      id,
      header.slice(1),
      payload,
      digest(payload),
      message.keyTtlMs,
      retention?.messages ?? 0,
      ageMs,
      ageMs + HEAD_OUTLIVES_MS,
      this.#options.sharded ? 'SPUBLISH' : 'PUBLISH',
    ];
    let answer: unknown;
    let replicated: boolean | undefined;
    if (replicas === undefined) {
      answer = await runScript(this.#redis, APPEND, keys, args);
    } else {
      const connection = this.#options.connectionFor(topic);
      answer = await runScript(connection, APPEND, keys, args);
      // A replica that does not come in time makes the answer honest, not the append undone.
      replicated = await connection.call('wait', [replicas.count, replicas.timeoutMs]).then(
        (count) => Number(count) >= replicas.count,
        () => false,
      );
    }
    const [kind, offset, appendedId] = answer as [string, string, string];
    if (kind === 'reused') throw new TidegateError('key_reused');
    const position = retention === undefined ? undefined : { offset: Number(offset), id: appendedId };
    return { id: appendedId, position, repeated: kind === 'known', replicated };
  }
}

// The topic's braces make everything of one channel, or one user, share its slot.

function headKey(topic: string): string {
  return `${topic}:head`;
}

function streamKey(topic: string): string {
  return `${topic}:stream`;
}

/** Keys are of a sender: nobody can find out or use up another's. */
function keyKey({ topic, sender, key }: Append): string {
  return `${topic}:key:${digest(JSON.stringify([sender, key]))}`;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 32);
}

function positionOf(
  offset: Buffer | string | null | undefined,
  id: Buffer | string | null | undefined,
): Position | undefined {
  return offset && id && String(offset) !== ''
    ? { offset: Number(String(offset)), id: String(id) }
    : undefined;
}

function unavailable(error: unknown): TidegateError {
  return new TidegateError('bus_unavailable', undefined, { cause: error, retryAfterMs: 1000 });
}
