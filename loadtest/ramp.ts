// Connections at a growing pace: how fast the gateway accepts them, and how it refuses what is too much. Refusals are
// an answer too (429 by rate, 503 by capacity): what must not happen is that clients are left waiting.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/ramp.ts

import { Socket } from './lib/connect.ts';
import { fleetScenario, mine, until } from './lib/fleet.ts';
import { connectionsUnanswered } from './lib/metrics.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { number, runner, url } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { atLeast } from './lib/thresholds.ts';
import { tokenOf } from './lib/token.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 100, full: 5000 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 3, full: 60 }),
  /** How long all are held after the last has come. */
  seconds: number('SECONDS', { ci: 2, full: 30 }),
  /** The most that may be refused. */
  maxRefused: number('MAX_REFUSED', { ci: 0, full: 0 }),
  p99Ms: number('P99_MS', { ci: 1000, full: 1000 }),
};

export const options = {
  scenarios: { connections: fleetScenario('hold', plan.connections, longestSeconds(plan)) },
  thresholds: {
    ...atLeast('connections_opened', plan.connections - plan.maxRefused),
    connections_refused: [`count<=${plan.maxRefused}`],
    connections_unanswered: ['count==0'],
    connections_dropped: ['count==0'],
    connect_time: [`p(99)<=${plan.p99Ms}`],
  },
  summaryTrendStats,
};

export const setup = () => start(plan, []);

export async function hold({ startAtMs, endAtMs }: Times): Promise<void> {
  const waiting = new Set<Socket>();
  const sockets: Socket[] = [];
  for (const number of mine(plan.connections)) {
    // The pace grows evenly: half of them come in the last 30 % of the time.
    const share = Math.sqrt(number / plan.connections);
    await until(startAtMs + share * plan.connectSeconds * 1000);
    const user = `load-${runner}-${number}`;
    const token = tokenOf(user);
    const protocols = ['tidegate.v1', ...(token === undefined ? [] : [`bearer.${token}`])];
    const socket = new Socket(`${url}/${user}`, protocols);
    sockets.push(socket);
    waiting.add(socket);
    socket.onmessage = () => waiting.delete(socket);
    socket.onclose = () => waiting.delete(socket);
  }
  await until(endAtMs);
  connectionsUnanswered.add(waiting.size);
  for (const socket of sockets) socket.close();
}

export const handleSummary = summaryOf('ramp', 'Connections at a growing pace', plan);
