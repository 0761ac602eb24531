// All policies: begins the rounds of each that is there, and ends those of each that is gone.

import type { Report } from '../platform/logs.ts';
import { decideInvalid } from './decide.ts';
import type { HpaObject, PolicyObject } from './objects.ts';
import type { MetricsApiState } from './observation.ts';
import type { Observer, Surroundings } from './observe.ts';
import { decodeSpec, type Policy, type PolicyStatus } from './policy.ts';
import { Rounds, type RoundsSettings } from './rounds.ts';
import type { Tokens } from './tokens.ts';
import type { Watched } from './watched.ts';

/** What all policies share. */
export interface ReconcilerSettings extends Omit<RoundsSettings, 'surroundings'> {
  readonly policies: Watched<PolicyObject>;
  readonly hpas: Watched<HpaObject>;
  readonly tokens: Tokens;
  readonly report: Report;
  /** Of the operator, as policies name it: `namespace/name`. */
  readonly identity: string;
  /** Whether this operator serves metrics, and how that goes. */
  metricsApi(): MetricsApiState | undefined;
}

/** Annotation of a policy: which operator works on it. None: each that sees it. */
const OPERATOR = 'tidegate.dev/operator';

/** Holds the rounds to the policies that are there. */
export class Reconciler {
  readonly #settings: ReconcilerSettings;
  readonly #rounds = new Map<string, Rounds>();
  /** Those that can be read, as of the last change. */
  #policies: readonly Policy[] = [];

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
    if (!policies.isComplete) return;
    this.#policies = this.#read();
    const found = new Map(this.#policies.map((policy) => [policy.uid, policy]));
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
    tokens.keepOnly(this.#policies);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#rounds.values()].map((rounds) => rounds.stop()));
  }

  #read(): Policy[] {
    return this.#settings.policies.items.flatMap((object) => {
      if (!this.#isOurs(object)) return [];
      const decoded = decodeSpec(object.spec);
      if ('spec' in decoded) return { ...headerOf(object), spec: decoded.spec };
      this.#refuse(headerOf(object), decoded.fault);
      return [];
    });
  }

  /** Whether no other operator is named. */
  #isOurs({ metadata }: PolicyObject): boolean {
    const named = metadata.annotations?.[OPERATOR];
    return named === undefined || named === this.#settings.identity;
  }

  /** Says in its status that a policy cannot be read. */
  #refuse(policy: Omit<Policy, 'spec'>, fault: string): void {
    const { applier, leads } = this.#settings;
    const term = leads();
    if (term !== undefined)
      void applier.writeStatus(policy, decideInvalid(policy, fault, Date.now()).status, term);
  }

  async #around(policy: Policy): Promise<Surroundings> {
    const { hpas, tokens, metricsApi } = this.#settings;
    const { kind, name } = policy.spec.targetRef;
    const rivals = this.#policies.filter(
      ({ uid, namespace, spec: { targetRef } }) =>
        uid !== policy.uid &&
        namespace === policy.namespace &&
        targetRef.kind === kind &&
        targetRef.name === name,
    );
    return { hpas: hpas.items, rivals, token: await tokens.of(policy), metricsApi: metricsApi() };
  }

  #forget(rounds: Rounds): void {
    const { applier, report } = this.#settings;
    rounds
      .stop()
      .catch((error) => report('end the rounds of a policy', error))
      // Not before: the last round may still write.
      .finally(() => applier.forget(rounds.policy.uid));
  }
}

function headerOf({ metadata, status }: PolicyObject): Omit<Policy, 'spec'> {
  const { name, namespace = '', uid, generation = 0, creationTimestamp } = metadata;
  const createdAtMs = Date.parse(creationTimestamp);
  return { name, namespace, uid, generation, createdAtMs, status: status as PolicyStatus | undefined };
}
