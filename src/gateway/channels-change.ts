// A change of channels while the gateway runs: makes it true for those who are connected already.

import { closes, withHint } from '../protocol/close.ts';
import type { Channels } from './channels.ts';
import type { Connection } from './connection.ts';
import type { Hub } from './hub.ts';
import type { Presence } from './presence.ts';
import type { Sessions } from './session.ts';

/** What a change reaches. */
export interface ChannelsChangeOptions {
  readonly channels: Channels;
  readonly hub: Hub;
  readonly presence: Presence;
  readonly sessions: Sessions;
}

/** Those who are closed come back within this time, each after a random part of it. */
const MAX_HINT_MS = 10_000;

/** Puts the namespaces of `next` into use. A connection that is in a channel which it may no longer subscribe to is
 * closed: no frame of the protocol takes a channel away, and what every client does after a close, to subscribe again,
 * tells it which one it has lost. Returns how many were.
 * @throws {ChannelsError} as {@link Channels.replaceWith} does. */
export function changeChannels(
  next: Channels,
  { channels, hub, presence, sessions }: ChannelsChangeOptions,
): number {
  channels.replaceWith(next);
  const losers = new Set<Connection>();
  for (const group of hub.channels()) {
    const { channel, namespace: before } = group;
    const namespace = channels.namespace(channel);
    for (const connection of [...group.connections, ...group.arriving.keys()]) {
      if (!channels.maySubscribe(channel, connection.grants)) losers.add(connection);
    }
    // Nobody stays in it, and they leave it as the one it was.
    if (namespace === undefined) continue;
    group.namespace = namespace;
    presence.replace(channel, namespace);
    if (namespace.presence === before.presence) continue;
    for (const { user } of group.connections) {
      if (namespace.presence) presence.join(channel, namespace, user);
      else presence.leave(channel, user);
    }
  }
  for (const connection of losers) {
    sessions.close(
      connection,
      closes.channelLost,
      withHint(closes.channelLost, Math.round(Math.random() * MAX_HINT_MS)),
    );
  }
  return losers.size;
}
