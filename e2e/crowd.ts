// A crowd: very many connections to a release, held by a pod in the cluster, because a tunnel would be too narrow.

import { readFileSync } from 'node:fs';
import { addressOf, eventually } from './cluster.ts';
import { apply } from './programs.ts';
import type { Release } from './release.ts';
import { image } from './settings.ts';
import { call } from './tunnel.ts';

const PORT = 7001;

/** Many connections, whose number can be changed. */
export class Crowd {
  readonly #address: string;

  private constructor(address: string) {
    this.#address = address;
  }

  /** A crowd of nobody, for a release that lets everybody in. */
  static async start(release: Release): Promise<Crowd> {
    const { namespace } = release;
    const source = readFileSync(new URL('crowd.mjs', import.meta.url), 'utf8');
    await apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'crowd', namespace },
      spec: {
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        terminationGracePeriodSeconds: 1,
        containers: [
          {
            name: 'crowd',
            image,
            imagePullPolicy: 'IfNotPresent',
            command: ['/usr/local/bin/node', '--input-type=module', '--eval', source],
            env: [{ name: 'URL', value: release.url() }],
            readinessProbe: { tcpSocket: { port: PORT }, periodSeconds: 1 },
            resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '768Mi' } },
            securityContext: {
              allowPrivilegeEscalation: false,
              capabilities: { drop: ['ALL'] },
              runAsNonRoot: true,
              seccompProfile: { type: 'RuntimeDefault' },
            },
          },
        ],
      },
    });
    return new Crowd(await addressOf(namespace, 'crowd'));
  }

  /** Waits until it is of so many. */
  async be(count: number, seconds = 120): Promise<void> {
    await this.#ask('PUT', `/${count}`);
    await eventually(`${count} connections`, seconds, async () => (await this.open()) === count);
  }

  /** How many connections are open. */
  async open(): Promise<number> {
    return (JSON.parse(await this.#ask('GET', '/')) as { open: number }).open;
  }

  async #ask(method: string, path: string): Promise<string> {
    return (await call(`http://${this.#address}:${PORT}${path}`, { method })).text;
  }
}
