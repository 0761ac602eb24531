// Commands: what each command of a tidegate.v1 client does.

import type { Report } from '../platform/logs.ts';
import type { Metrics } from '../platform/metrics.ts';
import type { Command, Ref, SubscribeItem } from '../protocol/commands.ts';
import { asTidegateError, TidegateError } from '../protocol/errors.ts';
import { type ErrorBody, errorBody, type Ok, type SubscribeResult } from '../protocol/messages.ts';
import { PLAIN_RESET } from '../protocol/plain.ts';
import { formatPosition } from '../protocol/positions.ts';
import { type Authenticator, TokenRefused } from './authenticate.ts';
import { type Place, placeOfText } from './chain.ts';
import type { Channels, Namespace } from './channels.ts';
import type { Connection } from './connection.ts';
import type { Expiries } from './expiries.ts';
import type { Fanout } from './fanout.ts';
import type { Entering, Hub } from './hub.ts';
import type { Presence } from './presence.ts';
import type { Publisher } from './publish.ts';
import type { Entrance, Recovery } from './recovery.ts';

/** How long a subscribe waits for the bus before it is answered with `bus_unavailable`. */
const SUBSCRIBE_TIMEOUT_MS = 3000;

/** How many channels an error names. */
const MAX_NAMED = 3;

/** What commands work on. */
export interface CommandsOptions {
  readonly channels: Channels;
  readonly hub: Hub;
  readonly fanout: Fanout;
  readonly publisher: Publisher;
  readonly presence: Presence;
  readonly recovery: Recovery;
  readonly expiries: Expiries;
  readonly authenticator: Authenticator;
  readonly metrics: Metrics;
  readonly report: Report;
  readonly maxChannelsPerConnection: number;
}

type OkFields = Omit<Ok, 'type' | 'ref'>;

/** What a command is answered with, and what is done in the same moment as soon as the answer is on its way. */
interface Outcome {
  readonly ok: OkFields;
  readonly begin?: () => void;
}

/** Runs commands, and answers each with exactly one `ok` or `error`. */
export class Commands {
  readonly #options: CommandsOptions;

  constructor(options: CommandsOptions) {
    this.#options = options;
  }

  /** Runs one command and answers it. Never rejects. */
  async run(connection: Connection, command: Command): Promise<void> {
    try {
      const outcome = await this.#execute(connection, command);
      const { ok, begin } = typeof outcome === 'function' ? outcome() : outcome;
      this.#options.fanout.send(connection, { type: 'ok', ...refOf(command), ...ok });
      begin?.();
    } catch (error) {
      this.answerError(connection, command.ref, error);
    }
  }

