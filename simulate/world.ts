// A world of gateways: pods that start, drain and die, the connections on them, and clients that come, go, move and
// come back. It goes on in steps of a second, and keeps connections as counts: a day of 100,000 takes seconds.

import type { Ceiling, Decision } from '../src/operator/decision.ts';
import type { Answer, Hpa, Observation, Pod } from '../src/operator/observation.ts';
import type { Random } from '../test/random.ts';
import { type Balancer, type BalancerName, type Caller, createBalancer } from './balancer.ts';
import { pickForRemoval } from './replica-set.ts';

/** What of a decision changes the world. */
type Orders = Pick<Decision, 'ceilings' | 'lifts' | 'deletionCosts'>;

/** How pods, clients and the load balancer behave. */
export interface WorldSettings {
  readonly balancer: BalancerName;
  /** From ready to the load balancer's first connection. Infinity: it never sends one to pods that come later. */
  readonly registrationSeconds: number;
  /** From created to ready. */
  readonly startSeconds: number;
  readonly preStopSeconds: number;
  readonly drainSeconds: number;
  readonly graceSeconds: number;
  readonly maxConnections: number;
  /** Share of clients that can move without a gap. */
  readonly movableShare: number;
  /** CPU that one connection costs, in cores. */
  readonly coresPerConnection: number;
  /** CPU of a pod whatever connections it has, in cores. */
  readonly idleCores: number;
  /** The share of a pod's connections that makes four fifths of its load. 1: all are alike. */
  readonly busyShare: number;
}

/** What the busy connections of a pod make of its load. */
const BUSY_LOAD = 0.8;

export const worldDefaults: WorldSettings = {
  balancer: 'random',
  registrationSeconds: 0,
  startSeconds: 5,
  preStopSeconds: 20,
  drainSeconds: 30,
  graceSeconds: 60,
  maxConnections: 20_000,
  movableShare: 1,
  coresPerConnection: 0.0001,
  idleCores: 0,
  busyShare: 1,
};

/** What happened so far. */
export interface Counts {
  /** Tries of clients that are moving. */
  attempts: number;
  moved: number;
  asked: number;
  stayed: number;
  /** Connections that ended because their pod was removed, or killed. */
  dropped: number;
  /** Of those, cut without a goodbye. */
  killed: number;
  /** Connections that no pod had room for; each is tried again. */
  refused: number;
}

/** One pod. */
export class SimPod {
  readonly index: number;
  readonly name: string;
  readonly uid: string;
  readonly createdAtMs: number;
  /** Which of several roll-outs it belongs to. */
  readonly revision: number;
  ready = false;
  readyAtMs = 0;
  registeredAtMs = Number.POSITIVE_INFINITY;
  deletingAtMs: number | undefined;
  gone = false;
  connections = 0;
  /** Connections by the second in which they came, the youngest first: those too young to be moved. */
  young: number[] = [0];
  /** CPU in cores of all its connections. */
  cores = 0;
  /** CPU in cores that has nothing to do with them. */
  idleCores: number;
  /** Until then they cost so many times as much. */
  burst = { untilMs: 0, times: 1 };
  cpuSeconds = 0;
  accepted = 0;
  refusedMoving = 0;
  asked = 0;
  moved = 0;
  stayed = 0;
  outstanding = 0;
  allowance = 0;
  ceiling: (Ceiling & { readonly expiresAtMs: number }) | undefined;
  deletionCost: number | undefined;
  /** Until when it does not answer the operator. */
  silentUntilMs = 0;
  silentSinceMs = 0;
  last: Answer | undefined;
  drainFrom: number | undefined;

  constructor(index: number, uid: string, createdAtMs: number, revision: number, idleCores: number) {
    this.index = index;
    this.idleCores = idleCores;
    this.uid = uid;
    this.name = `pod-${index}`;
    this.createdAtMs = createdAtMs;
    this.revision = revision;
  }

  get deleting(): boolean {
    return this.deletingAtMs !== undefined;
  }
}

