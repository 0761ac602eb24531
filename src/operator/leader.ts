// The lease: of all replicas of the operator one leads, and only that one writes. Who leads knows until when, by a clock
// that cannot jump, and stops before anybody else may begin.

import { setTimeout as delay } from 'node:timers/promises';
import type { Report } from '../platform/logs.ts';
import { isConflict, isNotFound, type Kube, type KubeObject, microTime } from './kube.ts';

/** As in Kubernetes' own components: how long a lease is good for whoever watches it, how long its holder relies on
 * it without renewing, and how often it is renewed or looked at. */
export interface LeaseTimes {
  readonly leaseMs: number;
  readonly renewMs: number;
  readonly retryMs: number;
}

const defaultTimes: LeaseTimes = { leaseMs: 15_000, renewMs: 10_000, retryMs: 2000 };

/** What the election is made with. */
export interface LeaderSettings {
  readonly kube: Kube;
  readonly namespace: string;
  /** Of the Lease. */
  readonly name: string;
  /** Of this replica, different at each start. */
  readonly identity: string;
  readonly times?: LeaseTimes;
  readonly report: Report;
  /** Called when this replica begins to lead, with what says that it is over. */
  onLead(over: AbortSignal): void;
  /** Milliseconds of a clock that does not jump. */
  now?(): number;
}

interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

/** Takes part in the election, and leads whenever it has the lease. */
export class Leader {
  readonly #settings: LeaderSettings;
  readonly #times: LeaseTimes;
  readonly #now: () => number;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #term: AbortController | undefined;
  #deadline: NodeJS.Timeout | undefined;
  /** The lease as last seen, and since when it has been the same. Its own times are another machine's clock. */
  #seen = { version: '', sinceMs: 0 };

  constructor(settings: LeaderSettings) {
    this.#settings = settings;
    this.#times = settings.times ?? defaultTimes;
    this.#now = settings.now ?? (() => performance.now());
  }

  get isLeading(): boolean {
    return this.#term !== undefined;
  }

  start(): this {
    this.#running ??= this.#run();
    return this;
  }

  /** Ends the term, if this replica leads, and gives the lease back, so that another may begin at once. */
  async stop(): Promise<void> {
    const wasLeading = this.isLeading;
    this.#end();
    this.#stop.abort();
    await this.#running;
    if (wasLeading) await this.#release().catch((error) => this.#settings.report('release the lease', error));
  }

  get #path(): string {
    return `/apis/coordination.k8s.io/v1/namespaces/${this.#settings.namespace}/leases`;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      // What counts is when it was asked, not when the answer came.
      const askedAt = this.#now();
      try {
        if (await this.#tryToHold(signal)) this.#hold(askedAt + this.#times.renewMs);
        else this.#end();
      } catch (error) {
        // Somebody else was faster, or nobody can be asked. Whoever leads goes on until its time is up.
        if (!signal.aborted && !isConflict(error)) this.#settings.report('lease', error);
      }
      await delay(this.#times.retryMs * (0.9 + 0.2 * Math.random()), undefined, { signal }).catch(() => {});
    }
  }

  /** Whether this replica holds the lease now. @throws where that is not known. */
  async #tryToHold(signal: AbortSignal): Promise<boolean> {
    const { kube, name, identity } = this.#settings;
    const settings = { signal, timeoutMs: this.#times.renewMs / 2 };
    let lease: Lease;
    try {
      lease = await kube.get<Lease>(`${this.#path}/${name}`, settings);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await kube.create(this.#path, this.#lease(undefined, 0), settings);
      return true;
    }
    const { holderIdentity = '', leaseTransitions = 0 } = lease.spec ?? {};
    const { resourceVersion } = lease.metadata;
    if (holderIdentity !== identity && holderIdentity !== '') {
      if (resourceVersion !== this.#seen.version)
        this.#seen = { version: resourceVersion, sinceMs: this.#now() };
      if (this.#now() - this.#seen.sinceMs < this.#times.leaseMs) return false;
    }
    const transitions = leaseTransitions + (holderIdentity === identity ? 0 : 1);
    // With the version that was seen: if anybody has written since, this is refused.
    await kube.patch(`${this.#path}/${name}`, 'merge', this.#lease(resourceVersion, transitions), settings);
    return true;
  }

  #lease(resourceVersion: string | undefined, leaseTransitions: number): object {
    const now = microTime(new Date());
    const isNew = resourceVersion === undefined;
    return {
      ...(isNew && { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' }),
      metadata: { name: this.#settings.name, ...(!isNew && { resourceVersion }) },
      spec: {
        holderIdentity: this.#settings.identity,
        leaseDurationSeconds: Math.ceil(this.#times.leaseMs / 1000),
        renewTime: now,
        ...(!this.isLeading && { acquireTime: now }),
        leaseTransitions,
      },
    };
  }

  #hold(untilMs: number): void {
    const leftMs = untilMs - this.#now();
    if (leftMs <= 0 || this.#stop.signal.aborted) {
      this.#end();
      return;
    }
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => {
      this.#settings.report('lease', new Error('the lease could not be renewed in time: leading ends'));
      this.#end();
    }, leftMs);
    if (this.#term !== undefined) return;
    this.#term = new AbortController();
    this.#settings.onLead(this.#term.signal);
  }

  #end(): void {
    clearTimeout(this.#deadline);
    this.#term?.abort(new Error('this replica does not lead any more'));
    this.#term = undefined;
  }

  async #release(): Promise<void> {
    const { kube, name, identity } = this.#settings;
    const lease = await kube.get<Lease>(`${this.#path}/${name}`);
    if (lease.spec?.holderIdentity !== identity) return;
    await kube.patch(`${this.#path}/${name}`, 'merge', {
      metadata: { resourceVersion: lease.metadata.resourceVersion },
      spec: { holderIdentity: '', leaseDurationSeconds: 1, renewTime: microTime(new Date()) },
    });
  }
}
