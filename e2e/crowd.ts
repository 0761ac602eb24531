// A crowd: very many bare connections to a release, held by a pod in the cluster.

import { eventually } from './cluster.ts';
import { type Ask, runInside } from './inside.ts';
import type { Release } from './release.ts';

/** Many connections, whose number can be changed. */
export class Crowd {
  readonly #ask: Ask;

  private constructor(ask: Ask) {
    this.#ask = ask;
  }

  /** A crowd of nobody, for a release that lets everybody in. */
  static async start(release: Release): Promise<Crowd> {
    return new Crowd(await runInside(release.namespace, 'crowd.mjs', { URL: release.url() }));
  }

  /** Makes it one of so many, without waiting for them. */
  async want(count: number): Promise<void> {
    await this.#ask('PUT', `/${count}`);
  }

  /** Waits until it is of so many. */
  async be(count: number, seconds = 120): Promise<void> {
    await this.want(count);
    await eventually(`${count} connections`, seconds, async () => (await this.open()) === count);
  }

  /** How many connections are open. */
  async open(): Promise<number> {
    return (JSON.parse(await this.#ask('GET', '/')) as { open: number }).open;
  }
}
