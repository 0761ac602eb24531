// The HTTP API: how an application's backend publishes, sends, disconnects and looks. A listener and keys of its own.

import swagger from '@fastify/swagger';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { type Bus, channelTopic } from '../bus/bus.ts';
import type { Report } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import { boundSockets } from '../platform/sockets.ts';
import { version } from '../platform/version.ts';
import { closes } from '../protocol/close.ts';
import { encodePayload } from '../protocol/commands.ts';
import { asTidegateError, TidegateError } from '../protocol/errors.ts';
import { namespaceOf } from '../protocol/names.ts';
import { formatPosition, GENESIS, parsePosition } from '../protocol/positions.ts';
import type { ApiKeys } from './api-keys.ts';
import * as schemas from './api-schemas.ts';
import type { Bans } from './bans.ts';
import { judge, placeOf, readEntries } from './chain.ts';
import type { Channels, Namespace } from './channels.ts';
import { Idempotency } from './idempotency.ts';
import type { Presence } from './presence.ts';
import { type Problem, problemOf } from './problems.ts';
import type { Published, Publisher } from './publish.ts';
import type { Origin } from './traces.ts';

/** What the API works on. */
export interface ApiOptions {
  readonly keys: ApiKeys;
  readonly bus: Bus;
  readonly bans: Bans;
  readonly channels: Channels;
  readonly publisher: Publisher;
  readonly presence: Presence;
  readonly metrics: Metrics;
  readonly report: Report;
  readonly maxMessageBytes: number;
}

const MAX_MANY_BYTES = 4 * 1_048_576;

/** A name has 128 characters, and each may be written as three in a path. */
const MAX_NAME_IN_PATH = 3 * 128;

/** Beside the payload a publish carries a channel, a key and some punctuation. */
const BODY_OVERHEAD_BYTES = 4096;

/** The HTTP API's server. */
export class Api {
  readonly #options: ApiOptions;
  readonly #server: FastifyInstance;
  readonly #idempotency: Idempotency;

