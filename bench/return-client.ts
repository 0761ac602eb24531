// The client for a storm: many clients return to a durable channel at once, each having missed the same messages,
// while others never left and should notice nothing.

import { parseArgs } from 'node:util';
import { clientFrame, Occurrences, openSocket, quantile } from './sockets.ts';
import { sleep } from './wait.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '8080' },
    clients: { type: 'string', default: '10000' },
    missed: { type: 'string', default: '100' },
    stayers: { type: 'string', default: '100' },
    // Few, because each goes to all who are back, and this client must not be what is measured.
    rate: { type: 'string', default: '2' },
    quiet: { type: 'string', default: '3' },
  },
});

const CHANNEL = 'doc:storm';
const OPENING_AT_ONCE = 64;
const LIMIT_MS = 60_000;
const PAYLOAD = 'x'.repeat(100);

const port = Number(values.port);
const headers = ['Sec-WebSocket-Protocol: tidegate.v1'];
const upgrade = (user: string) => ({ port, path: `/ws/${user}`, headers });
const command = (fields: object): Buffer => clientFrame(JSON.stringify(fields));

/** Delivery times of those who never left, in milliseconds. */
let latenciesMs: number[] = [];

/** A stayer hears `"at":<ms>` of the same process that publishes it, so one clock is enough. */
function listen(chunk: Buffer): void {
  const nowMs = performance.now();
  for (const [, at] of chunk.toString('latin1').matchAll(/"at":([\d.]+)/g))
    latenciesMs.push(nowMs - Number(at));
}

for (let index = 0; index < Number(values.stayers); index += 1) {
  const socket = await openSocket(upgrade(`stayer${index}`), listen, () => {});
  socket.write(command({ type: 'subscribe', channel: CHANNEL }));
}

const answers = new Occurrences('"type":"ok"');
let positionText = '';
const publisher = await openSocket(
  upgrade('publisher'),
  (chunk) => {
    answers.add(chunk);
    positionText = /"position":"([^"]+)"/.exec(chunk.toString('latin1'))?.[1] ?? positionText;
  },
  () => {},
);
async function publish(data: unknown): Promise<void> {
  const wanted = answers.count + 1;
  publisher.write(command({ type: 'publish', channel: CHANNEL, data }));
  while (answers.count < wanted) await sleep(1);
}

await publish('before');
const after = positionText;
for (let index = 1; index < Number(values.missed); index += 1) await publish(`${PAYLOAD}${index}`);
await publish('last missed');

const pacer = setInterval(
  () => publisher.write(command({ type: 'publish', channel: CHANNEL, data: { at: performance.now() } })),
  1000 / Number(values.rate),
);
await sleep(1000);
latenciesMs = [];
await sleep(Number(values.quiet) * 1000);
const calmP99 = quantile(latenciesMs, 0.99);
latenciesMs = [];

console.log('measuring=1');
const startedMs = performance.now();
const everybody = Number(values.clients);
let returned = 0;
let failed = 0;
let opened = 0;
async function openSome(): Promise<void> {
  while (opened < everybody) {
    const index = opened++;
    const last = new Occurrences('"last missed"');
    try {
      const socket = await openSocket(
        upgrade(`back${index}`),
        (chunk) => {
          if (last.count > 0) return;
          last.add(chunk);
          if (last.count > 0) returned += 1;
        },
        () => {
          failed += 1;
        },
      );
      socket.write(command({ type: 'subscribe', channel: CHANNEL, after }));
    } catch {
      failed += 1;
    }
  }
}
await Promise.all(Array.from({ length: OPENING_AT_ONCE }, openSome));
const openMs = performance.now() - startedMs;
while (returned < everybody && performance.now() - startedMs < LIMIT_MS) await sleep(5);
const liveMs = performance.now() - startedMs;
const stormP99 = quantile(latenciesMs, 0.99);
clearInterval(pacer);
console.log(
  [
    `returned=${returned}`,
    `failed=${failed}`,
    `open_ms=${openMs.toFixed(0)}`,
    `live_ms=${liveMs.toFixed(0)}`,
    `calm_p99_ms=${calmP99.toFixed(2)}`,
    `storm_p99_ms=${stormP99.toFixed(2)}`,
  ].join(' '),
);
process.exit(0);
