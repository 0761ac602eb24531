// The objects of one kind, kept up to date: listed, then watched, for ever. A watch that fails is made anew and counted.

import { setTimeout as delay } from 'node:timers/promises';
import type { Report } from '../platform/logs.ts';
import { type Kube, KubeError, type KubeList, type KubeObject } from './kube.ts';

/** How long a watch lasts before the server ends it. Also bounds how long a server that is frozen goes unnoticed. */
const WATCH_SECONDS = 60;

const PAGE_ITEMS = '500';
const MIN_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5000;

/** What is watched, and who is told. */
export interface WatchedSettings {
  readonly kube: Kube;
  /** Of the collection, as `/api/v1/namespaces/x/pods`. */
  readonly path: string;
  readonly labelSelector?: string;
  readonly report: Report;
  /** Called whenever a watch had to be made anew because it failed. */
  onRestart(): void;
  /** Called after something changed. */
  onChange?(): void;
}

/** All objects of one path, as they are now. */
export class Watched<T extends KubeObject> {
  readonly #settings: WatchedSettings;
  readonly #stop = new AbortController();
  #items = new Map<string, T>();
  #listed = false;
  #running: Promise<void> | undefined;

  constructor(settings: WatchedSettings) {
    this.#settings = settings;
  }

  /** Whether everything has been listed once. Before that nothing may be concluded from what is missing. */
  get isComplete(): boolean {
    return this.#listed;
  }

  get items(): T[] {
    return [...this.#items.values()];
  }

  start(): this {
    this.#running ??= this.#run();
    return this;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let backoffMs = MIN_BACKOFF_MS;
    let version: string | undefined;
    while (!signal.aborted) {
      const started = performance.now();
      try {
        version ??= await this.#list(signal);
        version = await this.#watch(version, signal);
        backoffMs = MIN_BACKOFF_MS;
        // A server that ends every watch at once must not be asked in a tight loop.
        if (performance.now() - started < 1000) await delay(1000, undefined, { signal });
      } catch (error) {
        if (signal.aborted) return;
        version = undefined; // what happened meanwhile is not known
        if (!(error instanceof KubeError && error.status === 410)) {
          this.#settings.onRestart();
          this.#settings.report(`watch ${this.#settings.path}`, error);
        }
        await delay(backoffMs * (0.5 + Math.random()), undefined, { signal }).catch(() => {});
        backoffMs = Math.min(MAX_BACKOFF_MS, backoffMs * 2);
      }
    }
  }

  async #list(signal: AbortSignal): Promise<string> {
    const { kube, path, labelSelector } = this.#settings;
    const items = new Map<string, T>();
    let next: string | undefined;
    let version = '';
    do {
      const query = { limit: PAGE_ITEMS, labelSelector, continue: next };
      const page = await kube.get<KubeList<T>>(path, { query, signal, timeoutMs: 15_000 });
      for (const item of page.items) items.set(item.metadata.uid, item);
      next = page.metadata.continue || undefined;
      version = page.metadata.resourceVersion;
    } while (next !== undefined);
    this.#items = items;
    this.#listed = true;
    this.#settings.onChange?.();
    return version;
  }

  /** Returns the version up to which everything is known. */
  async #watch(from: string, signal: AbortSignal): Promise<string> {
    const { kube, path, labelSelector } = this.#settings;
    let version = from;
    const query = { resourceVersion: from, labelSelector };
    await kube.watch<T>(path, query, WATCH_SECONDS, signal, ({ type, object }) => {
      if (type === 'ERROR') {
        const { code = 0, message = '' } = object as unknown as { code?: number; message?: string };
        throw new KubeError(code, 'watch', `watch ${path}: ${code} ${message}`);
      }
      version = object.metadata.resourceVersion;
      if (type === 'BOOKMARK') return;
      if (type === 'DELETED') this.#items.delete(object.metadata.uid);
      else this.#items.set(object.metadata.uid, object);
      this.#settings.onChange?.();
    });
    return version;
  }
}
