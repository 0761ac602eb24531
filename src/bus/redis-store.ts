// The Redis store: presence, bans and idempotency keys, each change one atomic script.

import { TidegateError } from '../protocol/errors.ts';
import type { Claim, Members, Store } from './bus.ts';
import type { RedisCommands } from './redis-connection.ts';
import { runScript, type Script, script } from './scripts.ts';

// Every key is in KEYS and the scripts begin with a shebang, so that Redis checks on a Cluster that they share a
// slot. Times are Redis's own: the clocks of pods do not agree.
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`;

/** KEYS: members of the channel, then for each user the pods he is on. ARGV: pod, TTL, users. */
const JOIN = script(`#!lua${NOW}
local pod, ttl = ARGV[1], tonumber(ARGV[2])
local joined = {}
for i = 3, #ARGV do
  if redis.call('ZADD', KEYS[1], 'GT', 'CH', now + ttl, ARGV[i]) == 1 then
    redis.call('ZREMRANGEBYSCORE', KEYS[i - 1], '-inf', now)
    if redis.call('EXISTS', KEYS[i - 1]) == 0 then joined[#joined + 1] = ARGV[i] end
  end
  redis.call('ZADD', KEYS[i - 1], now + ttl, pod)
  redis.call('PEXPIRE', KEYS[i - 1], ttl)
end
redis.call('PEXPIRE', KEYS[1], ttl * 4)
return joined`);

/** KEYS: members of the channel, pods of the user. ARGV: pod, user. Returns 1 if he is on no pod any more. */
const LEAVE = script(`#!lua${NOW}
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local rest = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
if #rest == 0 then return redis.call('ZREM', KEYS[1], ARGV[2]) end
redis.call('ZADD', KEYS[1], rest[2], ARGV[2])
return 0`);

/** KEYS: members of the channel. ARGV: how many to name. */
const MEMBERS = script(`#!lua flags=no-writes${NOW}
return { redis.call('ZCOUNT', KEYS[1], now, '+inf'), redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'LIMIT', 0, ARGV[1]) }`);

/** KEYS: members of the channel. At most a thousand at a time, so that no script holds Redis up. */
const EXPIRE = script(`#!lua${NOW}
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return gone`);

/** KEYS: all bans. ARGV: user, until. */
const BAN = script(`#!lua${NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])`);

/** KEYS: all bans. */
const BANS = script(`#!lua flags=no-writes${NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES')`);

/** KEYS: the idempotency key. ARGV: hash, TTL. The value is the hash, and the answer after a line's end. */
const CLAIM = script(`#!lua
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return { 'new' } end
local value = redis.call('GET', KEYS[1])
local split = string.find(value, '\\n', 1, true)
local hash = split and string.sub(value, 1, split - 1) or value
if hash ~= ARGV[1] then return { 'reused' } end
if split then return { 'done', string.sub(value, split + 1) } end
return { 'in_progress' }`);

/** KEYS: the idempotency key. ARGV: hash, TTL, and the answer, if there is one. The claim may have expired meanwhile,
 * and the key be another's. */
const SETTLE = script(`#!lua
local value = redis.call('GET', KEYS[1])
if value and string.match(value, '^[^\\n]*') ~= ARGV[1] then return end
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[1] .. '\\n' .. ARGV[3], 'PX', ARGV[2]) else redis.call('DEL', KEYS[1]) end`);

/** What every server must know. */
export const STORE_SCRIPTS: readonly Script[] = [JOIN, LEAVE, MEMBERS, EXPIRE, BAN, BANS, CLAIM, SETTLE];

const BANS_KEY = 'tg:bans';

/** {@link Store} in Redis. */
export class RedisStore implements Store {
  readonly #redis: RedisCommands;
  readonly #pod: string;

  constructor(redis: RedisCommands, pod: string) {
    this.#redis = redis;
    this.#pod = pod;
  }

  async join(channel: string, users: readonly string[], ttlMs: number): Promise<string[]> {
    const keys = [membersKey(channel), ...users.map((user) => podsKey(channel, user))];
    return texts(await this.#run(JOIN, keys, [this.#pod, ttlMs, ...users]));
  }

  async leave(channel: string, user: string): Promise<boolean> {
    const keys = [membersKey(channel), podsKey(channel, user)];
    return (await this.#run(LEAVE, keys, [this.#pod, user])) === 1;
  }

  async members(channel: string, limit: number): Promise<Members> {
    const [total, users] = (await this.#run(MEMBERS, [membersKey(channel)], [limit])) as [number, unknown];
    return { total, users: texts(users) };
  }

  async expire(channel: string): Promise<string[]> {
    return texts(await this.#run(EXPIRE, [membersKey(channel)], []));
  }

  async ban(user: string, untilMs: number): Promise<void> {
    await this.#run(BAN, [BANS_KEY], [user, untilMs]);
  }

  async bans(): Promise<Map<string, number>> {
    const flat = texts(await this.#run(BANS, [BANS_KEY], []));
    const bans = new Map<string, number>();
    for (let at = 0; at + 1 < flat.length; at += 2) bans.set(flat[at] ?? '', Number(flat[at + 1]));
    return bans;
  }

  async claim(key: string, hash: string, ttlMs: number): Promise<Claim> {
    const [kind, answer = ''] = texts(await this.#run(CLAIM, [keyKey(key)], [hash, ttlMs]));
    if (kind === 'done') return { kind, answer };
    return { kind: kind === 'new' || kind === 'in_progress' ? kind : 'reused' };
  }

  async settle(key: string, hash: string, answer: string | undefined, ttlMs: number): Promise<void> {
    await this.#run(SETTLE, [keyKey(key)], answer === undefined ? [hash, ttlMs] : [hash, ttlMs, answer]);
  }

  async #run(what: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    try {
      return await runScript(this.#redis, what, keys, args);
    } catch (error) {
      throw new TidegateError('bus_unavailable', undefined, { cause: error });
    }
  }
}

function membersKey(channel: string): string {
  return `tg:{p:${channel}}`;
}

function podsKey(channel: string, user: string): string {
  return `tg:{p:${channel}}:${user}`;
}

function keyKey(key: string): string {
  return `tg:k:${key}`;
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
