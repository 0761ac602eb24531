// Who may ask the metrics API: the API server, by the certificate that it shows to the servers behind it.

import type { Kube, KubeObject } from './kube.ts';

/** How the API server can be known. */
export interface FrontProxy {
  /** Certificates of the authority that signs the API server's, as PEM. */
  readonly ca: string;
  /** Names that its certificate may have. None: any. */
  readonly allowedNames: readonly string[];
}

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

const PATH = '/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication';

/** What the cluster says. @throws where it says nothing: then nobody is let in. */
export async function readFrontProxy(kube: Kube): Promise<FrontProxy> {
  const { data = {} } = await kube.get<ConfigMap>(PATH);
  const ca = data['requestheader-client-ca-file'];
  if (!ca) {
    throw new Error(
      'the API server has no aggregation layer: kube-system/extension-apiserver-authentication lacks requestheader-client-ca-file',
    );
  }
  const names: unknown = JSON.parse(data['requestheader-allowed-names'] || '[]');
  return { ca, allowedNames: Array.isArray(names) ? names.filter((name) => typeof name === 'string') : [] };
}
