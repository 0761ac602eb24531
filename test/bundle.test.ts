// The bundle that the image runs, with everything on, and the program that `helm test` runs against it.

import { type ChildProcess, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { bundle } from '../scripts/bundle.ts';
import { KubeApi } from './kube-api.ts';
import { OtlpReceiver } from './otlp.ts';
import { startRedis } from './redis.ts';
import { until } from './until.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
// As in the image: dist/ beside demo/ and src/, of which the demo page is made.
const app = mkdtempSync(join(tmpdir(), 'tidegate-bundle-'));
for (const folder of ['demo', 'src']) symlinkSync(join(root, folder), join(app, folder));
await bundle(join(app, 'dist'));

const secret = 'a secret of more than thirty-two bytes';
const channels = {
  namespaces: {
    doc: { subscribe: 'claim', publish: 'api', durable: { messages: 100, ageSeconds: 60 } },
  },
};
writeFileSync(join(app, 'api-keys'), '# a comment\nkey-of-the-test\n');
writeFileSync(join(app, 'jwt-secret'), `${secret}\n`);
writeFileSync(join(app, 'channels.yaml'), JSON.stringify(channels));

const redis = await startRedis();
const children = new Set<ChildProcess>();

/** Starts a program of the bundle with just these settings. */
function start(program: string, env: Record<string, string>) {
  const child = spawn(process.execPath, [join(app, 'dist', `${program}.js`)], {
    cwd: '/',
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  return { child, output: () => output };
}

async function startGateway(env: Record<string, string>) {
  const { child, output } = start('gateway', {
    HOST: '127.0.0.1',
    PORT: '0',
    API_PORT: '0',
    ADMIN_PORT: '0',
    DRAIN_SECONDS: '0',
    ...env,
  });
  const line = await until(
    () => {
      if (child.exitCode !== null) throw new Error(output());
      return output()
        .split('\n')
        .find((it) => it.includes('"msg":"ready"'));
    },
    { what: 'the bundled gateway to be ready' },
  );
  const { ports } = JSON.parse(line) as { ports: { ws: number; api?: number; admin: number } };
  const urls = {
    URL: `ws://127.0.0.1:${ports.ws}`,
    ...(ports.api && { API_URL: `http://127.0.0.1:${ports.api}` }),
  };
  return { child, ports, urls };
}

async function smoke(env: Record<string, string>): Promise<{ code: number | null; output: string }> {
  const { child, output } = start('smoke', env);
  const [code] = await once(child, 'close');
  return { code, output: output() };
}

const keys = { API_KEYS_FILE: join(app, 'api-keys') };
const tokens = { JWT_SECRET_FILE: join(app, 'jwt-secret'), JWT_AUDIENCE: 'chat', JWT_ISSUER: 'tests' };
const whole = await startGateway({
  ...keys,
  ...tokens,
  REDIS_URL: redis.url,
  CHANNELS_FILE: join(app, 'channels.yaml'),
  DEMO: 'true',
});

afterAll(async () => {
  for (const child of children) if (child.exitCode === null) child.kill('SIGKILL');
  await redis.stop();
  rmSync(app, { recursive: true });
});

test('a bundled gateway with Redis, tokens, channels and the API does all that the smoke test tries', async () => {
  expect(await smoke({ ...keys, ...tokens, ...whole.urls, DURABLE_NAMESPACE: 'doc' })).toEqual({
    code: 0,
    output: [
      'ok       connects',
      'ok       sends and receives',
      'ok       receives what the HTTP API publishes',
      'ok       resumes a durable channel where it left it\n',
    ].join('\n'),
  });
});

test('a bundled gateway sends traces', async () => {
  const receiver = await OtlpReceiver.start();
  const traced = await startGateway({ AUTH: 'anonymous', ...receiver.settings });
  expect(await smoke({ AUTH: 'anonymous', ...traced.urls })).toMatchObject({ code: 0 });
  await until(() => receiver.spans.some(({ name }) => name.startsWith('send ')), { what: 'a span' });
  traced.child.kill('SIGTERM');
  await once(traced.child, 'exit');
  expect(traced.child.exitCode).toBe(0);
  await receiver.stop();
});

test('a bundled gateway serves the demo page and what it loads', async () => {
  for (const path of ['/', '/demo.js', '/client/client.ts']) {
    const response = await fetch(`http://127.0.0.1:${whole.ports.ws}${path}`);
    expect(response.status, path).toBe(200);
  }
});

test('the smoke test needs neither tokens nor the API where the gateway has none, and says what it left out', async () => {
  const open = await startGateway({ AUTH: 'anonymous' });
  const { code, output } = await smoke({ AUTH: 'anonymous', ...open.urls });
  expect(output).toBe(
    'ok       connects\nok       sends and receives\nskipped  publishes, resumes: the HTTP API is off\n',
  );
  expect(code).toBe(0);
  open.child.kill('SIGTERM');
  await once(open.child, 'exit');
  expect(open.child.exitCode).toBe(0);
});

test('where tokens are signed elsewhere, the smoke test sees that nobody gets in without one', async () => {
  const { code, output } = await smoke({ ...keys, ...whole.urls });
  expect(output).toContain('ok       connects, and is refused without a token\nok       publishes');
  expect(code).toBe(0);
});

test('the smoke test fails, and says why, where the gateway does not do what it should', async () => {
  const wrong = { ...keys, ...whole.urls, JWT_SECRET: createHmac('sha256', 'x').digest('hex') };
  expect(await smoke(wrong)).toMatchObject({
    code: 1,
    output: expect.stringContaining('FAILED   the connection was closed with 1008'),
  });
  const open = await startGateway({ AUTH: 'anonymous' });
  expect(await smoke(open.urls)).toMatchObject({
    code: 1,
    output: expect.stringContaining('without a token was not refused'),
  });
  expect(await smoke({ ...keys, ...whole.urls, AUTH: 'anonymous' })).toMatchObject({ code: 1 });
});

test('a bundled operator leads, is ready, and stops', async () => {
  const api = await KubeApi.start();
  writeFileSync(join(app, 'kubeconfig'), api.kubeconfig);
  const { child, output } = start('operator', {
    KUBECONFIG: join(app, 'kubeconfig'),
    OPERATOR_NAMESPACE: 'chat',
    HOST: '127.0.0.1',
    ADMIN_PORT: '0',
  });
  await until(() => output().includes('"msg":"leading"'), {
    what: 'the bundled operator to lead',
  });
  const line = output()
    .split('\n')
    .find((it) => it.includes('"msg":"started"'));
  const { ports } = JSON.parse(line ?? '') as { ports: { admin: number } };
  await until(async () => (await fetch(`http://127.0.0.1:${ports.admin}/readyz`)).ok, {
    what: 'it to be ready',
  });
  child.kill('SIGTERM');
  expect(await once(child, 'close')).toEqual([0, null]);
  expect(output()).not.toMatch(/"level":[56]0/);
  await api.stop();
});
