// The registration of the metrics API at the API server: whether it is ours, who else has a version of the group, and
// which certificate it trusts. Helm owns it; nothing but `caBundle` is ever changed here.

import type { Kube, KubeList, KubeObject } from './kube.ts';
import { METRICS_GROUP } from './metrics-api.ts';

const PATH = '/apis/apiregistration.k8s.io/v1/apiservices';

interface ApiService extends KubeObject {
  readonly spec: {
    readonly group?: string;
    readonly caBundle?: string;
    readonly service?: { readonly namespace?: string; readonly name?: string };
  };
}

/** What is registered for the group. */
export interface Registration {
  /** Ours. Undefined: Helm has not made it, or another release has. */
  readonly own:
    | { readonly name: string; readonly resourceVersion: string; readonly caBundle: string }
    | undefined;
  /** Versions that lead elsewhere, each as `v1beta1 (Service monitoring/prometheus-adapter)`. */
  readonly foreign: readonly string[];
}

/** Looks at every version of the group. */
export async function readRegistration(
  kube: Kube,
  service: { readonly namespace: string; readonly name: string },
): Promise<Registration> {
  const { items } = await kube.get<KubeList<ApiService>>(PATH);
  let own: Registration['own'];
  const foreign: string[] = [];
  for (const { metadata, spec } of items) {
    if (spec.group !== METRICS_GROUP) continue;
    const { namespace = '', name = '' } = spec.service ?? {};
    if (namespace === service.namespace && name === service.name) {
      const { name: own_, resourceVersion } = metadata;
      own = { name: own_, resourceVersion, caBundle: spec.caBundle ?? '' };
    } else {
      foreign.push(`${metadata.name.split('.', 1)[0]} (Service ${namespace}/${name})`);
    }
  }
  return { own, foreign };
}

/** Tells the API server which certificates to trust. */
export async function writeCaBundle(
  kube: Kube,
  { name, resourceVersion }: { readonly name: string; readonly resourceVersion: string },
  caBundle: string,
  signal: AbortSignal,
): Promise<void> {
  const patch = { metadata: { resourceVersion }, spec: { caBundle } };
  await kube.patch(`${PATH}/${name}`, 'merge', patch, { signal });
}
