// The plain protocol: for the simplest clients, which offer no subprotocol and speak bare text.

/** A client may offer this beside a token's entry: browsers fail a connection that offered subprotocols of which
 * none was chosen. */
export const PLAIN_SUBPROTOCOL = 'tidegate.plain';

/** The heartbeat frame; the other side answers it with {@link PLAIN_PONG}. */
export const PLAIN_PING = '{"type":"ping"}';

/** The answer to {@link PLAIN_PING}. */
export const PLAIN_PONG = '{"type":"pong"}';

/** On a durable channel: messages are missing that cannot be given, so what the client has built on them is stale. */
export const PLAIN_RESET = '{"type":"reset"}';

/** A payload with its number as `id`, the last of its keys, so that it prevails over one of the payload's own. What is
 * no object becomes the `data` of one. */
export function withPlainId(payload: string, id: number): string {
  if (!payload.startsWith('{')) return `{"data":${payload},"id":${id}}`;
  return payload === '{}' ? `{"id":${id}}` : `${payload.slice(0, -1)},"id":${id}}`;
}

/** What a plain client's text frame becomes on the default channel: exactly these two keys. */
export function encodePlain(sender: string, text: string): string {
  return JSON.stringify({ sender, text });
}

const HEARTBEAT = /^[ \t\r\n]*\{[ \t\r\n]*"type"[ \t\r\n]*:[ \t\r\n]*"(ping|pong)"[ \t\r\n]*\}[ \t\r\n]*$/;
const MAX_HEARTBEAT_LENGTH = 32;

/** Whether the text is a heartbeat rather than something to publish: `ping`, `pong`, or neither. White space
 * between the tokens does not matter. Long texts are not looked at. */
export function plainHeartbeat(text: string): 'ping' | 'pong' | undefined {
  if (text.length > MAX_HEARTBEAT_LENGTH) return undefined;
  return HEARTBEAT.exec(text)?.[1] as 'ping' | 'pong' | undefined;
}
