// Close codes: why a connection ended, and what its client must do next. One table for gateway, client and docs.

import type { CloseAction } from './close-action.ts';

export { actionAfter, type CloseAction } from './close-action.ts';

/** One row of the table. `reason` is the default text of the close frame (at most 123 bytes, RFC 6455 5.5). */
export interface Close {
  readonly code: number;
  readonly reason: string;
  readonly action: CloseAction;
  readonly help: string;
}

/** Every close the gateway starts itself, by name. 1007 and 1002 come from the WebSocket library. */
export const closes = {
  binary: {
    code: 1003,
    reason: 'binary frames are not accepted',
    action: 'stop',
    help: 'A binary frame was sent. Payloads are JSON in text frames.',
  },
  refused: {
    code: 1008,
    reason: 'token refused',
    action: 'refresh',
    help: 'The token is missing, invalid or for another user. Sent after the upgrade, as browsers cannot read an HTTP status.',
  },
  tooLarge: {
    code: 1009,
    reason: 'message too large',
    action: 'stop',
    help: 'A message was larger than MAX_MESSAGE_BYTES, or came in too many pieces.',
  },
  drain: {
    code: 1012,
    reason: 'gateway is restarting',
    action: 'reconnect',
    help: 'The pod is going away. Reconnect; the reason carries a jittered hint in milliseconds.',
  },
  overload: {
    code: 1013,
    reason: 'try again later',
    action: 'reconnect',
    help: 'The gateway cannot take the connection now: the keys that check tokens cannot be fetched, or what a plain client has missed cannot be read.',
  },
  shed: {
    code: 4400,
    reason: 'moved to another pod',
    action: 'reconnect',
    help: 'The pods are uneven, and this client cannot move while its connection goes on. Reconnect; the reason of a plain client carries a hint.',
  },
  slow: {
    code: 4401,
    reason: 'slow consumer',
    action: 'reconnect',
    help: 'The connection did not read what was sent to it, and its backlog reached its bound.',
  },
  expired: {
    code: 4402,
    reason: 'token expired',
    action: 'refresh',
    help: 'The token expired and no refresh came in time.',
  },
  revoked: {
    code: 4403,
    reason: 'disconnected by the application',
    action: 'stop',
    help: 'The application disconnected or banned the user through the HTTP API.',
  },
  rate: {
    code: 4404,
    reason: 'message rate exceeded',
    action: 'reconnect',
    help: 'The connection went on sending after it was told that it exceeds its rate.',
  },
  malformed: {
    code: 4405,
    reason: 'too many malformed commands',
    action: 'stop',
    help: 'The connection sent many commands that could not be understood. The client has a bug.',
  },
  unresponsive: {
    code: 1006,
    reason: 'no answer to a ping',
    action: 'reconnect',
    help: 'The client did not answer a ping in time and was cut. Never sent: 1006 is what a cut line looks like.',
  },
  userLimit: {
    code: 4406,
    reason: 'too many connections for this user',
    action: 'reconnect',
    help: 'The user already has MAX_CONNECTIONS_PER_USER connections on this pod.',
  },
  channelLost: {
    code: 4407,
    reason: 'a channel was taken away',
    action: 'reconnect',
    help: 'The channels file has changed, and no longer allows something that the connection was subscribed to. Reconnect and subscribe again: what is no longer allowed is then refused by an error. The reason carries a jittered hint in milliseconds.',
  },
} as const satisfies Record<string, Close>;

/** The text of a close frame that asks for some patience. */
export function withHint(close: Close, reconnectAfterMs: number): string {
  return `${close.reason}; reconnect after ${reconnectAfterMs} ms`;
}

/** Every value that {@link closeCodeLabel} gives: the codes of the table, those of RFC 6455, and `other`. */
export const closeCodeLabels: readonly string[] = [
  ...new Set([
    ...Array.from({ length: 16 }, (_, at) => 1000 + at),
    ...Object.values(closes).map(({ code }) => code),
  ]),
]
  .sort((one, other) => one - other)
  .map(String)
  .concat('other');

const labels = new Set(closeCodeLabels);

/** The close code as a metric label: only codes of the table and the common ones of RFC 6455 are themselves;
 * what a peer made up is `other`, so that it cannot create series without end. */
export function closeCodeLabel(code: number): string {
  const label = String(code);
  return labels.has(label) ? label : 'other';
}
