// Channels: the policy. Which namespaces exist, who may subscribe and publish, and what a token's claims allow.

import { z } from 'zod';
import { namePattern, namespaceOf } from '../protocol/names.ts';

const who = z.enum(['anyone', 'claim', 'api']);

const namespaceSchema = z
  .strictObject({
    subscribe: who,
    publish: who,
    raw: z.boolean().default(false),
    presence: z.boolean().default(false),
    presenceEvents: z.boolean().default(false),
    slow: z.enum(['disconnect', 'drop']).default('disconnect'),
    maxMessageBytes: z.number().int().min(1).optional(),
  })
  .refine((it) => !(it.raw && it.presence), 'raw and presence exclude each other: a raw channel carries nothing but payloads')
  .refine((it) => it.presence || !it.presenceEvents, 'presenceEvents needs presence: true');

const fileSchema = z.strictObject({
  send: who.optional(),
  namespaces: z.record(
    z.string().regex(/^(?!tg$)[A-Za-z0-9._~@/-]{1,128}$/, 'a namespace is 1 to 128 of A-Z a-z 0-9 . _ ~ @ / - and is not "tg"'),
    namespaceSchema,
  ),
});

/** Who may do something: anyone who is connected, a token whose claim names the channel, or the HTTP API alone. */
export type Who = z.infer<typeof who>;

/** What one namespace allows. */
export interface Namespace {
  readonly name: string;
  readonly subscribe: Who;
  readonly publish: Who;
  /** Nothing but the payload crosses the bus, so other programs can share the channel. */
  readonly raw: boolean;
  readonly presence: boolean;
  readonly presenceEvents: boolean;
  /** What happens to a connection that reads too slowly. */
  readonly slow: 'disconnect' | 'drop';
  readonly maxMessageBytes: number;
}

/** What a token allows beyond what anyone may: names, or prefixes that end in `*`. */
export interface Grants {
  readonly subscribe: readonly string[];
  readonly publish: readonly string[];
  readonly send: readonly string[];
}

export const NO_GRANTS: Grants = { subscribe: [], publish: [], send: [] };

/** The namespaces file cannot be used. `faults` lists everything that is wrong with it. */
export class ChannelsError extends Error {
  readonly faults: readonly string[];

  constructor(faults: readonly string[]) {
    super(faults.join('\n'));
    this.name = 'ChannelsError';
    this.faults = faults;
  }
}

/** Decides what may be done on which channel. What nothing allows is denied. */
export class Channels {
  readonly #namespaces: ReadonlyMap<string, Namespace>;
  readonly #send: Who;

  constructor(namespaces: ReadonlyMap<string, Namespace>, send: Who) {
    this.#namespaces = namespaces;
    this.#send = send;
  }

  /** The namespace of a channel, or undefined where the channel cannot exist. */
  namespace(channel: string): Namespace | undefined {
    return this.#namespaces.get(namespaceOf(channel));
  }

  maySubscribe(channel: string, grants: Grants): boolean {
    return allows(this.namespace(channel)?.subscribe, grants.subscribe, channel);
  }

  mayPublish(channel: string, grants: Grants): boolean {
    return allows(this.namespace(channel)?.publish, grants.publish, channel);
  }

  maySend(user: string, grants: Grants): boolean {
    return allows(this.#send, grants.send, user);
  }
}

function allows(who: Who | undefined, granted: readonly string[], name: string): boolean {
  if (who === 'anyone') return true;
  return who === 'claim' && granted.some((grant) => grant === name || (grant.endsWith('*') && name.startsWith(grant.slice(0, -1))));
}

/** Reads the namespaces from YAML (of which JSON is a part), or takes the built-in ones where there is no text.
 * The plain channel's namespace is raw and open to anyone unless the text lists it. Unless the text says who may
 * send to users, a token's claim decides; where there are no tokens, anyone may.
 * @throws {ChannelsError} with every fault at once. */
export async function readChannels(
  text: string | undefined,
  options: { plainChannel: string; maxMessageBytes: number; anonymous: boolean },
): Promise<Channels> {
  const { plainChannel, maxMessageBytes, anonymous } = options;
  const parsed = text === undefined ? { namespaces: {} } : await parse(text);
  const namespaces = new Map<string, Namespace>();
  const plain = namespaceOf(plainChannel);
  const builtIn = { subscribe: 'anyone', publish: 'anyone', raw: true, presence: false, presenceEvents: false, slow: 'disconnect' } as const;
  namespaces.set(plain, { name: plain, ...builtIn, maxMessageBytes });
  for (const [name, { maxMessageBytes: limit, ...rest }] of Object.entries(parsed.namespaces)) {
    namespaces.set(name, { name, ...rest, maxMessageBytes: limit ?? maxMessageBytes });
  }
  return new Channels(namespaces, parsed.send ?? (anonymous ? 'anyone' : 'claim'));
}

async function parse(text: string): Promise<z.infer<typeof fileSchema>> {
  // Loaded only where there is something to read: it would be a tenth of the time to start.
  const { parseDocument } = await import('yaml');
  const document = parseDocument(text);
  if (document.errors.length > 0) throw new ChannelsError(document.errors.map((error) => error.message));
  const result = fileSchema.safeParse(document.toJS({ maxAliasCount: 0 }));
  if (result.success) return result.data;
  throw new ChannelsError(result.error.issues.map((issue) => `${issue.path.join('.') || 'the file'}: ${issue.message}`));
}

/** The grants in a token's claims: `channels: {subscribe: [...], publish: [...]}` and `send: [...]`. Total:
 * whatever is not a list of valid names or prefixes grants nothing. */
export function grantsOf(claims: Readonly<Record<string, unknown>>): Grants {
  const channels = isRecord(claims.channels) ? claims.channels : {};
  const grants = { subscribe: patterns(channels.subscribe), publish: patterns(channels.publish), send: patterns(claims.send) };
  return grants.subscribe.length + grants.publish.length + grants.send.length === 0 ? NO_GRANTS : grants;
}

function patterns(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.filter(
    (item): item is string =>
      typeof item === 'string' && (item === '*' || namePattern.test(item.endsWith('*') ? item.slice(0, -1) : item)),
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
