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
export type Limit = 'connections' | 'pod cpu' | 'redis cpu';

/** What it takes. */
export interface Plan {
  readonly pods: number;
  /** On each pod when all is well. */
  readonly connectionsPerPod: number;
  /** What the pod is told to refuse beyond. */
  readonly maxConnections: number;
  readonly podCpuCores: number;
  readonly podCpuCoresOneLost: number;
  readonly podMemoryMib: number;
  readonly podMibitPerSecond: number;
  /** Redis servers that share the messages: 1, or the masters of a Cluster. */
  readonly redisMasters: number;
  readonly redisCpuCoresPerMaster: number;
  readonly redisMibitPerSecond: number;
  readonly deliveriesPerSecond: number;
  /** Pods that each message reaches, on average. */
  readonly podsPerMessage: number;
  /** How long all clients take to be back when all connections are lost at once, as far as CPU goes. */
  readonly returnSeconds: number;
  /** What is nearest to its limit, nearest first, as a share of the limit. */
  readonly nearest: readonly { readonly limit: Limit; readonly share: number }[];
}

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
    if (plan.nearest.every(({ limit, share }) => limit === 'redis cpu' || share <= 1)) return plan;
  }
  throw new Error(
    `no number of pods carries this: every message that reaches all pods costs each of them. Split the audience into several releases, or send fewer messages to all.`,
  );
}

/** What so many pods would have to do. */
export function planWith(demand: Demand, pods: number): Plan {
  const { connections, publishesPerSecond, recipients, messageBytes, durableShare } = demand;
  const cpuCoresOn = (count: number) => {
    const busy =
      publishesPerSecond * constants.publishCpu.value +
      publishesPerSecond * podsReached(count, recipients) * constants.arrivalCpu.value +
      publishesPerSecond * recipients * constants.deliveryCpu.value +
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
  const perMessage =
    constants.redisPublishCpu.value +
    podsPerMessage * constants.redisCopyCpu.value +
    durableShare * constants.redisDurableCpu.value;
  const redisCpu = publishesPerSecond * perMessage * MICRO;
  const redisMasters = mastersFor(redisCpu);
  const podCpuCores = cpuCoresOn(pods);
  const podCpuCoresOneLost = cpuCoresOn(left);
  const deliveriesPerSecond = publishesPerSecond * recipients;
  const frame = (messageBytes + constants.frameBytes.value) * 8;
  const envelope = (messageBytes + constants.envelopeBytes.value) * 8;
  const nearest = [
    { limit: 'connections' as const, share: maxConnections / choices.maxConnections.value },
    {
      limit: 'pod cpu' as const,
      share: Math.max(podCpuCores / choices.podCpu.value, podCpuCoresOneLost / choices.podCpuOneLost.value),
    },
    { limit: 'redis cpu' as const, share: redisCpu / redisMasters / choices.redisCpu.value },
  ];
  return {
    pods,
    connectionsPerPod,
    maxConnections,
    podCpuCores,
    podCpuCoresOneLost,
    podMemoryMib: Math.ceil(
      constants.baseMemory.value +
        BACKLOG_MIB +
        (maxConnections * (constants.connectionMemory.value + constants.returnMemory.value)) / KIB_PER_MIB,
    ),
    podMibitPerSecond:
      (deliveriesPerSecond * frame + publishesPerSecond * podsPerMessage * envelope) / pods / BITS_PER_MIBIT,
    redisMasters,
    redisCpuCoresPerMaster: redisCpu / redisMasters,
    redisMibitPerSecond: (publishesPerSecond * (1 + podsPerMessage) * envelope) / BITS_PER_MIBIT,
    deliveriesPerSecond,
    podsPerMessage,
    returnSeconds: (connectionsPerPod * constants.acceptCpu.value * MICRO) / (1 - Math.min(0.9, podCpuCores)),
    nearest: nearest.toSorted((a, b) => b.share - a.share),
  };
}

/** How many of the pods have one of the recipients, when a load balancer has spread them at random. */
export function podsReached(pods: number, recipients: number): number {
  return pods * (1 - (1 - 1 / pods) ** recipients);
}

/** One server, or a Cluster of three and more. */
function mastersFor(cpuCores: number): number {
  const servers = Math.ceil(cpuCores / choices.redisCpu.value);
  return servers <= 1 ? 1 : Math.max(3, servers);
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
