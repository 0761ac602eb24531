// The census: which pods count in a round, and what their counters did since the one before.

import type { Memory, PodMemory } from './memory.ts';
import type { Answer, Heard, Observation, Pod } from './observation.ts';

/** A pod that clients can be on and that has told what it holds. */
export interface Member {
  readonly pod: Pod;
  readonly answer: Answer;
  /** CPU in cores, smoothed. Undefined until it has been measured for a while, and where the pod does not tell. */
  readonly cores: number | undefined;
  /** When the load balancer was last seen bringing it a connection. */
  readonly receivedAtMs: number | undefined;
}

/** A ready pod that does not answer. */
export interface Silent {
  readonly pod: Pod;
  readonly heard: Extract<Heard, { known: false }>;
}

/** Who counts in a round, and what they did since the one before. */
export interface Census {
  readonly members: readonly Member[];
  readonly silent: readonly Silent[];
  /** What was counted of clients asked to move since the round before, by all members. */
  readonly shed: { readonly asked: number; readonly moved: number; readonly stayed: number };
  readonly pods: Memory['pods'];
  readonly drainPacePerSecond: number | undefined;
}

/** Load is smoothed over this time: garbage collection and bursts are shorter. */
const LOAD_MS = 20_000;
/** Before it has been measured for this long it says nothing. */
const LOAD_MEASURED_MS = 15_000;
/** Fewer connections than this are too few to tell the pace of a drain from. */
const DRAIN_SAMPLE = 10;

/** Takes the census. Pods that are not ready or going away do not count: they get no new connections. */
export function takeCensus({ pods }: Observation, memory: Memory): Census {
  const members: Member[] = [];
  const silent: Silent[] = [];
  const remembered: Record<string, PodMemory> = {};
  const shed = { asked: 0, moved: 0, stayed: 0 };
  let pace = memory.drainPacePerSecond;

  for (const pod of pods) {
    const before = memory.pods[pod.uid];
    if (!pod.heard.known) {
      if (before !== undefined) remembered[pod.uid] = before;
      if (pod.ready && !pod.deleting) silent.push({ pod, heard: pod.heard });
      continue;
    }
    const { answer } = pod.heard;
    const now = remember(pod, answer, before);
    remembered[pod.uid] = now;
    pace = drainPace(now) ?? pace;
    if (sameProcess(before, now)) {
      shed.asked += Math.max(0, now.asked - before.asked);
      shed.moved += Math.max(0, now.moved - before.moved);
      shed.stayed += Math.max(0, now.stayed - before.stayed);
    }
    if (!pod.ready || pod.deleting || answer.phase === 'draining') continue;
    const cores = now.measuredMs >= LOAD_MEASURED_MS ? now.cores : undefined;
    members.push({ pod, answer, cores, receivedAtMs: now.receivedAtMs });
  }
  return { members, silent, shed, pods: remembered, drainPacePerSecond: pace };
}

function remember(pod: Pod, answer: Answer, before: PodMemory | undefined): PodMemory {
  const { asked = 0, moved = 0, stayed = 0, outstanding = 0 } = answer.shed ?? {};
  const now: PodMemory = {
    startedAtMs: answer.startedAtMs,
    atMs: answer.atMs,
    connections: answer.connections,
    accepted: answer.accepted,
    cpuSeconds: answer.cpuSeconds,
    asked,
    // Clients that cannot move are closed: they are none of the others, and gone as well.
    moved: Math.max(moved, asked - stayed - outstanding),
    stayed,
    cores: undefined,
    measuredMs: 0,
    receivedAtMs: undefined,
    draining: undefined,
  };
  if (!sameProcess(before, now)) return now;
  const received =
    now.accepted !== undefined && before.accepted !== undefined
      ? now.accepted > before.accepted
      : now.connections > before.connections;
  return {
    ...now,
    ...measureLoad(before, now),
    receivedAtMs: received ? now.atMs : before.receivedAtMs,
    draining:
      before.draining ??
      (pod.deleting && now.connections < before.connections
        ? { sinceMs: before.atMs, connections: before.connections }
        : undefined),
  };
}

/** Counters that went back are those of a process that was started anew, also where it does not say so. */
function sameProcess(before: PodMemory | undefined, now: PodMemory): before is PodMemory {
  return (
    before !== undefined &&
    before.startedAtMs === now.startedAtMs &&
    (before.accepted ?? 0) <= (now.accepted ?? 0) &&
    (before.cpuSeconds ?? 0) <= (now.cpuSeconds ?? 0)
  );
}

function measureLoad(before: PodMemory, now: PodMemory): Pick<PodMemory, 'cores' | 'measuredMs'> {
  const passedMs = now.atMs - before.atMs;
  if (now.cpuSeconds === undefined || before.cpuSeconds === undefined)
    return { cores: undefined, measuredMs: 0 };
  if (passedMs <= 0) return { cores: before.cores, measuredMs: before.measuredMs };
  const current = ((now.cpuSeconds - before.cpuSeconds) * 1000) / passedMs;
  const weight = 1 - Math.exp(-passedMs / LOAD_MS);
  return {
    cores: before.cores === undefined ? current : before.cores + (current - before.cores) * weight,
    measuredMs: before.measuredMs + passedMs,
  };
}

function drainPace({ draining, connections, atMs }: PodMemory): number | undefined {
  if (draining === undefined || draining.connections - connections < DRAIN_SAMPLE) return undefined;
  return ((draining.connections - connections) * 1000) / (atMs - draining.sinceMs);
}
