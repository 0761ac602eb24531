// The cluster: reads and watches what is in it.

import { get } from 'node:https';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import {
  AppsV1Api,
  AutoscalingV2Api,
  BatchV1Api,
  CoreV1Api,
  KubeConfig,
  type KubernetesListObject,
  type KubernetesObject,
  type V1ObjectMeta,
  type V1Pod,
  Watch,
} from '@kubernetes/client-node';
import { until } from '../test/until.ts';
import { kubectl } from './programs.ts';
import { runLabel } from './settings.ts';

const config = new KubeConfig();
try {
  config.loadFromDefault();
} catch {
  // No such file: see below.
}
if (config.getCurrentCluster() === null) {
  // `main.ts` asks kubectl, which says better what is missing.
  config.loadFromClusterAndUser(
    { name: 'none', server: 'http://localhost:8080', skipTLSVerify: true },
    { name: 'none' },
  );
}

export const core = config.makeApiClient(CoreV1Api);
export const apps = config.makeApiClient(AppsV1Api);
export const batch = config.makeApiClient(BatchV1Api);
export const autoscaling = config.makeApiClient(AutoscalingV2Api);

/** How often the cluster is asked while something is waited for. */
const POLL_MS = 250;

/** How much longer anything is waited for than it takes on a machine of two quiet cores: waiting is to end what hangs. */
const PATIENCE = 3;

/** Waits for something in the cluster that takes so many seconds at the most where the machine is not busy. */
export function eventually<T>(what: string, seconds: number, condition: () => T | Promise<T>) {
  return until(condition, { what, timeoutMs: seconds * PATIENCE * 1000, pollIntervalMs: POLL_MS });
}

/** Sees that something holds for a while. @throws as soon as `check` does */
export async function during(seconds: number, check: () => unknown): Promise<void> {
  const endMs = performance.now() + seconds * 1000;
  do {
    await check();
    await delay(POLL_MS);
  } while (performance.now() < endMs);
}

