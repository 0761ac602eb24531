// The operator's admin listener: probes and metrics. Plain HTTP, inside the cluster.

import { createServer, type Server } from 'node:http';
import { listen } from '../platform/ports.ts';
import { boundSockets } from '../platform/sockets.ts';
import type { OperatorMetrics } from './metrics.ts';

/** What the operator's admin listener tells about. */
export interface OperatorAdminSources {
  readonly metrics: OperatorMetrics;
  /** What keeps this replica from being ready. None: it is. */
  faults(): readonly string[];
}

/** Serves `/livez`, `/readyz` and `/metrics`. */
export class OperatorAdmin {
  readonly #server: Server;

  constructor({ metrics, faults }: OperatorAdminSources) {
    this.#server = createServer((request, response) => {
      request.resume();
      const json = (status: number, body: unknown) =>
        response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
      switch ((request.url ?? '').split('?')[0]) {
        case '/livez':
          // Does not depend on the API server: a restart would not bring it back.
          return json(200, { status: 'ok' });
        case '/readyz': {
          const reasons = faults();
          return json(reasons.length === 0 ? 200 : 503, { ready: reasons.length === 0, reasons });
        }
        case '/metrics':
          return metrics.registry.metrics().then(
            (text) => response.writeHead(200, { 'content-type': metrics.registry.contentType }).end(text),
            () => response.destroy(),
          );
        default:
          return json(404, { error: 'there are /livez, /readyz and /metrics' });
      }
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
}
