// The admin listener: probes and metrics for the cluster, connections and the ceiling for its operator. Plain
// node:http, so that it answers before anything else has started.

import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Bus } from '../bus/bus.ts';
import type { Metrics } from '../platform/metrics.ts';
import { listen } from '../platform/ports.ts';
import { boundSockets } from '../platform/sockets.ts';
import { decodeCeiling } from './ceiling.ts';
import type { ShedCounts, Shedder, StandingCeiling } from './shed.ts';

/** Where a gateway is in its life. */
export type Phase = 'starting' | 'serving' | 'draining';

/** What the admin listener tells about, and works on. */
export interface AdminSources {
  readonly bus: Bus;
  readonly metrics: Metrics;
  readonly shedder: Shedder;
  phase(): Phase;
  totals(): Totals;
  /** What the operator shows; undefined: none is set, and nothing can be changed. */
  token(): string | undefined;
}

/** What a gateway knows of itself without looking at each connection. */
export interface Totals {
  readonly connections: number;
  readonly users: number;
  readonly maxConnections: number;
  readonly drainSeconds: number;
}

/** The answer to `GET /connections`: the admin contract in docs/operator.md. Counters count from the start. */
export interface Connections extends Totals {
  readonly phase: Phase;
  /** Whether messages cross between the pods: clients that move meanwhile cannot catch up. */
  readonly bus: Bus['health']['state'];
  readonly startedAt: string;
  readonly accepted: number;
  readonly refused: Readonly<Record<string, number>>;
  readonly deliveries: number;
  readonly cpuSeconds: number;
  readonly movable: number;
  readonly immovable: number;
  readonly ceiling: StandingCeiling | null;
  readonly shed: ShedCounts;
}

/** A ceiling is a few numbers. */
const MAX_BODY_BYTES = 4096;

const MICROSECONDS = 1e6;

/** A request that is not carried out. */
class Refusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** Serves `/livez`, `/readyz`, `/metrics`, `/connections` and `/ceiling`. */
export class Admin {
  readonly #sources: AdminSources;
  readonly #server: Server;
  readonly #startedAt = new Date().toISOString();

  constructor(sources: AdminSources) {
    this.#sources = sources;
    const { bus, metrics } = sources;
    metrics.ready.read = () => (readinessOf(sources.phase(), bus.health).ready ? 1 : 0);
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        if (!(error instanceof Refusal)) return void response.destroy();
        // What is left of a body that nobody wants.
        request.resume();
        json(response, error.status, { error: error.message }, error.headers);
      });
    });
    this.#server.requestTimeout = 10_000;
    boundSockets(this.#server);
  }

  /** Begins to listen and returns the port. @throws where the port is taken. */
  start(port: number, host: string | undefined): Promise<number> {
    return listen(this.#server, { port, host });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?')[0];
    const { bus, metrics } = this.#sources;
    if (path === '/ceiling') return this.#answerCeiling(request, response);
    request.resume();
    if (request.method !== 'GET' && request.method !== 'HEAD')
      throw new Refusal(405, 'only GET is answered here', { allow: 'GET, HEAD' });
    switch (path) {
      case '/livez':
        // Never depends on the bus: restarting a pod does not mend Redis, and cuts all its sockets.
        return json(response, 200, { status: 'ok' });
      case '/readyz': {
        const readiness = readinessOf(this.#sources.phase(), bus.health);
        return json(response, readiness.ready ? 200 : 503, readiness);
      }
      case '/metrics': {
        const { type, text } = await metrics.exposition(request.headers.accept);
        response.writeHead(200, { 'content-type': type }).end(text);
        return;
      }
      case '/connections':
        this.#checkToken(request);
        return json(response, 200, await this.#connections());
      default:
        throw new Refusal(404, 'there are /livez, /readyz, /metrics, /connections and /ceiling');
    }
  }

  async #answerCeiling(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { shedder, token, phase } = this.#sources;
    if (token() === undefined) throw new Refusal(403, 'set ADMIN_TOKEN to allow this');
    this.#checkToken(request);
    switch (request.method) {
      case 'PUT': {
        const decoded = decodeCeiling(await bodyOf(request));
        if ('fault' in decoded) throw new Refusal(400, decoded.fault);
        if (phase() === 'draining') throw new Refusal(409, 'the gateway is stopping: it sheds everything');
        shedder.set(decoded);
        return json(response, 200, shedder.ceiling ?? null);
      }
      case 'DELETE':
        request.resume();
        shedder.lift();
        response.writeHead(204).end();
        return;
      default:
        throw new Refusal(405, 'PUT sets a ceiling and DELETE lifts it', { allow: 'PUT, DELETE' });
    }
  }

  /** Where a token is set, whoever asks has to show it. */
  #checkToken(request: IncomingMessage): void {
    const token = this.#sources.token();
    if (token === undefined) return;
    const given = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    // Of equal length as hashes, and compared in constant time: neither length nor beginning can be guessed at.
    if (timingSafeEqual(sha256(given), sha256(token))) return;
    throw new Refusal(401, 'show the ADMIN_TOKEN as "Authorization: Bearer TOKEN"', {
      'www-authenticate': 'Bearer',
    });
  }

  async #connections(): Promise<Connections> {
    const { bus, metrics, shedder, phase, totals } = this.#sources;
    const [opens, refusals, deliveries] = await Promise.all([
      metrics.opens.get(),
      metrics.refusals.get(),
      metrics.deliveries.get(),
    ]);
    const { user, system } = process.cpuUsage();
    return {
      ...totals(),
      phase: phase(),
      bus: bus.health.state,
      startedAt: this.#startedAt,
      accepted: sum(opens.values),
      refused: Object.fromEntries(refusals.values.map(({ labels, value }) => [labels.reason, value])),
      deliveries: sum(deliveries.values),
      cpuSeconds: (user + system) / MICROSECONDS,
      movable: shedder.countMovable(),
      immovable: shedder.countImmovable(),
      ceiling: shedder.ceiling ?? null,
      shed: shedder.counts,
    };
  }
}

/** Whether the pod should get new connections, and why not. An outage of the bus is no reason: every pod would be
 * unready at once, and a load balancer would cut all their sockets. A pod that is deaf while the bus works is. */
export function readinessOf(
  phase: Phase,
  health: Bus['health'],
): { ready: boolean; phase: Phase; bus: string; reason?: string } {
  const ready = phase === 'serving' && health.state !== 'deaf';
  const reason =
    phase === 'serving' ? health.reason : phase === 'draining' ? 'the gateway is stopping' : health.reason;
  return { ready, phase, bus: health.state, ...(reason && { reason }) };
}

/** The body as text. @throws {Refusal} where it is too long, or ends before its end. */
async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
    }
  } catch {
    throw new Refusal(400, 'the body did not come whole');
  }
  if (bytes > MAX_BODY_BYTES) throw new Refusal(413, `the body is longer than ${MAX_BODY_BYTES} bytes`);
  return Buffer.concat(chunks).toString();
}

function sum(values: readonly { readonly value: number }[]): number {
  return values.reduce((total, { value }) => total + value, 0);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function json(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  response
    .writeHead(status, { 'content-type': 'application/json', ...headers })
    .end(`${JSON.stringify(body)}\n`);
}
