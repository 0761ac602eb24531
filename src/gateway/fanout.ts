// Fan-out: one message to all its connections on this pod. All cleverness of the hot path is here:
// - a message is encoded and framed once for each way of encoding, never for each connection;
// - frames for one connection in one turn of the event loop leave in one write, after everything that had arrived
//   was read (setImmediate): no timer, so a lone message is not delayed;
// - connections whose frames of the turn are the same share one buffer.
// Its benchmark is `npm run bench`.

import type { Metrics } from '../platform/metrics.ts';
import { type Close, closes } from '../protocol/close.ts';
import { compressedTextFrame, textFrame } from '../protocol/frames.ts';
import {
  encodeMessage,
  encodeServerMessage,
  type GapReason,
  type ServerMessage,
} from '../protocol/messages.ts';
import { PLAIN_RESET, withPlainId } from '../protocol/plain.ts';
import { formatPosition, type Position, plainId } from '../protocol/positions.ts';
import { formatTraceparent, isSampled, parseTraceparent, sampledOf } from '../protocol/traceparent.ts';
import type { Connection } from './connection.ts';
import type { Group } from './hub.ts';
import type { Traces } from './traces.ts';

/** A message on its way out. */
export interface Outgoing {
  readonly kind: 'message' | 'presence';
  readonly id?: string | undefined;
  /** Where it stands, on a durable channel. */
  readonly position?: Position | undefined;
  readonly from?: string | undefined;
  /** From a raw channel: `payload` is any text. Otherwise it is JSON text. */
  readonly foreign: boolean;
  readonly payload: string;
  /** When it was published (ms since 1970), where that is known. */
  readonly timeMs?: number | undefined;
  /** Id of the connection that must not get it. */
  readonly skip?: string | undefined;
  /** Its trace, as it came: not checked yet. */
  readonly traceparent?: string | undefined;
}

/** What the fan-out may do about connections that read too slowly. */
export interface BacklogLimits {
  readonly perConnectionBytes: number;
  readonly totalBytes: number;
}

/** Frames of one turn for one connection: a chain, shared by all connections that get the same frames. */
export class Batch {
  readonly bytes: number;
  readonly #previous: Batch | undefined;
  readonly #frame: Buffer | undefined;
  #buffer: Buffer | undefined;
  /** The first continuation is kept apart, because there is rarely a second. */
  #next: Batch | undefined;
  #others: Map<Buffer, Batch> | undefined;

  /** Without arguments: the empty beginning of every chain. */
  constructor(previous?: Batch, frame?: Buffer) {
    this.#previous = previous;
    this.#frame = frame;
    this.bytes = (previous?.bytes ?? 0) + (frame?.length ?? 0);
  }

  /** This chain and the frame after it: the same object for everybody who asks with the same frame. */
  with(frame: Buffer): Batch {
    if (this.#next === undefined) {
      this.#next = new Batch(this, frame);
      return this.#next;
    }
    if (this.#next.#frame === frame) return this.#next;
    this.#others ??= new Map();
    let other = this.#others.get(frame);
    if (other === undefined) {
      other = new Batch(this, frame);
      this.#others.set(frame, other);
    }
    return other;
  }

  /** All frames in one piece, put together once. */
  get buffer(): Buffer {
    if (this.#buffer === undefined) {
      const frames: Buffer[] = [];
      for (let at: Batch | undefined = this; at !== undefined; at = at.#previous) {
        if (at.#frame !== undefined) frames.push(at.#frame);
      }
      this.#buffer =
        frames.length === 1 && frames[0] !== undefined ? frames[0] : Buffer.concat(frames.reverse());
    }
    return this.#buffer;
  }
}

const NOTHING = Buffer.alloc(0);

/** Messages of one group that came in one turn and go to the same connections. */
export class Run {
  readonly messages: Outgoing[];
  /** When the first of them came here (`performance.now()`). Set where somebody traces them. */
  arrivedAtMs = 0;
  readonly #channel: string | undefined;
  /** By encoding: bit 0 is v1, bit 1 is compressed, bit 2 is with traces. */
  readonly #buffers: (Buffer | undefined)[] = [
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ];

  #sampled: readonly string[] | undefined;

  constructor(channel: string | undefined, messages: Outgoing[]) {
    this.#channel = channel;
    this.messages = messages;
  }

  /** The traces of those of its messages that are sampled, as many as a span links to. */
  get sampled(): readonly string[] {
    this.#sampled ??= sampledOf(this.messages);
    return this.#sampled;
  }

  /** The frames for a connection; empty where its protocol has none for them. */
  bufferFor(connection: Pick<Connection, 'protocol' | 'compressed' | 'traced'>): Buffer {
    const { compressed, traced } = connection;
    const encoding = (connection.protocol === 'v1' ? 1 : 0) | (compressed ? 2 : 0) | (traced ? 4 : 0);
    let buffer = this.#buffers[encoding];
    if (buffer === undefined) {
      const frame = compressed ? compressedTextFrame : textFrame;
      buffer = this.#encode(connection.protocol === 'v1', traced, frame);
      this.#buffers[encoding] = buffer;
    }
    return buffer;
  }

  #encode(v1: boolean, traced: boolean, frame: (text: string) => Buffer): Buffer {
    const frames: Buffer[] = [];
    for (const message of this.messages) {
      const text = v1 ? this.#v1Text(message, traced) : plainText(message);
      if (text !== undefined) frames.push(frame(text));
    }
    if (frames.length === 0) return NOTHING;
    return frames.length === 1 && frames[0] !== undefined ? frames[0] : Buffer.concat(frames);
  }

