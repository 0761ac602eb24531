// The metrics API, custom.metrics.k8s.io/v1beta2: what the HorizontalPodAutoscaler asks for. Only the API server is let
// in, which has found out who asks and whether they may.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { listen } from '../platform/ports.ts';
import { boundSockets } from '../platform/sockets.ts';
import type { FrontProxy } from './front-proxy.ts';
import { parseSelector } from './selector.ts';

/** The API group that the autoscaler asks. */
export const METRICS_GROUP = 'custom.metrics.k8s.io';
const VERSION = 'v1beta2';
const ROOT = `/apis/${METRICS_GROUP}/${VERSION}`;

/** Every metric that is served, and what it is. */
export const servedMetrics = {
  tidegate_connections: 'Connections open on the pod.',
  tidegate_refusals_per_second: 'Connections the pod refused, a second, over the last round.',
  tidegate_deliveries_per_second: 'Messages the pod wrote to connections, a second, over the last round.',
} as const satisfies Record<string, string>;

/** The name of one of them. */
export type ServedMetric = keyof typeof servedMetrics;

/** A metric of one pod. */
export interface Sample {
  readonly pod: string;
  readonly value: number;
  /** When the pod told it, however long ago that is. */
  readonly atMs: number;
}

/** What is answered to a query: samples of all pods that match, or why there are none. Never of some: the autoscaler
 * takes a pod that is missing to be exactly on target, and scales in because of it. */
export type QueryResult =
  | { readonly samples: readonly Sample[] }
  | { readonly status: 404 | 503; readonly message: string };

/** Where the samples come from. */
export interface MetricsSource {
  query(namespace: string, metric: ServedMetric, wants: (pod: PodLabels) => boolean): QueryResult;
}

/** What a query may choose pods by. */
export interface PodLabels {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A certificate and its private key, both in PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** Serves the metrics over TLS. */
export class MetricsApi {
  readonly #source: MetricsSource;
  readonly #onQuery: (status: number) => void;
  #allowedNames: readonly string[] = [];
  #server: Server | undefined;
  #port = 0;
  #context: KeyPair & { readonly clientCa: string } = { certificate: '', key: '', clientCa: '' };

  constructor(source: MetricsSource, onQuery: (status: number) => void) {
    this.#source = source;
    this.#onQuery = onQuery;
  }

  get isListening(): boolean {
    return this.#server?.listening === true;
  }

