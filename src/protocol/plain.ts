// The plain protocol: for the simplest clients, which offer no subprotocol and speak bare text.

/** A client may offer this beside a token's entry: browsers fail a connection that offered subprotocols of which
 * none was chosen. */
export const PLAIN_SUBPROTOCOL = 'tidegate.plain';

/** The heartbeat frame; the other side answers it with {@link PLAIN_PONG}. */
export const PLAIN_PING = '{"type":"ping"}';

/** The answer to {@link PLAIN_PING}. */
export const PLAIN_PONG = '{"type":"pong"}';

/** What a plain client's text frame becomes on the default channel: exactly these two keys. */
export function encodePlain(sender: string, text: string): string {
  return JSON.stringify({ sender, text });
}

/** Whether the text is a heartbeat rather than something to publish: `ping`, `pong`, or neither. White space
 * does not matter. Long texts are not parsed. */
export function plainHeartbeat(text: string): 'ping' | 'pong' | undefined {
  if (text.length > 32 || !text.includes('"type"')) return undefined;
  const compact = text.replace(/\s/g, '');
  if (compact === PLAIN_PING) return 'ping';
  return compact === PLAIN_PONG ? 'pong' : undefined;
}
