// Draining: closing every connection, paced, before the process ends.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Metrics } from '../platform/metrics.ts';
import { closes, withHint } from '../protocol/close.ts';
import type { Connection } from './connection.ts';
import type { Fanout } from './fanout.ts';
import type { Sessions } from './session.ts';

/** The share of the time in which goodbyes are spread, and the share a connection is left after its own. The rest
 * is for closing handshakes. */
const SPREAD_SHARE = 0.7;
const LEAVE_SHARE = 0.2;
const MAX_LEAVE_MS = 10_000;

/** Clients are asked to come back after a random time up to this, or up to what they are left if that is less. */
const MAX_HINT_MS = 5000;
const MIN_HINT_MS = 1000;

const STEP_MS = 50;

/** How long what could not be closed politely is given after it was cut. */
const CUT_GRACE_MS = 500;

/** Says goodbye to v1 clients and goes on delivering to them until they leave or their time is over; plain clients,
 * which have no goodbye, are closed when it is their turn. Resolves when all are gone, at the latest a moment after
 * `drainMs`, with how many had to be cut for that. */
export async function drain(
  sessions: Sessions,
  fanout: Fanout,
  metrics: Metrics,
  drainMs: number,
): Promise<number> {
  const startMs = performance.now();
  const leaveMs = Math.min(MAX_LEAVE_MS, drainMs * LEAVE_SHARE);
  const waiting = shuffled([...sessions]);
  const total = waiting.length;
  const leaving: { connection: Connection; atMs: number }[] = [];
  /** How many connections have had their turn after so long. */
  const dueAfter = (ms: number) =>
    drainMs === 0 ? total : Math.min(total, Math.ceil((ms / (drainMs * SPREAD_SHARE)) * total));
  const elapsed = () => performance.now() - startMs;
  metrics.drainElapsed.read = () => elapsed() / 1000;
  metrics.drainRemaining.read = () => sessions.size;
  const turnMs = leaveMs + drainMs * (1 - SPREAD_SHARE - LEAVE_SHARE);
  metrics.drainLate.read = () => {
    const gone = dueAfter(Math.max(0, elapsed() - turnMs));
    return Math.max(0, sessions.size - (total - gone));
  };
  let said = 0;
  let closed = 0;
  while (sessions.size > 0) {
    const elapsedMs = elapsed();
    for (const due = dueAfter(elapsedMs); said < due; said += 1) {
      const connection = waiting[said];
      if (connection === undefined || !connection.isOpen) continue;
      if (connection.protocol === 'plain' || leaveMs === 0) {
        sessions.close(connection, closes.drain, withHint(closes.drain, hintMs(leaveMs)));
        continue;
      }
      const reconnectAfterMs = hintMs(leaveMs);
      fanout.send(connection, {
        type: 'goodbye',
        code: closes.drain.code,
        reconnectAfterMs,
        closeAfterMs: Math.round(leaveMs),
      });
      leaving.push({ connection, atMs: elapsedMs + leaveMs });
    }
    for (; closed < leaving.length && (leaving[closed]?.atMs ?? 0) <= elapsedMs; closed += 1) {
      const connection = leaving[closed]?.connection;
      if (connection?.isOpen)
        sessions.close(connection, closes.drain, withHint(closes.drain, hintMs(leaveMs)));
    }
    if (elapsedMs >= Math.max(drainMs, CUT_GRACE_MS)) break;
    await sleep(STEP_MS);
  }
  const late = [...sessions];
  metrics.drainCuts.inc(late.length);
  for (const connection of late) sessions.cut(connection, closes.drain);
  const endMs = performance.now() + CUT_GRACE_MS;
  while (sessions.size > 0 && performance.now() < endMs) await sleep(STEP_MS / 5);
  return late.length;
}

function hintMs(leaveMs: number): number {
  return Math.round(Math.random() * Math.max(MIN_HINT_MS, Math.min(MAX_HINT_MS, leaveMs / 2)));
}

/** In random order, so that no user loses all connections at once. */
function shuffled<T>(items: T[]): T[] {
  for (let at = items.length - 1; at > 0; at -= 1) {
    const other = Math.floor(Math.random() * (at + 1));
    [items[at], items[other]] = [items[other] as T, items[at] as T];
  }
  return items;
}
