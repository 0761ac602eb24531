// The ReplicaSet: which pods it removes when it has too many. Its rules are those of Kubernetes 1.35
// (pkg/controller/controller_utils.go, ActivePodsWithRanks), for pods that all run and never restarted.

/** What it looks at. */
export interface Removable {
  readonly ready: boolean;
  /** The annotation `controller.kubernetes.io/pod-deletion-cost`; 0 where there is none. */
  readonly deletionCost: number;
  /** How many pods of the same set are on its node. */
  readonly onSameNode: number;
  readonly readyAtMs: number;
  readonly createdAtMs: number;
  readonly uid: string;
}

/** The first `count` of the pods in the order in which they are removed. */
export function pickForRemoval<T extends Removable>(pods: readonly T[], count: number, nowMs: number): T[] {
  return pods.toSorted((one, other) => compare(one, other, nowMs)).slice(0, Math.max(0, count));
}

function compare(one: Removable, other: Removable, nowMs: number): number {
  if (one.ready !== other.ready) return one.ready ? 1 : -1;
  if (one.deletionCost !== other.deletionCost) return one.deletionCost - other.deletionCost;
  if (one.onSameNode !== other.onSameNode) return other.onSameNode - one.onSameNode;
  if (one.ready && one.readyAtMs !== other.readyAtMs)
    return byAge(one, other, one.readyAtMs, other.readyAtMs, nowMs);
  if (one.createdAtMs !== other.createdAtMs)
    return byAge(one, other, one.createdAtMs, other.createdAtMs, nowMs);
  return 0;
}

/** The younger goes first, but ages are only told apart by powers of two; within one, chance decides by the uid. */
function byAge(one: Removable, other: Removable, oneMs: number, otherMs: number, nowMs: number): number {
  const difference = rank(nowMs - oneMs) - rank(nowMs - otherMs);
  if (difference !== 0) return difference;
  return one.uid < other.uid ? -1 : 1;
}

/** Powers of two of nanoseconds. */
function rank(ageMs: number): number {
  return ageMs > 0 ? Math.floor(Math.log2(ageMs * 1e6)) : -1;
}