/** Whether a pod is ready, and here to stay. */
export function isReady({ metadata, status }: V1Pod): boolean {
  if (metadata?.deletionTimestamp !== undefined) return false;
  return status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

/** Whether a pod has left: its processes have ended, though the object may stay for some seconds on a busy node. */
export function hasLeft({ type, object: { status } }: Change<V1Pod>): boolean {
  const containers = status?.containerStatuses ?? [];
  return type === 'DELETED' || (containers.length > 0 && containers.every(({ state }) => state?.terminated));
}

/** Waits until a pod that stands alone is ready, and returns its address. */
export async function addressOf(namespace: string, name: string): Promise<string> {
  return eventually(`the pod ${name} to be ready: are all images in the cluster?`, 120, async () => {
    const pod = await core.readNamespacedPod({ name, namespace });
    return isReady(pod) && pod.status?.podIP;
  });
}

/** A change of an object. */
export interface Change<T> {
  readonly type: string;
  readonly object: T;
}

/** Watches objects until it is stopped. `seen` is called for those that are there already, too.
 * Returns what stops it, which throws where changes may have gone unseen. */
export async function watch<T extends KubernetesObject>(
  path: string,
  labelSelector: string,
  seen: (change: Change<T>) => void,
): Promise<() => void> {
  const query = `labelSelector=${encodeURIComponent(labelSelector)}`;
  const list = async () =>
    JSON.parse(await kubectl('get', '--raw', `${path}?${query}`)) as KubernetesListObject<T>;
  /** The version of each object as it was last seen. */
  const versions = new Map<string, string>();
  const note = (change: Change<T>) => {
    const { uid = '', resourceVersion = '' } = change.object.metadata ?? {};
    if (change.type === 'DELETED') versions.delete(uid);
    else versions.set(uid, resourceVersion);
    seen(change);
  };
  const { metadata, items } = await list();
  for (const object of items) note({ type: 'ADDED', object });
  let resourceVersion = metadata?.resourceVersion;
  let isStopped = false;
  let fault: unknown;
  let abort = new AbortController();
  /** Too much has happened since elsewhere for the watch to go on from there. Where all objects are as they were, that
   * is all that has happened. */
  const goOnFromNow = async () => {
    const now = await list();
    const isSame = ({ metadata }: T) => versions.get(metadata?.uid ?? '') === metadata?.resourceVersion;
    if (now.items.length !== versions.size || !now.items.every(isSame)) throw new Error('it missed changes');
    resourceVersion = now.metadata?.resourceVersion;
  };
  const go = async () => {
    if (isStopped) return;
    let isExpired = false;
    abort = await new Watch(config).watch(
      path,
      { labelSelector, resourceVersion },
      (type, object) => {
        if (type === 'ERROR') {
          isExpired = (object as { code?: number }).code === 410;
          if (!isExpired) fault = object;
        } else {
          resourceVersion = (object as T).metadata?.resourceVersion;
          note({ type, object: object as T });
        }
      },
      // It ends when nothing has happened for half a minute, and goes on from where it was.
      () => {
        if (fault !== undefined || isStopped) return;
        const again = async () => {
          if (isExpired) await goOnFromNow();
          await go();
        };
        setTimeout(() => {
          again().catch((error: unknown) => {
            fault = error;
          });
        }, POLL_MS);
      },
    );
  };
  await go();
  return () => {
    isStopped = true;
    abort.abort();
    if (fault !== undefined) throw new Error(`the watch of ${path} has ended`, { cause: fault });
  };
}

/** Reads the log of a container, from its beginning to its end. Returns what ends that earlier. */
export async function followLog(
  namespace: string,
  pod: string,
  container: string,
  said: (line: string) => void,
): Promise<AbortController> {
  const query = new URLSearchParams({ container, follow: 'true' });
  const url = `${config.getCurrentCluster()?.server}/api/v1/namespaces/${namespace}/pods/${pod}/log?${query}`;
  const abort = new AbortController();
  const options = { signal: abort.signal };
  await config.applyToHTTPSOptions(options);
  // Not by the library, where the end of such a stream cannot be caught.
  const request = get(url, options, (response) => {
    createInterface(response)
      .on('line', said)
      .on('error', () => {});
  });
  request.on('error', () => {});
  return abort;
}

/** Deletes everything of a run, and waits until it is gone. */
export async function deleteRun(run: string, tell: (names: readonly string[]) => void): Promise<void> {
  const left = async () => {
    const { items } = await core.listNamespace({ labelSelector: `${runLabel}=${run}` });
    return items.map(({ metadata }) => metadata?.name ?? '');
  };
  const names = await left();
  const { items } = await core.listNamespace();
  const others = items.map(({ metadata }) => metadata?.name ?? '').filter((it) => !names.includes(it));
  // First, and also of namespaces that are gone already: an API that nobody serves any more keeps namespaces from going.
  const objects = await clusterWide((it) => it.startsWith(`${run}-`) && !others.includes(it));
  if (names.length + objects.length === 0) return;
  tell([...objects, ...names]);
  if (objects.length > 0) await kubectl('delete', '--ignore-not-found', ...objects);
  if (names.length === 0) return;
  await kubectl('delete', 'namespace', '--wait=false', '--ignore-not-found', ...names);
  await eventually(`the namespaces ${names.join(', ')} to be gone`, 300, async () => {
    return (await left()).length === 0;
  });
}

/** What helm has made outside of any namespace for releases in such namespaces, as `kind/name`. */
export async function clusterWide(isIn: (namespace: string) => boolean): Promise<readonly string[]> {
  const list = JSON.parse(await getMade(false, '--output', 'json')) as {
    items: { apiVersion: string; kind: string; metadata: V1ObjectMeta }[];
  };
  return list.items
    .filter(({ metadata }) => isIn(metadata.annotations?.['meta.helm.sh/release-namespace'] ?? ''))
    .map(({ apiVersion, kind, metadata }) => {
      const [version, group] = apiVersion.split('/').reverse();
      return `${kind.toLowerCase()}${group ? `.${version}.${group}` : ''}/${metadata.name}`;
    });
}

/** Lists that are no resources of their own, or nobody's in particular. */
const UNCOUNTED = ['events', 'events.events.k8s.io'];

/** Asks for all objects that somebody makes, with or without a namespace: not for what is only read, as measurements are.
 * Other scenarios bring kinds and take them away again, and those who measure start: then it is asked again. */
export async function getMade(isNamespaced: boolean, ...args: readonly string[]): Promise<string> {
  const { answer } = await eventually('all kinds of objects to be listed', 60, async () => {
    const names = await kubectl(
      ...['api-resources', '--verbs=list,delete', `--namespaced=${isNamespaced}`, '--output', 'name'],
    );
    const kinds = names.split('\n').filter((it) => it !== '' && !UNCOUNTED.includes(it));
    return { answer: await kubectl('get', kinds.join(), ...args) };
  });
  return answer;
}
