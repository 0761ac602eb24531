// Starts a gateway: reads the environment, puts the parts together in order, and takes them apart in reverse.

import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type Bus, CONTROL_TOPIC } from './bus/bus.ts';
import { MemoryBus } from './bus/memory.ts';
import type { RedisAddress } from './bus/redis-connect.ts';
import { Admin, type Phase } from './gateway/admin.ts';
import type { ApiKeys } from './gateway/api-keys.ts';
import { Bans } from './gateway/bans.ts';
import { changeChannels } from './gateway/channels-change.ts';
import { Commands } from './gateway/commands.ts';
import { type FileText, fileOf, parseChannels, readFiles, redisAddress } from './gateway/config-files.ts';
import { drain } from './gateway/drain.ts';
import { Expiries } from './gateway/expiries.ts';
import { Fanout } from './gateway/fanout.ts';
import { Heartbeat } from './gateway/heartbeat.ts';
import { History } from './gateway/history.ts';
import { DIRECT, Hub } from './gateway/hub.ts';
import { Listener } from './gateway/listen.ts';
import { Presence } from './gateway/presence.ts';
import { Publisher } from './gateway/publish.ts';
import { AddressRates } from './gateway/rates.ts';
import { Recovery } from './gateway/recovery.ts';
import { Sessions } from './gateway/session.ts';
import { Shedder } from './gateway/shed.ts';
import type { Traces } from './gateway/traces.ts';
import {
  type Config,
  ConfigError,
  helpText,
  readConfig,
  settings,
  suspicionsOf,
  tracesRatio,
  tracesUrl,
} from './platform/config.ts';
import { Files, type WatchedFile } from './platform/files.ts';
import { newId } from './platform/ids.ts';
import { type Log, type Report, traceFieldsOf } from './platform/logs.ts';
import { createMetrics, type Metrics } from './platform/metrics.ts';
import { fail, processLog, runUntilSignal } from './platform/process.ts';
import type { Telemetry } from './platform/telemetry.ts';
import { version } from './platform/version.ts';
import { closes } from './protocol/close.ts';

/** A gateway that runs. */
export interface Gateway {
  /** Where it listens; `api` is undefined where the HTTP API is off. */
  readonly ports: { readonly ws: number; readonly api: number | undefined; readonly admin: number };
  /** Drains and stops. The second call waits for the first. */
  stop(): Promise<void>;
}

/** Bytes a second for each message a second, unless BYTE_RATE says otherwise. */
const BYTES_PER_MESSAGE = 16_384;

/** Bursts of upgrades from one address, in seconds' worth of the rate: an office reloads its pages at once. */
const UPGRADE_BURST_SECONDS = 10;

/** Starts a gateway and resolves when it serves: admin listener first, then the bus, then the public.
 * @throws {ConfigError} where a file that is named in the configuration cannot be used. */
