// Schemas of the HTTP API: what each call takes and answers, as JSON Schema. Requests are checked by them, answers
// written by them, and docs/openapi.json is made from them.

import { closes } from '../protocol/close.ts';
import { errorKinds } from '../protocol/errors.ts';
import { namePattern } from '../protocol/names.ts';

const MAX_MANY = 1000;
const MAX_CHANNELS_LISTED = 10_000;
const DEFAULT_CHANNELS_LISTED = 1000;
const MAX_MESSAGES_READ = 1000;
const DEFAULT_MESSAGES_READ = 100;
const MAX_BAN_SECONDS = 31_536_000;

const name = { type: 'string', pattern: namePattern.source } as const;
const data = { description: 'Any JSON value. Numbers are IEEE doubles.' } as const;
const userParam = { type: 'object', required: ['user'], properties: { user: name } } as const;
const channelParam = { type: 'object', required: ['channel'], properties: { channel: name } } as const;

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

const message = {
  type: 'object',
  required: ['channel', 'data'],
  additionalProperties: false,
  properties: { channel: name, data },
} as const;

const publishHeaders = {
  type: 'object',
  properties: {
    'idempotency-key': {
      type: 'string',
      minLength: 1,
      maxLength: 128,
      description: 'Makes a retry safe for 24 hours.',
    },
    traceparent: {
      type: 'string',
      description: 'W3C trace context: the parent of the message’s trace, and whether it is traced at all.',
    },
  },
} as const;

const response = (ok: object) => ({
  200: ok,
  default: {
    description: 'Problem details (RFC 9457).',
    content: { 'application/problem+json': { schema: problem } },
  },
});

/** A message to a channel, as a call has it. */
export interface Message {
  channel: string;
  data: unknown;
}

export interface Publish {
  Body: Message;
}

export const publish = {
  summary: 'Publish a message to a channel',
  headers: publishHeaders,
  body: message,
  response: response(published),
};

export interface PublishMany {
  Body: { messages: Message[] };
}

export const publishMany = {
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
};

export interface Send {
  Params: { user: string };
  Body: { data: unknown };
}

export const send = {
  summary: 'Send a message to every connection of a user',
  headers: publishHeaders,
  params: userParam,
  body: { type: 'object', required: ['data'], additionalProperties: false, properties: { data } },
  response: response(published),
};

export interface Disconnect {
  Params: { user: string };
  Body: { code?: number; reason?: string; banSeconds?: number } | null;
}

export const disconnect = {
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
};

export interface ListChannels {
  Querystring: { prefix?: string; limit?: string };
}

export const listChannels = {
  summary:
    'List the channels somebody is subscribed to on any pod, but for raw ones, with their members where they keep presence',
  querystring: {
    type: 'object',
    additionalProperties: false,
    properties: {
      prefix: name,
      limit: { type: 'string', pattern: '^[0-9]{1,5}$', description: `At most ${MAX_CHANNELS_LISTED}.` },
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
};

/** How many channels a call asks to list. */
export function channelsListed(limit = String(DEFAULT_CHANNELS_LISTED)): number {
  return Math.min(Number(limit), MAX_CHANNELS_LISTED);
}

export interface ReadMessages {
  Params: { channel: string };
  Querystring: { after?: string; limit?: string };
}

export const readMessages = {
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
};

/** How many messages a call asks to read. */
export function messagesRead(limit = String(DEFAULT_MESSAGES_READ)): number {
  return Math.min(Number(limit), MAX_MESSAGES_READ);
}

export interface ReadPresence {
  Params: { channel: string };
}

export const readPresence = {
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
};
