// Connections to Redis: how ioredis is set up for each mode, so that nothing is queued without bound or sent twice.

import { readFileSync } from 'node:fs';
import { Redis, type RedisOptions } from 'ioredis';
import { RedisConnection } from './redis-connection.ts';
import type { Host } from './redis-slots.ts';

/** Where Redis is and how to get in. The passwords are looked at each time that a connection is made, so whoever holds
 * the address may change them; connections that are up stay. */
export interface RedisAddress {
  /** `redis://[user:password@]host:port[,host:port...][/db]`, or `rediss://` for TLS. */
  readonly url: string;
  readonly mode: 'standalone' | 'sentinel' | 'cluster';
  readonly sentinelName: string;
  readonly username?: string | undefined;
  password?: string | undefined;
  sentinelPassword?: string | undefined;
  readonly caFile?: string | undefined;
}

/** How long a command may take, and how long a connection may take to be made. Short, because a publisher waits. */
const COMMAND_TIMEOUT_MS = 2000;
const CONNECT_TIMEOUT_MS = 1000;

/** Redis must be delivering again within two seconds of being back, so nobody sleeps longer than this. */
const MAX_RETRY_MS = 400;

/** How long a connection that is closed may take to say its last words. */
const DISCONNECT_TIMEOUT_MS = 100;

/** Makes connections that
 * - reject at once while Redis is away, instead of queueing (`enableOfflineQueue: false`, `maxRetriesPerRequest: 0`);
 * - never send a command twice (`autoResendUnfulfilledCommands: false`): whether the first was taken is not known;
 * - leave subscribing again to their owner (`autoResubscribe: false`), who must know when it is done;
 * - go on trying for ever, at most {@link MAX_RETRY_MS} apart. */
export class RedisConnector {
  readonly mode: RedisAddress['mode'];
  /** Where to ask first; the server itself, the Sentinels, or some nodes of the Cluster. */
  readonly hosts: readonly Host[];
  readonly #address: RedisAddress;
  readonly #options: Omit<RedisOptions, 'replyMapping' | 'himportFieldsets'>;
  readonly #login: Pick<RedisOptions, 'db' | 'username'>;
  readonly #urlPassword: string | undefined;

  /** @throws {Error} where the URL or the certificate file cannot be used, with what to do. */
  constructor(address: RedisAddress) {
    this.#address = address;
    this.mode = address.mode;
    const parsed = parseUrl(address.url, this.mode === 'sentinel' ? SENTINEL_PORT : REDIS_PORT);
    this.hosts = parsed.hosts;
    if (this.mode === 'standalone' && parsed.hosts.length > 1) {
      throw new Error('REDIS_URL lists several hosts: set REDIS_MODE to sentinel or cluster');
    }
    const tls = parsed.tls
      ? { ...(address.caFile !== undefined && { ca: readFileSync(address.caFile) }) }
      : undefined;
    this.#options = {
      lazyConnect: true,
      connectTimeout: CONNECT_TIMEOUT_MS,
      commandTimeout: COMMAND_TIMEOUT_MS,
      disconnectTimeout: DISCONNECT_TIMEOUT_MS,
      maxLoadingRetryTime: MAX_RETRY_MS,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResubscribe: false,
      autoResendUnfulfilledCommands: false,
      retryStrategy: retryDelayMs,
      ...(tls !== undefined && { tls }),
    };
    const username = parsed.username ?? address.username;
    this.#urlPassword = parsed.password;
    this.#login = {
      ...(this.mode !== 'cluster' && { db: parsed.db }),
      ...(username !== undefined && { username }),
    };
  }

  /** A connection to the master, or on a Cluster to the node that is named. Its name shows in CLIENT LIST. */
  connection(connectionName: string, node = this.hosts[0]): RedisConnection {
    const options = { ...this.#options, ...this.#login, connectionName };
    const passwords = () => {
      const { password, sentinelPassword } = this.#address;
      return withoutUndefined({ password: this.#urlPassword ?? password, sentinelPassword });
    };
    if (this.mode !== 'sentinel') return connect({ ...options, ...node }, passwords);
    return connect(
      {
        ...options,
        sentinels: [...this.hosts],
        name: this.#address.sentinelName,
        sentinelRetryStrategy: retryDelayMs,
        // Otherwise a Sentinel that is frozen would be waited for, for ever.
        sentinelCommandTimeout: CONNECT_TIMEOUT_MS,
        ...(options.tls !== undefined && { enableTLSForSentinelMode: true, sentinelTLS: options.tls }),
      },
      passwords,
    );
  }

  /** A connection to each Sentinel. They have a password of their own. */
  sentinels(): RedisConnection[] {
    const passwords = () => withoutUndefined({ password: this.#address.sentinelPassword });
    return this.hosts.map((host) => connect({ ...this.#options, ...host }, passwords));
  }
}

type Passwords = Pick<RedisOptions, 'password' | 'sentinelPassword'>;

/** A connection that asks for its passwords each time that it is made anew. */
function connect(
  options: Omit<RedisOptions, 'replyMapping' | 'himportFieldsets'>,
  passwords: () => Passwords,
): RedisConnection {
  const redis = new Redis({ ...options, ...passwords() });
  redis.on('reconnecting', () => Object.assign(redis.options, passwords()));
  return new RedisConnection(redis);
}

function withoutUndefined(given: { [K in keyof Passwords]: string | undefined }): Passwords {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** 50 ms at first, then doubling up to the cap, with a quarter of jitter so that pods do not come all at once. */
function retryDelayMs(attempt: number): number {
  const delayMs = Math.min(25 * 2 ** Math.min(attempt, 10), MAX_RETRY_MS);
  return Math.round(delayMs * (0.75 + Math.random() / 4));
}

const REDIS_PORT = 6379;
const SENTINEL_PORT = 26_379;

interface ParsedUrl {
  readonly tls: boolean;
  readonly hosts: Host[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly db: number;
}

/** Reads a URL that may list several hosts, which the standard parser does not allow. Never shows it: it may
 * hold a password. */
function parseUrl(url: string, defaultPort: number): ParsedUrl {
  const match = /^(redis|rediss):\/\/(?:([^:@/]*)(?::([^@/]*))?@)?([^/?]+)(?:\/(\d+)?)?$/.exec(url);
  if (match === null)
    throw new Error('REDIS_URL must look like redis://[user:password@]host:port[,host:port...][/db]');
  const [, scheme, username, password, list = '', db] = match;
  const hosts = list.split(',').map((entry) => {
    const host = /^(\[[0-9a-fA-F:]+\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(entry.trim());
    if (host === null) throw new Error('REDIS_URL has a host that is not host:port');
    return { host: (host[1] ?? '').replace(/[[\]]/g, ''), port: Number(host[2] ?? defaultPort) };
  });
  return {
    tls: scheme === 'rediss',
    hosts,
    username: username ? decode(username) : undefined,
    password: password ? decode(password) : undefined,
    db: Number(db ?? 0),
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('REDIS_URL has a % in its user or password that is not an escape: write it as %25');
  }
}
