// How a gateway starts, or says why it does not.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { gatewayDefaults, spawnGateway, startGateway } from '../test/gateway.ts';
import { startLocalGateway } from '../test/local-gateway.ts';
import { until } from '../test/until.ts';
import { ConfigError, settings } from './platform/config.ts';

const folder = mkdtempSync(join(tmpdir(), 'tidegate-start-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** Runs a gateway that is expected to end by itself. */
async function run(env: Record<string, string>, args: string[] = []) {
  const { process: child, stdout, stderr } = spawnGateway(env, args);
  await until(() => child.exitCode !== null || child.signalCode !== null, {
    what: 'it to end',
  });
  await until(() => child.stdout?.readableEnded && child.stderr?.readableEnded, { what: 'its output' });
  return { code: child.exitCode, stdout: stdout(), stderr: stderr() };
}

const good = { ...gatewayDefaults };

test.concurrent('refuses to start without a key unless it is told to let everybody in', async () => {
  const [bare, jwt] = await Promise.all([run({}), run({ AUTH: 'jwt' })]);
  for (const { code, stderr, stdout } of [bare, jwt]) {
    expect(code).toBe(2);
    for (const name of ['AUTH', 'JWT_SECRET', 'JWKS_URL']) expect(stderr).toContain(name);
    expect(stdout).toBe('');
  }
  expect(bare.stderr).toContain('AUTH=anonymous');
});

test.concurrent('tells of all faulty variables at once, by name and with what is allowed', async () => {
  const { code, stderr } = await run({
    ...good,
    PORT: 'x',
    MAX_CONNECTIONS: '0',
    COMPRESSION: 'yes',
    LOG_LEVEL: 'loud',
    REDIS_URL: 'http://x',
  });
  expect(code).toBe(2);
  const lines = stderr.split('\n');
  for (const name of ['PORT', 'MAX_CONNECTIONS', 'COMPRESSION', 'LOG_LEVEL', 'REDIS_URL']) {
    expect(lines.filter((line) => line.startsWith(`tidegate: ${name} must be `))).toHaveLength(1);
  }
  expect(stderr).toMatch(/--help/);
});

test.concurrent('tells of all faults in its files and addresses at once, by the name of the variable', async () => {
  const env = {
    ...good,
    CHANNELS_FILE: file(
      'bad.yaml',
      'namespaces: {a: {subscribe: nobody, publish: anyone}, b: {subscribe: anyone, publish: anyone, loud: true}}',
    ),
    API_KEYS_FILE: join(folder, 'missing'),
    REDIS_URL: 'redis://one:1,two:2',
  };
  for (const { code, stderr } of await Promise.all([run(env), run(env, ['--check'])])) {
    expect(code).toBe(2);
    expect(stderr).toMatch(/CHANNELS_FILE: .*a.*subscribe/);
    expect(stderr).toMatch(/CHANNELS_FILE: .*b.*loud/);
    expect(stderr).toMatch(/API_KEYS_FILE names a file that cannot be read/);
    expect(stderr).toMatch(/REDIS_URL lists several hosts/);
  }
});

test.concurrent('names the variable of a file that cannot be read, or holds nothing', async () => {
  for (const [name, path] of [
    ['CHANNELS_FILE', join(folder, 'missing')],
    ['API_KEYS_FILE', file('empty', '# only a comment\n\n')],
    ['JWT_SECRET_FILE', join(folder, 'missing')],
    ['REDIS_CA_FILE', join(folder, 'missing')],
  ] as const) {
    const starting = startLocalGateway({ REDIS_URL: 'rediss://127.0.0.1:1', [name]: path });
    await expect(starting).rejects.toThrow(ConfigError);
    await expect(starting).rejects.toThrow(name);
  }
});

test.concurrent('never shows a secret', async () => {
  const { stderr } = await run({
    AUTH: 'jwt',
    REDIS_URL: 'redis://u:hunter2@[x',
    JWT_SECRET: 'hunter2',
    JWT_ALGORITHMS: 'none',
  });
  expect(stderr).toMatch(/tidegate: /);
  expect(stderr).not.toContain('hunter2');
});

test.concurrent('prints every setting for --help, and stops', async () => {
  const { code, stdout, stderr } = await run({ PORT: 'x' }, ['--help']);
  expect([code, stderr]).toEqual([0, '']);
  for (const name of Object.keys(settings)) expect(stdout).toContain(`  ${name}  (default: `);
});

test.concurrent('checks its configuration for --check, and stops without listening', async () => {
  const env = {
    AUTH: 'jwt',
    JWT_SECRET_FILE: file('secret', 'a secret that is long enough for HS256\n'),
    CHANNELS_FILE: file('good.yaml', 'namespaces:\n  room: {subscribe: anyone, publish: anyone}\n'),
    API_KEYS_FILE: file('keys', 'key-one\n'),
    REDIS_URL: 'redis://127.0.0.1:1',
  };
  expect(await run(env, ['--check'])).toEqual({
    code: 0,
    stdout: 'The configuration is valid.\n',
    stderr: '',
  });
});

test.concurrent('refuses an option that does not exist', async () => {
  const { code, stderr } = await run(good, ['--chekc']);
  expect(code).toBe(2);
  expect(stderr).toContain('--chekc');
});

test.concurrent('says which port is taken, and ends with 1', async () => {
  const first = await startGateway();
  await Promise.all(
    Object.entries({ PORT: first.ports.ws, ADMIN_PORT: first.ports.admin }).map(async ([name, port]) => {
      const { code, stderr } = await run({ ...good, [name]: String(port) });
      expect(code).toBe(1);
      expect(stderr).toBe(
        `tidegate: ${name}: listen EADDRINUSE: address already in use 127.0.0.1:${port}: ` +
          `end what listens there, or set another ${name}\n`,
      );
    }),
  );
  await first.stop();
});

test.concurrent('logs one line of JSON when it is ready, with its ports', async () => {
  const gateway = await startGateway();
  const ready = gateway.log.filter((line) => line.msg === 'ready');
  expect(ready).toMatchObject([{ level: 30, bus: 'memory', auth: 'anonymous', version: expect.any(String) }]);
  expect(gateway.ports.ws).toBeGreaterThan(0);
  expect(gateway.ports.admin).toBeGreaterThan(0);
  expect(await gateway.stop()).toBe(0);
  // The log is read a little later, and its last lines may have overtaken one that was being written.
  await until(() => gateway.log.some((line) => line.msg === 'stopped'), { what: 'the last line' });
});
