// The client for durable channels: one publisher keeps 64 publishes unanswered, ten subscribers count what arrives.

import { parseArgs } from 'node:util';
import { clientFrame, Occurrences, openSocket, quantile } from './sockets.ts';
import { sleep } from './wait.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '8080' },
    channel: { type: 'string', default: 'doc:1' },
    seconds: { type: 'string', default: '3' },
    warm: { type: 'string', default: '2' },
  },
});

const UNANSWERED = 64;
const SUBSCRIBERS = 10;
const PAYLOAD = 'x'.repeat(100);
const SETTLE_MS = 500;

const headers = ['Sec-WebSocket-Protocol: tidegate.v1'];
const upgrade = (user: string) => ({ port: Number(values.port), path: `/ws/${user}`, headers });
const subscribe = clientFrame(JSON.stringify({ type: 'subscribe', channel: values.channel }));
const publish = clientFrame(JSON.stringify({ type: 'publish', channel: values.channel, data: PAYLOAD }));

const messages = Array.from({ length: SUBSCRIBERS }, () => new Occurrences('"type":"message"'));
for (const [index, seen] of messages.entries()) {
  const socket = await openSocket(
    upgrade(`s${index}`),
    (chunk) => seen.add(chunk),
    () => {},
  );
  socket.write(subscribe);
}
let stopped = true;
const answers = new Occurrences('"type":"ok"');
const sentAtMs: number[] = [];
const waitsMs: number[] = [];
const publisher = await openSocket(
  upgrade('publisher'),
  (chunk) => {
    const before = answers.count;
    answers.add(chunk);
    const nowMs = performance.now();
    for (let at = before; at < answers.count; at += 1) waitsMs.push(nowMs - (sentAtMs[at] ?? nowMs));
    fill();
  },
  () => {},
);
await sleep(SETTLE_MS);

function fill(): void {
  while (!stopped && sentAtMs.length - answers.count < UNANSWERED) {
    sentAtMs.push(performance.now());
    publisher.write(publish);
  }
}

stopped = false;
fill();
await sleep(Number(values.warm) * 1000);
waitsMs.length = 0;
console.log('measuring=1');
const delivered = () => messages.reduce((sum, { count }) => sum + count, 0);
const before = { published: answers.count, delivered: delivered(), atMs: performance.now() };
const cpuBefore = process.cpuUsage();
await sleep(Number(values.seconds) * 1000);
const seconds = (performance.now() - before.atMs) / 1000;
const cpu = process.cpuUsage(cpuBefore);
const published = (answers.count - before.published) / seconds;
const deliveries = (delivered() - before.delivered) / seconds;
stopped = true;
console.log(
  [
    `publishes_per_s=${published.toFixed(0)}`,
    `deliveries_per_s=${deliveries.toFixed(0)}`,
    `client_cpu=${((cpu.user + cpu.system) / 1e6 / seconds).toFixed(2)}`,
    `p99_ms=${quantile(waitsMs, 0.99).toFixed(2)}`,
  ].join(' '),
);
process.exit(0);
