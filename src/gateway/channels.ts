// Channels: the policy. Which namespaces exist, who may subscribe and publish, and what a token's claims allow.

import { z } from 'zod';
import { ConfigError } from '../platform/config.ts';
import { nearest } from '../platform/nearest.ts';
import { isRecord } from '../platform/records.ts';
import { namePattern, namespaceOf } from '../protocol/names.ts';

const who = z.enum(['anyone', 'claim', 'api']);

const MAX_REPLICA_TIMEOUT_MS = 1500; // less than a command may take

const durableSchema = z.strictObject({
  messages: z.number().int().min(1).max(1_000_000),
  ageSeconds: z.number().int().min(1).max(31_536_000),
  replicas: z.number().int().min(1).max(10).optional(),
  timeoutMs: z.number().int().min(1).max(MAX_REPLICA_TIMEOUT_MS).default(500),
});

const namespaceSchema = z
  .strictObject({
    subscribe: who,
    publish: who,
    raw: z.boolean().default(false),
    presence: z.boolean().default(false),
    presenceEvents: z.boolean().default(false),
    slow: z.enum(['disconnect', 'drop']).default('disconnect'),
    maxMessageBytes: z.number().int().min(1).optional(),
    durable: durableSchema.optional(),
    traces: z.number().min(0).max(1).optional(),
  })
  .refine(
    (it) => !(it.raw && it.durable),
    asWell('raw and durable exclude each other: a raw channel carries nothing but payloads'),
  )
  .refine(
    (it) => !(it.raw && it.presence),
    asWell('raw and presence exclude each other: a raw channel carries nothing but payloads'),
  )
  .refine((it) => it.presence || !it.presenceEvents, asWell('presenceEvents needs presence: true'));

/** Also looked at where other things are wrong, so that all are told at once. */
function asWell(error: string) {
  return { error, when: ({ value }: { value: unknown }) => isRecord(value) };
}

