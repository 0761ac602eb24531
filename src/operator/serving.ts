// What keeps the metrics API served: its certificate, the API server's trust in it, and who is let in. Looked at several
// times a minute, and at once when this replica begins to lead.

import { X509Certificate } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Report } from '../platform/logs.ts';
import { readRegistration, writeCaBundle } from './api-service.ts';
import {
  isDue,
  makeCertificate,
  readCertificate,
  type StoredCertificate,
  writeCertificate,
} from './certificate.ts';
import { readFrontProxy } from './front-proxy.ts';
import { isConflict, type Kube } from './kube.ts';
import { METRICS_GROUP, type MetricsApi } from './metrics-api.ts';
import type { MetricsApiState } from './observation.ts';

const INTERVAL_MS = 15_000;
/** While something is missing. */
const RETRY_MS = 2000;

/** What keeping it served needs. */
export interface ServingSettings {
  readonly kube: Kube;
  readonly api: MetricsApi;
  readonly namespace: string;
  /** Of the Service; the Secret is named after it. */
  readonly name: string;
  readonly port: number;
  readonly host: string | undefined;
  readonly report: Report;
  /** Aborted when this replica does not lead any more; undefined while it does not. */
  leads(): AbortSignal | undefined;
}

/** Keeps the metrics API served from its start to its stop. */
export class Serving {
  readonly #settings: ServingSettings;
  readonly #stop = new AbortController();
  #wake = new AbortController();
  #running: Promise<void> | undefined;
  #fault: string | undefined = 'the metrics API has no certificate yet';
  #foreign: readonly string[] = [];
  #expiresAtMs = 0;

  constructor(settings: ServingSettings) {
    this.#settings = settings;
  }

  /** How it goes. */
  get state(): MetricsApiState {
    return { fault: this.#fault, foreign: this.#foreign };
  }

  get expiresAtMs(): number {
    return this.#expiresAtMs;
  }

  start(): this {
    this.#running ??= this.#run();
    return this;
  }

  /** Looks again at once. */
  wake(): void {
    this.#wake.abort();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      this.#wake = new AbortController();
      try {
        this.#fault = await this.#refresh();
      } catch (error) {
        // What listens already goes on with what it has.
        if (!this.#settings.api.isListening)
          this.#fault = error instanceof Error ? error.message : String(error);
        if (!isConflict(error)) this.#settings.report('metrics API', error);
      }
      const waitMs = this.#fault === undefined ? INTERVAL_MS : RETRY_MS;
      const signal = AbortSignal.any([this.#stop.signal, this.#wake.signal]);
      await delay(waitMs, undefined, { signal }).catch(() => {});
    }
  }

  async #refresh(): Promise<string | undefined> {
    const { kube, api, namespace, name, port, host } = this.#settings;
    const { own, foreign } = await readRegistration(kube, { namespace, name });
    const isNews = foreign.join() !== this.#foreign.join();
    this.#foreign = foreign;
    if (foreign.length > 0) {
      const fault =
        `${METRICS_GROUP} belongs to another provider: ${foreign.join(', ')}. Set ` +
        'autoscaling.connections.source to prometheus-adapter, or remove that provider';
      if (isNews) this.#settings.report('metrics API', new Error(fault));
      // The API server prefers the newest version, so that joining a group takes over every autoscaler of the cluster.
      // Where that one has joined, to stop now would leave autoscalers with nobody.
      if (own === undefined || own.caBundle === '') return fault;
    }
    if (own === undefined) return `there is no APIService that leads to the Service ${namespace}/${name}`;
    const stored = await this.#certificate(own);
    if (stored === undefined) return 'the leader has not made the certificate of the metrics API yet';
    this.#expiresAtMs = Date.parse(new X509Certificate(stored.certificate).validTo);
    await api.serve(stored, await readFrontProxy(kube), port, host);
    return undefined;
  }

  /** The certificate to show. The leader makes one where there is none or it is time; trust comes first, so that no
   * replica ever shows what the API server does not trust. */
  async #certificate(own: {
    readonly name: string;
    readonly resourceVersion: string;
    readonly caBundle: string;
  }): Promise<StoredCertificate | undefined> {
    const { kube, namespace, name } = this.#settings;
    const dnsName = `${name}.${namespace}.svc`;
    const path = `/api/v1/namespaces/${namespace}/secrets/${name}-tls`;
    const { stored: found, resourceVersion } = await readCertificate(kube, path, dnsName);
    const leads = this.#settings.leads();
    if (leads === undefined) return found;
    const isNew = found === undefined || isDue(found, Date.now());
    const stored = isNew ? await makeCertificate(dnsName, found, Date.now()) : found;
    const caBundle = Buffer.from(stored.trust).toString('base64');
    if (own.caBundle !== caBundle) await writeCaBundle(kube, own, caBundle, leads);
    if (isNew) await writeCertificate(kube, path, resourceVersion, stored, leads);
    return stored;
  }
}