  #v1Text({ kind, id, position, from, foreign, traceparent, payload }: Outgoing, traced: boolean): string {
    const channel = this.#channel;
    // A presence event is a JSON object already and lacks only what it is and where.
    if (kind === 'presence') return `{"type":"presence","channel":"${channel}",${payload.slice(1)}`;
    const data = foreign ? JSON.stringify(payload) : payload;
    const where = position === undefined ? undefined : formatPosition(position);
    return encodeMessage({
      ...(channel !== undefined && { channel }),
      position: where,
      id,
      from,
      foreign,
      traceparent: traced ? sampledTraceparent(traceparent) : undefined,
      payload: data,
    });
  }
}

/** What a plain client gets: the payload, with its number on a durable channel. Undefined: nothing. */
function plainText({ kind, position, payload }: Outgoing): string | undefined {
  if (kind === 'presence') return undefined;
  return position === undefined ? payload : withPlainId(payload, plainId(position));
}

/** What is sampled, and can be quoted without escaping. */
function sampledTraceparent(traceparent: string | undefined): string | undefined {
  const context = isSampled(traceparent) ? parseTraceparent(traceparent) : undefined;
  return context && formatTraceparent(context);
}

/** One run, given to one group. */
export interface Spread {
  readonly group: Group;
  readonly run: Run;
  /** How many connections got it, and how many did not because they read too slowly. */
  readonly recipients: number;
  readonly dropped: number;
  /** Of the frames, for all connections together. */
  readonly bytes: number;
}

/** Writes messages to connections, once a turn of the event loop. */
export class Fanout {
  readonly #limits: BacklogLimits;
  readonly #metrics: Metrics;
  readonly #close: (connection: Connection, close: Close, now: boolean) => void;
  readonly #traces: Traces | undefined;
  readonly #groups = new Set<Group>();
  readonly #congested = new Set<Connection>();
  #connections: Connection[] = [];
  #spreads: Spread[] = [];
  #bytesOut = 0;
  #root = new Batch();
  #scheduled = false;

  /** `close` ends a connection that reads too slowly; `now` means without waiting for what it has not read. */
  constructor(
    limits: BacklogLimits,
    metrics: Metrics,
    close: (connection: Connection, close: Close, now: boolean) => void,
    traces?: Traces,
  ) {
    this.#limits = limits;
    this.#metrics = metrics;
    this.#close = close;
    this.#traces = traces;
    metrics.congested.read = () => this.#congested.size;
    metrics.backlogBytes.read = () => this.#backlogBytes();
  }

