// A ceiling: how many connections this pod is to keep for now, and on what terms it may ask the others to move.

/** What the operator asks for with `PUT /ceiling`. It ends by itself, so that an operator that dies leaves no trace. */
export interface Ceiling {
  readonly connections: number;
  readonly expiresAfterMs: number;
  /** How many connections are asked to move a second, at the most. 0: arrivals are steered, and nobody is asked. */
  readonly shedPerSecond: number;
  readonly order: 'random' | 'oldest';
  /** Whoever came later than this is left alone. */
  readonly minAgeSeconds: number;
  /** Clients that cannot move, those of the plain protocol among them, may be closed instead. */
  readonly plain: boolean;
}

/** On what terms a connection may be asked to move. */
export type Terms = Pick<Ceiling, 'minAgeSeconds' | 'plain'>;

const orders = ['random', 'oldest'] as const;

/** What holds where the body does not say. `connections` has no default. */
export const ceilingDefaults: Omit<Ceiling, 'connections'> = {
  expiresAfterMs: 15_000,
  shedPerSecond: 25,
  order: 'random',
  minAgeSeconds: 30,
  plain: false,
};

/** No ceiling outlives the operator by more than this. */
const MAX_EXPIRES_AFTER_MS = 600_000;
const MAX_CONNECTIONS = 1_000_000;
const MAX_SHED_PER_SECOND = 1000;
const MAX_MIN_AGE_SECONDS = 31_536_000;

/** Reads the body of `PUT /ceiling`. Total: any text gives a ceiling or, as `fault`, what is wrong with it. Fields
 * that are not known are ignored, as a newer operator may send more. */
export function decodeCeiling(text: string): Ceiling | { readonly fault: string } {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return { fault: 'the body is no JSON' };
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    return { fault: 'the body must be an object such as {"connections":500}' };
  }
  const fields = { ...ceilingDefaults, ...body } as Record<string, unknown>;
  const { connections, expiresAfterMs, shedPerSecond, order, minAgeSeconds, plain } = fields;
  if (!isWithin(connections, 0, MAX_CONNECTIONS) || !Number.isInteger(connections))
    return { fault: `connections must be a whole number from 0 to ${MAX_CONNECTIONS}` };
  if (!isWithin(expiresAfterMs, 1, MAX_EXPIRES_AFTER_MS))
    return { fault: `expiresAfterMs must be a number from 1 to ${MAX_EXPIRES_AFTER_MS}` };
  if (!isWithin(shedPerSecond, 0, MAX_SHED_PER_SECOND))
    return { fault: `shedPerSecond must be a number from 0 to ${MAX_SHED_PER_SECOND}` };
  const known = orders.find((it) => it === order);
  if (known === undefined) return { fault: `order must be one of ${orders.join(', ')}` };
  if (!isWithin(minAgeSeconds, 0, MAX_MIN_AGE_SECONDS))
    return { fault: `minAgeSeconds must be a number from 0 to ${MAX_MIN_AGE_SECONDS}` };
  if (typeof plain !== 'boolean') return { fault: 'plain must be true or false' };
  return { connections, expiresAfterMs, shedPerSecond, order: known, minAgeSeconds, plain };
}

function isWithin(value: unknown, min: number, max: number): value is number {
  return typeof value === 'number' && value >= min && value <= max;
}
