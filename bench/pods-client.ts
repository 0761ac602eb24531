// The client for Redis: one pod, which is the bus of a gateway, in a process of its own as a gateway has it; or, where that
// would be full before Redis is, many at once that are bare sockets. All hear every channel, and publish in turn.

import { once } from 'node:events';
import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import { channelTopic } from '../src/bus/bus.ts';
import { encodeEnvelope } from '../src/bus/envelope.ts';
import { RedisBus } from '../src/bus/redis.ts';
import { newId } from '../src/platform/ids.ts';
import { Occurrences, quantile } from './sockets.ts';
import { sleep } from './wait.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: 'redis://127.0.0.1:6379' },
    cluster: { type: 'boolean', default: false },
    pods: { type: 'string', default: '1' },
    channels: { type: 'string', default: '96' },
    // Messages a second, of all pods here together; `full`: as many as Redis takes.
    rate: { type: 'string', default: '1000' },
    durable: { type: 'boolean', default: false },
    // Which sides are bare sockets: none, readers, both.
    bare: { type: 'string', default: 'none' },
    seconds: { type: 'string', default: '3' },
    warm: { type: 'string', default: '1' },
    // It begins so many milliseconds after SIGUSR2, which all processes get when all are ready.
    after: { type: 'string', default: '0' },
  },
});

// One for all sockets: libuv fills it and calls back before it reads the next.
const readBuffer = Buffer.alloc(262_144);
const PAYLOAD = `"${'x'.repeat(198)}"`;
/** Publishes that all pods together leave unanswered, where Redis is to be full. */
const UNANSWERED = 1024;
/** Copies that all pods together have not read yet: Redis cuts off who lets 32 MiB wait. */
const UNREAD = 32_768;
const TAIL_MS = 500;
const retention = { messages: 1000, ageMs: 3_600_000 };
const count = Number(values.pods);
const ratePerSecond = values.rate === 'full' ? Number.POSITIVE_INFINITY : Number(values.rate);
const topics = Array.from({ length: Number(values.channels) }, (_, index) => channelTopic(`doc:${index}`));

let unanswered = 0;
let total = 0;
let failed = 0;
let waitsMs: number[] = [];

const messages = new Occurrences('$7\r\nmessage\r\n');
const readBytes: number[] = [];

/** One pod: what it has heard, and how it publishes. */
interface Pod {
  heard(): number;
  publish(topic: string): void;
  /** Called after the publishes of one turn of the event loop. */
  flush(): void;
}

function answered(sentAtMs: number): void {
  unanswered -= 1;
  waitsMs.push(performance.now() - sentAtMs);
}

async function busPod(index: number, reads: boolean): Promise<Pod> {
  let heard = 0;
  const bus = new RedisBus({
    address: { url: values.url, mode: values.cluster ? 'cluster' : 'standalone', sentinelName: '' },
    pod: `pod-${index}`,
    report: (stage, error) => console.error(stage, error),
    onProbe: () => {},
    onProbeFailure: () => {},
    onReconnect: () => {},
  });
  const message = (): void => {
    heard += 1;
  };
  await bus.start({ message, interrupted: () => {} });
  if (reads) await Promise.all(topics.map((topic) => bus.subscribe(topic)));
  const send = (topic: string): Promise<unknown> => {
    const header = { id: newId(), sender: 'ann', timeMs: Date.now() };
    if (!values.durable) return bus.publish(topic, encodeEnvelope(header, PAYLOAD));
    const none = { skip: undefined, traceparent: undefined, replicas: undefined };
    const kept = { payload: PAYLOAD, key: header.id, keyTtlMs: 60_000, retention };
    return bus.log.append({ topic, ...header, ...none, ...kept });
  };
  return {
    heard: () => heard,
    publish: (topic) => {
      const sentAtMs = performance.now();
      send(topic).then(
        () => answered(sentAtMs),
        () => {
          unanswered -= 1;
          failed += 1;
        },
      );
    },
    flush: () => {},
  };
}