/** A client that is without a connection, or moves to another one. */
interface Seeker {
  readonly from: SimPod | undefined;
  readonly hash: number;
  readonly cores: number;
  readonly giveUpAtMs: number;
  nextAtMs: number;
  tries: number;
}

/** Connections are told apart by age up to this. */
const YOUNG_SECONDS = 60;
/** A moving client looks for another pod for so long. */
const GIVE_UP_MS = 15_000;
/** The share of a drain in which goodbyes are spread. */
const DRAIN_SPREAD = 0.7;

export class World {
  readonly settings: WorldSettings;
  readonly counts: Counts = { attempts: 0, moved: 0, asked: 0, stayed: 0, dropped: 0, killed: 0, refused: 0 };
  pods: SimPod[] = [];
  nowMs: number;
  desired = 0;
  revision = 0;
  rolling = false;
  busUp = true;
  readonly #random: Random;
  readonly #pick: Balancer;
  #seekers: Seeker[] = [];
  #nextIndex = 0;
  #firstPods: number | undefined;

  constructor(settings: Partial<WorldSettings>, random: Random, nowMs = Date.UTC(2026, 0, 1)) {
    this.settings = { ...worldDefaults, ...settings };
    this.#random = random;
    this.#pick = createBalancer(this.settings.balancer, random);
    this.nowMs = nowMs;
  }

  /** Pods that clients can be on and that are to stay. */
  get serving(): SimPod[] {
    return this.pods.filter(({ ready, deleting }) => ready && !deleting);
  }

  /** Everything that is connected, or wants to be. */
  get clients(): number {
    return this.connections + this.#seekers.reduce((sum, { from }) => sum + (from === undefined ? 1 : 0), 0);
  }

  get connections(): number {
    return this.pods.reduce((sum, { connections }) => sum + connections, 0);
  }

  /** The fullest pod divided by the mean. */
  get skew(): number {
    const counts = this.serving.map(({ connections }) => connections);
    const total = counts.reduce((sum, count) => sum + count, 0);
    return total === 0 ? 1 : (Math.max(...counts) * counts.length) / total;
  }

  /** Wants so many pods, as an autoscaler does. New ones start; those that go are picked as a ReplicaSet picks. */
  scaleTo(replicas: number): void {
    this.desired = replicas;
    const active = this.pods.filter(({ deleting }) => !deleting);
    for (let missing = replicas - active.length; missing > 0; missing -= 1) {
      const uid = `${Math.floor(this.#random.next() * 2 ** 32).toString(16)}-${this.#nextIndex}`;
      this.pods.push(new SimPod(this.#nextIndex, uid, this.nowMs, this.revision, this.settings.idleCores));
      this.#nextIndex += 1;
    }
    this.#firstPods ??= replicas;
    const views = active.map((pod) => ({
      pod,
      uid: pod.uid,
      ready: pod.ready,
      deletionCost: pod.deletionCost ?? 0,
      onSameNode: 1,
      readyAtMs: pod.readyAtMs,
      createdAtMs: pod.createdAtMs,
    }));
    for (const { pod } of pickForRemoval(views, active.length - replicas, this.nowMs)) this.remove(pod);
  }

  /** Begins to remove one pod. */
  remove(pod: SimPod): void {
    pod.deletingAtMs ??= this.nowMs;
  }

  /** A pod dies without a word, and one comes in its place. */
  kill(pod: SimPod): void {
    this.#drop(pod, pod.connections, true);
    this.#end(pod);
    if (!pod.deleting) this.scaleTo(this.desired);
  }

  /** Clients come. */
  arrive(count: number, coresEach = this.settings.coresPerConnection): void {
    for (let n = 0; n < count; n += 1)
      this.#connect({
        from: undefined,
        hash: this.#random.next(),
        cores: coresEach,
        giveUpAtMs: Number.POSITIVE_INFINITY,
        nextAtMs: this.nowMs,
        tries: 0,
      });
  }