  /** Tells the connection of an error. What is no {@link TidegateError} is a bug: it is reported, and told as `internal`. */
  answerError(connection: Connection, ref: Ref | undefined, error: unknown): void {
    this.#options.fanout.send(connection, {
      type: 'error',
      ...(ref !== undefined && { ref }),
      ...this.#tell(error),
    });
  }

  /** What a client is told of an error. Counts it, and reports it where it is a bug. */
  #tell(error: unknown): ErrorBody {
    const told = asTidegateError(error);
    if (told.code === 'internal') this.#options.report('command', error);
    this.#options.metrics.errors.inc({ code: told.code });
    return errorBody(told);
  }

  async #execute(connection: Connection, command: Command): Promise<Outcome | (() => Outcome)> {
    switch (command.type) {
      case 'subscribe':
        return this.#subscribe(connection, command.items, command.many);
      case 'unsubscribe': {
        const strange = command.channels.filter((channel) => !this.#leave(connection, channel));
        if (strange.length === 0) return { ok: {} };
        throw new TidegateError(
          'not_subscribed',
          `Not subscribed to ${strange.slice(0, MAX_NAMED).join(', ')}.`,
        );
      }
      case 'publish':
        return { ok: await this.#publish(connection, command) };
      case 'send':
        if (!this.#options.channels.maySend(command.user, connection.grants)) {
          throw new TidegateError('forbidden', 'You may not send to this user.');
        }
        return {
          ok: await this.#options.publisher.send({
            user: command.user,
            payload: command.payload,
            sender: connection.user,
            key: command.key,
            origin: { link: command.traceparent },
          }),
        };
      case 'presence': {
        const namespace = this.#readable(connection, command.channel);
        if (!namespace.presence) throw new TidegateError('no_presence');
        const { users, total } = await this.#options.presence.members(command.channel);
        return { ok: { channel: command.channel, members: users, total } };
      }
      case 'refresh':
        return { ok: await this.#refresh(connection, command.token) };
      case 'ping':
        return { ok: {} };
      case 'sync':
        await this.#options.hub.catchUp(connection);
        return { ok: {} };
      case 'stay':
        // Who cannot move has no say in it.
        connection.stays = connection.moves;
        return { ok: {} };
    }
  }

  #publish(connection: Connection, command: Extract<Command, { type: 'publish' }>): Promise<OkFields> {
    const { channel, payload, key, echo, traceparent } = command;
    const namespace = this.#options.channels.namespace(channel);
    if (namespace === undefined || !this.#options.channels.mayPublish(channel, connection.grants)) {
      throw new TidegateError('forbidden', this.#options.channels.refusal(channel, 'publish'));
    }
    const skip = echo ? undefined : connection.id;
    return this.#options.publisher.publish({
      channel,
      namespace,
      payload,
      sender: connection.user,
      skip,
      key,
      origin: { link: traceparent },
    });
  }

  /** Puts a plain client into its channel, after what it has missed since `place`, where the channel is durable.
   * @throws {TidegateError} as {@link #arrive} does. */
  async enterPlain(connection: Connection, channel: string, place: Place | undefined): Promise<void> {
    const { outcome, start } = (await this.#arrive(connection, channel, place))();
    if (outcome?.recovered === false) this.#options.fanout.sendText(connection, PLAIN_RESET);
    start();
  }

  /** What is returned is called at the moment of the answer: between a position and the answer that tells it nothing
   * may be delivered. */
  async #subscribe(
    connection: Connection,
    items: readonly SubscribeItem[],
    many: boolean,
  ): Promise<() => Outcome> {
    const [first] = items;
    if (!many && first !== undefined) {
      const arrival = await this.#arrive(connection, first.channel, placeFrom(first.after));
      return () => {
        const { result, start } = entered(first.channel, arrival);
        return { ok: result, begin: start };
      };
    }
    const arrivals = await Promise.allSettled(
      items.map(({ channel, after }) => this.#arrive(connection, channel, placeFrom(after))),
    );
    // All are entered at once, with the one answer.
    return () => {
      const starts: (() => void)[] = [];
      const channels = items.map(({ channel }, at): SubscribeResult => {
        try {
          const arrival = arrivals[at];
          if (arrival?.status !== 'fulfilled') throw arrival?.reason;
          const { result, start } = entered(channel, arrival.value);
          starts.push(start);
          return result;
        } catch (error) {
          return { channel, error: this.#tell(error) };
        }
      });
      return {
        ok: { channels },
        begin: () => {
          for (const start of starts) start();
        },
      };
    };
  }

  /** Waits until the bus delivers the channel and, where it is durable, until it is known what the client has
   * missed. What is returned is called at the moment of the answer, and speaks of that moment: nothing of the channel
   * comes before the answer, and nothing after it is missing.
   * @throws {TidegateError} where it may not, holds too many already, leaves meanwhile, or the bus does not come. */
  async #arrive(connection: Connection, channel: string, place: Place | undefined): Promise<() => Entrance> {
    const { hub, recovery, maxChannelsPerConnection } = this.#options;
    const namespace = this.#readable(connection, channel);
    const present = hub.groupOf(connection, channel, namespace);
    // One of the groups is the user's own.
    if (present === undefined && connection.groups.size > maxChannelsPerConnection) {
      throw new TidegateError('too_many_channels');
    }
    // Who is in it, or on the way there, has nothing to enter.
    const entering =
      present === undefined ? hub.arrive(connection, channel, namespace) : { connection, group: present };
    const { group } = entering;
    const isThere = () => (present === undefined ? hub.isEntering(entering) : connection.groups.has(present));
    const admit = () => this.#admit(entering);
    try {
      if (group.ready !== undefined && !(await settlesWithin(group.ready, SUBSCRIBE_TIMEOUT_MS))) {
        throw new TidegateError('bus_unavailable', undefined, { retryAfterMs: 1000 });
      }
      const { follower } = group;
      const decided =
        follower === undefined || present !== undefined
          ? undefined
          : await recovery.decide({ entering, follower, isEntering: isThere, admit }, place);
      return () => {
        // A new token may have come meanwhile, and allow less.
        this.#readable(connection, channel);
        if (!isThere()) {
          throw new TidegateError('not_subscribed', 'The channel was left before it was entered.');
        }
        return (
          decided?.() ?? {
            position: follower?.last,
            outcome: undefined,
            start: admit,
          }
        );
      };
    } catch (error) {
      if (hub.isEntering(entering)) hub.leave(connection, group);
      throw error;
    }
  }

  /** Lets a connection that was on its way in hear the channel; does nothing where it hears it already, or has left. */
  #admit(entering: Entering): void {
    const { hub, presence } = this.#options;
    if (!hub.admit(entering)) return;
    const { connection, group } = entering;
    if (group.channel !== undefined && group.namespace.presence)
      presence.join(group.channel, group.namespace, connection.user);
  }

  /** Leaves the channel, or gives up entering it. Returns whether there was anything to leave. */
  #leave(connection: Connection, channel: string): boolean {
    const { channels, hub, presence } = this.#options;
    const namespace = channels.namespace(channel);
    const group = namespace === undefined ? undefined : hub.groupOf(connection, channel, namespace);
    if (group === undefined) return false;
    const hadEntered = group.connections.has(connection);
    hub.leave(connection, group);
    if (hadEntered && group.namespace.presence) presence.leave(channel, connection.user);
    return true;
  }

  /** The namespace of a channel that the connection may subscribe to. */
  #readable(connection: Connection, channel: string): Namespace {
    const namespace = this.#options.channels.namespace(channel);
    if (namespace === undefined || !this.#options.channels.maySubscribe(channel, connection.grants)) {
      throw new TidegateError('forbidden', this.#options.channels.refusal(channel, 'subscribe'));
    }
    return namespace;
  }

  /** Takes a new token. What the new one no longer allows is left. */
  async #refresh(connection: Connection, token: string): Promise<OkFields> {
    const { authenticator, expiries, channels } = this.#options;
    let identity: Awaited<ReturnType<Authenticator['refresh']>>;
    try {
      identity = await authenticator.refresh(token, connection.user);
    } catch (error) {
      if (error instanceof TokenRefused) {
        throw new TidegateError(error.retryable ? 'overloaded' : 'token_refused', error.message, {
          cause: error,
        });
      }
      throw error;
    }
    if (!connection.isOpen) return {};
    expiries.remove(connection);
    connection.grants = identity.grants;
    connection.expiresAtMs = identity.expiresAtMs;
    expiries.add(connection);
    const left: string[] = [];
    for (const { channel } of [...connection.groups]) {
      if (channel === undefined || channels.maySubscribe(channel, connection.grants)) continue;
      this.#leave(connection, channel);
      left.push(channel);
    }
    return {
      ...(identity.expiresAtMs !== undefined && { tokenExpiresInMs: identity.expiresAtMs - Date.now() }),
      ...(left.length > 0 && { left }),
    };
  }
}

/** Where the client says it is, if it does. */
function placeFrom(after: string | undefined): Place | undefined {
  return after === undefined ? undefined : placeOfText(after);
}

/** A connection enters now: what it is told, and what then begins. */
function entered(channel: string, arrive: () => Entrance) {
  const { position, outcome, start } = arrive();
  return {
    result: { channel, ...outcome, ...(position !== undefined && { position: formatPosition(position) }) },
    start,
  };
}

function refOf(command: Command): { ref?: Ref } {
  return command.ref === undefined ? {} : { ref: command.ref };
}

/** Whether the promise settles in time. */
export async function settlesWithin(promise: Promise<void>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
