// Positions: where a message stands in a durable channel, and the number that stands for it in the plain protocol.

import { isId } from '../platform/ids.ts';

/** A place in a durable channel's chain: the number of a message and its random id. Two branches of a channel's
 * history, as after a failover that lost messages, may share numbers but never ids. */
export interface Position {
  readonly offset: number;
  readonly id: string;
}

/** Before the first message. */
export const GENESIS: Position = { offset: 0, id: '0' };

/** `offset-id`, which clients treat as opaque. */
export function formatPosition({ offset, id }: Position): string {
  return `${offset}-${id}`;
}

/** Total: what is no position gives undefined. */
export function parsePosition(text: string): Position | undefined {
  const at = text.indexOf('-');
  const offset = /^\d{1,16}$/.test(text.slice(0, at)) ? Number(text.slice(0, at)) : Number.NaN;
  const id = text.slice(at + 1);
  return at > 0 && Number.isSafeInteger(offset) && isId(id) ? { offset, id } : undefined;
}

/** How much of a plain id is taken from the message's random id. Sixteen bits betray a lost branch in all but one
 * of 65,536 cases, and leave room for 137 thousand million messages below 2^53. */
const TAG_VALUES = 65_536;

/** The plain protocol's id of a message: a number below 2^53 that grows along a branch and differs between branches. */
export function plainId({ offset, id }: Position): number {
  return offset * TAG_VALUES + tagOf(id);
}

/** The offset and tag in a plain id. Total: what is none gives undefined. */
export function parsePlainId(text: string): { offset: number; tag: number } | undefined {
  if (!/^\d{1,16}$/.test(text)) return undefined;
  const number = Number(text);
  if (!Number.isSafeInteger(number)) return undefined;
  return { offset: Math.floor(number / TAG_VALUES), tag: number % TAG_VALUES };
}

/** Sixteen bits of a message's id. Ids are random, so any of their characters will do. */
export function tagOf(id: string): number {
  return Buffer.from(id.slice(0, 4), 'base64url')
    .subarray(0, 2)
    .reduce((tag, byte) => tag * 256 + byte, 0);
}
