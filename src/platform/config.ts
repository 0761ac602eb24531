// Configuration: one table of every setting, and the function that reads the environment by it.
// docs/configuration.md and `--help` are made from this table.

import { readFileSync } from 'node:fs';
import { nearest } from './nearest.ts';

/** How a setting's text becomes a value: `parse` throws nothing and returns undefined for what is not allowed. */
interface Kind<T> {
  readonly allowed: string;
  parse(text: string): T | undefined;
}

/** One row of the table. Without a default the setting may be left unset. */
export interface Setting<T = unknown> {
  readonly kind: Kind<T>;
  readonly default?: T;
  /** The default as people should read it, where the value itself does not say enough. */
  readonly defaultText?: string;
  readonly group: string;
  readonly help: string;
  /** Never shown in messages. */
  readonly secret?: boolean;
}

const integer = (min: number, max: number): Kind<number> => ({
  allowed: `a whole number from ${min} to ${max}`,
  parse(text) {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max ? value : undefined;
  },
});

const share: Kind<number> = {
  allowed: 'a number from 0 to 1',
  parse(text) {
    const value = /^\d*\.?\d+(e-\d+)?$/i.test(text) ? Number(text) : Number.NaN;
    return value <= 1 ? value : undefined;
  },
};

const choice = <const T extends string>(...values: T[]): Kind<T> => ({
  allowed: values.map((value) => `\`${value}\``).join(', '),
  parse: (text) => values.find((value) => value === text),
});

const flag: Kind<boolean> = {
  allowed: '`true` or `false`',
  parse: (text) => (text === 'true' ? true : text === 'false' ? false : undefined),
};

const text: Kind<string> = { allowed: 'a text', parse: (value) => value };

const MIN_BEARER_LENGTH = 16;

const bearer: Kind<string> = {
  allowed: `${MIN_BEARER_LENGTH} or more printable ASCII characters without spaces`,
  parse: (value) => (/^[!-~]+$/.test(value) && value.length >= MIN_BEARER_LENGTH ? value : undefined),
};

const path: Kind<string> = { allowed: 'the path of a file', parse: (value) => value };

/** One item or more: a list of nothing, as from `,`, would pass for a setting that is not set. */
const list = (allowed: string, isAllowed: (item: string) => boolean): Kind<string[]> => ({
  allowed: `${allowed}, separated by commas`,
  parse(value) {
    const items = value
      .split(',')
      .map((item) => item.trim())
      .filter((item) => item !== '');
    return items.length > 0 && items.every(isAllowed) ? items : undefined;
  },
});

