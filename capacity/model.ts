// The capacity model: from what an application asks for to pods, Redis servers and what breaks first. Pure.

import { choices, constants } from './constants.ts';

/** What an application asks for, at its busiest. */
export interface Demand {
  /** Connections at the same time. */
  readonly connections: number;
  /** Messages that are published in a second, by all together. */
  readonly publishesPerSecond: number;
  /** Connections that get a message, on average. */
  readonly recipients: number;
  /** Bytes of a message's payload, on average. */
  readonly messageBytes: number;
  /** Share of the messages that go to durable channels, from 0 to 1. */
  readonly durableShare: number;
  /** Whether all recipients of a message may be on any pod, as behind every load balancer (the default), or a number of
   * pods that is given. */
  readonly pods?: number;
}

/** What may run out. */
export type Limit = 'connections' | 'pods' | 'redis' | 'redis network';

/** What it takes. */
export interface Plan {
  readonly pods: number;
  /** On each pod when all is well. */
  readonly connectionsPerPod: number;
  /** What the pod is told to refuse beyond. */
  readonly maxConnections: number;
  /** Share of what fills the pod's thread, when all is well and with one pod missing. */
  readonly podLoad: number;
  readonly podLoadOneLost: number;
  /** What that shows as: more, because a thread that is not full works less thriftily. */
  readonly podCpuCores: number;
  readonly podMemoryMib: number;
  readonly podMibitPerSecond: number;
  /** Redis servers that share the messages: 1, or the masters of a Cluster. */
  readonly redisMasters: number;
  /** Share of what fills a master's thread, and the CPU that shows. */
  readonly redisLoadPerMaster: number;
  readonly redisCpuCoresPerMaster: number;
  readonly redisMibitPerSecond: number;
  readonly deliveriesPerSecond: number;
  /** Pods that each message reaches, on average. */
  readonly podsPerMessage: number;
  /** How long a pod takes to write one message to all its recipients there: the last one waits so long. */
  readonly sweepMs: number;
  /** How long all clients take to be back when all connections are lost at once, as far as CPU goes. */
  readonly returnSeconds: number;
  /** What is nearest to its limit, nearest first, as a share of the limit. */
  readonly nearest: readonly { readonly limit: Limit; readonly share: number }[];
}

/** Which cost of a thread: `value` where it has little to do, `busy` where it is full. */
type Cost = 'value' | 'busy';

const MAX_PODS = 5000;
const MIN_PODS = 2;
const MICRO = 1e-6;
const MILLI = 1e-3;
const BITS_PER_MIBIT = 1_048_576;
/** The chart's default for what may wait for slow readers. */
const BACKLOG_MIB = 128;
const KIB_PER_MIB = 1024;

/** Finds the fewest pods, two at least, that carry the demand with one of them missing.
 * @throws where not even the most pods would: a message that reaches every pod costs each of them. */
export function planFor(demand: Demand): Plan {
  if (demand.pods !== undefined) return planWith(demand, demand.pods);
  for (let pods = MIN_PODS; pods <= MAX_PODS; pods++) {
    const plan = planWith(demand, pods);
    if (plan.nearest.every(({ limit, share }) => limit.startsWith('redis') || share <= 1)) return plan;
  }
  throw new Error(
    `no number of pods carries this: every message that reaches all pods costs each of them. Split the audience into several releases, or send fewer messages to all.`,
  );
}

