// The HTTP API: how an application's backend publishes, sends, disconnects and looks. A listener and keys of its own.

import { createHash } from 'node:crypto';
import swagger from '@fastify/swagger';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { type Bus, channelTopic } from '../bus/bus.ts';
import type { Report } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import { boundSockets } from '../platform/sockets.ts';
import { version } from '../platform/version.ts';
import { closes } from '../protocol/close.ts';
import { encodePayload } from '../protocol/commands.ts';
import { asTidegateError, type ErrorCode, errorKinds, TidegateError } from '../protocol/errors.ts';
import { namePattern, namespaceOf } from '../protocol/names.ts';
import { formatPosition, GENESIS, parsePosition } from '../protocol/positions.ts';
import type { ApiKeys } from './api-keys.ts';
import type { Bans } from './bans.ts';
import { judge, placeOf, readEntries } from './chain.ts';
import type { Channels, Namespace } from './channels.ts';
import type { Presence } from './presence.ts';
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

/** A retried call is recognised for a day; one that died halfway frees its key after a minute. */
const KEY_TTL_MS = 86_400_000;
const KEY_PENDING_MS = 60_000;

const MAX_MANY = 1000;
const MAX_MANY_BYTES = 4 * 1_048_576;
const MAX_CHANNELS_LISTED = 10_000;
const DEFAULT_CHANNELS_LISTED = 1000;
const DEFAULT_MESSAGES_READ = 100;
const MAX_MESSAGES_READ = 1000;
const MAX_BAN_SECONDS = 31_536_000;

/** A name has 128 characters, and each may be written as three in a path. */
const MAX_NAME_IN_PATH = 3 * 128;

/** Beside the payload a publish carries a channel, a key and some punctuation. */
const BODY_OVERHEAD_BYTES = 4096;

const name = { type: 'string', pattern: namePattern.source } as const;
const data = { description: 'Any JSON value. Numbers are IEEE doubles.' } as const;
const key = { type: 'string', minLength: 1, maxLength: 128 } as const;
const published = {
  type: 'object',
  properties: {
    id: { type: 'string', description: 'Absent on raw channels.' },
    position: { type: 'string', description: 'Where it stands, on durable channels.' },
    replicated: {
      type: 'boolean',
      description: 'Whether as many replicas as the namespace asks for have it.',
    },
  },
} as const;
const problem = {
  type: 'object',
  required: ['type', 'title', 'status', 'code', 'retryable'],
  properties: {
    type: { type: 'string' },
    title: { type: 'string' },
    status: { type: 'integer' },
    code: { type: 'string', enum: Object.keys(errorKinds) },
    retryable: { type: 'boolean' },
  },
} as const;
const message = {
  type: 'object',
  required: ['channel', 'data'],
  additionalProperties: false,
  properties: { channel: name, data },
} as const;
const publishHeaders = {
  type: 'object',
  properties: {
    'idempotency-key': { ...key, description: 'Makes a retry safe for 24 hours.' },
    traceparent: {
      type: 'string',
      description: 'W3C trace context: the parent of the message’s trace, and whether it is traced at all.',
    },
  },
} as const;
const userParam = { type: 'object', required: ['user'], properties: { user: name } } as const;
const channelParam = { type: 'object', required: ['channel'], properties: { channel: name } } as const;

interface Message {
  channel: string;
  data: unknown;
}

/** The HTTP API's server. */
export class Api {
  readonly #options: ApiOptions;
  readonly #server: FastifyInstance;

