// Ids: random names for messages and connections.

import { randomFillSync } from 'node:crypto';

const ID_BYTES = 12; // 96 bits: two gateways never make the same one, restarts included
const POOL_IDS = 512;

const pool = Buffer.allocUnsafe(ID_BYTES * POOL_IDS);
let next = POOL_IDS;

/** An id of 16 characters (A-Z a-z 0-9 - _) with 96 random bits. Asks the system for randomness once for every
 * 512 ids, because one is needed for each message. */
export function newId(): string {
  if (next === POOL_IDS) {
    randomFillSync(pool);
    next = 0;
  }
  const start = next++ * ID_BYTES;
  return pool.toString('base64url', start, start + ID_BYTES);
}

/** Whether the value looks like an id of {@link newId}: safe to be quoted without escaping. */
export function isId(value: unknown): value is string {
  return typeof value === 'string' && /^[A-Za-z0-9_-]{1,64}$/.test(value);
}
