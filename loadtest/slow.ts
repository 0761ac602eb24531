// A share of the readers stalls: the others must not notice, and those who stall must be told, by a gap or by a close
// code. One script's stalled readers take a virtual user each, because only k6's old WebSocket module can stop reading.
//
//   k6 run -e URL=ws://127.0.0.1:8080 loadtest/slow.ts

import { sleep } from 'k6';
import exec from 'k6/execution';
import ws from 'k6/ws';
import { closeAudience, openAudience } from './lib/audience.ts';
import { connect, opened } from './lib/connect.ts';
import { fleetScenario } from './lib/fleet.ts';
import { stalledReadersTold } from './lib/metrics.ts';
import { publishPaced, toChannel } from './lib/publisher.ts';
import { longestSeconds, start, summaryTrendStats, type Times } from './lib/schedule.ts';
import { namespaces, number, run, runner, url } from './lib/settings.ts';
import { summaryOf } from './lib/summary.ts';
import { atLeast, latency, nothingLost, undisturbed } from './lib/thresholds.ts';
import { tokenOf } from './lib/token.ts';

const plan = {
  connections: number('CONNECTIONS', { ci: 10, full: 100 }),
  stalled: number('STALLED', { ci: 2, full: 10 }),
  ratePerSecond: number('RATE', { ci: 40, full: 20 }),
  /** Large, so that a stalled reader's buffers fill in seconds: the kernel's take megabytes. */
  bytes: number('BYTES', { ci: 32_000, full: 32_000 }),
  connectSeconds: number('CONNECT_SECONDS', { ci: 2, full: 20 }),
  seconds: number('SECONDS', { ci: 12, full: 60 }),
  p99Ms: number('P99_MS', { ci: 1500, full: 500 }),
};
/** A publisher that was held up ends late, and the buffers must be full by then. */
const STALL_ON_MS = 10_000;
const channel = `${namespaces.ephemeral}:${run}-slow`;
const publisher = `${runner}/publisher`;

export const options = {
  scenarios: {
    readers: fleetScenario('read', plan.connections, longestSeconds(plan)),
    publisher: fleetScenario('publish', 1, longestSeconds(plan)),
    stalled: {
      executor: 'per-vu-iterations',
      exec: 'stall',
      vus: plan.stalled,
      iterations: 1,
      maxDuration: `${longestSeconds(plan)}s`,
    },
  },
  thresholds: {
    ...nothingLost(plan.connections, plan.connections * plan.ratePerSecond * plan.seconds),
    ...latency(plan.p99Ms),
    ...undisturbed,
    ...atLeast('stalled_readers_told', plan.stalled),
  },
  summaryTrendStats,
};

export const setup = () => start(plan, [channel]);

export async function read(times: Times): Promise<void> {
  const receivers = await openAudience(plan, times, channel, publisher);
  await closeAudience(receivers, times.giveUpAtMs);
}

/** Subscribes, and does not read until the publisher has ended; then looks whether it is told what it missed. */
export function stall({ startAtMs, endAtMs, giveUpAtMs }: Times): void {
  const user = `load-${runner}-stalled-${exec.scenario.iterationInTest}`;
  const token = tokenOf(user);
  const protocols = ['tidegate.v1', ...(token === undefined ? [] : [`bearer.${token}`])].join(', ');
  sleep(Math.max(0, startAtMs - Date.now()) / 1000);
  let told = false;
  ws.connect(`${url}/${user}`, { headers: { 'Sec-WebSocket-Protocol': protocols } }, (socket) => {
    let closing = false;
    const close = () => {
      closing = true;
      socket.close();
    };
    socket.on('open', () => socket.send(JSON.stringify({ type: 'subscribe', ref: 1, channel })));
    socket.on('message', (text) => {
      const { type, data } = JSON.parse(text) as { type: string; data?: { end?: boolean } };
      // While this sleeps, nothing is read.
      if (type === 'message') sleep(Math.max(0, endAtMs + STALL_ON_MS - Date.now()) / 1000);
      if (type === 'gap' || type === 'goodbye') told = true;
      if (data?.end || told || Date.now() > giveUpAtMs) close();
    });
    // A connection that the gateway has ended tells, too; if it was cut with its buffers full, without the code.
    socket.on('close', () => {
      if (!closing) told = true;
    });
  });
  stalledReadersTold.add(told ? 1 : 0);
}

export async function publish({ publishAtMs }: Times): Promise<void> {
  const connection = connect(`load-${runner}-publisher`);
  await opened(connection);
  await publishPaced(toChannel(connection, channel), publisher, { ...plan, startAtMs: publishAtMs });
  await connection.client.close();
}

export const handleSummary = summaryOf('slow', 'Some readers stall', plan);