  /** Clients go, wherever they are. */
  depart(count: number): void {
    let [left, total] = [Math.min(count, this.connections), this.connections];
    for (const pod of this.pods) {
      const going =
        total === 0 ? 0 : Math.min(pod.connections, this.#random.binomial(left, pod.connections / total));
      total -= pod.connections;
      left -= going;
      this.#leave(pod, going);
    }
    for (const pod of this.pods) {
      const going = Math.min(left, pod.connections);
      left -= going;
      this.#leave(pod, going);
    }
  }

  /** A share of all clients goes. */
  churn(chance: number): number {
    let gone = 0;
    for (const pod of this.pods) {
      const going = this.#random.binomial(pod.connections, chance);
      this.#leave(pod, going);
      gone += going;
    }
    return gone;
  }

  /** One second passes. */
  step(): void {
    this.nowMs += 1000;
    for (const pod of this.pods) {
      const times = this.nowMs < pod.burst.untilMs ? pod.burst.times : 1;
      pod.cpuSeconds += pod.idleCores + pod.cores * times;
      pod.young.unshift(0);
      if (pod.young.length > YOUNG_SECONDS) pod.young.length = YOUNG_SECONDS;
      this.#live(pod);
    }
    this.pods = this.pods.filter(({ gone }) => !gone);
    const due = this.#seekers;
    this.#seekers = [];
    for (const seeker of due) {
      if (seeker.nextAtMs > this.nowMs) this.#seekers.push(seeker);
      else if (seeker.from === undefined) this.#connect(seeker);
      else this.#move(seeker, seeker.from);
    }
    for (const pod of this.pods) if (pod.ceiling !== undefined) this.#shed(pod, pod.ceiling);
  }

  /** What the operator sees. */
  observe(hpa?: Hpa): Observation {
    const { graceSeconds, preStopSeconds } = this.settings;
    return {
      workload: {
        kind: 'Deployment',
        namespace: 'default',
        name: 'gateway',
        desired: this.desired,
        actual: this.pods.length,
        rolling: this.rolling,
        graceSeconds,
        preStopSeconds,
      },
      hpa,
      bus: this.busUp ? 'up' : 'down',
      rivals: [],
      metricsApi: undefined,
      pods: this.pods.map((pod) => this.#observePod(pod)),
    };
  }

  /** Does what the operator decided. */
  apply({ ceilings, lifts, deletionCosts }: Orders): void {
    const byUid = new Map(this.pods.map((pod) => [pod.uid, pod]));
    for (const { uid, ceiling } of ceilings) {
      const pod = byUid.get(uid);
      if (pod !== undefined) pod.ceiling = { ...ceiling, expiresAtMs: this.nowMs + ceiling.expiresAfterMs };
    }
    for (const { uid } of lifts) {
      const pod = byUid.get(uid);
      if (pod !== undefined) pod.ceiling = undefined;
    }
    for (const { uid, cost } of deletionCosts) {
      const pod = byUid.get(uid);
      if (pod !== undefined) pod.deletionCost = cost;
    }
  }

  #observePod(pod: SimPod): Pod {
    const { name, uid, ready, deleting, createdAtMs, deletionCost } = pod;
    const shared = { name, uid, ready, deleting, createdAtMs, deletionCost };
    if (this.nowMs < pod.silentUntilMs) {
      return {
        ...shared,
        heard: { known: false, sinceMs: pod.silentSinceMs, fault: 'unreachable', last: pod.last },
      };
    }
    pod.last = this.#answerOf(pod);
    return { ...shared, heard: { known: true, answer: pod.last } };
  }

  #answerOf(pod: SimPod): Answer {
    const { connections, accepted, asked, moved, stayed, outstanding, ceiling, createdAtMs, cpuSeconds } =
      pod;
    const expiresInMs = (ceiling?.expiresAtMs ?? 0) - this.nowMs;
    return {
      atMs: this.nowMs,
      connections,
      maxConnections: this.settings.maxConnections,
      phase: this.#isDraining(pod) ? 'draining' : pod.ready ? 'serving' : 'starting',
      startedAtMs: createdAtMs,
      accepted,
      refused: 0,
      refusedMoving: pod.refusedMoving,
      deliveries: undefined,
      cpuSeconds,
      movable: this.#movable(pod, ceiling?.minAgeSeconds ?? 30),
      immovable: connections - Math.floor(connections * this.settings.movableShare),
      drainSeconds: this.settings.drainSeconds,
      ceiling:
        ceiling === undefined || expiresInMs <= 0 ? null : { connections: ceiling.connections, expiresInMs },
      shed: { asked, moved, stayed, outstanding },
    };
  }

