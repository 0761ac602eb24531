// Names of channels and users: what they may look like, and the namespace a channel belongs to.

/** What a channel's or a user's name must match. No `*`, `{`, `}`, space or control character: a name can
 * never be a Redis pattern, move a key to another hash slot or break a line. */
export const namePattern = /^[A-Za-z0-9._~@:/-]{1,128}$/;

/** Whether the value is a valid name of a channel or a user. */
export function isName(value: unknown): value is string {
  return typeof value === 'string' && namePattern.test(value);
}

/** The namespace of a channel: the part before the first `:`, or all of it where there is none. */
export function namespaceOf(channel: string): string {
  const end = channel.indexOf(':');
  return end === -1 ? channel : channel.slice(0, end);
}