  /** Sends a message to every connection of the group, at the end of this turn. */
  deliver(group: Group, message: Outgoing): void {
    const last = group.runs.at(-1);
    // A message that somebody must not get goes alone.
    if (last === undefined || message.skip !== undefined || last.messages[0]?.skip !== undefined) {
      const run = new Run(group.channel, [message]);
      if (this.#traces !== undefined) run.arrivedAtMs = performance.now();
      group.runs.push(run);
    } else {
      last.messages.push(message);
    }
    this.#groups.add(group);
    this.#schedule();
  }

  /** Sends one connection a message of its own, in order with everything else it gets. */
  send(connection: Connection, message: ServerMessage): void {
    this.sendText(connection, encodeServerMessage(message));
  }

  /** The same with a text that is encoded already. Who does not read the answers to what he sends is slow too. */
  sendText(connection: Connection, text: string): void {
    if (!connection.isOpen) return;
    const frame = textFrame(text);
    if (this.#isOverBound(connection, frame.length)) {
      // Perhaps it only asked for much at once: what waits for the end of the turn goes now, and shows.
      this.#write(connection);
      if (connection.congested && this.#isOverBound(connection, frame.length)) {
        this.#disconnect(connection);
        return;
      }
    }
    this.#append(connection, frame);
    this.#schedule();
  }

  /** Gives what the group has had so far to those who are in it now. Before anybody joins or leaves: neither may
   * hear what was published while he was not in it. */
  settle(group: Group): void {
    if (!this.#groups.delete(group)) return;
    for (const run of group.runs) this.#spread(group, run);
    group.runs.length = 0;
  }

  /** Sends one connection messages of the group that it has missed. Returns their bytes. */
  sendRun(connection: Connection, group: Group, run: Run): number {
    const buffer = run.bufferFor(connection);
    if (buffer.length === 0 || !connection.isOpen) return 0;
    this.#append(connection, buffer);
    this.#schedule();
    connection.messagesOut += run.messages.length;
    group.metrics.deliveries.inc(run.messages.length);
    return buffer.length;
  }

  /** Tells everybody in the group that messages are missing, after what they have had so far. */
  gap(group: Group, reason: GapReason, position: Position | undefined): void {
    this.settle(group);
    for (const connection of group.connections) this.tellGap(connection, group, reason, position);
  }

  /** Tells a connection that messages of the group are missing. On a durable channel what comes next follows on the
   * position; a plain client is told there to begin anew. */
  tellGap(connection: Connection, group: Group, reason: GapReason, position?: Position): void {
    if (!canBeTold(connection, group) || !connection.isOpen) return;
    this.#metrics.gaps.inc({ reason });
    if (connection.protocol === 'plain' && group.namespace.durable !== undefined) {
      this.sendText(connection, PLAIN_RESET);
      return;
    }
    const where = group.channel === undefined ? ({ direct: true } as const) : { channel: group.channel };
    const follows = position === undefined ? {} : { position: formatPosition(position) };
    this.send(connection, { type: 'gap', ...where, reason, ...follows });
  }

  /** Writes what waits for one connection now, before it is closed. */
  flushOne(connection: Connection): void {
    for (const group of connection.groups) this.settle(group);
    this.#write(connection);
  }

  /** Forgets a connection that has ended. Until then its backlog counts, also while it is being closed. */
  forget(connection: Connection): void {
    connection.pending = undefined;
    connection.missed = undefined;
    this.#congested.delete(connection);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#scheduled = false;
    for (const group of this.#groups) this.settle(group);
    const connections = this.#connections;
    this.#connections = [];
    this.#root = new Batch();
    for (const connection of connections) this.#write(connection);
    this.#metrics.bytesOut.inc(this.#bytesOut);
    this.#bytesOut = 0;
    this.#observe();
    if (this.#congested.size > 0) this.#boundTotal();
  }

  #spread(group: Group, run: Run): void {
    const { skip } = run.messages[0] ?? {};
    const count = run.messages.length;
    let recipients = 0;
    let dropped = 0;
    let bytes = 0;
    for (const connection of group.connections) {
      if (skip !== undefined && skip === connection.id) continue;
      const buffer = run.bufferFor(connection);
      if (buffer.length === 0) continue;
      if (connection.congested && !this.#admit(connection, group, buffer.length, count)) {
        dropped += 1;
        continue;
      }
      this.#append(connection, buffer);
      connection.messagesOut += count;
      recipients += 1;
      bytes += buffer.length;
    }
    if (recipients > 0) group.metrics.deliveries.inc(recipients * count);
    if (group.connections.size > 0) this.#spreads.push({ group, run, recipients, dropped, bytes });
  }

  #append(connection: Connection, frame: Buffer): void {
    if (connection.pending === undefined) {
      connection.pending = this.#root.with(frame);
      this.#connections.push(connection);
    } else {
      connection.pending = connection.pending.with(frame);
    }
  }

  #write(connection: Connection): void {
    const { pending } = connection;
    if (pending === undefined) return;
    connection.pending = undefined;
    if (!connection.isOpen) return;
    this.#bytesOut += pending.bytes;
    if (!connection.socket.write(pending.buffer) && !connection.congested) this.#congest(connection);
  }

  #observe(): void {
    if (this.#spreads.length === 0) return;
    const nowMs = Date.now();
    for (const spread of this.#spreads) {
      for (const message of spread.run.messages) {
        if (message.timeMs === undefined) continue;
        // The clocks of two pods may disagree; less than no time is none.
        const latencyMs = Math.max(0, nowMs - message.timeMs);
        const traceId = this.#traces?.fannedOut(message, spread, latencyMs);
        if (spread.recipients > 0) spread.group.metrics.observeLatency(latencyMs / 1000, traceId);
      }
    }
    this.#spreads = [];
  }

  /** From here on the connection is watched, until the socket has taken everything. */
  #congest(connection: Connection): void {
    connection.congested = true;
    this.#congested.add(connection);
    connection.socket.once('drain', () => {
      const missed = [...(connection.missed ?? [])];
      // What waits in these groups comes before the gap, so it is missed as well.
      for (const group of missed) this.settle(group);
      connection.congested = false;
      this.#congested.delete(connection);
      connection.missed = undefined;
      for (const group of missed) this.tellGap(connection, group, 'slow', group.follower?.last);
    });
  }

