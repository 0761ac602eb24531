// The rounds of one policy: every few seconds its workload is observed, and the leader decides and applies. Who does not
// lead observes all the same, because every replica serves metrics and may lead next.

import { setTimeout as delay } from 'node:timers/promises';
import type { Report } from '../platform/logs.ts';
import type { Applier } from './apply.ts';
import { Clock } from './clock.ts';
import { decide } from './decide.ts';
import type { Memory } from './memory.ts';
import { countMoves, forgetPolicy, measurePolicy, type OperatorMetrics } from './metrics.ts';
import { ROUND_MS } from './observation.ts';
import { Observer, type ObserverSettings, type Surroundings } from './observe.ts';
import type { Policy } from './policy.ts';

/** What the rounds of a policy need. */
export interface RoundsSettings extends ObserverSettings {
  readonly applier: Applier;
  readonly metrics: OperatorMetrics;
  readonly report: Report;
  /** Aborted when this replica does not lead any more; undefined while it does not. */
  leads(): AbortSignal | undefined;
  /** What else a round needs to know about the policy. */
  surroundings(policy: Policy): Promise<Surroundings>;
}

/** Runs the rounds of one policy from its making to its stop. */
export class Rounds {
  readonly observer: Observer;
  readonly #settings: RoundsSettings;
  readonly #stop = new AbortController();
  readonly #clock = new Clock();
  readonly #running: Promise<void>;
  #policy: Policy;
  #term: AbortSignal | undefined;
  #memory: Memory | undefined;

  constructor(settings: RoundsSettings, policy: Policy) {
    this.#settings = settings;
    this.#policy = policy;
    this.observer = new Observer(settings, policy);
    this.#running = this.#run();
  }

  get policy(): Policy {
    return this.#policy;
  }

  /** From the next round on it is this. */
  set policy(policy: Policy) {
    this.#policy = policy;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    forgetPolicy(this.#settings.metrics, this.#policy);
    await this.observer.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { metrics, report } = this.#settings;
    while (!signal.aborted) {
      const started = performance.now();
      try {
        await this.#round();
        metrics.rounds.inc({ outcome: 'done' });
      } catch (error) {
        metrics.rounds.inc({ outcome: 'failed' });
        report(`round of ${this.#policy.namespace}/${this.#policy.name}`, error);
      }
      const tookMs = performance.now() - started;
      metrics.roundSeconds.observe(tookMs / 1000);
      // Until the pods are there the autoscaler waits for the first round.
      const waitMs = this.observer.isComplete ? Math.max(500, ROUND_MS - tookMs) : 500;
      await delay(waitMs, undefined, { signal }).catch(() => {});
    }
  }

  async #round(): Promise<void> {
    const policy = this.#policy;
    const { surroundings, leads, metrics, applier } = this.#settings;
    const observation = await this.observer.round(policy, await surroundings(policy));
    const term = leads();
    // What was remembered before another led is not true any more. The status, which that one wrote, is. Nor do times of
    // before mean anything once the clock was set.
    const wasSet = this.#clock.wasSet();
    if (term !== this.#term || wasSet) this.#memory = undefined;
    this.#term = term;
    if (term === undefined) {
      forgetPolicy(metrics, policy);
      return;
    }
    if (!this.observer.isComplete) return;
    const decision = decide(policy, observation, this.#memory, Date.now());
    this.#memory = decision.memory;
    const { workload, pods } = this.observer;
    await applier.apply(decision, { policy, workload, pods }, term);
    if (term.aborted) return; // whoever leads now says it
    measurePolicy(metrics, policy, observation, decision.status);
    countMoves(metrics, policy, pods);
  }
}
