// Gateways inside the test's own process: for tests that need many of them, or look at what they keep in memory.

import { Writable } from 'node:stream';
import pino from 'pino';
import { type Gateway, startGateway } from '../src/gateway.ts';
import { readConfig } from '../src/platform/config.ts';
import { gatewayDefaults, type LogLine, readMetric } from './gateway.ts';

/** A gateway in this process. */
export interface LocalGateway extends Gateway {
  /** `ws://127.0.0.1:PORT` */
  readonly url: string;
  readonly adminUrl: string;
  /** Everything it has logged so far. */
  readonly log: LogLine[];
  /** The value of a metric, summed over the labels that are not given; 0 where it does not exist. */
  metric(name: string, labels?: Record<string, string>): Promise<number>;
}

/** Starts a gateway in this process with these settings. A setting of '' is unset. */
export async function startLocalGateway(env: Record<string, string> = {}): Promise<LocalGateway> {
  const log: LogLine[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      log.push(JSON.parse(chunk.toString()) as LogLine);
      done();
    },
  });
  const gateway = await startGateway(readConfig({ ...gatewayDefaults, ...env }), pino(sink));
  const adminUrl = `http://127.0.0.1:${gateway.ports.admin}`;
  return {
    ...gateway,
    url: `ws://127.0.0.1:${gateway.ports.ws}`,
    adminUrl,
    log,
    metric: (name, labels) => readMetric(adminUrl, name, labels),
  };
}
