// An API server for tests, as small as what the operator asks of one, whose failures can be ordered: the real one fails
// when it likes. What only a real one can show is in e2e/.

import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { text } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';
import { makeCertificate } from '../src/operator/certificate.ts';
import { Kube } from '../src/operator/kube.ts';

type Fields = { [key: string]: unknown };
interface Stored extends Fields {
  metadata: Fields & { name: string; uid: string; resourceVersion: string };
}

/** Paths that are lists, also while they are empty. */
const collections = /\/(apiservices|connectionpolicies|events|horizontalpodautoscalers|leases|pods)$/;

/** What to do with a request instead of answering it: a status, or nothing at all, for ever. */
export type Fault = number | 'hang';

export class KubeApi {
  readonly #server: Server;
  readonly #objects = new Map<string, Stored>();
  readonly #watches = new Set<{ readonly collection: string; readonly response: ServerResponse }>();
  #version = 1;
  /** Every request so far, as `GET /path`. */
  readonly requests: string[] = [];
  /** Asked for each request; undefined: it is answered. */
  fault: (request: string) => Fault | undefined = () => undefined;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<KubeApi> {
    const { certificate, key } = await makeCertificate('localhost', undefined, Date.now());
    const server = createServer({ cert: certificate, key });
    const api = new KubeApi(server);
    api.certificate = certificate;
    server.on('request', (request, response) => {
      api.#answer(request, response).catch(() => response.destroy());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return api;
  }

  certificate = '';

  /** A client of it. */
  client(): Kube {
    const config = new KubeConfig();
    config.loadFromString(this.kubeconfig);
    return new Kube(config);
  }

  /** How to reach it, as a program reads it from a file. */
  get kubeconfig(): string {
    const address = this.#server.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const cluster = {
      server: `https://localhost:${port}`,
      'certificate-authority-data': Buffer.from(this.certificate).toString('base64'),
    };
    return JSON.stringify({
      'current-context': 'test',
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
      clusters: [{ name: 'test', cluster }],
      users: [{ name: 'test', user: { token: 'a-token' } }],
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Makes or changes an object, as if somebody else had. Its path is that of the collection and its name. */
  put(path: string, fields: Fields): Stored {
    const before = this.#objects.get(path);
    const name = path.split('/').at(-1) ?? '';
    this.#version += 1;
    const metadata = {
      creationTimestamp: '2026-01-01T00:00:00Z',
      ...before?.metadata,
      ...(fields.metadata as Fields | undefined),
      name,
      uid: before?.metadata.uid ?? `uid-of-${name}-${this.#version}`,
      resourceVersion: String(this.#version),
    };
    const object = { ...fields, metadata };
    this.#objects.set(path, object);
    this.#tell(path, before === undefined ? 'ADDED' : 'MODIFIED', object);
    return object;
  }

  get(path: string): Stored | undefined {
    return this.#objects.get(path);
  }

  /** Everything directly in a collection. */
  list(collection: string): Stored[] {
    const within = (path: string) => path.slice(0, path.lastIndexOf('/')) === collection;
    return [...this.#objects].filter(([path]) => within(path)).map(([, object]) => object);
  }

  delete(path: string): void {
    const object = this.#objects.get(path);
    if (object === undefined) return;
    this.#objects.delete(path);
    this.#tell(path, 'DELETED', object);
  }

  get watches(): number {
    return this.#watches.size;
  }

  /** Ends every watch: by an event that says why, by cutting its connection, or as agreed. */
  endWatches(how: { readonly code: number } | 'cut' | 'end'): void {
    for (const watch of this.#watches) {
      const { response } = watch;
      if (how === 'cut') response.destroy();
      else if (how === 'end') response.end();
      else
        response.end(
          `${JSON.stringify({ type: 'ERROR', object: { kind: 'Status', code: how.code, message: 'no' } })}\n`,
        );
      this.#watches.delete(watch);
    }
  }

  #tell(path: string, type: string, object: Stored): void {
    for (const { collection, response } of this.#watches) {
      if (path.slice(0, path.lastIndexOf('/')) === collection) {
        response.write(`${JSON.stringify({ type, object })}\n`);
      }
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname: path, searchParams: query } = new URL(request.url ?? '', 'https://localhost');
    const what = `${request.method} ${path}${query.has('watch') ? '?watch' : ''}`;
    const body = await text(request);
    this.requests.push(what);
    const fault = this.fault(what);
    if (fault === 'hang') return;
    if (fault !== undefined) return fail(response, fault, 'as ordered');
    if (query.has('watch')) {
      response.writeHead(200, { 'content-type': 'application/json' }).flushHeaders();
      const watch = { collection: path, response };
      this.#watches.add(watch);
      response.on('close', () => this.#watches.delete(watch));
      return;
    }
    const found = this.#objects.get(path);
    if (request.method === 'POST') {
      const fields = JSON.parse(body) as Fields & { metadata: { name?: string; generateName?: string } };
      const { name: given, generateName = '' } = fields.metadata;
      // A name may end as in a dash, which what is added then follows, but not in a dot.
      if (given === undefined && !/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?-?$/.test(generateName))
        return fail(response, 422, 'metadata.generateName is invalid');
      const name = given ?? `${generateName}${this.#version}`;
      if (this.#objects.has(`${path}/${name}`)) return fail(response, 409, 'AlreadyExists');
      return json(response, 201, this.put(`${path}/${name}`, fields));
    }
    if (request.method === 'PATCH') {
      const target = path.replace(/\/status$/, '');
      const object = this.#objects.get(target);
      if (object === undefined) return fail(response, 404, 'NotFound');
      const patch = JSON.parse(body) as Fields | { op: string; path: string; value: unknown }[];
      if (Array.isArray(patch)) {
        const isAnother = patch.some(
          ({ op, path: of, value }) =>
            op === 'test' && of === '/metadata/uid' && value !== object.metadata.uid,
        );
        if (isAnother) return fail(response, 422, 'Invalid');
        const changes = Object.fromEntries(
          patch.filter(({ op }) => op !== 'test').map((it) => [it.path.slice(1), it.value]),
        );
        return json(response, 200, this.put(target, { ...object, ...changes }));
      }
      const wanted = (patch.metadata as Fields | undefined)?.resourceVersion;
      if (wanted !== undefined && wanted !== object.metadata.resourceVersion)
        return fail(response, 409, 'Conflict');
      return json(response, 200, this.put(target, merge(object, patch)));
    }
    if (found !== undefined) return json(response, 200, found);
    const items = [...this.#objects]
      .filter(([it]) => it.slice(0, it.lastIndexOf('/')) === path)
      .map(([, object]) => object);
    if (!collections.test(path)) return fail(response, 404, 'NotFound');
    json(response, 200, { metadata: { resourceVersion: String(this.#version) }, items });
  }
}

/** As RFC 7386 says. */
function merge(target: Fields, patch: Fields): Fields {
  const merged: Fields = { ...target };
  for (const [key, value] of Object.entries(patch)) {
    const before = merged[key];
    if (value === null) delete merged[key];
    else if (isFields(value)) merged[key] = merge(isFields(before) ? before : {}, value);
    else merged[key] = value;
  }
  return merged;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function fail(response: ServerResponse, code: number, reason: string): void {
  json(response, code, { kind: 'Status', status: 'Failure', reason, message: reason, code });
}