const webUrl: Kind<string> = {
  allowed: 'a URL that begins with `https://` or `http://`',
  parse: (value) => (/^https?:\/\//.test(value) && URL.canParse(value) ? value : undefined),
};

/** Only roughly: it may list several hosts, and whoever connects reads it closely. */
const redisUrl: Kind<string> = {
  allowed: 'a URL that begins with `redis://` or `rediss://`',
  parse: (value) => (/^rediss?:\/\//.test(value) ? value : undefined),
};

/** As browsers send them, or they would never match: in lower case, with neither path nor default port. */
function isOrigin(item: string): boolean {
  if (!URL.canParse(item)) return false;
  const { origin, protocol, host } = new URL(item);
  // Of schemes that it does not know, as browser extensions have, the parser gives no origin.
  return item === (origin === 'null' ? `${protocol}//${host}` : origin);
}

const name: Kind<string> = {
  allowed: '1 to 128 of the characters A-Z a-z 0-9 . _ ~ @ : / -, not beginning with `tg:`',
  parse: (value) => (/^(?!tg:|tg$)[A-Za-z0-9._~@:/-]{1,128}$/.test(value) ? value : undefined),
};

const objectName: Kind<string> = {
  allowed: 'a name as Kubernetes has them',
  parse: (value) => (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value) ? value : undefined),
};

const listeners = 'Listeners';
const connections = 'Connections';
const tokens = 'Tokens';
const channels = 'Channels';
const messages = 'Messages';
const bus = 'Bus';
const traces = 'Traces';
const operations = 'Operations';
const operator = 'Operator';

const MIB = 1_048_576;

/** Signatures by a shared secret. */
export const secretAlgorithms: readonly string[] = ['HS256', 'HS384', 'HS512'];

/** Signatures by a key whose public half is in a key set. */
export const keySetAlgorithms: readonly string[] =
  'RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA'.split(' ');

const jwtAlgorithms = [...secretAlgorithms, ...keySetAlgorithms];

/** Every setting. The name is the environment variable; `NAME_FILE` may name a file that holds the value instead. */
// biome-ignore format: a table is read a row at a time
export const settings = {
  PORT: { group: listeners, kind: integer(0, 65_535), default: 8080, help: 'Public listener: WebSocket, and the demo page where it is on. 0 picks a free port.' },
  API_PORT: { group: listeners, kind: integer(0, 65_535), default: 8081, help: 'HTTP API listener, for application backends. Stays closed without `API_KEYS_FILE`.' },
  ADMIN_PORT: { group: listeners, kind: integer(0, 65_535), default: 9090, help: 'Admin listener: probes, metrics, connection totals. Keep it inside the cluster.' },
  ADMIN_TOKEN: { group: listeners, kind: bearer, secret: true, help: 'What `/connections` and `/ceiling` on the admin listener ask for, as `Authorization: Bearer`. Unset: everybody may read `/connections`, and nobody may set a ceiling. Probes and metrics never ask for it. `ADMIN_TOKEN_FILE` is read again when it changes.' },
  HOST: { group: listeners, kind: text, help: 'Address that all three listeners bind.', defaultText: 'every address' },
  API_KEYS_FILE: { group: listeners, kind: path, help: 'File with the keys of the HTTP API, one a line. Lines that begin with `#` are comments. Read again when it changes.' },

  AUTH: { group: tokens, kind: choice('jwt', 'anonymous'), help: 'Who may connect. `anonymous` lets everybody in, under any name they choose. Unset, it is `jwt` where a key is given; with neither, the gateway refuses to start.' },
  JWT_SECRET: { group: tokens, kind: text, secret: true, help: 'Shared secret that signs tokens (HS256, HS384, HS512). 32 bytes or more. Several may be accepted at once, one a line, the newest first. `JWT_SECRET_FILE` is read again when it changes.' },
  JWKS_URL: { group: tokens, kind: webUrl, help: 'URL of the JSON Web Key Set whose keys sign tokens. Fetched when first needed and again every ten minutes; for unknown keys a few times at once, then every 10 seconds at most. While it cannot be fetched, the keys of the last time go on working.' },
  JWT_ALGORITHMS: { group: tokens, kind: list(`any of ${jwtAlgorithms.join(' ')}`, (item) => jwtAlgorithms.includes(item)), defaultText: 'HS256 with a secret; all but HS… with a key set', help: 'Signature algorithms that are accepted. `none` never is.' },
  JWT_AUDIENCE: { group: tokens, kind: text, help: 'What a token’s `aud` must contain. Unset: not checked.' },
  JWT_ISSUER: { group: tokens, kind: text, help: 'What a token’s `iss` must be. Unset: not checked.' },
  JWT_COOKIE: { group: tokens, kind: text, default: 'tidegate_token', help: 'Cookie a token may come in. Only read where `ALLOWED_ORIGINS` lists who may send it.' },

  ALLOWED_ORIGINS: { group: connections, kind: list('origins such as `https://app.example.com`, in lower case and without a path', isOrigin), default: [], defaultText: 'every origin', help: 'Origins of the pages that may connect. Others get 403. Clients that send no Origin are not browsers and pass.' },
  TRUSTED_PROXIES: { group: connections, kind: integer(0, 16), default: 0, help: 'How many proxies in front add to X-Forwarded-For. Too low and limits by address hit the load balancer; too high and clients can forge their address.' },
  MAX_CONNECTIONS: { group: connections, kind: integer(1, 1_000_000), default: 20_000, help: 'Connections this pod holds at the most. One more gets 503 with Retry-After before the upgrade.' },
  MAX_CONNECTIONS_PER_USER: { group: connections, kind: integer(0, 1_000_000), default: 100, help: 'Connections one user may have on this pod; one more is closed with 4406. 0: no limit.' },
  MAX_CHANNELS_PER_CONNECTION: { group: connections, kind: integer(1, 100_000), default: 1000, help: 'Channels one connection may be subscribed to.' },
  UPGRADE_RATE: { group: connections, kind: integer(0, 1_000_000), default: 100, help: 'Upgrades a second from one address, or from one /64 of IPv6, with bursts of ten times as many. More get 429 with Retry-After. 0: no limit.' },
  HANDSHAKE_TIMEOUT_SECONDS: { group: connections, kind: integer(1, 300), default: 10, help: 'How long a client may take to send its upgrade request.' },
  PING_INTERVAL_SECONDS: { group: connections, kind: integer(1, 3600), default: 25, help: 'How often every connection is pinged. Must be less than half of the idle time-out of any load balancer in front.' },
  PONG_TIMEOUT_SECONDS: { group: connections, kind: integer(1, 3600), default: 10, help: 'How long a client may take to answer a ping before it is cut. At most the interval.' },
  COMPRESSION: { group: connections, kind: flag, default: false, help: 'Agree on permessage-deflate with clients that offer it. A message is compressed once, whoever gets it. Costs CPU and memory; saves bandwidth on large payloads.' },

  PLAIN_CHANNEL: { group: channels, kind: name, default: 'ws_broadcast', help: 'Channel that clients of the plain protocol publish to and hear. Its namespace is raw and open to anyone unless the channels file lists it.' },
  PLAIN_HEARTBEAT: { group: channels, kind: flag, default: false, help: 'Send `{"type":"ping"}` to every client of the plain protocol at each interval, not only to those that connect with `?heartbeat=true`.' },
  CHANNELS_FILE: { group: channels, kind: path, help: 'YAML or JSON file with the namespaces and who may publish and subscribe. Without it only `PLAIN_CHANNEL` exists. Read again when it changes.' },
  CHANNELS: { group: channels, kind: text, help: 'The same as text, where a file is unhandy.' },
  PRESENCE_TTL_SECONDS: { group: channels, kind: integer(3, 3600), default: 30, help: 'How long the members of a pod that was killed are still listed.' },

  MAX_MESSAGE_BYTES: { group: messages, kind: integer(128, 16 * MIB), default: 65_536, help: 'Largest frame a client may send; a larger one closes with 1009. Also the largest payload on the HTTP API and on raw channels.' },
  MESSAGE_RATE: { group: messages, kind: integer(0, 1_000_000), default: 100, help: 'Messages a second one connection may send, with bursts of twice as many. A command for many channels counts as one for every 20 of them. More are answered with `rate_limited`; a client that goes on is closed with 4404. 0: no limit.' },
  BYTE_RATE: { group: messages, kind: integer(0, 1_000_000_000), defaultText: '`MESSAGE_RATE` × 16 KiB', help: 'Bytes a second one connection may send, with bursts of twice as many. 0: no limit.' },
  MAX_BACKLOG_BYTES: { group: messages, kind: integer(65_536, 1024 * MIB), default: MIB, help: 'What may wait for one connection that reads slowly before its namespace’s `slow` policy acts.' },
  MAX_TOTAL_BACKLOG_BYTES: { group: messages, kind: integer(MIB, 64 * 1024 * MIB), default: 128 * MIB, help: 'What may wait for all slow connections together before the slowest are cut.' },

  REDIS_URL: { group: bus, kind: redisUrl, secret: true, help: 'Redis that carries messages between pods: `redis://user:password@host:6379`, `rediss://` for TLS; several hosts, separated by commas, for Sentinel and Cluster. Unset: the memory bus, for one pod alone.' },
  REDIS_MODE: { group: bus, kind: choice('standalone', 'sentinel', 'cluster'), default: 'standalone', help: 'What `REDIS_URL` leads to: one server, the Sentinels of one, or the nodes of a Cluster (7.0 or later, for sharded Pub/Sub).' },
  REDIS_SENTINEL_NAME: { group: bus, kind: text, default: 'mymaster', help: 'The name that Sentinel knows the master by.' },
  REDIS_USERNAME: { group: bus, kind: text, help: 'ACL user, where the URL has none.' },
  REDIS_PASSWORD: { group: bus, kind: text, secret: true, help: 'Password, where the URL has none. `REDIS_PASSWORD_FILE` keeps it out of the environment, and is read again when it changes, for the next connections.' },
  REDIS_SENTINEL_PASSWORD: { group: bus, kind: text, secret: true, help: 'Password of the Sentinels themselves.' },
  REDIS_CA_FILE: { group: bus, kind: path, help: 'Certificates that sign those of Redis, where the system’s do not.' },

  OTEL_EXPORTER_OTLP_ENDPOINT: { group: traces, kind: webUrl, help: 'Where traces go: an OTLP receiver over HTTP, such as `http://otel-collector:4318`; `/v1/traces` is added. Unset: there are no traces, and nothing of them is loaded.' },
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: { group: traces, kind: webUrl, help: 'The same, to the whole path. Comes before the other.' },
  OTEL_EXPORTER_OTLP_HEADERS: { group: traces, kind: text, secret: true, help: 'Headers for the receiver: `name=value`, separated by commas. `OTEL_EXPORTER_OTLP_HEADERS_FILE` keeps them out of the environment.' },
  OTEL_EXPORTER_OTLP_TRACES_HEADERS: { group: traces, kind: text, secret: true, help: 'The same, for traces alone. Comes before the other.' },
  OTEL_EXPORTER_OTLP_PROTOCOL: { group: traces, kind: choice('http/protobuf', 'http/json'), default: 'http/protobuf', help: 'How spans are written.' },
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: { group: traces, kind: choice('http/protobuf', 'http/json'), help: 'The same, for traces alone. Comes before the other.' },
  OTEL_TRACES_SAMPLER: { group: traces, kind: choice('parentbased_traceidratio', 'parentbased_always_on', 'parentbased_always_off', 'traceidratio', 'always_on', 'always_off'), default: 'parentbased_traceidratio', help: 'Which messages are traced: a share, all or none. Always parent-based: where a caller of the HTTP API sends a `traceparent`, that decides.' },
  OTEL_TRACES_SAMPLER_ARG: { group: traces, kind: share, default: 0.01, help: 'The share of messages that is traced, where their namespace does not say (`traces` in the channels file).' },
  TRACE_SLOW_MS: { group: traces, kind: integer(0, 3_600_000), default: 1000, help: 'A message that took so long from its publish to the last socket is traced afterwards, whether it was sampled or not. 0: none is.' },
  OTEL_SERVICE_NAME: { group: traces, kind: text, defaultText: '`tidegate`', help: 'The service that traces are of.' },
  OTEL_RESOURCE_ATTRIBUTES: { group: traces, kind: text, help: 'What else traces should say of this pod: `name=value`, separated by commas.' },
  OTEL_TRACES_EXPORTER: { group: traces, kind: choice('otlp', 'none'), default: 'otlp', help: '`none` turns traces off.' },
  OTEL_SDK_DISABLED: { group: traces, kind: flag, default: false, help: 'Turns traces off.' },
  OTEL_BSP_MAX_QUEUE_SIZE: { group: traces, kind: integer(1, 1_000_000), default: 2048, help: 'How many spans may wait to be sent. More are dropped and counted.' },
  OTEL_BSP_MAX_EXPORT_BATCH_SIZE: { group: traces, kind: integer(1, 1_000_000), default: 512, help: 'How many spans are sent at once.' },
  OTEL_BSP_SCHEDULE_DELAY: { group: traces, kind: integer(0, 3_600_000), default: 5000, help: 'After how many milliseconds they are sent at the latest.' },
  OTEL_BSP_EXPORT_TIMEOUT: { group: traces, kind: integer(1, 3_600_000), default: 30_000, help: 'How many milliseconds sending may take.' },

  DRAIN_SECONDS: { group: operations, kind: integer(0, 3600), default: 30, help: 'How long a stopping pod takes to close its connections, evenly spread.' },
  POD_NAME: { group: operations, kind: text, defaultText: 'the host name', help: 'Name of this pod in logs and in presence.' },
  DEMO: { group: operations, kind: flag, default: false, help: 'Serve the demo page at `/`.' },
  LOG_LEVEL: { group: operations, kind: choice('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'), default: 'info', help: 'Least level that is logged. A connection’s open and close are `info`.' },
} as const satisfies Record<string, Setting<never> | Setting>;

/** Every setting of the operator. Its names are its own: an operator is no gateway. */
// biome-ignore format: a table is read a row at a time
export const operatorSettings = {
  ADMIN_PORT: { group: operator, kind: integer(0, 65_535), default: 9090, help: 'Admin listener: probes and metrics. 0 picks a free port.' },
  HOST: { group: operator, kind: text, help: 'Address that its listeners bind.', defaultText: 'every address' },
  OPERATOR_NAME: { group: operator, kind: objectName, default: 'tidegate-operator', help: 'Name of its Deployment. Its Lease and its Service have the same, and its Secret too, with `-tls`.' },
  OPERATOR_NAMESPACE: { group: operator, kind: objectName, defaultText: 'that of the pod, or of the kubeconfig', help: 'Namespace of the operator itself.' },
  WATCH_NAMESPACES: { group: operator, kind: choice('own', 'all'), default: 'own', help: 'Whose connection policies it works on: those in its own namespace, or all.' },
  METRICS_API_PORT: { group: operator, kind: integer(1, 65_535), help: 'Port of the metrics API, `custom.metrics.k8s.io`, over TLS. Unset: it is not served.' },
  ADMIN_TOKEN: { group: operator, kind: bearer, secret: true, help: 'What pods in its own namespace ask for on their admin port. Policies elsewhere name a Secret. `ADMIN_TOKEN_FILE` is read again when it changes.' },
  POD_NAME: { group: operator, kind: text, defaultText: 'the host name', help: 'Name of this replica in the Lease, in logs and in events.' },
  LOG_LEVEL: { group: operator, kind: choice('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'), default: 'info', help: 'Least level that is logged.' },
} as const satisfies Record<string, Setting<never> | Setting>;

type Settings = typeof settings;

type ValueOf<S> = S extends { kind: Kind<infer T>; default: unknown }
  ? T
  : S extends { kind: Kind<infer T> }
    ? T | undefined
    : never;

/** The value of every setting, by its name. */
export type Config = { readonly [K in keyof Settings]: ValueOf<Settings[K]> } & {
  /** The files that values were read from, by the name of the setting: what may change while the process runs. */
  readonly files: Readonly<Partial<Record<keyof Settings, string>>>;
};

/** The value of every setting of the operator. */
export type OperatorConfig = {
  readonly [K in keyof typeof operatorSettings]: ValueOf<(typeof operatorSettings)[K]>;
} & {
  /** As those of {@link Config}. */
  readonly files: Readonly<Partial<Record<keyof typeof operatorSettings, string>>>;
};

type Env = Readonly<Record<string, string | undefined>>;

/** The environment was not usable. `faults` has a line for each setting that is wrong. */
export class ConfigError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(faults.join('\n'));
    this.name = 'ConfigError';
    this.faults = faults;
  }
}