  constructor(options: ApiOptions) {
    this.#options = options;
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
    const response = (ok: object) => ({
      200: ok,
      default: {
        description: 'Problem details (RFC 9457).',
        content: { 'application/problem+json': { schema: problem } },
      },
    });

    server.post<{ Body: Message }>(
      '/v1/publish',
      {
        schema: {
          summary: 'Publish a message to a channel',
          headers: publishHeaders,
          body: message,
          response: response(published),
        },
      },
      (request, reply) => this.#publishOnce(request, reply),
    );
    server.post<{ Body: { messages: Message[] } }>(
      '/v1/publish/many',
      {
        bodyLimit: Math.max(MAX_MANY_BYTES, this.#options.maxMessageBytes * 2),
        schema: {
          summary: 'Publish many messages; each has a result of its own',
          headers: publishHeaders,
          body: {
            type: 'object',
            required: ['messages'],
            additionalProperties: false,
            properties: { messages: { type: 'array', minItems: 1, maxItems: MAX_MANY, items: message } },
          },
          response: response({
            type: 'object',
            properties: {
              results: {
                type: 'array',
                description: 'In the order of the messages: {id}, or {error}.',
                items: { type: 'object', properties: { id: { type: 'string' }, error: problem } },
              },
            },
          }),
        },
      },
      (request, reply) => this.#once(request, reply, () => this.#publishMany(request)),
    );
    server.post<{ Params: { user: string }; Body: { data: unknown } }>(
      '/v1/users/:user/messages',
      {
        schema: {
          summary: 'Send a message to every connection of a user',
          headers: publishHeaders,
          params: userParam,
          body: { type: 'object', required: ['data'], additionalProperties: false, properties: { data } },
          response: response(published),
        },
      },
      (request, reply) =>
        this.#once(request, reply, async () => ({
          id: (
            await this.#options.publisher.send({
              user: request.params.user,
              payload: payloadOf(request.body.data),
              origin: originOf(request),
            })
          ).id,
        })),
    );
    server.post<{
      Params: { user: string };
      Body: { code?: number; reason?: string; banSeconds?: number } | null;
    }>(
      '/v1/users/:user/disconnect',
      {
        schema: {
          summary: 'Close every connection of a user, and keep the user out for a while',
          params: userParam,
          body: {
            type: ['object', 'null'],
            additionalProperties: false,
            properties: {
              code: {
                type: 'integer',
                minimum: 4000,
                maximum: 4999,
                description: `Close code; ${closes.revoked.code} unless given.`,
              },
              reason: { type: 'string', maxLength: 100 },
              banSeconds: { type: 'integer', minimum: 0, maximum: MAX_BAN_SECONDS },
            },
          },
          response: response({
            type: 'object',
            properties: { bannedUntil: { type: 'string', description: 'ISO 8601; absent without a ban.' } },
          }),
        },
      },
      async (request) => {
        const { code = closes.revoked.code, reason = '', banSeconds = 0 } = request.body ?? {};
        const bannedUntilMs = banSeconds > 0 ? Date.now() + banSeconds * 1000 : undefined;
        const { user } = request.params;
        await this.#options.bans.order({
          user,
          code,
          reason,
          ...(bannedUntilMs !== undefined && { bannedUntilMs }),
        });
        return bannedUntilMs === undefined ? {} : { bannedUntil: new Date(bannedUntilMs).toISOString() };
      },
    );
    server.get<{ Querystring: { prefix?: string; limit?: string } }>(
      '/v1/channels',
      {
        schema: {
          summary:
            'List the channels somebody is subscribed to on any pod, but for raw ones, with their members where they keep presence',
          querystring: {
            type: 'object',
            additionalProperties: false,
            properties: {
              prefix: name,
              limit: {
                type: 'string',
                pattern: '^[0-9]{1,5}$',
                description: `At most ${MAX_CHANNELS_LISTED}.`,
              },
            },
          },
          response: response({
            type: 'object',
            properties: {
              channels: {
                type: 'array',
                items: {
                  type: 'object',
                  properties: { channel: { type: 'string' }, members: { type: 'integer' } },
                },
              },
              truncated: { type: 'boolean' },
            },
          }),
        },
      },
      (request) =>
        this.#list(request.query.prefix ?? '', Number(request.query.limit ?? DEFAULT_CHANNELS_LISTED)),
    );
    server.get<{ Params: { channel: string }; Querystring: { after?: string; limit?: string } }>(
      '/v1/channels/:channel/messages',
      {
        schema: {
          summary: 'Read a durable channel, a page at a time',
          description:
            'Go on with `after` = the page’s `position` while `more` is true. `recovered: false` with a `reason` (trimmed, forked, unknown): what came after the position cannot be told; begin anew without `after`.',
          params: channelParam,
          querystring: {
            type: 'object',
            additionalProperties: false,
            properties: {
              after: { type: 'string', maxLength: 64 },
              limit: {
                type: 'string',
                pattern: '^[1-9][0-9]{0,3}$',
                description: `${DEFAULT_MESSAGES_READ} unless given; at most ${MAX_MESSAGES_READ}.`,
              },
            },
          },
          response: response({
            type: 'object',
            properties: {
              messages: {
                type: 'array',
                items: {
                  type: 'object',
                  properties: {
                    position: { type: 'string' },
                    id: { type: 'string' },
                    from: { type: 'string', description: 'Absent where an application published it.' },
                    time: { type: 'string', description: 'ISO 8601.' },
                    data,
                  },
                },
              },
              recovered: { type: 'boolean' },
              reason: { type: 'string' },
              position: { type: 'string' },
              more: { type: 'boolean' },
            },
          }),
        },
      },
      (request) => {
        const { after, limit } = request.query;
        return this.#messages(
          request.params.channel,
          after,
          Math.min(Number(limit ?? DEFAULT_MESSAGES_READ), MAX_MESSAGES_READ),
        );
      },
    );
    server.get<{ Params: { channel: string } }>(
      '/v1/channels/:channel/presence',
      {
        schema: {
          summary: 'Who is in a channel, on all pods',
          params: channelParam,
          response: response({
            type: 'object',
            properties: {
              channel: { type: 'string' },
              members: { type: 'array', items: { type: 'string' }, description: 'At most 1000.' },
              total: { type: 'integer' },
            },
          }),
        },
      },
      async (request) => {
        const { channel } = request.params;
        if (!this.#namespace(channel).presence) throw new TidegateError('no_presence');
        const { users, total } = await this.#options.presence.members(channel);
        return { channel, members: users, total };
      },
    );
  }

  async #publish({ channel, data }: Message, origin: Origin, key?: string): Promise<Published> {
    return this.#options.publisher.publish({
      channel,
      namespace: this.#namespace(channel),
      payload: payloadOf(data),
      key,
      origin,
    });
  }

  /** On a durable channel the log itself knows the key, so that a publish whose answer was lost lands once. */
  async #publishOnce(request: FastifyRequest<{ Body: Message }>, reply: FastifyReply): Promise<unknown> {
    const key = request.headers['idempotency-key'];
    const { durable } = this.#namespace(request.body.channel);
    const origin = originOf(request);
    if (durable === undefined || typeof key !== 'string')
      return this.#once(request, reply, () => this.#publish(request.body, origin));
    const { repeated, ...published } = await this.#publish(request.body, origin, key);
    if (repeated) reply.header('idempotent-replayed', 'true');
    return published;
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

  async #publishMany(request: FastifyRequest<{ Body: { messages: Message[] } }>): Promise<unknown> {
    const origin = originOf(request);
    const results = await Promise.all(
      request.body.messages.map((it) =>
        this.#publish(it, origin).catch((error) => ({ error: this.#describe(error) })),
      ),
    );
    return { results };
  }

  async #list(prefix: string, limit: number): Promise<unknown> {
    const { bus, channels } = this.#options;
    const bounded = Math.min(limit, MAX_CHANNELS_LISTED);
    const [start = '', end = ''] = channelTopic('\n').split('\n');
    const topics = await bus.topics(`${start}${prefix}`, bounded + 1);
    const listed = topics.slice(0, bounded).map((topic) => topic.slice(start.length, -end.length));
    const counted = listed.map(async (channel) =>
      channels.namespace(channel)?.presence
        ? { channel, members: (await bus.store.members(channel, 0)).total }
        : { channel },
    );
    return { channels: await Promise.all(counted), truncated: topics.length > bounded };
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
    const header = request.headers['idempotency-key'];
    if (typeof header !== 'string') return call();
    const { store } = this.#options.bus;
    const claimKey = sha256(`${request.headers.authorization}\n${request.url}\n${header}`).toString(
      'base64url',
    );
    const hash = sha256(payloadOf(request.body)).toString('base64url');
    const claim = await store.claim(claimKey, hash, KEY_PENDING_MS);
    switch (claim.kind) {
      case 'reused':
        throw new TidegateError('key_reused');
      case 'in_progress':
        throw new TidegateError('key_in_progress', undefined, { retryAfterMs: 1000 });
      case 'done':
        reply.header('idempotent-replayed', 'true');
        return JSON.parse(claim.answer);
      case 'new': {
        let answer: unknown;
        try {
          answer = await call();
        } catch (error) {
          await store
            .settle(claimKey, hash, undefined, 0)
            .catch((cause) => this.#options.report('api.settle', cause));
          throw error;
        }
        // It is done: to answer with an error now would only make the caller do it again.
        await store
          .settle(claimKey, hash, JSON.stringify(answer), KEY_TTL_MS)
          .catch((cause) => this.#options.report('api.settle', cause));
        return answer;
      }
    }
  }

  #checkKey(request: FastifyRequest): void {
    const given = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    if (!this.#options.keys.has(given)) throw new TidegateError('unauthorized');
  }

  #problem(reply: FastifyReply, error: unknown): void {
    const body = this.#describe(error);
    const { retryAfterMs } = asTidegateError(error);
    this.#options.metrics.errors.inc({ code: body.code });
    if (retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(retryAfterMs / 1000));
    if (body.code === 'unauthorized') reply.header('www-authenticate', 'Bearer');
    reply.code(body.status).type('application/problem+json').send(JSON.stringify(body));
  }

  #describe(error: unknown): {
    type: string;
    title: string;
    status: number;
    code: ErrorCode;
    retryable: boolean;
  } {
    const told = isFastifyError(error) ? ofFastify(error) : asTidegateError(error);
    const { code, message, retryable } = told;
    if (code === 'internal') this.#options.report('api', error);
    return {
      type: `urn:tidegate:error:${code}`,
      title: message,
      status: errorKinds[code].status,
      code,
      retryable,
    };
  }
}

interface FastifyErrorLike {
  readonly statusCode: number;
  readonly message: string;
  /** What the schema did not allow. */
  readonly validation?: readonly { readonly params?: { readonly pattern?: unknown } }[];
}

/** Errors of the framework about the request itself: a body that is no JSON, too large, or not of the schema. */
function isFastifyError(error: unknown): error is FastifyErrorLike {
  if (!(error instanceof Error) || error instanceof TidegateError) return false;
  return 'statusCode' in error && typeof error.statusCode === 'number' && error.statusCode < 500;
}

function ofFastify({ statusCode, message, validation = [] }: FastifyErrorLike): TidegateError {
  if (statusCode === 413) return new TidegateError('too_large', message);
  if (statusCode === 415)
    return new TidegateError('malformed', 'Send the header "Content-Type: application/json".');
  const isName = validation.some(({ params }) => params?.pattern === namePattern.source);
  return isName ? new TidegateError('bad_name') : new TidegateError('malformed', message);
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

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