const fileSchema = z.strictObject({
  send: who.optional(),
  namespaces: z.record(
    z
      .string()
      .regex(
        /^(?!tg$)[A-Za-z0-9._~@/-]{1,128}$/,
        'a namespace is 1 to 128 of A-Z a-z 0-9 . _ ~ @ / - and is not "tg"',
      ),
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
  /** What is kept of its channels' messages. Undefined: nothing. */
  readonly durable: Durable | undefined;
  /** The share of its messages that is traced, from 0 to 1. Undefined: that of all namespaces. */
  readonly traces?: number | undefined;
}

/** How much a durable channel keeps, and how many replicas a publish waits for. */
export interface Durable {
  readonly messages: number;
  readonly ageMs: number;
  readonly replicas: { readonly count: number; readonly timeoutMs: number } | undefined;
}

/** What a token allows beyond what anyone may: names, or prefixes that end in `*`. */
export interface Grants {
  readonly subscribe: readonly string[];
  readonly publish: readonly string[];
  readonly send: readonly string[];
}

/** Nothing beyond what anyone may. */
export const NO_GRANTS: Grants = { subscribe: [], publish: [], send: [] };

/** The namespaces file cannot be used. `faults` lists everything that is wrong with it. */
export class ChannelsError extends ConfigError {
  constructor(faults: readonly string[]) {
    super(faults);
    this.name = 'ChannelsError';
  }
}

/** Decides what may be done on which channel. What nothing allows is denied. */
export class Channels {
  #namespaces: ReadonlyMap<string, Namespace>;
  #send: Who;
  /** How the messages of every namespace there has been cross the bus. */
  readonly #carriage = new Map<string, string>();

  constructor(namespaces: ReadonlyMap<string, Namespace>, send: Who) {
    this.#namespaces = namespaces;
    this.#send = send;
    for (const [name, namespace] of namespaces) this.#carriage.set(name, carriageOf(namespace));
  }

  /** Takes the namespaces of others for its own. What they allow or deny counts from now on.
   * @throws {ChannelsError} where messages of a namespace would cross the bus in another way than before, or than they
   * did when there was one of this name. Gateways do not change at the same moment, and those of one kind drop what
   * those of another publish. Nothing has changed then. */
  replaceWith(next: Channels): void {
    const namespaces = next.#namespaces;
    const faults = [...namespaces].flatMap(([name, namespace]) => {
      const [before, now] = [this.#carriage.get(name), carriageOf(namespace)];
      return before === undefined || before === now
        ? []
        : [
            `namespaces.${name}: it was ${before} and would be ${now}, which needs a restart of all gateways; or give the new one another name`,
          ];
    });
    if (faults.length > 0) throw new ChannelsError(faults);
    for (const [name, namespace] of namespaces) this.#carriage.set(name, carriageOf(namespace));
    this.#namespaces = namespaces;
    this.#send = next.#send;
  }

  /** How many namespaces there are. */
  get size(): number {
    return this.#namespaces.size;
  }

  /** The namespace of a channel, or undefined where the channel cannot exist. */
  namespace(channel: string): Namespace | undefined {
    return this.#namespaces.get(namespaceOf(channel));
  }

  /** The names of all namespaces. */
  get names(): Iterable<string> {
    return this.#namespaces.keys();
  }

  /** Whether any namespace keeps messages. */
  get hasDurable(): boolean {
    return [...this.#namespaces.values()].some((namespace) => namespace.durable !== undefined);
  }

  maySubscribe(channel: string, grants: Grants): boolean {
    return allows(this.namespace(channel)?.subscribe, grants.subscribe, channel);
  }

  mayPublish(channel: string, grants: Grants): boolean {
    return allows(this.namespace(channel)?.publish, grants.publish, channel);
  }

  /** Why somebody may not, for whoever has to mend it. */
  refusal(channel: string, action: 'subscribe' | 'publish'): string {
    const namespace = this.namespace(channel);
    if (namespace === undefined) {
      const name = namespaceOf(channel);
      return `You may not ${action} to this channel: there is no namespace "${name}".`;
    }
    return namespace[action] === 'api'
      ? `You may not ${action} to this channel: only the HTTP API may.`
      : `You may not ${action} to this channel: the token's claims do not name it.`;
  }

  maySend(user: string, grants: Grants): boolean {
    return allows(this.#send, grants.send, user);
  }
}

function carriageOf({ raw, durable }: Namespace): string {
  return raw ? 'raw' : durable === undefined ? 'neither raw nor durable' : 'durable';
}

function allows(who: Who | undefined, granted: readonly string[], name: string): boolean {
  if (who === 'anyone') return true;
  return (
    who === 'claim' &&
    granted.some((grant) => grant === name || (grant.endsWith('*') && name.startsWith(grant.slice(0, -1))))
  );
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
  const parsed = text === undefined ? { namespaces: {} } : await parse(text, maxMessageBytes);
  const namespaces = new Map<string, Namespace>();
  const plain = namespaceOf(plainChannel);
  const builtIn = {
    subscribe: 'anyone',
    publish: 'anyone',
    raw: true,
    presence: false,
    presenceEvents: false,
    slow: 'disconnect',
    durable: undefined,
  } as const;
  namespaces.set(plain, { name: plain, ...builtIn, maxMessageBytes });
  for (const [name, { maxMessageBytes: limit, durable, ...rest }] of Object.entries(parsed.namespaces)) {
    namespaces.set(name, {
      name,
      ...rest,
      maxMessageBytes: limit ?? maxMessageBytes,
      durable: durableOf(durable),
    });
  }
  return new Channels(namespaces, parsed.send ?? (anonymous ? 'anyone' : 'claim'));
}

function durableOf(given: z.infer<typeof durableSchema> | undefined): Durable | undefined {
  if (given === undefined) return undefined;
  const { messages, ageSeconds, replicas, timeoutMs } = given;
  return {
    messages,
    ageMs: ageSeconds * 1000,
    replicas: replicas === undefined ? undefined : { count: replicas, timeoutMs },
  };
}

/** Of a text that is no YAML at all the first faults say enough. */
const MAX_SYNTAX_FAULTS = 10;

async function parse(text: string, maxMessageBytes: number): Promise<z.infer<typeof fileSchema>> {
  // Loaded only where there is something to read: it would be a tenth of the time to start.
  const { parseDocument } = await import('yaml');
  const document = parseDocument(text);
  if (document.errors.length > 0) {
    throw new ChannelsError(document.errors.slice(0, MAX_SYNTAX_FAULTS).map((error) => error.message));
  }
  let value: unknown;
  try {
    // Without aliases, with which a short text can stand for gigabytes.
    value = document.toJS({ maxAliasCount: 0 });
  } catch (error) {
    throw new ChannelsError([(error as Error).message]);
  }
  const result = fileSchema.safeParse(value);
  const faults = result.success
    ? []
    : result.error.issues.map((issue) => `${issue.path.join('.') || 'the file'}: ${messageOf(issue)}`);
  faults.push(...tooLargeLimits(value, maxMessageBytes));
  if (!result.success || faults.length > 0) throw new ChannelsError(faults);
  return result.data;
}

/** What is wrong with a key is told inside of the issue. Of one that does not exist it is told which may be meant. */
function messageOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_key':
      return issue.issues.map(({ message }) => message).join(', ');
    case 'unrecognized_keys':
      return issue.keys.map((key) => unknownKey(key, KEYS[issue.path.length] ?? [])).join(', ');
    default:
      return issue.message;
  }
}

/** The keys that there are so deep in the file. */
const KEYS: Readonly<Record<number, readonly string[]>> = {
  0: Object.keys(fileSchema.shape),
  2: Object.keys(namespaceSchema.shape),
  3: Object.keys(durableSchema.shape),
};

function unknownKey(key: string, known: readonly string[]): string {
  const meant = nearest(key, known);
  const help = meant === undefined ? `there are ${known.join(', ')}` : `is it "${meant}" that you mean?`;
  return `there is no key ${JSON.stringify(key.slice(0, 80))}: ${help}`;
}

/** A namespace may lower the limit of all, not raise it: a larger message would never get as far. */
function tooLargeLimits(value: unknown, maxMessageBytes: number): string[] {
  const namespaces = isRecord(value) && isRecord(value.namespaces) ? Object.entries(value.namespaces) : [];
  const isTooLarge = (it: unknown) =>
    isRecord(it) && typeof it.maxMessageBytes === 'number' && it.maxMessageBytes > maxMessageBytes;
  return namespaces
    .filter(([, namespace]) => isTooLarge(namespace))
    .map(
      ([name]) =>
        `namespaces.${name}.maxMessageBytes: must be at most MAX_MESSAGE_BYTES, which is ${maxMessageBytes}`,
    );
}

/** The grants in a token's claims: `channels: {subscribe: [...], publish: [...]}` and `send: [...]`. Total:
 * whatever is not a list of valid names or prefixes grants nothing. */
export function grantsOf(claims: Readonly<Record<string, unknown>>): Grants {
  const channels = isRecord(claims.channels) ? claims.channels : {};
  const grants = {
    subscribe: patterns(channels.subscribe),
    publish: patterns(channels.publish),
    send: patterns(claims.send),
  };
  return grants.subscribe.length + grants.publish.length + grants.send.length === 0 ? NO_GRANTS : grants;
}

function patterns(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.filter(
    (item): item is string =>
      typeof item === 'string' &&
      (item === '*' || namePattern.test(item.endsWith('*') ? item.slice(0, -1) : item)),
  );
}
