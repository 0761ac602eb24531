// All policies: begins the rounds of each that is there, and ends those of each that is gone.

import type { Report } from '../platform/logs.ts';
import type { HpaObject, PolicyObject } from './objects.ts';
import type { Observer, Surroundings } from './observe.ts';
import { decodeSpec, type Policy, type PolicyStatus } from './policy.ts';
import { Rounds, type RoundsSettings } from './rounds.ts';
import type { Tokens } from './tokens.ts';
import type { Watched } from './watched.ts';

export interface ReconcilerSettings extends Omit<RoundsSettings, 'surroundings'> {
  readonly policies: Watched<PolicyObject>;
  readonly hpas: Watched<HpaObject>;
  readonly tokens: Tokens;
  readonly report: Report;
}

export class Reconciler {
  readonly #settings: ReconcilerSettings;
  readonly #rounds = new Map<string, Rounds>();

  constructor(settings: ReconcilerSettings) {
    this.#settings = settings;
  }

  get observers(): Observer[] {
    return [...this.#rounds.values()].map(({ observer }) => observer);
  }

  /** Whether the policies are known, so that one that is missing is really not there. */
  get isComplete(): boolean {
    return this.#settings.policies.isComplete && this.#settings.hpas.isComplete;
  }

  /** Makes the rounds those of the policies as they are now. */
  sync(): void {
    const { policies, tokens } = this.#settings;
    const found = new Map(this.#policies().map((policy) => [policy.uid, policy]));
    if (!policies.isComplete) return;
    for (const [uid, rounds] of this.#rounds) {
      if (found.has(uid)) continue;
      this.#rounds.delete(uid);
      this.#forget(rounds);
    }
    for (const [uid, policy] of found) {
      const rounds = this.#rounds.get(uid);
      if (rounds !== undefined) rounds.policy = policy;
      else
        this.#rounds.set(
          uid,
          new Rounds({ ...this.#settings, surroundings: (it) => this.#around(it) }, policy),
        );
    }
    tokens.keepOnly([...found.values()]);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#rounds.values()].map((rounds) => rounds.stop()));
  }

  #policies(): Policy[] {
    return this.#settings.policies.items.flatMap((object) => {
      const decoded = decodeSpec(object.spec);
      if ('fault' in decoded) return [];
      const { name, namespace = '', uid, generation = 0, creationTimestamp } = object.metadata;
      const status = object.status as PolicyStatus | undefined;
      const createdAtMs = Date.parse(creationTimestamp);
      return { namespace, name, uid, generation, createdAtMs, spec: decoded.spec, status };
    });
  }

  async #around(policy: Policy): Promise<Surroundings> {
    const { hpas, tokens } = this.#settings;
    const { kind, name } = policy.spec.targetRef;
    const rivals = this.#policies().filter(
      ({ uid, namespace, spec: { targetRef } }) =>
        uid !== policy.uid &&
        namespace === policy.namespace &&
        targetRef.kind === kind &&
        targetRef.name === name,
    );
    return { hpas: hpas.items, rivals, token: await tokens.of(policy) };
  }

  #forget(rounds: Rounds): void {
    const { applier, report } = this.#settings;
    applier.forget(rounds.policy.uid);
    rounds.stop().catch((error) => report('end the rounds of a policy', error));
  }
}