/** What is wrong, a line for each fault. */
export function faultsOf(error: unknown): readonly string[] {
  if (error instanceof ConfigError) return error.faults;
  return [error instanceof Error ? error.message : String(error)];
}

/** Reads the environment by the table. An empty variable counts as unset.
 * @throws {ConfigError} with every fault at once. */
export function readConfig(env: Env): Config {
  const { values, faults, faulty } = readTable<Config>(settings, env);
  faults.push(...contradictions(values, faulty));
  if (faults.length > 0) throw new ConfigError(faults);
  return values;
}

/** The same for the operator. */
export function readOperatorConfig(env: Env): OperatorConfig {
  const { values, faults } = readTable<OperatorConfig>(operatorSettings, env);
  if (faults.length > 0) throw new ConfigError(faults);
  return values;
}

/** What of the environment may be a setting that was mistyped, a line each. It is no fault: the environment has much that
 * is not ours. */
export function suspicionsOf(env: Env, table: object = settings): readonly string[] {
  const known = new Set(Object.keys(table).flatMap((key) => [key, `${key}_FILE`]));
  return Object.keys(env).flatMap((key) => {
    const meant = env[key] && !known.has(key) ? nearest(key, known) : undefined;
    return meant === undefined ? [] : [`${key} is no setting: is it ${meant} that you mean?`];
  });
}

