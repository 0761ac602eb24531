// The connection: makes the client, shows its state, and writes down what happens to it.

import { connect } from './client/client.ts';
import { append, clock, element } from './people.js';

const CLOSED_BY_HAND = 4000;

/** Nobody likes to wait in front of a demonstration. */
const MAX_BACKOFF_MS = 3000;

/** Connects under this name. `kill` closes the socket under the client's feet; `away` keeps it from coming back for a
 * while. Neither is a part of the client: they do what a network does. */
export function openConnection(name) {
  const url = new URL(`ws/${encodeURIComponent(name)}${location.search}`, location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const token = url.searchParams.get('token');
  url.search = '';
  let awayUntilMs = 0;
  const sockets = new Set();

  class Socket extends WebSocket {
    constructor(address, protocols) {
      super(performance.now() < awayUntilMs ? new URL('/nowhere', address) : address, protocols);
      sockets.add(this);
      this.addEventListener('close', () => sockets.delete(this));
    }
  }

  const client = connect({
    url: url.href,
    WebSocket: Socket,
    maxBackoffMs: MAX_BACKOFF_MS,
    ...(token && { token: () => token }),
  });
  const kill = () => {
    for (const socket of sockets) socket.close(CLOSED_BY_HAND, 'killed by hand');
  };
  const away = (ms) => {
    awayUntilMs = performance.now() + ms;
    kill();
  };
  return { client, kill, away };
}

/** Shows the state in words, and every change, gap, recovery and error in a list. */
export function showConnection(client) {
  const status = document.getElementById('status');
  const words = document.getElementById('state');
  const events = document.getElementById('events');
  let downSinceMs = performance.now();
  let wasLost = false;

  const note = (kind, sign, text) => {
    const mark = element('span', 'sign', sign);
    mark.setAttribute('aria-hidden', 'true');
    append(events, element('li', kind, clock(), mark, element('span', '', text)), 100);
  };

  client.on('state', ({ state, reason, retryInMs }) => {
    const why = reason && `${reason.reason || 'the line was cut'} (${reason.code})`;
    status.dataset.state = state;
    if (state === 'open') {
      words.textContent = 'Connected';
      note(
        'good',
        '●',
        `Connected as ${client.user}, after ${Math.round(performance.now() - downSinceMs)} ms.`,
      );
    } else if (state === 'reconnecting') {
      if (status.dataset.was === 'open') {
        downSinceMs = performance.now();
        wasLost = true;
      }
      words.textContent = 'Reconnecting…';
      const when = retryInMs === undefined ? '' : ` Trying again in ${(retryInMs / 1000).toFixed(1)} s.`;
      note('bad', '✕', `Not connected: ${why}.${when}`);
    } else {
      words.textContent = 'Closed';
      const help = reason.code === 1008 ? ' Add ?token=… to this page’s address.' : '';
      note('bad', '✕', `Closed for good: ${why}.${help}`);
    }
    status.dataset.was = state;
  });
  client.on('move', ({ code }) =>
    note('good', '⇄', `Moved to another gateway, as asked (${code}); nothing was missed.`),
  );

  // All channels of a connection come back together: one line for those of which the same is to be said.
  const together = new Map();
  const gather = (text, kind, sign, channel) => {
    if (together.size === 0) {
      setTimeout(() => {
        for (const [words, line] of together)
          note(line.kind, line.sign, `${words}: ${line.channels.join(', ')}.`);
        together.clear();
      }, 100);
    }
    const line = together.get(text) ?? { kind, sign, channels: [] };
    together.set(text, line);
    line.channels.push(channel);
  };
  client.on('recovery', ({ channel }) => {
    // A new tab gets what is kept in the same way, but has missed nothing.
    if (wasLost) gather('Back, with all that was missed', 'good', '✓', channel);
  });
  client.on('gap', ({ channel = 'one to one', reason }) => {
    gather(`Messages may be missing (${reason})`, 'warn', '△', channel);
  });
  client.on('error', ({ code, message }) => note('bad', '!', `${code}: ${message}`));
}
