// The Kubernetes API, as plain JSON over HTTPS. From the client library it has what is hard (where the API server is, and
// how to log in, wherever this runs); requests are made here, because the library's own open a TLS connection each, wait
// without end for a server that hangs, turn some dates into objects and others not, and drop fields they do not know.

import { Agent, type RequestOptions, request } from 'node:https';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';

/** How long a request may take, unless it says otherwise. Less than half of what a leader has to renew its lease. */
const TIMEOUT_MS = 4000;

/** The longest line of a watch: etcd takes no object above 1.5 MiB. */
const MAX_LINE_BYTES = 8 * 1_048_576;

/** What is read of every object. */
export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly generation?: number;
    readonly creationTimestamp: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly {
      readonly kind: string;
      readonly name: string;
      readonly uid: string;
    }[];
  };
}

/** A page of a list. */
export interface KubeList<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly T[];
}

/** How a body says what to change. */
export type PatchType = 'json' | 'merge' | 'apply';

const patchTypes: Readonly<Record<PatchType, string>> = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  apply: 'application/apply-patch+yaml', // JSON is YAML
};

/** One line of a watch. */
export interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: T;
}

/** What a request may say beyond its method and path. */
export interface RequestSettings {
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
  readonly agent?: Agent;
}

/** The API server's answer was no. */
export class KubeError extends Error {
  readonly status: number;
  /** The machine's word for it, such as `Conflict`. */
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.name = 'KubeError';
    this.status = status;
    this.reason = reason;
  }
}

/** Whether the API server said that there is no such object. */
export const isNotFound = (error: unknown): boolean => error instanceof KubeError && error.status === 404;

/** Whether the API server said that somebody else was faster. */
export const isConflict = (error: unknown): boolean => error instanceof KubeError && error.status === 409;

/** The API server. */
export class Kube {
  readonly #config: KubeConfig;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 32 });
  /** Each watch keeps a connection to itself, which must not be one of those that requests wait for. */
  readonly #watchAgent = new Agent();

  /** @throws where no cluster can be found. */
  constructor(config: KubeConfig = fromEnvironment()) {
    if (config.getCurrentCluster() === null) throw new Error('there is no cluster: set KUBECONFIG');
    this.#config = config;
  }

  /** The namespace that this runs in, or that the configuration names. */
  get namespace(): string {
    return this.#config.getContextObject(this.#config.getCurrentContext())?.namespace ?? 'default';
  }

  /** Ends idle connections. */
  close(): void {
    this.#agent.destroy();
    this.#watchAgent.destroy();
  }

  get<T>(path: string, settings: RequestSettings = {}): Promise<T> {
    return this.#json<T>('GET', path, settings);
  }

  create<T>(path: string, body: unknown, settings: RequestSettings = {}): Promise<T> {
    return this.#json<T>('POST', path, { ...settings, body });
  }

  /** Changes fields and leaves all others: what is read here may lack fields, so nothing is ever replaced whole. */
  patch<T>(path: string, type: PatchType, body: unknown, settings: RequestSettings = {}): Promise<T> {
    const query = type === 'apply' ? { fieldManager: 'tidegate', force: 'true' } : {};
    return this.#json<T>('PATCH', path, {
      ...settings,
      query: { ...query, ...settings.query },
      body,
      contentType: patchTypes[type],
    });
  }

  /** Calls back for every event, in order, and resolves when the server ends the watch as agreed.
   * @throws where it fails, or nothing more is heard of it. */
  async watch<T>(
    path: string,
    query: Record<string, string | undefined>,
    seconds: number,
    signal: AbortSignal,
    onEvent: (event: WatchEvent<T>) => void,
  ): Promise<void> {
    // The server ends the watch in time; if it does not, it is not there any more, whatever the socket says.
    const overdue = AbortSignal.timeout((seconds + 10) * 1000);
    const body = await this.#send('GET', path, {
      query: { ...query, watch: 'true', allowWatchBookmarks: 'true', timeoutSeconds: String(seconds) },
      signal: AbortSignal.any([signal, overdue]),
      timeoutMs: 0,
      agent: this.#watchAgent,
    });
    let bytes = 0;
    body.on('data', (chunk: Buffer) => {
      bytes = chunk.includes(10) ? chunk.length - chunk.lastIndexOf(10) : bytes + chunk.length;
      if (bytes > MAX_LINE_BYTES) body.destroy(new Error('a line of the watch is too long'));
    });
    body.on('error', () => {}); // it is looked at below
    try {
      for await (const line of createInterface({ input: body, crlfDelay: Number.POSITIVE_INFINITY })) {
        if (line !== '') onEvent(JSON.parse(line) as WatchEvent<T>);
      }
    } finally {
      body.destroy();
    }
    if (overdue.aborted) throw new Error(`the watch of ${path} went silent`);
    if (body.errored !== null) throw body.errored;
  }

  async #json<T>(method: string, path: string, settings: RequestSettings): Promise<T> {
    return JSON.parse(await text(await this.#send(method, path, settings))) as T;
  }

  async #send(method: string, path: string, settings: RequestSettings): Promise<Readable> {
    const {
      query = {},
      body,
      contentType = 'application/json',
      signal,
      timeoutMs = TIMEOUT_MS,
      agent = this.#agent,
    } = settings;
    const url = new URL((this.#config.getCurrentCluster()?.server ?? '').replace(/\/$/, '') + path);
    for (const [key, value] of Object.entries(query))
      if (value !== undefined) url.searchParams.set(key, value);
    const options: RequestOptions = {};
    // Each time anew: the token of a pod is replaced every hour.
    await this.#config.applyToHTTPSOptions(options);
    const signals = [...(signal ? [signal] : []), ...(timeoutMs > 0 ? [AbortSignal.timeout(timeoutMs)] : [])];
    const payload = body === undefined ? undefined : JSON.stringify(body);
    return new Promise<Readable>((resolve, reject) => {
      const outgoing = request(url, {
        ...options,
        agent,
        method,
        signal: AbortSignal.any(signals),
        headers: {
          ...options.headers,
          accept: 'application/json',
          'user-agent': 'tidegate-operator',
          ...(payload !== undefined && {
            'content-type': contentType,
            'content-length': Buffer.byteLength(payload),
          }),
        },
      });
      outgoing.on('error', reject);
      outgoing.on('response', (response) => {
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) return resolve(response);
        text(response).then((said) => reject(errorOf(status, said, `${method} ${path}`)), reject);
      });
      outgoing.end(payload);
    });
  }
}

/** A time as Leases and Events want it: with six digits. With three, as dates have them here, it is refused. */
export function microTime(date: Date): string {
  return date.toISOString().replace('Z', '000Z');
}

function fromEnvironment(): KubeConfig {
  const config = new KubeConfig();
  config.loadFromDefault();
  return config;
}

function errorOf(status: number, said: string, what: string): KubeError {
  try {
    const { reason, message } = JSON.parse(said) as { reason?: string; message?: string };
    return new KubeError(status, reason ?? '', `${what}: ${status} ${message ?? reason ?? ''}`.trim());
  } catch {
    return new KubeError(status, '', `${what}: ${status} ${said.slice(0, 200)}`.trim());
  }
}