/** The values by the table, and what is wrong with which. */
function readTable<T>(table: object, env: Env): { values: T; faults: string[]; faulty: Set<string> } {
  const faults: string[] = [];
  const faulty = new Set<string>();
  const values: Record<string, unknown> = {};
  const files: Record<string, string> = {};
  for (const [key, setting] of Object.entries(table) as [string, Setting][]) {
    const before = faults.length;
    const file = fileOf(env, key, table);
    if (file !== undefined) files[key] = file;
    const given = readText(env, key, file, faults);
    if (faults.length > before) faulty.add(key);
    if (given === undefined) {
      values[key] = setting.default;
      continue;
    }
    const value = setting.kind.parse(given);
    if (value === undefined) {
      const shown = setting.secret ? '' : `, not ${JSON.stringify(given.slice(0, 80))}`;
      faults.push(`${key} must be ${setting.kind.allowed}${shown}`);
      faulty.add(key);
    }
    values[key] = value;
  }
  return { values: { ...values, files } as T, faults, faulty };
}

/** The file that a setting's `_FILE` twin names. */
function fileOf(env: Env, key: string, table: object): string | undefined {
  const fileKey = `${key}_FILE`;
  return fileKey in table ? undefined : env[fileKey] || undefined;
}

/** The variable, or what the file named by its `_FILE` twin holds. */
function readText(env: Env, key: string, file: string | undefined, faults: string[]): string | undefined {
  const direct = env[key] || undefined;
  const fileKey = `${key}_FILE`;
  if (file === undefined) return direct;
  if (direct !== undefined) {
    faults.push(`${key} and ${fileKey} are both set: unset one`);
    return direct;
  }
  try {
    return valueIn(readFileSync(file, 'utf8'));
  } catch (error) {
    faults.push(`${fileKey} names a file that cannot be read: ${(error as Error).message}`);
    return undefined;
  }
}

