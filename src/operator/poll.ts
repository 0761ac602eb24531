// The admin contract's client: asks a pod for its connections, and sets or takes away its ceiling. A pod is a stranger:
// whatever it answers, in whatever time, costs a bounded amount of both.

import { Agent, type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import type { Ceiling } from './decision.ts';
import type { Answer, SilenceFault } from './observation.ts';

const TIMEOUT_MS = 2000;
const MAX_BODY_BYTES = 65_536;

/** Where a pod answers the admin contract. */
export interface PodAddress {
  readonly host: string;
  readonly port: number;
  readonly token: string | undefined;
}

/** A pod that did not answer as it should. */
export class PollError extends Error {
  readonly fault: SilenceFault;

  constructor(fault: SilenceFault, message: string) {
    super(message);
    this.name = 'PollError';
    this.fault = fault;
  }
}

const amount = z.number().min(0).max(Number.MAX_SAFE_INTEGER); // so that sums and rates stay numbers
const count = amount.int();
/** A field of the wrong kind is as good as none: only `connections` is a must. */
const maybe = <T extends z.ZodType>(kind: T) => kind.optional().catch(undefined);

const body = z.object({
  connections: count,
  maxConnections: maybe(count),
  phase: maybe(z.enum(['starting', 'serving', 'draining'])),
  startedAt: maybe(z.string().transform(Date.parse).pipe(z.number())),
  accepted: maybe(count),
  refused: maybe(z.record(z.string(), count)),
  deliveries: maybe(count),
  cpuSeconds: maybe(amount),
  movable: maybe(count),
  immovable: maybe(count),
  drainSeconds: maybe(amount),
  bus: maybe(z.string()),
  ceiling: maybe(z.object({ connections: count, expiresInMs: amount }).nullable()),
  shed: maybe(z.object({ asked: count, moved: count, stayed: count, outstanding: count })),
});

/** What a pod said, and of the bus behind it, where it tells that. */
export interface PodAnswer extends Answer {
  readonly bus: 'up' | 'down' | 'unknown';
}

/** A body as an answer. @throws {PollError} for whatever is not of the contract. */
export function decodeAnswer(said: string, atMs: number): PodAnswer {
  let raw: unknown;
  try {
    raw = JSON.parse(said);
  } catch {
    throw new PollError('no-contract', 'GET /connections did not answer JSON');
  }
  const { success, data } = body.safeParse(raw);
  if (!success) throw new PollError('no-contract', 'GET /connections did not answer {"connections": number}');
  const { refused, startedAt, bus, ...rest } = data;
  const { moving, ...others } = refused ?? {};
  return {
    atMs,
    connections: rest.connections,
    maxConnections: rest.maxConnections,
    phase: rest.phase,
    startedAtMs: startedAt,
    accepted: rest.accepted,
    refused: refused && Object.values(others).reduce((sum, one) => sum + one, 0),
    refusedMoving: moving,
    deliveries: rest.deliveries,
    cpuSeconds: rest.cpuSeconds,
    movable: rest.movable,
    immovable: rest.immovable,
    drainSeconds: rest.drainSeconds,
    ceiling: rest.ceiling,
    shed: rest.shed,
    bus: bus === undefined ? 'unknown' : bus === 'up' ? 'up' : 'down',
  };
}

/** Speaks to the admin listeners of pods, over connections that are kept. */
export class Poller {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 2, maxFreeSockets: 1, timeout: 30_000 });

  /** Ends all connections to pods. */
  close(): void {
    this.#agent.destroy();
  }

  /** @throws {PollError} saying why nothing is known. */
  async ask(pod: PodAddress): Promise<PodAnswer> {
    const said = await this.#send(pod, 'GET', '/connections');
    return decodeAnswer(said, Date.now());
  }

  async setCeiling(pod: PodAddress, ceiling: Ceiling, signal: AbortSignal): Promise<void> {
    await this.#send(pod, 'PUT', '/ceiling', { body: ceiling, signal });
  }

  async liftCeiling(pod: PodAddress, signal: AbortSignal): Promise<void> {
    await this.#send(pod, 'DELETE', '/ceiling', { signal });
  }

  async #send(
    { host, port, token }: PodAddress,
    method: string,
    path: string,
    { body: sent, signal }: { body?: unknown; signal?: AbortSignal } = {},
  ): Promise<string> {
    const payload = sent === undefined ? undefined : JSON.stringify(sent);
    // Of the whole exchange: a body that trickles in must not hold up a round.
    const limit = AbortSignal.timeout(TIMEOUT_MS);
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const outgoing = request({
          host,
          port,
          method,
          path,
          agent: this.#agent,
          signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
          headers: {
            ...(token !== undefined && { authorization: `Bearer ${token}` }),
            ...(payload !== undefined && {
              'content-type': 'application/json',
              'content-length': Buffer.byteLength(payload),
            }),
          },
        });
        outgoing.on('error', reject).on('response', resolve).end(payload);
      });
      const status = response.statusCode ?? 0;
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_BODY_BYTES) response.destroy(new PollError('no-contract', 'the answer is too long'));
      });
      const said = await text(response);
      if (status >= 200 && status < 300) return said;
      throw new PollError(faultOf(status), `${method} ${path} answered ${status}`);
    } catch (error) {
      if (error instanceof PollError) throw error;
      throw new PollError('unreachable', limit.aborted ? `no answer in ${TIMEOUT_MS} ms` : messageOf(error));
    }
  }
}

function faultOf(status: number): SilenceFault {
  if (status === 401 || status === 403) return 'unauthorized';
  return status >= 500 || status === 429 ? 'unreachable' : 'no-contract';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
