// Messages: what the gateway says to a tidegate.v1 client, and how each is encoded.

import type { Ref } from './commands.ts';
import type { TidegateError } from './errors.ts';

/** Why messages are missing: see `gap` in docs/protocol.md. */
export type GapReason = 'trimmed' | 'forked' | 'limit' | 'slow' | 'bus';

/** The first message on a connection. All times are in milliseconds. */
export interface Welcome {
  type: 'welcome';
  connection: string;
  user: string;
  pingIntervalMs: number;
  maxMessageBytes: number;
  tokenExpiresInMs?: number;
}

/** The answer to a command that succeeded. Fields beside `ref` depend on the command. */
export interface Ok {
  type: 'ok';
  ref?: Ref;
  channel?: string;
  channels?: SubscribeResult[];
  /** Durable channels: where the message stands, or where the channel does. Opaque to clients. */
  position?: string;
  /** Whether what was missed since `after` comes next; and if not, why not. */
  recovered?: boolean;
  reason?: string;
  /** The publish was a repeat of one with the same key. */
  repeated?: true;
  /** Whether as many replicas as the namespace asks for have the message. */
  replicated?: boolean;
  /** The id of the message that was published or sent. */
  id?: string;
  members?: string[];
  total?: number;
  tokenExpiresInMs?: number;
  /** Channels that a new token no longer allows, and that the connection has left. */
  left?: string[];
}

/** What became of one channel of a subscribe command that named many. */
export type SubscribeResult =
  | { channel: string; position?: string; recovered?: boolean; reason?: string }
  | { channel: string; error: ErrorBody };

/** An error as a client is told it. */
export interface ErrorBody {
  code: string;
  message: string;
  retryable: boolean;
  retryAfterMs?: number;
}

/** Messages are missing on a channel, and why. */
export interface Gap {
  type: 'gap';
  channel?: string;
  /** Messages sent to this user, not a channel's, are missing. */
  direct?: true;
  reason: GapReason;
  /** Durable channels: what comes next follows on this. */
  position?: string;
}

/** Who came to and left a channel since the last one; the lists are capped, `total` is not. */
export interface PresenceEvent {
  type: 'presence';
  channel: string;
  joined: string[];
  left: string[];
  total: number;
}

/** The connection will be closed in `closeAfterMs`; until then delivery goes on. */
export interface Goodbye {
  type: 'goodbye';
  code: number;
  reconnectAfterMs: number;
  closeAfterMs: number;
}

/** The client is asked to go over to another pod. The connection is not closed: what finds no other pod in time stays. */
export interface Move {
  type: 'goodbye';
  code: number;
  move: true;
  reconnectAfterMs: number;
  giveUpAfterMs: number;
}

/** Everything but `message`, which is put together without parsing its payload: see {@link encodeMessage}. */
export type ServerMessage =
  | Welcome
  | Ok
  | ({ type: 'error'; ref?: Ref } & ErrorBody)
  | Gap
  | PresenceEvent
  | Goodbye
  | Move;

/** The JSON text of a server message. */
export function encodeServerMessage(message: ServerMessage): string {
  return JSON.stringify(message);
}

/** An error as it is told to a client. */
export function errorBody(error: TidegateError): ErrorBody {
  const { code, message, retryable, retryAfterMs } = error;
  return { code, message, retryable, ...(retryAfterMs !== undefined && { retryAfterMs }) };
}

/** A published message as a client sees it; `payload` is JSON text and is not parsed. */
export interface Delivered {
  /** Absent on a message to a user. */
  readonly channel?: string;
  readonly position?: string | undefined;
  readonly id?: string | undefined;
  readonly from?: string | undefined;
  /** It was published on a raw channel, so nothing but its text is known; `payload` is that text as JSON string. */
  readonly foreign?: boolean;
  /** The trace of the message, for those who asked for it. */
  readonly traceparent?: string | undefined;
  readonly payload: string;
}

/** The JSON text of a `message`. Names are quoted without escaping: `namePattern` has no character to escape. */
export function encodeMessage(message: Delivered): string {
  const { channel, position, id, from, foreign, traceparent, payload } = message;
  const head =
    channel === undefined ? '{"type":"message","direct":true' : `{"type":"message","channel":"${channel}"`;
  const positionPart = position === undefined ? '' : `,"position":"${position}"`;
  const idPart = id === undefined ? '' : `,"id":"${id}"`;
  const fromPart = from === undefined ? '' : `,"from":"${from}"`;
  const tracePart = traceparent === undefined ? '' : `,"traceparent":"${traceparent}"`;
  return `${head}${positionPart}${idPart}${fromPart}${foreign ? ',"foreign":true' : ''}${tracePart},"data":${payload}}`;
}