/** The value that a file holds: its text without the end of the last line. Undefined where there is nothing but white
 * space. */
export function valueIn(text: string): string | undefined {
  return text.trim() === '' ? undefined : text.replace(/\r?\n$/, '');
}

/** What no single row can see. Nothing is said about settings that are faulty themselves. */
function contradictions(config: Config, faulty: ReadonlySet<string>): string[] {
  const faults: string[] = [];
  const hasKey = (['JWT_SECRET', 'JWKS_URL'] as const).some(
    (key) => config[key] !== undefined || faulty.has(key),
  );
  if (config.AUTH === 'jwt' && !hasKey) {
    faults.push('AUTH is jwt, which needs a key: set JWT_SECRET, JWT_SECRET_FILE or JWKS_URL');
  }
  if (config.AUTH === undefined && !faulty.has('AUTH') && !hasKey) {
    faults.push(
      'AUTH is not set and there is no key: set JWT_SECRET, JWT_SECRET_FILE or JWKS_URL, or AUTH=anonymous to let everybody in',
    );
  }
  if (config.PONG_TIMEOUT_SECONDS !== undefined && config.PING_INTERVAL_SECONDS !== undefined) {
    const explicit = config.PONG_TIMEOUT_SECONDS !== settings.PONG_TIMEOUT_SECONDS.default;
    if (explicit && config.PONG_TIMEOUT_SECONDS > config.PING_INTERVAL_SECONDS) {
      faults.push('PONG_TIMEOUT_SECONDS must be at most PING_INTERVAL_SECONDS');
    }
  }
  if (config.CHANNELS !== undefined && config.CHANNELS_FILE !== undefined) {
    faults.push('CHANNELS and CHANNELS_FILE are both set: unset one');
  }
  const ports = new Map<number, string>();
  for (const key of ['PORT', 'API_PORT', 'ADMIN_PORT'] as const) {
    const port = config[key];
    const isOpened = key !== 'API_PORT' || config.API_KEYS_FILE !== undefined;
    if (!isOpened || port === 0 || faulty.has(key)) continue;
    const other = ports.get(port);
    if (other !== undefined)
      faults.push(`${other} and ${key} are both ${port}: each listener needs a port of its own`);
    ports.set(port, key);
  }
  return faults;
}