  // ── Pods ────────────────────────────────────────────────────────────────────────────────────────────────

  #live(pod: SimPod): void {
    const { startSeconds, registrationSeconds, preStopSeconds, drainSeconds, graceSeconds } = this.settings;
    if (!pod.ready && !pod.deleting && this.nowMs - pod.createdAtMs >= startSeconds * 1000) {
      pod.ready = true;
      pod.readyAtMs = this.nowMs;
      const isFirst = pod.index < (this.#firstPods ?? 0);
      pod.registeredAtMs = this.nowMs + (isFirst ? 0 : registrationSeconds * 1000);
    }
    if (pod.deletingAtMs === undefined) return;
    pod.ceiling = this.#isDraining(pod) ? undefined : pod.ceiling;
    const seconds = (this.nowMs - pod.deletingAtMs) / 1000;
    if (seconds >= graceSeconds) {
      this.#drop(pod, pod.connections, true);
    } else if (seconds >= preStopSeconds) {
      pod.drainFrom ??= pod.connections;
      const share = Math.min(1, (seconds - preStopSeconds + 1) / Math.max(1, drainSeconds * DRAIN_SPREAD));
      const keep = Math.floor(pod.drainFrom * (1 - share));
      this.#drop(pod, Math.max(0, pod.connections - keep), false);
    }
    if (seconds >= graceSeconds || (seconds >= preStopSeconds && pod.connections === 0)) this.#end(pod);
  }