async function barePod(index: number): Promise<Pod> {
  const answers = new Occurrences('\r\n');
  const sentAtMs: number[] = [];
  const publisher = await bareSocket((chunk) => {
    const before = answers.count;
    answers.add(chunk);
    for (const atMs of sentAtMs.splice(0, answers.count - before)) answered(atMs);
  });
  const { heard } = await bareReader(index);
  const envelope = encodeEnvelope({ id: newId(), sender: 'ann', timeMs: Date.now() }, PAYLOAD).toString();
  let turn = '';
  return {
    heard,
    publish: (topic) => {
      sentAtMs.push(performance.now());
      turn += resp('PUBLISH', topic, envelope);
    },
    flush: () => {
      if (turn !== '') publisher.write(turn, 'latin1');
      turn = '';
    },
  };
}

/** All readers get the same bytes, so one of them counts messages for all, and the others how much they got of it. */
async function bareReader(index: number): Promise<Pick<Pod, 'heard'>> {
  const confirmations = new Occurrences('$9\r\nsubscribe\r\n');
  const subscribed = Promise.withResolvers<void>();
  const socket = await bareSocket((chunk) => {
    if (confirmations.count < topics.length) {
      confirmations.add(chunk);
      if (confirmations.count === topics.length) subscribed.resolve();
    } else {
      readBytes[index] = (readBytes[index] ?? 0) + chunk.length;
      if (index === 0) messages.add(chunk);
    }
  });
  socket.write(resp('SUBSCRIBE', ...topics));
  await subscribed.promise;
  return { heard: () => Math.round((messages.count * (readBytes[index] ?? 0)) / (readBytes[0] ?? 0)) || 0 };
}

function bareSocket(onChunk: (chunk: Buffer) => void) {
  const { hostname: host, port } = new URL(values.url);
  return new Promise<ReturnType<typeof connect>>((resolve, reject) => {
    const callback = (size: number, buffer: Uint8Array): boolean => {
      onChunk((buffer as Buffer).subarray(0, size));
      return true;
    };
    const onread = { buffer: readBuffer, callback };
    const socket = connect({ host, port: Number(port), noDelay: true, onread }, () => resolve(socket));
    socket.on('error', reject);
    socket.on('end', () => {
      throw new Error('Redis closed a connection');
    });
  });
}

function resp(...words: readonly string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`;
}

/** Publishes until the time is over, and says how many. A bus sleeps between messages, as a gateway does, which Redis
 * must wake up to hear them. Bare sockets look at the clock in every turn of the event loop: a timer's millisecond would
 * make bursts, and those cost Redis less than messages that come one by one. */
async function publishFor(seconds: number): Promise<number> {
  const startedAtMs = performance.now();
  for (let sent = 0; ; ) {
    const elapsedMs = performance.now() - startedAtMs;
    if (elapsedMs >= seconds * 1000) return sent;
    const due = (elapsedMs / 1000) * ratePerSecond;
    const room = Math.min(UNANSWERED - unanswered, (UNREAD - (total * count - heard())) / count);
    for (let left = Math.min(due - sent, room); left > 0; left -= 1, sent += 1, total += 1) {
      unanswered += 1;
      pods[sent % count]?.publish(topics[Math.floor(total / count) % topics.length] ?? '');
    }
    for (const pod of pods) pod.flush();
    if (values.bare === 'none') await sleep(Math.max(1, (sent / ratePerSecond) * 1000 - elapsedMs));
    else await new Promise((resolve) => setImmediate(resolve));
  }
}

async function startPod(index: number): Promise<Pod> {
  if (values.bare === 'both') return barePod(index);
  const pod = await busPod(index, values.bare === 'none');
  return values.bare === 'none' ? pod : { ...pod, ...(await bareReader(index)) };
}

const pods = await Promise.all(Array.from({ length: count }, (_, index) => startPod(index)));
const heard = (): number => pods.reduce((total, pod) => total + pod.heard(), 0);
const begun = once(process, 'SIGUSR2');
console.log('ready=1');
await begun;
await sleep(Number(values.after));
await publishFor(Number(values.warm));
const startedAtMs = performance.now();
waitsMs = [];
console.log('measuring=1');
const published = await publishFor(Number(values.seconds));
const seconds = (performance.now() - startedAtMs) / 1000;
console.log(`published=${published} publishes_per_s=${(published / seconds).toFixed(1)}`);
const waited = waitsMs;
await sleep(TAIL_MS);
const p99 = quantile(waited, 0.99).toFixed(2);
console.log(`sent=${total} heard=${heard()} failed=${failed} p99_ms=${p99}`);
process.exit(0);