/** Where spans go. Undefined where there are no traces. */
export function tracesUrl(config: Config): string | undefined {
  if (config.OTEL_SDK_DISABLED || config.OTEL_TRACES_EXPORTER === 'none') return undefined;
  const { OTEL_EXPORTER_OTLP_ENDPOINT: all, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: own } = config;
  return own ?? (all === undefined ? undefined : `${all.replace(/\/$/, '')}/v1/traces`);
}

/** The share of messages that is traced, where their namespace does not say. */
export function tracesRatio(config: Config): number {
  const sampler = config.OTEL_TRACES_SAMPLER;
  if (sampler.endsWith('always_on')) return 1;
  return sampler.endsWith('always_off') ? 0 : config.OTEL_TRACES_SAMPLER_ARG;
}

/** A table as `--help` prints it. */
export function helpText(table: object = settings, usage = 'gateway [--help | --check]'): string {
  const lines = [
    `Usage: ${usage}`,
    '',
    'Everything is set by the environment; NAME_FILE may name a file that holds the value of NAME.',
    '',
  ];
  let group = '';
  for (const [key, setting] of Object.entries(table) as [string, Setting][]) {
    if (setting.group !== group) {
      group = setting.group;
      lines.push(`${group}:`);
    }
    lines.push(
      `  ${key}  (default: ${defaultText(setting)})`,
      `      ${setting.help}`,
      `      Allowed: ${setting.kind.allowed}.`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** A setting's default as people read it. */
export function defaultText(setting: Setting): string {
  return setting.defaultText ?? (setting.default === undefined ? 'unset' : String(setting.default));
}
