// Commands: what a tidegate.v1 client may say, and the total decoder that makes one of any text.

import { TidegateError } from './errors.ts';
import { isName } from './names.ts';

/** The subprotocol a client offers to speak this protocol. */
export const V1_SUBPROTOCOL = 'tidegate.v1';

/** What a client chose to recognise the answer by: any integer, or a string up to 64 characters. */
export type Ref = number | string;

/** One channel of a subscribe command; `after` is the position the client has reached. */
export interface SubscribeItem {
  readonly channel: string;
  readonly after?: string;
}

/** Every command of tidegate.v1. `payload` is the JSON text of the command's `data`. */
export type Command =
  | { type: 'subscribe'; ref?: Ref; items: SubscribeItem[]; many: boolean }
  | { type: 'unsubscribe'; ref?: Ref; channels: string[] }
  | {
      type: 'publish';
      ref?: Ref;
      channel: string;
      payload: string;
      key?: string;
      echo: boolean;
      traceparent?: string;
    }
  | { type: 'send'; ref?: Ref; user: string; payload: string; key?: string; traceparent?: string }
  | { type: 'presence'; ref?: Ref; channel: string }
  | { type: 'refresh'; ref?: Ref; token: string }
  | { type: 'ping'; ref?: Ref }
  | { type: 'sync'; ref?: Ref }
  | { type: 'stay'; ref?: Ref };

/** A text that is no command: the error to answer with, and the ref if one could be read. */
export interface Undecodable {
  type: 'undecodable';
  ref?: Ref;
  error: TidegateError;
}

/** How many channels one subscribe or unsubscribe may name. */
export const MAX_CHANNELS_PER_COMMAND = 1000;

const MAX_REF_LENGTH = 64;
const MAX_KEY_LENGTH = 128;
const MAX_TOKEN_LENGTH = 16_384;
const MAX_POSITION_LENGTH = 64;
const MAX_TRACEPARENT_LENGTH = 128;

/** Decodes one text frame. Total: any text gives a command or an {@link Undecodable}, never an exception. */
export function decodeCommand(text: string): Command | Undecodable {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undecodable(undefined, 'malformed', 'The frame is not valid JSON.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return undecodable(undefined, 'malformed', 'A command is a JSON object with a "type".');
  }
  const fields = value as Record<string, unknown>;
  const { ref } = fields;
  if (ref !== undefined && !isRef(ref)) {
    return undecodable(
      undefined,
      'malformed',
      '"ref" must be an integer or a string of at most 64 characters.',
    );
  }
  const withRef = ref === undefined ? {} : { ref };
  switch (fields.type) {
    case 'subscribe':
      return decodeSubscribe(fields, withRef);
    case 'unsubscribe': {
      const channels = fields.channels ?? (fields.channel === undefined ? undefined : [fields.channel]);
      if (!isSmallArray(channels))
        return undecodable(ref, 'malformed', '"channel" or "channels" is missing.');
      if (!channels.every(isName)) return undecodable(ref, 'bad_name');
      return { type: 'unsubscribe', ...withRef, channels };
    }
    case 'publish': {
      const { channel, key, echo, traceparent } = fields;
      if (!isName(channel)) return undecodable(ref, 'bad_name');
      const payload = encodePayload(fields.data);
      if (payload === undefined)
        return undecodable(ref, 'malformed', '"data" is missing, or nested too deeply.');
      if (!isKey(key)) return undecodable(ref, 'malformed', NO_KEY);
      if (echo !== undefined && typeof echo !== 'boolean') {
        return undecodable(ref, 'malformed', '"echo" must be true or false.');
      }
      if (!isTraceparent(traceparent)) return undecodable(ref, 'malformed', NO_TRACEPARENT);
      return {
        type: 'publish',
        ...withRef,
        channel,
        payload,
        ...(key && { key }),
        echo: echo ?? true,
        ...(traceparent && { traceparent }),
      };
    }
    case 'send': {
      const { user, key, traceparent } = fields;
      if (!isName(user)) return undecodable(ref, 'bad_name');
      const payload = encodePayload(fields.data);
      if (payload === undefined)
        return undecodable(ref, 'malformed', '"data" is missing, or nested too deeply.');
      if (!isKey(key)) return undecodable(ref, 'malformed', NO_KEY);
      if (!isTraceparent(traceparent)) return undecodable(ref, 'malformed', NO_TRACEPARENT);
      return {
        type: 'send',
        ...withRef,
        user,
        payload,
        ...(key && { key }),
        ...(traceparent && { traceparent }),
      };
    }
    case 'presence':
      if (!isName(fields.channel)) return undecodable(ref, 'bad_name');
      return { type: 'presence', ...withRef, channel: fields.channel };
    case 'refresh':
      if (!isShortText(fields.token, MAX_TOKEN_LENGTH))
        return undecodable(ref, 'malformed', '"token" is missing.');
      return { type: 'refresh', ...withRef, token: fields.token };
    case 'ping':
    case 'sync':
    case 'stay':
      return { type: fields.type, ...withRef };
    default:
      return undecodable(ref, 'unknown_type');
  }
}

/** One channel (`channel`, `after`), or many (`channels`: names or {channel, after}). */
function decodeSubscribe(fields: Record<string, unknown>, withRef: { ref?: Ref }): Command | Undecodable {
  const many = fields.channels !== undefined;
  const list = many ? fields.channels : [fields];
  if (!isSmallArray(list)) {
    return undecodable(
      withRef.ref,
      'malformed',
      `"channels" must be a list of 1 to ${MAX_CHANNELS_PER_COMMAND}.`,
    );
  }
  const items: SubscribeItem[] = [];
  for (const entry of list) {
    const item = typeof entry === 'string' ? { channel: entry } : entry;
    if (typeof item !== 'object' || item === null) return undecodable(withRef.ref, 'malformed');
    const { channel, after } = item as Record<string, unknown>;
    if (!isName(channel)) return undecodable(withRef.ref, 'bad_name');
    if (after !== undefined && !isShortText(after, MAX_POSITION_LENGTH)) {
      return undecodable(withRef.ref, 'malformed', '"after" must be a position.');
    }
    items.push(after === undefined ? { channel } : { channel, after });
  }
  return { type: 'subscribe', ...withRef, items, many };
}

/** A value as the JSON text that travels from here on unparsed. Undefined where there is no value, or where it
 * is nested so deeply that it cannot be written. */
export function encodePayload(data: unknown): string | undefined {
  try {
    return JSON.stringify(data);
  } catch {
    return undefined;
  }
}

function undecodable(
  ref: Ref | undefined,
  code: 'malformed' | 'unknown_type' | 'bad_name',
  message?: string,
): Undecodable {
  return { type: 'undecodable', ...(ref !== undefined && { ref }), error: new TidegateError(code, message) };
}

function isRef(value: unknown): value is Ref {
  return typeof value === 'string' ? value.length <= MAX_REF_LENGTH : Number.isSafeInteger(value);
}

function isKey(value: unknown): value is string | undefined {
  return value === undefined || isShortText(value, MAX_KEY_LENGTH);
}

function isShortText(value: unknown, limit: number): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= limit;
}

const NO_KEY = '"key" must be a string of 1 to 128 characters.';
const NO_TRACEPARENT = '"traceparent" must be a string of 1 to 128 characters.';

/** Bounded here, and read where it is used: one of a version that nobody knows yet must not stop a message. */
function isTraceparent(value: unknown): value is string | undefined {
  return value === undefined || isShortText(value, MAX_TRACEPARENT_LENGTH);
}

function isSmallArray(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length > 0 && value.length <= MAX_CHANNELS_PER_COMMAND;
}
