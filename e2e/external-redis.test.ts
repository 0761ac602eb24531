// A Redis outside of the chart, over TLS, with an ACL user: the example in k8s/examples/external-redis-tls, with the
// rights that docs/operations.md gives that user.

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { core, eventually, isReady } from './cluster.ts';
import { apply, exists, run } from './programs.ts';
import { quickValues, Release, type Values } from './release.ts';
import { type Space, useSpace } from './space.ts';

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const example = parse(read('k8s/examples/external-redis-tls/values.yaml')) as {
  redis: Values;
  externalRedis: { existingSecret: string; existingSecretKey: string; caSecret: string; caKey: string };
};
const password = randomBytes(24).toString('hex');
const hasOpenssl = await exists('openssl', 'version');

let release: Release;

useSpace('external-redis', async (space) => {
  if (!hasOpenssl) return;
  await startRedis(space);
  const { redis: _, ...quick } = quickValues;
  const host = `redis.${space.namespace}.svc`;
  release = await Release.install(space, {
    values: {
      ...quick,
      ...example,
      externalRedis: { ...example.externalRedis, url: `rediss://${host}:6379` },
    },
  });
});

test.skipIf(!hasOpenssl)(
  'the example for a Redis over TLS works, with the documented rights (needs openssl)',
  async () => {
    await release.pods(2);
    const said = await release.helm(['test', 'tidegate', '--logs']);
    expect(said).toContain('ok       resumes a durable channel where it left it');
  },
);

/** A Redis that speaks nothing but TLS, with the certificates and the user that the example is about. */
async function startRedis({ namespace }: Space): Promise<void> {
  const { existingSecret, existingSecretKey, caSecret, caKey } = example.externalRedis;
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-certificates-'));
  try {
    const openssl = (...args: string[]) => run('openssl', args, { cwd: folder });
    const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    await openssl('req', '-x509', ...fresh, '-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=CA');
    await openssl(
      ...['req', '-x509', ...fresh, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-subj', '/CN=redis'],
      ...['-keyout', 'redis.key', '-out', 'redis.crt'],
      ...['-addext', `subjectAltName=DNS:redis.${namespace}.svc`],
    );
    const file = (name: string) => readFileSync(join(folder, name), 'utf8');
    await apply(
      secret(namespace, existingSecret, { [existingSecretKey]: password }),
      secret(namespace, caSecret, { [caKey]: file('ca.crt') }),
      secret(namespace, 'redis-server', {
        'redis.key': file('redis.key'),
        'redis.crt': file('redis.crt'),
        'users.acl': `user default off\n${documentedUser()}\n`,
      }),
      redisService(namespace),
      redisPod(namespace),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
  await eventually('Redis to be ready', 120, async () =>
    isReady(await core.readNamespacedPod({ name: 'redis', namespace })),
  );
}

/** The user of docs/operations.md, in one line, with the rights that Redis 7.2 and later have beyond it. */
function documentedUser(): string {
  const [, user] = /```\n(user tidegate on >PASSWORD[\s\S]*?)```/.exec(read('docs/operations.md')) ?? [];
  if (user === undefined) throw new Error('docs/operations.md has no ACL user any more');
  return `${user.replace('PASSWORD', password).replace(/\s+/g, ' ').trim()} +client|setinfo`;
}

function secret(namespace: string, name: string, stringData: Readonly<Record<string, string>>): object {
  return { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace }, stringData };
}

function redisService(namespace: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'redis', namespace },
    spec: { selector: { app: 'redis' }, ports: [{ port: 6379 }] },
  };
}

function redisPod(namespace: string): object {
  const folder = '/run/secrets/redis';
  const args = ['--port', '0', '--tls-port', '6379', '--tls-auth-clients', 'no', '--save', ''];
  args.push('--tls-cert-file', `${folder}/redis.crt`, '--tls-key-file', `${folder}/redis.key`);
  args.push('--aclfile', `${folder}/users.acl`, '--appendonly', 'yes', '--dir', '/data');
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'redis', namespace, labels: { app: 'redis' } },
    spec: {
      automountServiceAccountToken: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 999,
        fsGroup: 999,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'redis',
          image: 'docker.io/library/redis:8',
          imagePullPolicy: 'IfNotPresent',
          command: ['redis-server', ...args],
          readinessProbe: { tcpSocket: { port: 6379 }, periodSeconds: 1 },
          resources: { requests: { cpu: '10m', memory: '32Mi' } },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
          volumeMounts: [
            { name: 'server', mountPath: folder, readOnly: true },
            { name: 'data', mountPath: '/data' },
          ],
        },
      ],
      volumes: [
        { name: 'server', secret: { secretName: 'redis-server', defaultMode: 0o440 } },
        { name: 'data', emptyDir: {} },
      ],
    },
  };
}