/** What so many pods would have to do. */
export function planWith(demand: Demand, pods: number): Plan {
  const { connections, publishesPerSecond, recipients, messageBytes, durableShare } = demand;
  const podWork = (count: number, cost: Cost) => {
    const busy =
      publishesPerSecond * constants.publishCpu[cost] +
      publishesPerSecond * podsReached(count, recipients) * constants.arrivalCpu[cost] +
      publishesPerSecond * recipients * constants.deliveryCpu[cost] +
      connections * constants.connectionCpu.value;
    return (busy / count) * MICRO + constants.baseCpu.value * MILLI;
  };
  const left = Math.max(1, pods - 1);
  const podsPerMessage = podsReached(pods, recipients);
  const connectionsPerPod = Math.ceil(connections / pods);
  const maxConnections = roundUp(
    Math.max(connectionsPerPod / choices.targetShare.value, connections / left),
    1000,
  );
  const redisWork = (cost: Cost) =>
    publishesPerSecond *
    (constants.redisPublishCpu[cost] +
      podsPerMessage * constants.redisCopyCpu[cost] +
      durableShare * constants.redisDurableCpu[cost]) *
    MICRO;
  const frame = (messageBytes + constants.frameBytes.value) * 8;
  const envelope = (messageBytes + constants.envelopeBytes.value) * 8;
  const redisMibitPerSecond = (publishesPerSecond * (1 + podsPerMessage) * envelope) / BITS_PER_MIBIT;
  const redisMasters = mastersFor(
    Math.max(redisWork('busy') / choices.redisLoad.value, redisMibitPerSecond / choices.redisMibit.value),
  );
  const redisLoadPerMaster = redisWork('busy') / redisMasters;
  const podLoad = podWork(pods, 'busy');
  const podLoadOneLost = podWork(left, 'busy');
  const deliveriesPerSecond = publishesPerSecond * recipients;
  const nearest = [
    { limit: 'connections' as const, share: maxConnections / choices.maxConnections.value },
    {
      limit: 'pods' as const,
      share: Math.max(podLoad / choices.podLoad.value, podLoadOneLost / choices.podLoadOneLost.value),
    },
    { limit: 'redis' as const, share: redisLoadPerMaster / choices.redisLoad.value },
    {
      limit: 'redis network' as const,
      share: redisMibitPerSecond / redisMasters / choices.redisMibit.value,
    },
  ];
  return {
    pods,
    connectionsPerPod,
    maxConnections,
    podLoad,
    podLoadOneLost,
    podCpuCores: threadCores(podWork(pods, 'value'), podLoad),
    podMemoryMib: Math.ceil(
      constants.baseMemory.value +
        BACKLOG_MIB +
        (maxConnections * (constants.connectionMemory.value + constants.returnMemory.value)) / KIB_PER_MIB,
    ),
    podMibitPerSecond:
      (deliveriesPerSecond * frame + publishesPerSecond * podsPerMessage * envelope) / pods / BITS_PER_MIBIT,
    redisMasters,
    redisLoadPerMaster,
    redisCpuCoresPerMaster: threadCores(redisWork('value') / redisMasters, redisLoadPerMaster),
    redisMibitPerSecond,
    deliveriesPerSecond,
    podsPerMessage,
    sweepMs: (recipients / Math.max(1, podsPerMessage)) * constants.deliveryCpu.value * MILLI,
    returnSeconds: (connectionsPerPod * constants.acceptCpu.value * MICRO) / (1 - Math.min(0.9, podLoad)),
    nearest: nearest.toSorted((a, b) => b.share - a.share),
  };
}

/** CPU that a thread uses for a second's work, from what the work costs where every message has a turn of the event loop
 * to itself, and where many share one. A message that finds the thread at rest starts a turn, and one that comes while
 * it is at work joins the next; so the busier it is, the less a message costs. */
export function threadCores(quietCores: number, busyCores: number): number {
  return quietCores / (1 + Math.max(0, quietCores - busyCores));
}

/** How many of the pods have one of the recipients, when a load balancer has spread them at random. */
export function podsReached(pods: number, recipients: number): number {
  return pods * (1 - (1 - 1 / pods) ** recipients);
}

/** One server, or a Cluster of three and more, for so many times what one is given. */
function mastersFor(servers: number): number {
  return servers <= 1 ? 1 : Math.max(3, Math.ceil(servers));
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