export async function startGateway(config: Config, log: Log): Promise<Gateway> {
  const metrics = createMetrics(version);
  const report: Report = (stage, error) =>
    log.error({ stage, ...traceFieldsOf(error), err: error }, 'background failure');
  const pod = config.POD_NAME ?? hostname();
  let phase: Phase = 'starting';

  const { channelsFile, channels, secrets, authenticator, apiKeysFile, apiKeys } = await readFiles(
    config,
    report,
  );
  metrics.addNamespaces([...channels.names, DIRECT.name]);
  metrics.connectionsLimit.set(config.MAX_CONNECTIONS);
  metrics.drainLimit.set(config.DRAIN_SECONDS);
  for (const warning of secrets?.warnings ?? []) log.warn(warning);
  const { traces, telemetry } = await startTraces(config, pod, metrics, log, report);
  const redis = config.REDIS_URL === undefined ? undefined : redisAddress(config, config.REDIS_URL);
  const bus = await createBus(redis, `${pod}/${newId()}`, metrics, report);

  // The parts, in the order a message meets them.
  const fanout = new Fanout(
    { perConnectionBytes: config.MAX_BACKLOG_BYTES, totalBytes: config.MAX_TOTAL_BACKLOG_BYTES },
    metrics,
    (connection, close, now) => (now ? sessions.cut(connection, close) : sessions.close(connection, close)),
    traces,
  );
  const hub = new Hub(bus, fanout, metrics, report, traces);
  const recovery = new Recovery(new History(bus.log), fanout, metrics, traces);
  const publisher = new Publisher(bus, metrics, config.MAX_MESSAGE_BYTES, traces);
  const presence = new Presence(bus, config.PRESENCE_TTL_SECONDS * 1000, metrics, report);
  const expiries = new Expiries((connection) => sessions.close(connection, closes.expired));
  const pingIntervalMs = config.PING_INTERVAL_SECONDS * 1000;
  const heartbeat = new Heartbeat(pingIntervalMs, config.PONG_TIMEOUT_SECONDS * 1000, (connection) =>
    sessions.cut(connection, closes.unresponsive),
  );
  const bans = new Bans(bus, report, ({ user, code, reason }) => {
    const close = code === 0 ? closes.revoked : { ...closes.revoked, code };
    for (const connection of hub.connectionsOf(user))
      sessions.close(connection, close, reason || close.reason);
  });
  const commands = new Commands({
    channels,
    hub,
    fanout,
    publisher,
    presence,
    recovery,
    expiries,
    authenticator,
    metrics,
    report,
    maxChannelsPerConnection: config.MAX_CHANNELS_PER_CONNECTION,
  });
  const sessions = new Sessions({
    plainChannel: config.PLAIN_CHANNEL,
    limits: {
      messageRate: config.MESSAGE_RATE,
      byteRate: config.BYTE_RATE ?? config.MESSAGE_RATE * BYTES_PER_MESSAGE,
      maxConnectionsPerUser: config.MAX_CONNECTIONS_PER_USER,
      maxMessageBytes: config.MAX_MESSAGE_BYTES,
      maxBacklogBytes: config.MAX_BACKLOG_BYTES,
      pingIntervalMs,
    },
    bans,
    channels,
    commands,
    expiries,
    fanout,
    heartbeat,
    hub,
    presence,
    publisher,
    metrics,
    log,
  });
  const shedder = new Shedder(sessions, fanout, metrics);
  const listener = new Listener({
    port: config.PORT,
    host: config.HOST,
    maxConnections: config.MAX_CONNECTIONS,
    maxMessageBytes: config.MAX_MESSAGE_BYTES,
    handshakeTimeoutMs: config.HANDSHAKE_TIMEOUT_SECONDS * 1000,
    compression: config.COMPRESSION,
    allowedOrigins: config.ALLOWED_ORIGINS,
    trustedProxies: config.TRUSTED_PROXIES,
    cookie: config.ALLOWED_ORIGINS.length > 0 ? config.JWT_COOKIE : undefined,
    plainHeartbeat: config.PLAIN_HEARTBEAT,
    demo: config.DEMO ? new (await import('./gateway/demo.ts')).DemoPage() : undefined,
    addressRates: new AddressRates(config.UPGRADE_RATE, config.UPGRADE_RATE * UPGRADE_BURST_SECONDS),
    authenticator,
    sessions,
    shedder,
    metrics,
    report,
  });
  let adminToken = config.ADMIN_TOKEN;
  const admin = new Admin({
    bus,
    metrics,
    phase: () => phase,
    shedder,
    token: () => adminToken,
    totals: () => ({
      connections: sessions.size,
      users: hub.users,
      maxConnections: config.MAX_CONNECTIONS,
      drainSeconds: config.DRAIN_SECONDS,
    }),
  });

  const adminPort = await listening('ADMIN_PORT', admin.start(config.ADMIN_PORT, config.HOST));
  const waiting = setTimeout(
    () => log.warn({ reason: bus.health.reason }, 'waiting for the bus'),
    WAITING_MS,
  );
  await bus.start({
    message(topic, bytes) {
      if (topic === CONTROL_TOPIC) bans.receive(bytes);
      else hub.receive(topic, bytes);
    },
    interrupted(topics) {
      log.warn({ topics: topics.length }, 'the bus was interrupted: messages may be missing');
      if (topics.includes(CONTROL_TOPIC)) void bans.reload();
      hub.interrupted(topics);
    },
  });
  clearTimeout(waiting);
  await bans.start();
  if (channels.hasDurable) await warnOfLog();
  const plainNamespace = channels.namespace(config.PLAIN_CHANNEL);
  if (plainNamespace !== undefined) await hub.pin(config.PLAIN_CHANNEL, plainNamespace);
  const api = apiKeys === undefined ? undefined : await startApi(apiKeys);
  const wsPort = await listening('PORT', listener.start());
  const files = new Files(log, metrics);
  watchFiles();
  phase = 'serving';
  const ports = { ws: wsPort, api: api?.port, admin: adminPort };
  log.info({ version, bus: bus.kind, ports, auth: config.AUTH ?? 'jwt' }, 'ready');

  /** What may change while the gateway runs. */
  function watchFiles(): void {
    const watch = (file: FileText | undefined, apply: WatchedFile['apply']) => {
      if (file !== undefined) files.watch({ ...file, apply });
    };
    if (apiKeys !== undefined) {
      watch(apiKeysFile, (text) => {
        apiKeys.replace(text);
        return { keys: apiKeys.size };
      });
    }
    if (secrets !== undefined) {
      watch(fileOf(config, 'JWT_SECRET'), (text) => {
        secrets.replace(text);
        for (const warning of secrets.warnings) log.warn(warning);
        return { secrets: secrets.size };
      });
    }
    watch(fileOf(config, 'ADMIN_TOKEN'), (text) => {
      const { parse, allowed } = settings.ADMIN_TOKEN.kind;
      const token = parse(text);
      if (token === undefined) throw new Error(`it must be ${allowed}`);
      adminToken = token;
      return {};
    });
    watch(channelsFile, async (text) => {
      const hadDurable = channels.hasDurable;
      const next = await parseChannels(config, text);
      const closed = changeChannels(next, { channels, hub, presence, sessions });
      metrics.addNamespaces(channels.names);
      if (channels.hasDurable && !hadDurable) await warnOfLog();
      return { namespaces: channels.size, closed };
    });
    if (redis !== undefined) {
      watch(fileOf(config, 'REDIS_PASSWORD'), (text) => {
        redis.password = text;
        return {};
      });
      watch(fileOf(config, 'REDIS_SENTINEL_PASSWORD'), (text) => {
        redis.sentinelPassword = text;
        return {};
      });
    }
  }

  async function warnOfLog(): Promise<void> {
    for (const warning of await bus.log.warnings()) log.warn(warning);
  }

  /** Loaded only where it is on: it would be half of the time to start. */
  async function startApi(keys: ApiKeys) {
    const { Api } = await import('./gateway/api.ts');
    const server = new Api({
      keys,
      bus,
      bans,
      channels,
      publisher,
      presence,
      metrics,
      report,
      maxMessageBytes: config.MAX_MESSAGE_BYTES,
    });
    return { server, port: await listening('API_PORT', server.start(config.API_PORT, config.HOST)) };
  }

  async function stop(): Promise<void> {
    phase = 'draining';
    shedder.stop();
    listener.refuseNew();
    log.info({ connections: sessions.size, seconds: config.DRAIN_SECONDS }, 'draining');
    const cut = await drain(sessions, fanout, metrics, config.DRAIN_SECONDS * 1000);
    await api?.server.stop();
    await presence.stop();
    await listener.stop();
    heartbeat.stop();
    expiries.stop();
    bans.stop();
    files.stop();
    hub.stop();
    await bus.stop();
    await admin.stop();
    await telemetry?.stop();
    // Nobody scrapes it any more.
    log.info({ cut }, 'stopped');
  }

  let stopping: Promise<void> | undefined;
  return {
    ports,
    stop() {
      stopping ??= stop();
      return stopping;
    },
  };
}

