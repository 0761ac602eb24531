// A program of a scenario that runs inside the cluster, because a tunnel would be too narrow for what it does.

import { readFileSync } from 'node:fs';
import { addressOf } from './cluster.ts';
import { apply } from './programs.ts';
import { image } from './settings.ts';
import { call } from './tunnel.ts';

const PORT = 7001;

/** Asks the program over HTTP, and returns what it answers. */
export type Ask = (method: string, path: string) => Promise<string>;

/** Runs the file of this folder in a pod of the same name, with Node and the sources of the image. */
export async function runInside(namespace: string, file: string, env: Record<string, string>): Promise<Ask> {
  const name = file.replace('.mjs', '');
  const source = readFileSync(new URL(file, import.meta.url), 'utf8');
  await apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name,
          image,
          imagePullPolicy: 'IfNotPresent',
          command: ['/usr/local/bin/node', '--input-type=module', '--eval', source],
          env: Object.entries(env).map(([key, value]) => ({ name: key, value })),
          readinessProbe: { tcpSocket: { port: PORT }, periodSeconds: 1 },
          resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '1Gi' } },
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
  const address = await addressOf(namespace, name);
  return async (method, path) => (await call(`http://${address}:${PORT}${path}`, { method })).text;
}
