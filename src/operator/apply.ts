// What the leader writes: ceilings to pods, deletion costs, the status of the policy, and events on the workload. Each by
// itself: one that fails is reported, tried again in the next round, and keeps nothing else from being done.

import type { Report } from '../platform/logs.ts';
import type { Decision, PolicyEvent } from './decision.ts';
import { type Kube, microTime } from './kube.ts';
import type { OperatorMetrics } from './metrics.ts';
import type { WorkloadObject } from './objects.ts';
import { DELETION_COST, type SeenPod } from './pods.ts';
import { type Policy, type PolicyStatus, policyResource } from './policy.ts';
import type { Poller } from './poll.ts';

/** Time between two writes of a status in which nothing but numbers has changed. */
const STATUS_INTERVAL_MS = 30_000;

/** What the applier is made with. */
export interface ApplySettings {
  readonly kube: Kube;
  readonly poller: Poller;
  readonly metrics: OperatorMetrics;
  readonly report: Report;
  /** Of this replica, as events name it. */
  readonly identity: string;
  /** Milliseconds of a clock that does not jump. */
  now?(): number;
}

/** What a decision is applied to. */
export interface ApplyTarget {
  readonly policy: Policy;
  readonly workload: WorkloadObject | undefined;
  readonly pods: readonly SeenPod[];
}

/** Writes decisions, and remembers of each status when it was written. */
export class Applier {
  readonly #settings: ApplySettings;
  readonly #now: () => number;
  /** The status as last written, and when, by the policy's uid. */
  readonly #written = new Map<string, { readonly status: PolicyStatus; readonly atMs: number }>();

  constructor(settings: ApplySettings) {
    this.#settings = settings;
    this.#now = settings.now ?? (() => performance.now());
  }

  /** Forgets a policy that is gone. */
  forget(uid: string): void {
    this.#written.delete(uid);
  }

  /** Does what was decided, unless `over` says that another leads. */
  async apply(decision: Decision, target: ApplyTarget, over: AbortSignal): Promise<void> {
    const { poller } = this.#settings;
    const byUid = new Map(target.pods.map((pod) => [pod.uid, pod]));
    const writes: Promise<void>[] = [];
    for (const { uid, ceiling } of decision.ceilings) {
      const address = byUid.get(uid)?.address;
      if (address !== undefined)
        writes.push(this.#try('ceiling', over, () => poller.setCeiling(address, ceiling, over)));
    }
    for (const { uid } of decision.lifts) {
      const address = byUid.get(uid)?.address;
      if (address !== undefined)
        writes.push(this.#try('ceiling', over, () => poller.liftCeiling(address, over)));
    }
    for (const { name, uid, cost } of decision.deletionCosts) {
      writes.push(
        this.#try('deletion-cost', over, () => this.#writeCost(target.policy, name, uid, cost, over)),
      );
    }
    writes.push(this.writeStatus(target.policy, decision.status, over));
    for (const event of decision.events) {
      writes.push(this.#try('event', over, () => this.#tell(target, event, over)));
    }
    await Promise.all(writes);
  }

  /** Writes the status where it says something new, and its numbers now and then. */
  async writeStatus(policy: Omit<Policy, 'spec'>, status: PolicyStatus, over: AbortSignal): Promise<void> {
    const before = this.#written.get(policy.uid);
    if (before !== undefined) {
      const isSame = JSON.stringify(essence(before.status)) === JSON.stringify(essence(status));
      if (isSame && this.#now() - before.atMs < STATUS_INTERVAL_MS) return;
    }
    const { group, version, plural } = policyResource;
    const path = `/apis/${group}/${version}/namespaces/${policy.namespace}/${plural}/${policy.name}/status`;
    await this.#try('status', over, async () => {
      const patch = [
        // Another of the same name, made since, has a status of its own.
        { op: 'test', path: '/metadata/uid', value: policy.uid },
        // Whole, or what is absent now would stay.
        { op: 'add', path: '/status', value: status },
      ];
      await this.#settings.kube.patch(path, 'json', patch, { signal: over });
      this.#written.set(policy.uid, { status, atMs: this.#now() });
    });
  }

  async #writeCost(
    { namespace }: Policy,
    name: string,
    uid: string,
    cost: number | undefined,
    over: AbortSignal,
  ): Promise<void> {
    const annotations = { [DELETION_COST]: cost === undefined ? null : String(cost) };
    // With the uid, so that a pod of the same name (of a StatefulSet) that came since is left alone.
    await this.#settings.kube.patch(
      `/api/v1/namespaces/${namespace}/pods/${name}`,
      'merge',
      { metadata: { uid, annotations } },
      { signal: over },
    );
  }

  async #tell({ policy, workload }: ApplyTarget, event: PolicyEvent, over: AbortSignal): Promise<void> {
    const { group, version, kind } = policyResource;
    const about =
      workload === undefined
        ? { apiVersion: `${group}/${version}`, kind, name: policy.name, uid: policy.uid }
        : {
            apiVersion: 'apps/v1',
            kind: policy.spec.targetRef.kind,
            name: workload.metadata.name,
            uid: workload.metadata.uid,
          };
    const { namespace } = policy;
    await this.#settings.kube.create(
      `/apis/events.k8s.io/v1/namespaces/${namespace}/events`,
      {
        metadata: { generateName: `${about.name}-`, namespace },
        eventTime: microTime(new Date()),
        reportingController: 'tidegate.dev/operator',
        reportingInstance: this.#settings.identity,
        type: event.type,
        reason: event.reason,
        action: event.reason,
        note: event.message.slice(0, 1024),
        regarding: { ...about, namespace },
      },
      { signal: over },
    );
  }

  async #try(kind: string, over: AbortSignal, write: () => Promise<void>): Promise<void> {
    if (over.aborted) return;
    const { metrics, report } = this.#settings;
    try {
      await write();
      metrics.writes.inc({ kind, outcome: 'done' });
    } catch (error) {
      if (over.aborted) return;
      metrics.writes.inc({ kind, outcome: 'failed' });
      report(`write ${kind}`, error);
    }
  }
}

/** What of a status is news. */
function essence({
  conditions,
  readyPods,
  desiredPods,
  state,
  lastRebalance,
  observedGeneration,
}: PolicyStatus) {
  return {
    conditions: conditions.map(({ type, status, reason }) => ({ type, status, reason })),
    readyPods,
    desiredPods,
    state,
    observedGeneration,
    outcome: lastRebalance?.outcome,
    startedAt: lastRebalance?.startedAt,
  };
}