  /** Whether a connection with a backlog may get more. If not, the namespace's policy has been carried out. A
   * connection that could not be told of a gap is never dropped from silently: it is closed instead. */
  #admit(connection: Connection, group: Group, bytes: number, count: number): boolean {
    if (!connection.isOpen) return false;
    const drops = group.namespace.slow === 'drop' && canBeTold(connection, group);
    if (!connection.missed?.has(group) && !this.#isOverBound(connection, bytes)) return true;
    if (drops) {
      if (connection.missed === undefined) this.#metrics.slowConsumers.inc({ action: 'drop' });
      connection.missed ??= new Set();
      connection.missed.add(group);
      group.metrics.dropped.inc(count);
    } else {
      this.#disconnect(connection);
    }
    return false;
  }

  /** Whether so many bytes more would be too many for the connection. */
  #isOverBound(connection: Connection, bytes: number): boolean {
    const waiting = connection.backlogBytes + (connection.pending?.bytes ?? 0);
    return waiting + bytes > this.#limits.perConnectionBytes;
  }

  #disconnect(connection: Connection): void {
    this.#metrics.slowConsumers.inc({ action: 'disconnect' });
    this.#close(connection, closes.slow, false);
  }

  #backlogBytes(): number {
    let total = 0;
    for (const connection of this.#congested) total += connection.backlogBytes;
    return total;
  }

  /** Cuts the connections with the largest backlogs, those that are being closed included, until all together are
   * within their bound. */
  #boundTotal(): void {
    let total = this.#backlogBytes();
    if (total <= this.#limits.totalBytes) return;
    const largestFirst = [...this.#congested].sort((a, b) => b.backlogBytes - a.backlogBytes);
    for (const connection of largestFirst) {
      if (total <= this.#limits.totalBytes) break;
      total -= connection.backlogBytes;
      this.#congested.delete(connection);
      this.#metrics.slowConsumers.inc({ action: 'cut' });
      this.#close(connection, closes.slow, true);
    }
  }
}

/** Whether the connection knows what a gap is: always in v1, on durable channels, and where it asked for heartbeats. */
function canBeTold(connection: Connection, group: Group): boolean {
  return connection.toldOfGaps || group.namespace.durable !== undefined;
}
