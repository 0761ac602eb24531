// The pods of one workload: who they are by the informer, and what each of them last said.

import type { Kube } from './kube.ts';
import type { PodObject } from './objects.ts';
import type { Heard, Pod } from './observation.ts';
import { type PodAddress, type PodAnswer, PollError, type Poller } from './poll.ts';
import { Watched, type WatchedSettings } from './watched.ts';

/** The annotation by which a ReplicaSet chooses whom to remove first. */
export const DELETION_COST = 'controller.kubernetes.io/pod-deletion-cost';

/** Pods asked at the same time. */
const MAX_CONCURRENT = 32;

/** A pod as the metrics API and the decision need it. */
export interface SeenPod extends Pod {
  readonly heard: Heard;
  readonly labels: Readonly<Record<string, string>>;
  readonly address: PodAddress | undefined;
  /** Whether any of its containers runs: otherwise it holds no connections, and need not be asked. */
  readonly runs: boolean;
  /** The answer before the last, for rates. */
  readonly before: PodAnswer | undefined;
  readonly bus: PodAnswer['bus'];
}

/** What is remembered of a pod from round to round. */
interface PodRecord {
  heard: Heard;
  before: PodAnswer | undefined;
  last: PodAnswer | undefined;
}

/** Knows the pods of a namespace that match a selector, and asks them. */
export class Pods {
  readonly #watched: Watched<PodObject>;
  #records = new Map<string, PodRecord>();

  constructor(settings: Omit<WatchedSettings, 'path'> & { readonly kube: Kube; readonly namespace: string }) {
    const { namespace, ...rest } = settings;
    this.#watched = new Watched<PodObject>({ ...rest, path: `/api/v1/namespaces/${namespace}/pods` }).start();
  }

  get isComplete(): boolean {
    return this.#watched.isComplete;
  }

  stop(): Promise<void> {
    return this.#watched.stop();
  }

  /** Asks all pods that can be asked, and waits for the slowest. */
  async poll(poller: Poller, port: number, token: string | undefined): Promise<void> {
    const objects = this.#watched.items;
    const records = new Map<string, PodRecord>();
    const asked: { address: PodAddress; record: PodRecord }[] = [];
    for (const pod of objects) {
      const { uid } = pod.metadata;
      const record = this.#records.get(uid) ?? {
        heard: { known: false, sinceMs: Date.now(), fault: 'not-asked', last: undefined },
        before: undefined,
        last: undefined,
      };
      records.set(uid, record);
      const address = addressOf(pod, port, token);
      if (address !== undefined && runs(pod)) asked.push({ address, record });
    }
    this.#records = records;
    const next = asked.values();
    const worker = async () => {
      for (const { address, record } of next) await ask(poller, address, record);
    };
    await Promise.all(Array.from({ length: Math.min(MAX_CONCURRENT, asked.length) }, worker));
  }

  /** All pods that are not finished, as they are now, with what they said last. */
  list(port: number, token: string | undefined): SeenPod[] {
    return this.#watched.items
      .filter(({ status }) => status?.phase !== 'Succeeded' && status?.phase !== 'Failed')
      .map((pod) => {
        const { metadata, status } = pod;
        const record = this.#records.get(metadata.uid);
        const cost = Number(metadata.annotations?.[DELETION_COST] ?? Number.NaN);
        return {
          name: metadata.name,
          uid: metadata.uid,
          ready:
            status?.conditions?.some(({ type, status: it }) => type === 'Ready' && it === 'True') ?? false,
          deleting: metadata.deletionTimestamp !== undefined,
          createdAtMs: Date.parse(metadata.creationTimestamp),
          deletionCost: Number.isInteger(cost) ? cost : undefined,
          heard: record?.heard ?? { known: false, sinceMs: Date.now(), fault: 'not-asked', last: undefined },
          labels: metadata.labels ?? {},
          address: addressOf(pod, port, token),
          runs: runs(pod),
          before: record?.before,
          bus: record?.heard.known ? (record.last?.bus ?? 'unknown') : 'unknown',
        };
      });
  }
}

async function ask(poller: Poller, address: PodAddress, record: PodRecord): Promise<void> {
  try {
    const answer = await poller.ask(address);
    record.before = record.last;
    record.last = answer;
    record.heard = { known: true, answer };
  } catch (error) {
    const fault = error instanceof PollError ? error.fault : 'unreachable';
    const nowMs = Date.now();
    // Not later than now, where the clock was set back.
    const sinceMs = record.heard.known ? nowMs : Math.min(nowMs, record.heard.sinceMs);
    record.heard = { known: false, sinceMs, fault, last: record.last };
  }
}

function addressOf({ status }: PodObject, port: number, token: string | undefined): PodAddress | undefined {
  return status?.podIP ? { host: status.podIP, port, token } : undefined;
}

function runs({ status }: PodObject): boolean {
  return status?.containerStatuses?.some(({ state }) => state?.running !== undefined) ?? false;
}
