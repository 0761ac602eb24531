// A load balancer that cuts connections which are idle for half a minute: pings keep silent ones open, and the chart
// refuses an interval that would not.

import { expect, test } from 'vitest';
import { until } from '../test/until.ts';
import { TestClient } from '../test/websocket.ts';
import { addressOf, during } from './cluster.ts';
import { apply } from './programs.ts';
import { quickValues, Release } from './release.ts';
import { type Space, useSpace } from './space.ts';
import { agent } from './tunnel.ts';

const values = { ...quickValues, pingIntervalSeconds: 8, pongTimeoutSeconds: 8, idleTimeoutSeconds: 30 };

let release: Release;
let proxy: string;

useSpace('idle', async (space) => {
  release = await Release.install(space, { values });
  await release.pods(2);
  proxy = await startProxy(space);
});

test('a silent connection through it holds for 75 seconds, because it is pinged', async () => {
  const through = async (port: number, protocol: string) =>
    TestClient.open(`ws://${proxy}:${port}/ws`, {
      protocols: [protocol, `bearer.${await release.token('ann')}`],
      agent,
    });
  const patient = [await through(8000, 'tidegate.plain'), await through(8000, 'tidegate.v1')];
  // The same proxy with less patience than there is between two pings: it does cut.
  const hasty = await through(8001, 'tidegate.plain');
  await until(() => hasty.ended !== undefined, {
    what: 'a proxy with a shorter time-out to cut',
  });
  await during(75, () => {
    expect(patient.map(({ ended }) => ended)).toEqual([undefined, undefined]);
  });
  await Promise.all(patient.map((it) => it.leave()));
});

test('an interval that would be too long for it is refused, with what to change', async () => {
  await expect(release.upgrade({ ...values, pingIntervalSeconds: 15 })).rejects.toThrow(
    /pingIntervalSeconds is 15.*set pingIntervalSeconds to less than half, 14 at the most/s,
  );
});

/** An haproxy before the release: on port 8000 it cuts after thirty idle seconds, on port 8001 after one.
 * Returns its address. */
async function startProxy({ namespace }: Space): Promise<string> {
  const listen = (port: number, seconds: number) => `
listen idle-${seconds}
  bind :${port}
  timeout tunnel ${seconds}s
  server gateways tidegate.${namespace}.svc:8080`;
  const config = `
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
${listen(8000, 30)}
${listen(8001, 1)}
`;
  await apply(
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'proxy', namespace }, data: { config } },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'proxy', namespace },
      spec: {
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: 1,
        containers: [
          {
            name: 'haproxy',
            image: 'docker.io/library/haproxy:3.0',
            imagePullPolicy: 'IfNotPresent',
            command: ['haproxy', '-f', '/etc/proxy/config'],
            readinessProbe: { tcpSocket: { port: 8000 }, periodSeconds: 1 },
            resources: { requests: { cpu: '10m', memory: '32Mi' }, limits: { memory: '256Mi' } },
            securityContext: {
              allowPrivilegeEscalation: false,
              capabilities: { drop: ['ALL'] },
              runAsNonRoot: true,
              runAsUser: 99,
              seccompProfile: { type: 'RuntimeDefault' },
            },
            volumeMounts: [{ name: 'config', mountPath: '/etc/proxy' }],
          },
        ],
        volumes: [{ name: 'config', configMap: { name: 'proxy' } }],
      },
    },
  );
  return addressOf(namespace, 'proxy');
}