  #isDraining({ deletingAtMs }: SimPod): boolean {
    return deletingAtMs !== undefined && this.nowMs - deletingAtMs >= this.settings.preStopSeconds * 1000;
  }

  #end(pod: SimPod): void {
    pod.gone = true;
    this.pods = this.pods.filter((other) => other !== pod);
    this.#seekers = this.#seekers.filter(({ from }) => from !== pod);
  }

  /** Connections end, and their clients come back. */
  #drop(pod: SimPod, count: number, killed: boolean): void {
    const each = pod.connections === 0 ? 0 : pod.cores / pod.connections;
    this.#leave(pod, count);
    this.counts.dropped += count;
    if (killed) this.counts.killed += count;
    for (let n = 0; n < count; n += 1) {
      const delayMs = this.#random.next() * (killed ? 5000 : 2000);
      this.#seekers.push({
        from: undefined,
        hash: this.#random.next(),
        cores: each,
        giveUpAtMs: Number.POSITIVE_INFINITY,
        nextAtMs: this.nowMs + delayMs,
        tries: 0,
      });
    }
  }

  // ── Clients ─────────────────────────────────────────────────────────────────────────────────────────────

  #targets(): SimPod[] {
    return this.pods.filter(
      ({ ready, deleting, registeredAtMs }) => ready && !deleting && registeredAtMs <= this.nowMs,
    );
  }

  #pickFor(caller: Caller<SimPod>): SimPod | undefined {
    const targets = this.#targets();
    return targets.length === 0 ? undefined : this.#pick(targets, caller);
  }

  #connect(seeker: Seeker): void {
    const pod = this.#pickFor(seeker);
    if (pod !== undefined && pod.connections < this.settings.maxConnections) {
      this.#admit(pod, seeker.cores);
      return;
    }
    this.counts.refused += 1;
    const backoffMs = Math.min(20_000, 500 * 2 ** seeker.tries) * (0.5 + this.#random.next());
    this.#seekers.push({ ...seeker, tries: seeker.tries + 1, nextAtMs: this.nowMs + backoffMs });
  }

  #move(seeker: Seeker, from: SimPod): void {
    // It may have left for good meanwhile.
    if (from.outstanding > from.connections || from.deleting) {
      from.outstanding = Math.max(0, from.outstanding - 1);
      return;
    }
    if (this.nowMs >= seeker.giveUpAtMs) {
      from.outstanding -= 1;
      from.stayed += 1;
      this.counts.stayed += 1;
      return;
    }
    this.counts.attempts += 1;
    const pod = this.#pickFor(seeker);
    const { ceiling } = pod ?? {};
    const full =
      ceiling !== undefined &&
      ceiling.expiresAtMs > this.nowMs &&
      (pod?.connections ?? 0) >= ceiling.connections;
    if (pod === undefined || full || pod.connections >= this.settings.maxConnections) {
      if (pod !== undefined) pod.refusedMoving += 1;
      this.#seekers.push({
        ...seeker,
        tries: seeker.tries + 1,
        nextAtMs: this.nowMs + 500 + this.#random.next() * 1000,
      });
      return;
    }
    const cores = from.cores;
    this.#leave(from, 1);
    this.#admit(pod, cores - from.cores);
    from.outstanding -= 1;
    from.moved += 1;
    this.counts.moved += 1;
  }

  #admit(pod: SimPod, cores: number): void {
    pod.connections += 1;
    pod.accepted += 1;
    pod.cores += cores;
    pod.young[0] = (pod.young[0] ?? 0) + 1;
  }

  #leave(pod: SimPod, count: number): void {
    if (count <= 0) return;
    pod.cores = pod.connections === count ? 0 : pod.cores * (1 - this.#loadShare(count, pod.connections));
    const share = count / pod.connections;
    pod.connections -= count;
    for (let age = 0; age < pod.young.length; age += 1) {
      const those = pod.young[age] ?? 0;
      if (those > 0) pod.young[age] = Math.max(0, those - Math.ceil(those * share));
    }
  }

  /** The share of the load that so many connections of a pod have. */
  #loadShare(count: number, connections: number): number {
    const { busyShare } = this.settings;
    if (busyShare === 1) return count / connections;
    const busy = this.#random.binomial(count, busyShare);
    const each = (busy * BUSY_LOAD) / busyShare + ((count - busy) * (1 - BUSY_LOAD)) / (1 - busyShare);
    return Math.min(1, each / connections);
  }

  #movable(pod: SimPod, minAgeSeconds: number): number {
    const seconds = Math.ceil(minAgeSeconds);
    let young = 0;
    for (let age = 0; age < seconds; age += 1) young += pod.young[age] ?? 0;
    const old = Math.max(0, pod.connections - young);
    return Math.max(0, Math.floor(old * this.settings.movableShare) - pod.outstanding);
  }

  #shed(pod: SimPod, ceiling: NonNullable<SimPod['ceiling']>): void {
    if (this.nowMs >= ceiling.expiresAtMs) {
      pod.ceiling = undefined;
      return;
    }
    pod.allowance = Math.min(Math.max(1, ceiling.shedPerSecond), pod.allowance + ceiling.shedPerSecond);
    const tooMany = pod.connections - ceiling.connections - pod.outstanding;
    const count = Math.min(Math.floor(pod.allowance), tooMany, this.#movable(pod, ceiling.minAgeSeconds));
    for (let n = 0; n < count; n += 1) {
      pod.allowance -= 1;
      pod.outstanding += 1;
      pod.asked += 1;
      this.counts.asked += 1;
      const hash = this.#random.next();
      const nextAtMs = this.nowMs + this.#random.next() * 1000;
      this.#seekers.push({
        from: pod,
        hash,
        cores: 0,
        giveUpAtMs: this.nowMs + GIVE_UP_MS,
        nextAtMs,
        tries: 0,
      });
    }
  }
}
