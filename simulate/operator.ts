// The operator beside a simulated world: a round every five seconds, with the real decisions.

import { decide } from '../src/operator/decide.ts';
import type { Decision } from '../src/operator/decision.ts';
import type { Memory } from '../src/operator/memory.ts';
import { type Hpa, type Observation, ROUND_MS } from '../src/operator/observation.ts';
import { decodeSpec, type Policy, type PolicyStatus } from '../src/operator/policy.ts';
import type { World } from './world.ts';

/** What one round saw and decided. */
export interface Round {
  readonly atMs: number;
  readonly observation: Observation;
  readonly decision: Decision;
}

/** An operator that leads, until it is told that another one does. */
export class Operator {
  readonly #world: World;
  #policy: Policy;
  #memory: Memory | undefined;
  #nextAtMs: number;

  /** @param spec what a ConnectionPolicy has, but for its target. */
  constructor(world: World, spec: Readonly<Record<string, unknown>> = {}) {
    const decoded = decodeSpec({ targetRef: { kind: 'Deployment', name: 'gateway' }, ...spec });
    if ('fault' in decoded) throw new Error(decoded.fault);
    this.#world = world;
    this.#policy = {
      namespace: 'default',
      name: 'gateway',
      uid: 'policy',
      generation: 1,
      createdAtMs: 0,
      spec: decoded.spec,
      status: undefined,
    };
    this.#nextAtMs = world.nowMs + ROUND_MS;
  }

  get status(): PolicyStatus | undefined {
    return this.#policy.status;
  }

  get policy(): Policy {
    return this.#policy;
  }

  /** Whoever leads from now on remembers nothing, and begins after `gapMs`. */
  changeLeader(gapMs: number): void {
    this.#memory = undefined;
    this.#nextAtMs = this.#world.nowMs + gapMs;
  }

  /** Makes a round if it is time for one. */
  step(hpa?: Hpa): Round | undefined {
    const { nowMs } = this.#world;
    if (nowMs < this.#nextAtMs) return undefined;
    this.#nextAtMs = nowMs + ROUND_MS;
    const observation = this.#world.observe(hpa);
    const decision = decide(this.#policy, observation, this.#memory, nowMs);
    this.#world.apply(decision);
    this.#memory = decision.memory;
    this.#policy = { ...this.#policy, status: decision.status };
    return { atMs: nowMs, observation, decision };
  }
}