  /** Listens with this certificate and lets in those that the front proxy's authority vouches for; when it listens
   * already, new connections are treated so from now on. Returns the port. */
  async serve(keys: KeyPair, clients: FrontProxy, port: number, host: string | undefined): Promise<number> {
    this.#allowedNames = clients.allowedNames;
    const context = { ...keys, clientCa: clients.ca };
    const options = { cert: keys.certificate, key: keys.key, ca: clients.ca, minVersion: 'TLSv1.2' } as const;
    const server = this.#server;
    if (server === undefined) {
      const created = createServer({ ...options, requestCert: true, rejectUnauthorized: true });
      created.on('request', (request, response) => this.#answer(request, response));
      created.requestTimeout = 10_000;
      boundSockets(created);
      this.#port = await listen(created, { port, host });
      this.#server = created;
    } else if (JSON.stringify(context) !== JSON.stringify(this.#context)) {
      server.setSecureContext(options);
    }
    this.#context = context;
    return this.#port;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    server?.closeAllConnections();
    await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    request.resume();
    const { status, body } = this.#isAllowed(request.socket as TLSSocket)
      ? route(this.#source, request.method ?? '', request.url ?? '')
      : failure(403, 'Forbidden', 'only the API server is answered');
    this.#onQuery(status);
    // JSON whatever is asked for: the autoscaler prefers protobuf, and takes this too.
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  /** The certificate has been verified by the handshake; what is left is whose it is. */
  #isAllowed(socket: TLSSocket): boolean {
    if (!socket.authorized) return false;
    const { subject } = socket.getPeerCertificate();
    const names = [subject?.CN ?? []].flat();
    return this.#allowedNames.length === 0 || names.some((name) => this.#allowedNames.includes(name));
  }
}

interface Reply {
  readonly status: number;
  readonly body: object;
}

/** The answer to any request. Total. */
export function route(source: MetricsSource, method: string, target: string): Reply {
  if (method !== 'GET' && method !== 'HEAD') return failure(405, 'MethodNotAllowed', 'only GET is answered');
  const [path = '', query = ''] = target.split('?', 2);
  if (path === ROOT || path === `${ROOT}/`) return { status: 200, body: discovery() };
  const described = descriptions[path];
  if (described !== undefined) return { status: 200, body: described };
  if (!path.startsWith(`${ROOT}/`)) return failure(404, 'NotFound', `there is only ${ROOT}`);
  const [scope, namespace, kind, pod, metric, ...more] = segments(path.slice(ROOT.length + 1));
  if (scope !== 'namespaces' || namespace === undefined || kind !== 'pods' || pod === undefined) {
    return failure(404, 'NotFound', 'only metrics of pods are served');
  }
  if (metric === undefined || more.length > 0 || !isServed(metric)) {
    return failure(404, 'NotFound', `of pods there are: ${Object.keys(servedMetrics).join(', ')}`);
  }
  const parameters = new URLSearchParams(query);
  const matches = parseSelector(parameters.get('labelSelector') ?? '');
  if (matches === undefined) return failure(400, 'BadRequest', 'labelSelector is no selector');
  // Series have no labels of their own, so that a selector of them matches none.
  if ((parameters.get('metricLabelSelector') ?? '') !== '') {
    return failure(404, 'NotFound', `${metric} has no labels to select by`);
  }
  const wants = ({ name, labels }: PodLabels) => (pod === '*' ? matches(labels) : name === pod);
  const result = source.query(namespace, metric, wants);
  if (!('samples' in result)) {
    const reason = result.status === 404 ? 'NotFound' : 'ServiceUnavailable';
    return failure(result.status, reason, result.message);
  }
  const items = result.samples.map(({ pod: name, value, atMs }) => ({
    describedObject: { kind: 'Pod', namespace, name, apiVersion: '/v1' },
    metric: { name: metric, selector: null },
    timestamp: new Date(atMs).toISOString().replace(/\.\d+Z$/, 'Z'),
    value: quantity(value),
  }));
  return {
    status: 200,
    body: { kind: 'MetricValueList', apiVersion: `${METRICS_GROUP}/${VERSION}`, metadata: {}, items },
  };
}

/** A number as Kubernetes writes it: whole, or in thousandths. */
export function quantity(value: number): string {
  return Number.isInteger(value) ? String(value) : `${Math.round(value * 1000)}m`;
}

function isServed(metric: string): metric is ServedMetric {
  return Object.hasOwn(servedMetrics, metric);
}

function segments(path: string): string[] {
  try {
    return path.split('/').map(decodeURIComponent);
  } catch {
    return [];
  }
}

/** What the API server asks every server behind it for, and complains in its log where it gets none. */
const info = { title: 'Tidegate', version: VERSION };
const descriptions: Readonly<Record<string, object>> = {
  '/openapi/v2': { swagger: '2.0', info, paths: {} },
  '/openapi/v3': { paths: { [ROOT.slice(1)]: { serverRelativeURL: `/openapi/v3${ROOT}` } } },
  [`/openapi/v3${ROOT}`]: { openapi: '3.0.0', info, paths: {} },
};

function discovery(): object {
  const resources = Object.keys(servedMetrics).map((metric) => ({
    name: `pods/${metric}`,
    singularName: '',
    namespaced: true,
    kind: 'MetricValueList',
    verbs: ['get'],
  }));
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: `${METRICS_GROUP}/${VERSION}`,
    resources,
  };
}

function failure(code: number, reason: string, message: string): Reply {
  const body = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
  return { status: code, body };
}
