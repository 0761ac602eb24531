// The admin listener: probes, metrics and totals, for the cluster and its operators. Plain node:http, so that it
// answers before anything else has started.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Bus } from '../bus/bus.ts';
import type { Metrics } from '../platform/metrics.ts';

/** Where a gateway is in its life. */
export type Phase = 'starting' | 'serving' | 'draining';

/** What the admin listener tells about. */
export interface AdminSources {
  readonly bus: Bus;
  readonly metrics: Metrics;
  phase(): Phase;
  connections(): ConnectionTotals;
}

export interface ConnectionTotals {
  readonly connections: number;
  readonly users: number;
  readonly maxConnections: number;
}

/** Serves `/livez`, `/readyz`, `/metrics` and `/connections`. */
export class Admin {
  readonly #sources: AdminSources;
  readonly #server: Server;

  constructor(sources: AdminSources) {
    this.#sources = sources;
    this.#server = createServer((request, response) => {
      request.resume();
      this.#answer(request, response).catch(() => response.destroy());
    });
    this.#server.requestTimeout = 10_000;
  }

  /** Begins to listen and returns the port. @throws where the port is taken. */
  async start(port: number, host: string | undefined): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ port, ...(host !== undefined && { host }) }, resolve);
    });
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : port;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?')[0];
    const { bus, metrics } = this.#sources;
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return json(response, 405, { error: 'only GET is answered' });
    switch (path) {
      case '/livez':
        // Never depends on the bus: restarting a pod does not mend Redis, and cuts all its sockets.
        return json(response, 200, { status: 'ok' });
      case '/readyz': {
        const readiness = readinessOf(this.#sources.phase(), bus.health);
        return json(response, readiness.ready ? 200 : 503, readiness);
      }
      case '/metrics':
        response.writeHead(200, { 'content-type': metrics.registry.contentType });
        response.end(await metrics.registry.metrics());
        return;
      case '/connections':
        return json(response, 200, this.#sources.connections());
      default:
        return json(response, 404, { error: 'there are /livez, /readyz, /metrics and /connections' });
    }
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

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}
