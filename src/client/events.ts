// Events: what the client tells of itself, and who listens.

import { ClientError } from './errors.ts';

/** `connecting` until it has been open once, `reconnecting` while it is not, `closed` for good. While it moves from
 * one pod to another it stays `open`. */
export type State = 'connecting' | 'open' | 'reconnecting' | 'closed';

/** Why a connection ended: a close code of the table in docs/protocol.md and its text. 1006 is a cut line. */
export interface CloseReason {
  readonly code: number;
  readonly reason: string;
}

/** The state has changed, or while `reconnecting`, the next try has been set. */
export interface StateChange {
  readonly state: State;
  /** Why it is `reconnecting` or `closed`. */
  readonly reason?: CloseReason | undefined;
  /** When the next try is. */
  readonly retryInMs?: number | undefined;
}

/** A message as it is handed over. */
export interface Message<T = unknown> {
  /** Absent on a message to this user. */
  readonly channel?: string;
  readonly data: T;
  /** The user who sent it; absent where an application did. */
  readonly from?: string;
  readonly id?: string;
  /** Where it stands in a durable channel. Opaque: keep it to come back with `after`. */
  readonly position?: string;
  /** It came over a raw channel from another program; `data` is its text. */
  readonly foreign?: boolean;
  /** Its trace, where it is sampled and the URL says `?traces=true`. */
  readonly traceparent?: string;
}

/** Messages may be missing. `reconnect` is the client's own reason: the channel keeps no history, and there was no
 * connection for a while; the others are the gateway's. */
export interface Gap {
  /** Absent where messages to this user may be missing. */
  readonly channel?: string;
  readonly direct?: true;
  readonly reason: 'reconnect' | 'trimmed' | 'forked' | 'unknown' | 'limit' | 'slow' | 'bus';
  /** Where a durable channel goes on. */
  readonly position?: string;
}

/** A durable channel goes on exactly where it was. */
export interface Recovery {
  readonly channel: string;
}

/** Who came to and left a channel since the last one; the lists are capped, `total` is not. */
export interface PresenceChange {
  readonly channel: string;
  readonly joined: readonly string[];
  readonly left: readonly string[];
  readonly total: number;
}

/** The gateway asked the client to leave, and it is on another connection now; nothing was missed. */
export interface Move {
  /** Why: 1012 where the pod goes away, 4400 where it sheds. */
  readonly code: number;
}

/** Every event by its name. */
export interface ClientEvents {
  state: StateChange;
  gap: Gap;
  recovery: Recovery;
  move: Move;
  /** A message to this user. */
  direct: Message;
  presence: PresenceChange;
  /** What went wrong where no promise could tell: a handler threw, a subscription was refused, a token was. */
  error: ClientError;
}

/** Knows who listens to what. A listener that throws disturbs nobody: it is told to the listeners of `error`, and to
 * the console where there are none. */
export class Events {
  readonly #listeners = new Map<keyof ClientEvents, Set<(event: never) => unknown>>();

  /** Adds a listener, and returns what takes it away. */
  on<E extends keyof ClientEvents>(event: E, listener: (event: ClientEvents[E]) => unknown): () => void {
    const all = this.#of(event);
    all.add(listener);
    return () => void all.delete(listener);
  }

  emit<E extends keyof ClientEvents>(event: E, value: ClientEvents[E]): void {
    const all = this.#of(event) as Set<(event: ClientEvents[E]) => unknown>;
    if (event === 'error' && all.size === 0) console.error(value);
    for (const listener of all) {
      // One that fails at hearing of errors cannot be told of one.
      if (event === 'error') guard(() => listener(value), console.error);
      else this.call(listener, value);
    }
  }

  /** Calls a handler of the application; what it throws, at once or later, becomes an `error`. */
  call<T>(handler: (value: T) => unknown, value: T): void {
    guard(
      () => handler(value),
      (cause) => this.emit('error', new ClientError('handler', `A handler failed: ${cause}`, { cause })),
    );
  }

  #of(event: keyof ClientEvents) {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all);
    return all;
  }
}

function guard(action: () => unknown, failed: (error: unknown) => void): void {
  try {
    const result = action();
    if (result instanceof Promise) result.catch(failed);
  } catch (error) {
    failed(error);
  }
}
