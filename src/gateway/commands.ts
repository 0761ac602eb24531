// Commands: what each command of a tidegate.v1 client does.


import { asTidegateError, TidegateError } from '../protocol/errors.ts';
import type { Command, Ref, SubscribeItem } from '../protocol/commands.ts';
import { errorBody, type Ok, type SubscribeResult } from '../protocol/messages.ts';
import { type Authenticator, TokenRefused } from './authenticate.ts';
import { type Channels, type Namespace } from './channels.ts';
import type { Connection } from './connection.ts';
import type { Expiries } from './expiries.ts';
import type { Fanout } from './fanout.ts';
import type { Hub } from './hub.ts';
import type { Presence } from './presence.ts';
import type { Publisher } from './publish.ts';
import type { Metrics } from '../platform/metrics.ts';
import type { Report } from '../platform/logs.ts';

/** How long a subscribe waits for the bus before it is answered with `bus_unavailable`. */
const SUBSCRIBE_TIMEOUT_MS = 3000;

/** What commands work on. */
export interface CommandsOptions {
  readonly channels: Channels;
  readonly hub: Hub;
  readonly fanout: Fanout;
  readonly publisher: Publisher;
  readonly presence: Presence;
  readonly expiries: Expiries;
  readonly authenticator: Authenticator;
  readonly metrics: Metrics;
  readonly report: Report;
  readonly maxChannelsPerConnection: number;
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
      const ok = await this.#execute(connection, command);
      this.#options.fanout.send(connection, { type: 'ok', ...refOf(command), ...ok });
    } catch (error) {
      this.answerError(connection, command.ref, error);
    }
  }

  /** Tells the connection of an error. What is no {@link TidegateError} is a bug: it is reported, and told as `internal`. */
  answerError(connection: Connection, ref: Ref | undefined, error: unknown): void {
    const told = asTidegateError(error);
    if (told.code === 'internal') this.#options.report('command', error);
    this.#options.metrics.errors.inc({ code: told.code });
    this.#options.fanout.send(connection, { type: 'error', ...(ref !== undefined && { ref }), ...errorBody(told) });
  }

  async #execute(connection: Connection, command: Command): Promise<Omit<Ok, 'type' | 'ref'>> {
    switch (command.type) {
      case 'subscribe':
        return this.#subscribe(connection, command.items, command.many);
      case 'unsubscribe':
        for (const channel of command.channels) this.#unsubscribe(connection, channel);
        return {};
      case 'publish': {
        const { channel, payload, echo } = command;
        const namespace = this.#options.channels.namespace(channel);
        if (namespace === undefined || !this.#options.channels.mayPublish(channel, connection.grants)) {
          throw new TidegateError('forbidden', 'You may not publish to this channel.');
        }
        const skip = echo ? undefined : connection.id;
        const id = await this.#options.publisher.publish({ channel, namespace, payload, sender: connection.user, skip });
        return id === undefined ? {} : { id };
      }
      case 'send':
        if (!this.#options.channels.maySend(command.user, connection.grants)) {
          throw new TidegateError('forbidden', 'You may not send to this user.');
        }
        return { id: await this.#options.publisher.send(command.user, command.payload, connection.user) };
      case 'presence': {
        const namespace = this.#readable(connection, command.channel);
        if (!namespace.presence) throw new TidegateError('no_presence');
        const { users, total } = await this.#options.presence.members(command.channel);
        return { channel: command.channel, members: users, total };
      }
      case 'refresh':
        return this.#refresh(connection, command.token);
      case 'ping':
        return {};
    }
  }

  /** Puts the connection into a channel and resolves when it hears it. Also how a plain client gets its channel.
   * @throws {TidegateError} where it may not, holds too many already, or the bus does not come. */
  async enter(connection: Connection, channel: string): Promise<void> {
    const { hub, presence, maxChannelsPerConnection } = this.#options;
    const namespace = this.#readable(connection, channel);
    const isNew = !hub.has(connection, channel, namespace);
    // One of the groups is the user's own.
    if (isNew && connection.groups.size > maxChannelsPerConnection) throw new TidegateError('too_many_channels');
    const ready = hub.join(connection, channel, namespace);
    if (ready !== undefined && !(await settledWithin(ready, SUBSCRIBE_TIMEOUT_MS))) {
      hub.leave(connection, channel, namespace);
      throw new TidegateError('bus_unavailable', undefined, { retryAfterMs: 1000 });
    }
    // It may have left, or gone, while the bus was waited for.
    if (isNew && namespace.presence && hub.has(connection, channel, namespace)) {
      presence.join(channel, namespace, connection.user);
    }
  }

  async #subscribe(
    connection: Connection,
    items: readonly SubscribeItem[],
    many: boolean,
  ): Promise<Omit<Ok, 'type' | 'ref'>> {
    if (!many) {
      const channel = items[0]?.channel ?? '';
      await this.enter(connection, channel);
      return { channel };
    }
    const channels = await Promise.all(
      items.map(async ({ channel }): Promise<SubscribeResult> => {
        try {
          await this.enter(connection, channel);
          return { channel };
        } catch (error) {
          return { channel, error: errorBody(asTidegateError(error)) };
        }
      }),
    );
    return { channels };
  }

  #unsubscribe(connection: Connection, channel: string): void {
    const { channels, hub, presence } = this.#options;
    const namespace = channels.namespace(channel);
    if (namespace === undefined || !hub.leave(connection, channel, namespace)) throw new TidegateError('not_subscribed');
    if (namespace.presence) presence.leave(channel, connection.user);
  }

  /** The namespace of a channel that the connection may subscribe to. */
  #readable(connection: Connection, channel: string): Namespace {
    const namespace = this.#options.channels.namespace(channel);
    if (namespace === undefined || !this.#options.channels.maySubscribe(channel, connection.grants)) {
      throw new TidegateError('forbidden', 'You may not subscribe to this channel.');
    }
    return namespace;
  }

  /** Takes a new token. What the new one no longer allows is left. */
  async #refresh(connection: Connection, token: string): Promise<Omit<Ok, 'type' | 'ref'>> {
    const { authenticator, expiries, channels } = this.#options;
    let identity: Awaited<ReturnType<Authenticator['refresh']>>;
    try {
      identity = await authenticator.refresh(token, connection.user);
    } catch (error) {
      if (error instanceof TokenRefused) {
        throw new TidegateError(error.retryable ? 'overloaded' : 'token_refused', error.message, { cause: error });
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
      this.#unsubscribe(connection, channel);
      left.push(channel);
    }
    return {
      ...(identity.expiresAtMs !== undefined && { tokenExpiresInMs: identity.expiresAtMs - Date.now() }),
      ...(left.length > 0 && { left }),
    };
  }
}

function refOf(command: Command): { ref?: Ref } {
  return command.ref === undefined ? {} : { ref: command.ref };
}

/** Whether the promise settles in time. */
async function settledWithin(promise: Promise<void>, timeoutMs: number): Promise<boolean> {
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