  constructor(options: ApiOptions) {
    this.#options = options;
    this.#idempotency = new Idempotency(options.bus.store, options.report);
    this.#server = Fastify({
      bodyLimit: options.maxMessageBytes * 2 + BODY_OVERHEAD_BYTES,
      requestTimeout: 30_000,
      keepAliveTimeout: 65_000, // longer than the 60 s of common load balancers, so that they close first
      // Schemas are ours and tested: checking them as well would be a tenth of the time to start.
      ajv: {
        customOptions: { coerceTypes: false, removeAdditional: false, validateSchema: false, meta: false },
      },
      routerOptions: { maxParamLength: MAX_NAME_IN_PATH },
      forceCloseConnections: true,
      // What no route can be found for, because the path cannot be decoded.
      frameworkErrors: (error, _request, reply) => this.#problem(reply, error),
    });
    boundSockets(this.#server.server);
    this.#server.setErrorHandler((error: unknown, _request, reply) => this.#problem(reply, error));
    this.#server.setNotFoundHandler((_request, reply) =>
      this.#problem(
        reply,
        new TidegateError('not_found', 'There is no such path with this method: see GET /v1/openapi.json.'),
      ),
    );
  }

  /** Begins to listen and returns the port. @throws where the port is taken. */
  async start(port: number, host: string | undefined): Promise<number> {
    const server = this.#server;
    await server.register(swagger, {
      openapi: {
        openapi: '3.1.0',
        info: {
          title: 'Tidegate HTTP API',
          version,
          description: 'Errors are problem details (RFC 9457) with a stable `code`.',
        },
        components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
        security: [{ key: [] }],
      },
    });
    server.get('/v1/openapi.json', { schema: { hide: true } }, () => server.swagger());
    await server.register(async (keyed) => {
      keyed.addHook('onRequest', async (request) => this.#checkKey(request));
      this.#routes(keyed);
    });
    await server.listen({ port, host: host ?? '::' }).catch((error: NodeJS.ErrnoException) => {
      // Without IPv6 in the kernel there is no address that stands for all of both kinds.
      if (host !== undefined || error.code !== 'EAFNOSUPPORT') throw error;
      return server.listen({ port, host: '0.0.0.0' });
    });
    const address = server.server.address();
    return typeof address === 'object' && address !== null ? address.port : port;
  }

  async stop(): Promise<void> {
    await this.#server.close();
  }

  #routes(server: FastifyInstance): void {
    server.post<schemas.Publish>('/v1/publish', { schema: schemas.publish }, (request, reply) =>
      this.#publishOnce(request, reply),
    );
    server.post<schemas.PublishMany>(
      '/v1/publish/many',
      {
        bodyLimit: Math.max(MAX_MANY_BYTES, this.#options.maxMessageBytes * 2),
        schema: schemas.publishMany,
      },
      (request, reply) => this.#once(request, reply, () => this.#publishMany(request)),
    );
    server.post<schemas.Send>('/v1/users/:user/messages', { schema: schemas.send }, (request, reply) =>
      this.#once(request, reply, () => this.#send(request)),
    );
    server.post<schemas.Disconnect>(
      '/v1/users/:user/disconnect',
      { schema: schemas.disconnect },
      ({ params, body }) => this.#disconnect(params.user, body ?? {}),
    );
    server.get<schemas.ListChannels>('/v1/channels', { schema: schemas.listChannels }, ({ query }) =>
      this.#list(query.prefix ?? '', schemas.channelsListed(query.limit)),
    );
    server.get<schemas.ReadMessages>(
      '/v1/channels/:channel/messages',
      { schema: schemas.readMessages },
      ({ params, query }) => this.#messages(params.channel, query.after, schemas.messagesRead(query.limit)),
    );
    server.get<schemas.ReadPresence>(
      '/v1/channels/:channel/presence',
      { schema: schemas.readPresence },
      ({ params }) => this.#members(params.channel),
    );
  }

  async #publish({ channel, data }: schemas.Message, origin: Origin, key?: string): Promise<Published> {
    return this.#options.publisher.publish({
      channel,
      namespace: this.#namespace(channel),
      payload: payloadOf(data),
      key,
      origin,
    });
  }

  /** On a durable channel the log itself knows the key, so that a publish whose answer was lost lands once. */
  async #publishOnce(request: FastifyRequest<schemas.Publish>, reply: FastifyReply): Promise<unknown> {
    const key = request.headers['idempotency-key'];
    const { durable } = this.#namespace(request.body.channel);
    const origin = originOf(request);
    if (durable === undefined || typeof key !== 'string')
      return this.#once(request, reply, () => this.#publish(request.body, origin));
    const { repeated, ...published } = await this.#publish(request.body, origin, key);
    if (repeated) reply.header('idempotent-replayed', 'true');
    return published;
  }

  async #publishMany(request: FastifyRequest<schemas.PublishMany>): Promise<unknown> {
    const origin = originOf(request);
    const results = await Promise.all(
      request.body.messages.map((it) =>
        this.#publish(it, origin).catch((error) => ({ error: this.#tell(error) })),
      ),
    );
    return { results };
  }

  async #send(request: FastifyRequest<schemas.Send>): Promise<unknown> {
    const { params, body } = request;
    const payload = payloadOf(body.data);
    const { id } = await this.#options.publisher.send({
      user: params.user,
      payload,
      origin: originOf(request),
    });
    return { id };
  }

  async #disconnect(
    user: string,
    { code = closes.revoked.code, reason = '', banSeconds = 0 }: NonNullable<schemas.Disconnect['Body']>,
  ): Promise<unknown> {
    const { bans } = this.#options;
    if (banSeconds === 0) {
      await bans.order({ user, code, reason });
      return {};
    }
    const bannedUntilMs = Date.now() + banSeconds * 1000;
    await bans.order({ user, code, reason, bannedUntilMs });
    return { bannedUntil: new Date(bannedUntilMs).toISOString() };
  }

  async #list(prefix: string, limit: number): Promise<unknown> {
    const { bus, channels } = this.#options;
    const [start = '', end = ''] = channelTopic('\n').split('\n');
    const topics = await bus.topics(`${start}${prefix}`, limit + 1);
    const listed = topics.slice(0, limit).map((topic) => topic.slice(start.length, -end.length));
    const counted = listed.map(async (channel) =>
      channels.namespace(channel)?.presence
        ? { channel, members: (await bus.store.members(channel, 0)).total }
        : { channel },
    );
    return { channels: await Promise.all(counted), truncated: topics.length > limit };
  }

  /** A page of a durable channel's messages, oldest first, after a position or from the oldest that is kept. */
  async #messages(channel: string, after: string | undefined, limit: number): Promise<unknown> {
    if (this.#namespace(channel).durable === undefined) throw new TidegateError('not_durable');
    const position = after === undefined ? undefined : parsePosition(after);
    if (after !== undefined && position === undefined)
      throw new TidegateError('malformed', '"after" must be a position.');
    const { entries, head } = await this.#options.bus.log.read(channel, position?.offset ?? 0, limit + 1);
    const kept = readEntries(entries);
    const verdict = position === undefined ? undefined : judge(placeOf(position), kept, head);
    if (verdict !== undefined && verdict.kind !== 'continues') {
      return {
        messages: [],
        recovered: false,
        reason: verdict.kind,
        ...(head !== undefined && { position: formatPosition(head) }),
      };
    }
    const page = (verdict?.entries ?? kept).slice(0, limit);
    const reached = page.at(-1) ?? position ?? head ?? GENESIS;
    const messages = page.map((entry) => ({
      position: formatPosition(entry),
      id: entry.id,
      ...(entry.message.from !== undefined && { from: entry.message.from }),
      time: new Date(entry.message.timeMs ?? 0).toISOString(),
      data: JSON.parse(entry.message.payload) as unknown,
    }));
    return {
      messages,
      recovered: true,
      position: formatPosition(reached),
      more: head !== undefined && reached.offset < head.offset,
    };
  }

  async #members(channel: string): Promise<unknown> {
    if (!this.#namespace(channel).presence) throw new TidegateError('no_presence');
    const { users, total } = await this.#options.presence.members(channel);
    return { channel, members: users, total };
  }

  /** The API may use every channel that exists. */
  #namespace(channel: string): Namespace {
    const namespace = this.#options.channels.namespace(channel);
    if (namespace === undefined)
      throw new TidegateError('forbidden', `There is no namespace "${namespaceOf(channel)}".`);
    return namespace;
  }

  /** Runs a call once for each Idempotency-Key: a repeated one gets the first answer again. */
  async #once(request: FastifyRequest, reply: FastifyReply, call: () => Promise<unknown>): Promise<unknown> {
    const key = request.headers['idempotency-key'];
    if (typeof key !== 'string') return call();
    const scope = `${request.headers.authorization}\n${request.url}`;
    const { answer, repeated } = await this.#idempotency.once(
      { scope, key, body: payloadOf(request.body) },
      call,
    );
    if (repeated) reply.header('idempotent-replayed', 'true');
    return answer;
  }

  #checkKey(request: FastifyRequest): void {
    const given = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    if (!this.#options.keys.has(given)) throw new TidegateError('unauthorized');
  }

  #problem(reply: FastifyReply, error: unknown): void {
    const problem = this.#tell(error);
    const { retryAfterMs } = asTidegateError(error);
    this.#options.metrics.errors.inc({ code: problem.code });
    if (retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(retryAfterMs / 1000));
    if (problem.code === 'unauthorized') reply.header('www-authenticate', 'Bearer');
    reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem));
  }

  /** What the caller is told; what is our own fault is told to the log as well. */
  #tell(error: unknown): Problem {
    const problem = problemOf(error);
    if (problem.code === 'internal') this.#options.report('api', error);
    return problem;
  }
}

/** An application decides itself whether what it publishes is traced, by its `traceparent`. */
function originOf({ headers }: FastifyRequest): Origin {
  const { traceparent } = headers;
  return { parent: typeof traceparent === 'string' ? traceparent : undefined };
}

function payloadOf(data: unknown): string {
  const payload = encodePayload(data);
  if (payload === undefined) throw new TidegateError('malformed', '"data" is missing, or nested too deeply.');
  return payload;
}