/** Says of a port that cannot be had which setting it is. */
async function listening(setting: keyof typeof settings, port: Promise<number>): Promise<number> {
  try {
    return await port;
  } catch (error) {
    const taken = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';
    const advice = taken ? `: end what listens there, or set another ${setting}` : '';
    throw new Error(`${setting}: ${error instanceof Error ? error.message : error}${advice}`, {
      cause: error,
    });
  }
}

/** A start that takes longer than this says what it waits for. */
const WAITING_MS = 3000;

/** Loaded only where spans have somewhere to go: before anything that makes them, and stopped after it. */
async function startTraces(
  config: Config,
  pod: string,
  metrics: Metrics,
  log: Log,
  report: Report,
): Promise<{ traces?: Traces; telemetry?: Telemetry }> {
  const url = tracesUrl(config);
  if (url === undefined) return {};
  const [{ startTelemetry }, { Traces }] = await Promise.all([
    import('./platform/telemetry.ts'),
    import('./gateway/traces.ts'),
  ]);
  const telemetry = startTelemetry({ config, url, pod, version, metrics, report });
  const { tracer } = telemetry;
  const ratio = tracesRatio(config);
  return { telemetry, traces: new Traces({ tracer, ratio, slowMs: config.TRACE_SLOW_MS, metrics, log }) };
}

async function createBus(
  address: RedisAddress | undefined,
  pod: string,
  metrics: Metrics,
  report: Report,
): Promise<Bus> {
  if (address === undefined) {
    const bus = new MemoryBus();
    metrics.busUp.read = () => 1;
    return bus;
  }
  const { RedisBus } = await import('./bus/redis.ts');
  const bus = new RedisBus({
    address,
    pod,
    report,
    onProbe: (seconds) => metrics.busProbe.observe(seconds),
    onProbeFailure: (reason) => metrics.busProbeFailures.inc({ reason }),
    onReconnect: () => metrics.busReconnects.inc(),
  });
  metrics.busUp.read = () => (bus.health.state === 'up' ? 1 : 0);
  metrics.redisUsedMemory.read = () => bus.memory.usedBytes;
  metrics.redisMaxMemory.read = () => bus.memory.maxBytes;
  return bus;
}

/** The name of this program where it says what is wrong. */
const PROGRAM = 'tidegate';

/** Exit codes: 0 stopped as asked, 1 failed, 2 the configuration is wrong. */
async function main(args: readonly string[]): Promise<void> {
  if (args.includes('--help')) return void process.stdout.write(helpText());
  const unknown = args.filter((arg) => arg !== '--check');
  if (unknown.length > 0) throw new ConfigError([`there is no option ${unknown.join(' ')}`]);
  const config = readConfig(process.env);
  const log = processLog(config);
  for (const suspicion of suspicionsOf(process.env)) log.warn(suspicion);
  if (args.includes('--check')) {
    await readFiles(config, () => {});
    return void process.stdout.write('The configuration is valid.\n');
  }
  const { ports } = await runUntilSignal(PROGRAM, log, () => startGateway(config, log));
  if (config.DEMO)
    process.stderr.write(`\n  Tidegate is up. Open http://localhost:${ports.ws}/ in two tabs.\n\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await main(process.argv.slice(2)).catch((error) => fail(PROGRAM, error));
