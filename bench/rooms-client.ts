// The client for rooms: R rooms of N connections, every connection publishes to its own room in turn. It stamps and
// counts as wsload does (see wsload.c), which has no modulo for room numbers, and reports in the same words.

import type { Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { clientFrame, openSocket } from './sockets.ts';
import { sleep } from './wait.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '8080' },
    path: { type: 'string', default: '/' },
    header: { type: 'string' },
    // Sent one after another, '|' between them; %room% is the room's number, in the path too.
    subscribe: { type: 'string' },
    publish: { type: 'string', default: '%STAMP%' },
    pad: { type: 'string', default: '0' },
    rooms: { type: 'string', default: '100' },
    members: { type: 'string', default: '10' },
    rate: { type: 'string', default: '10000' },
    seconds: { type: 'string', default: '4' },
    // Published first and not counted, so that neither side is measured while its code is still cold.
    warm: { type: 'string', default: '1' },
    // Messages a second meanwhile, where it is to be more than the rate.
    'warm-rate': { type: 'string' },
    settle: { type: 'string', default: '1' },
  },
});

const STAMP_BYTES = 20;
const TAIL_MS = 1500;
const STEP_MS = 300;
const rooms = Number(values.rooms);
const members = Number(values.members);
const rate = Number(values.rate);
const seconds = Number(values.seconds);

/** One connection: its room, and what the last read left of a stamp that may go on in the next. */
interface Member {
  readonly socket: Socket;
  readonly room: number;
  rest: Buffer;
}

/** A frame ready to send but for its stamp. */
interface Template {
  readonly frame: Buffer;
  readonly stampAt: number;
}

let delivered = 0;
let dropped = 0;
// What was stamped before is the warm-up's, even if it arrives late.
let measuredFromUs = Number.POSITIVE_INFINITY;
const latenciesMs = new Float64Array(4_000_000);
let latencies = 0;
const nothing = Buffer.alloc(0);

/** Microseconds on a clock that only this process needs to agree on. */
const nowUs = (): number => Math.round(performance.now() * 1000);
const inRoom = (text: string, room: number): string => text.replaceAll('%room%', String(room));

function count(member: Member, chunk: Buffer): void {
  const data = member.rest.length === 0 ? chunk : Buffer.concat([member.rest, chunk]);
  const now = nowUs();
  let at = 0;
  for (;;) {
    const found = data.indexOf('@@', at, 'latin1');
    if (found === -1) {
      at = Math.max(at, data.length - 1);
      break;
    }
    if (found + STAMP_BYTES > data.length) {
      at = found;
      break;
    }
    const stamp = Number(data.toString('latin1', found + 2, found + 18));
    if (Number.isNaN(stamp)) {
      at = found + 1;
      continue;
    }
    at = found + STAMP_BYTES;
    if (stamp < measuredFromUs) continue;
    delivered += 1;
    if (latencies < latenciesMs.length) latenciesMs[latencies++] = (now - stamp) / 1000;
  }
  // Copied, because the buffer it lies in is about to be filled again.
  member.rest = at < data.length ? Buffer.from(data.subarray(at)) : nothing;
}

/** Opens one connection to a room. */
async function open(room: number): Promise<Member> {
  const upgrade = {
    port: Number(values.port),
    path: inRoom(values.path, room),
    headers: values.header === undefined ? [] : [values.header],
  };
  let member: Member | undefined;
  const onChunk = (chunk: Buffer) => {
    if (member !== undefined) count(member, chunk);
  };
  const socket = await openSocket(upgrade, onChunk, () => {
    dropped += 1;
  });
  member = { socket, room, rest: nothing };
  return member;
}

function template(room: number): Template {
  const stamped = `@@${'0'.repeat(16)}@@${'x'.repeat(Number(values.pad))}`;
  const made = clientFrame(inRoom(values.publish, room).replace('%STAMP%', stamped));
  return { frame: made, stampAt: made.indexOf('@@0000') + 2 };
}

function publish(member: Member, { frame: empty, stampAt }: Template): void {
  const full = Buffer.from(empty);
  full.write(String(nowUs()).padStart(16, '0'), stampAt, 'latin1');
  member.socket.write(full);
}

/** Publishes in turn at the rate, catching up after each pause, until the time is over. */
function publishPaced(
  everyone: readonly Member[],
  templates: readonly Template[],
  seconds: number,
  perSecond = rate,
): Promise<number> {
  const started = performance.now();
  let sent = 0;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      const elapsed = Math.min(performance.now() - started, seconds * 1000);
      for (const due = (elapsed / 1000) * perSecond; sent < due; sent += 1) {
        const member = everyone[sent % everyone.length];
        const ready = templates[member?.room ?? 0];
        if (member !== undefined && ready !== undefined) publish(member, ready);
      }
      if (elapsed < seconds * 1000) return;
      clearInterval(timer);
      resolve(sent);
    }, 1);
  });
}

const everyone: Member[] = [];
const openedAt = performance.now();
for (let index = 0; index < rooms * members; index += 1) everyone.push(await open(index % rooms));
const opening = (performance.now() - openedAt) / 1000;
console.log(`open=${everyone.length} failed=0 connect_per_s=${(everyone.length / opening).toFixed(0)}`);

// Socket.IO closes who speaks before it has answered the first message, hence the steps.
for (const text of values.subscribe?.split('|') ?? []) {
  for (const { socket, room } of everyone) socket.write(clientFrame(inRoom(text, room)));
  await sleep(STEP_MS);
}
await sleep(Number(values.settle) * 1000);

const templates = Array.from({ length: rooms }, (_, room) => template(room));
await publishPaced(everyone, templates, Number(values.warm), Number(values['warm-rate'] ?? rate));
await sleep(STEP_MS);

measuredFromUs = nowUs();
console.log('measuring=1');
const cpuBefore = process.cpuUsage();
const sent = await publishPaced(everyone, templates, seconds);
const cpu = process.cpuUsage(cpuBefore);
const inTime = delivered;
await sleep(TAIL_MS);

const sorted = latenciesMs.subarray(0, latencies).sort();
const quantile = (q: number): string => (sorted[Math.floor(latencies * q)] ?? Number.NaN).toFixed(2);
console.log(
  [
    `sent=${sent}`,
    `delivered=${delivered}`,
    `expected=${sent * members}`,
    `deliveries_per_s=${(inTime / seconds).toFixed(0)}`,
    `client_cpu=${((cpu.user + cpu.system) / 1e6 / seconds).toFixed(2)}`,
    `dropped=${dropped}`,
    `p50_ms=${quantile(0.5)}`,
    `p99_ms=${quantile(0.99)}`,
  ].join(' '),
);
process.exit(0);
