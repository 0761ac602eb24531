// The tokens that pods ask for on their admin port. One is the operator's own, for pods in its own namespace; for others
// their policy names a Secret beside it. A token never leaves the namespace that it came from.

import { isNotFound, type Kube, KubeError } from './kube.ts';
import type { SecretObject } from './objects.ts';
import type { Policy } from './policy.ts';

/** The key in any such Secret. It is fixed, so that a policy cannot make the operator send out something else. */
const KEY = 'admin-token';

const CACHE_MS = 30_000;

/** Finds the token for the pods of a policy. */
export class Tokens {
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #own: () => string | undefined;
  readonly #read = new Map<string, { readonly token: string | undefined; readonly atMs: number }>();

  /** `own` is asked each time, so that it may change. */
  constructor(kube: Kube, namespace: string, own: () => string | undefined) {
    this.#kube = kube;
    this.#namespace = namespace;
    this.#own = own;
  }

  /** Undefined: there is none, and pods that ask for one refuse. @throws where that cannot be found out. */
  async of({ namespace, spec: { adminTokenSecret } }: Policy): Promise<string | undefined> {
    if (adminTokenSecret === undefined) return namespace === this.#namespace ? this.#own() : undefined;
    const path = `/api/v1/namespaces/${namespace}/secrets/${adminTokenSecret}`;
    const cached = this.#read.get(path);
    if (cached !== undefined && performance.now() - cached.atMs < CACHE_MS) return cached.token;
    const token = await this.#lookUp(path, cached?.token);
    this.#read.set(path, { token, atMs: performance.now() });
    return token;
  }

  /** Forgets what belongs to no policy any more. */
  keepOnly(policies: readonly Policy[]): void {
    const wanted = new Set(
      policies.map(
        ({ namespace, spec }) => `/api/v1/namespaces/${namespace}/secrets/${spec.adminTokenSecret}`,
      ),
    );
    for (const path of this.#read.keys()) if (!wanted.has(path)) this.#read.delete(path);
  }

  async #lookUp(path: string, before: string | undefined): Promise<string | undefined> {
    try {
      const { data = {} } = await this.#kube.get<SecretObject>(path);
      return (
        Buffer.from(data[KEY] ?? '', 'base64')
          .toString()
          .trim() || undefined
      );
    } catch (error) {
      if (isNotFound(error) || (error instanceof KubeError && error.status === 403)) return undefined;
      if (before !== undefined) return before; // the API server is away; pods are not
      throw error;
    }
  }
}
