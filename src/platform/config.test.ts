import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { wildText } from '../../test/arbitraries.ts';
import { spawnGateway } from '../../test/gateway.ts';
import { until } from '../../test/until.ts';
import {
  ConfigError,
  defaultText,
  helpText,
  readConfig,
  type Setting,
  settings,
  suspicionsOf,
  tracesRatio,
  tracesUrl,
} from './config.ts';

const table = Object.entries(settings) as [string, Setting][];
const ok = { AUTH: 'anonymous' };

const folder = mkdtempSync(join(tmpdir(), 'tidegate-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

function fileWith(text: string): string {
  const path = join(folder, `file-${Math.random().toString(36).slice(2)}`);
  writeFileSync(path, text);
  return path;
}

/** The faults of an environment; none where it can be used. */
function faultsOf(env: Record<string, string | undefined>): readonly string[] {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
}

describe('the table of settings', () => {
  it.each(table)('says of %s what it is for and what is allowed', (key, setting) => {
    expect(key).toMatch(/^[A-Z]+(_[A-Z]+)*$/);
    expect(setting.help).toMatch(/\.$/);
    expect(setting.group).not.toBe('');
    expect(setting.kind.allowed).not.toBe('');
    expect(defaultText(setting)).not.toBe('');
  });

  it('keeps each group together', () => {
    const groups = table.map(([, { group }]) => group).filter((group, at, all) => group !== all[at - 1]);
    expect(new Set(groups).size).toBe(groups.length);
  });

  it.each(table.filter(([, setting]) => !Array.isArray(setting.default) && setting.default !== undefined))(
    'allows the default of %s',
    (_key, { kind, default: value }) => expect(kind.parse(String(value))).toBe(value),
  );

  it('has the documented names and defaults', () => {
    expect(readConfig(ok)).toMatchObject({
      PORT: 8080,
      API_PORT: 8081,
      ADMIN_PORT: 9090,
      REDIS_URL: undefined,
      JWT_SECRET: undefined,
      JWKS_URL: undefined,
      JWT_AUDIENCE: undefined,
      JWT_ISSUER: undefined,
      API_KEYS_FILE: undefined,
      CHANNELS_FILE: undefined,
      PLAIN_CHANNEL: 'ws_broadcast',
      PING_INTERVAL_SECONDS: 25,
      DRAIN_SECONDS: 30,
      MAX_CONNECTIONS: 20_000,
      MAX_MESSAGE_BYTES: 65_536,
      TRUSTED_PROXIES: 0,
    });
  });
});

describe('readConfig', () => {
  it('gives a config or names what is wrong, whatever the environment holds', () => {
    const names = table.flatMap(([key]) => [key, `${key}_FILE`]);
    const value = fc.oneof(
      wildText,
      fc.integer().map(String),
      fc.constantFrom('', 'true', 'jwt', ',', '-1', '1e3', 'https://x', 'redis://'),
    );
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 8 }), (env) => {
        for (const fault of faultsOf(env))
          expect(
            names.some((name) => fault.startsWith(name)),
            fault,
          ).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it('reports every fault at once, each with the name of its variable and what is allowed', () => {
    const faults = faultsOf({
      AUTH: 'everybody',
      PORT: '70000',
      DEMO: 'yes',
      LOG_LEVEL: 'loud',
      PING_INTERVAL_SECONDS: '1.5',
      PLAIN_CHANNEL: 'tg:secret',
      REDIS_MODE: 'Cluster',
      JWKS_URL: 'ftp://keys',
    });
    expect(faults).toHaveLength(8);
    expect(faults).toContain('AUTH must be `jwt`, `anonymous`, not "everybody"');
    expect(faults).toContain('PORT must be a whole number from 0 to 65535, not "70000"');
    expect(faults).toContain('DEMO must be `true` or `false`, not "yes"');
    expect(faults.find((fault) => fault.startsWith('JWKS_URL'))).toMatch(/`https:\/\/`.*not "ftp:\/\/keys"$/);
  });

  it.each([
    ['PORT', ['', ' 1', '+1', '0x10', '1e3', '-1', '65536', '١', '99999999999999999999']],
    ['COMPRESSION', ['TRUE', '1', 'on', ' true']],
    ['PLAIN_CHANNEL', ['tg', 'tg:x', 'a b', 'ä', 'x'.repeat(129)]],
    ['JWKS_URL', ['keys', 'https://', 'http//x', 'file:///etc/passwd']],
    [
      'ALLOWED_ORIGINS',
      [
        ',',
        '*',
        'app.example.com',
        'https://app.example.com/',
        'https://App.example.com',
        'https://a.example:443',
      ],
    ],
    ['JWT_ALGORITHMS', ['none', 'HS256,none', 'hs256', ',', 'RS25']],
    ['REDIS_URL', ['redis:6379', 'http://redis', 'REDIS://redis']],
  ])('refuses for %s what only looks like a value', (key, values) => {
    for (const value of values.filter((it) => it !== '')) {
      const faults = faultsOf({ ...ok, [key]: value });
      expect(faults, value).toHaveLength(1);
      expect(faults[0]).toMatch(new RegExp(`^${key} must be `));
    }
  });

  it('takes origins as browsers send them', () => {
    const origins = 'https://app.example.com, http://localhost:3000,chrome-extension://abcdef';
    expect(readConfig({ ...ok, ALLOWED_ORIGINS: origins }).ALLOWED_ORIGINS).toEqual([
      'https://app.example.com',
      'http://localhost:3000',
      'chrome-extension://abcdef',
    ]);
  });

  it('takes an empty variable for one that is not set', () => {
    const empty = Object.fromEntries(
      table.flatMap(([key]) => [[key, ''], ...(`${key}_FILE` in settings ? [] : [[`${key}_FILE`, '']])]),
    );
    expect(readConfig({ ...empty, ...ok })).toEqual(readConfig(ok));
  });

  it.each(table.filter(([key]) => !key.endsWith('_FILE') && !(`${key}_FILE` in settings)))(
    'takes %s from a file, without the end of its last line',
    (key, setting) => {
      const value = String(setting.default ?? '') || exampleOf(key);
      const direct = readConfig({ ...ok, [key]: value });
      for (const end of ['\n', '\r\n']) {
        const file = fileWith(value + end);
        const config = readConfig({ ...(key !== 'AUTH' && ok), [`${key}_FILE`]: file });
        expect(config).toEqual({ ...direct, files: { [key]: file } });
      }
    },
  );

  it('refuses an admin token that is short or has spaces, without showing it', () => {
    for (const ADMIN_TOKEN of ['short', 'with spaces but long enough', 'with-an-ümlaut-in-it'])
      expect(faultsOf({ ...ok, ADMIN_TOKEN })).toEqual([
        'ADMIN_TOKEN must be 16 or more printable ASCII characters without spaces',
      ]);
  });

  it('keeps white space in a secret from a file, but for the end of its last line', () => {
    expect(readConfig({ JWT_SECRET_FILE: fileWith(' with space \n\n') }).JWT_SECRET).toBe(' with space \n');
  });

  it('refuses a setting that is given twice, and a file that cannot be read', () => {
    expect(faultsOf({ JWT_SECRET: 'one', JWT_SECRET_FILE: fileWith('two') })).toEqual([
      'JWT_SECRET and JWT_SECRET_FILE are both set: unset one',
    ]);
    const [fault, ...others] = faultsOf({ JWT_SECRET_FILE: join(folder, 'missing') });
    expect(fault).toMatch(/^JWT_SECRET_FILE names a file that cannot be read: .*missing/);
    expect(others).toEqual([]);
  });

  it('never shows a secret, wherever it comes from and whatever else is wrong', () => {
    const secret = 'hunter2-hunter2-hunter2';
    const secrets = table.filter(([, setting]) => setting.secret).map(([key]) => key);
    expect(secrets).toEqual(
      expect.arrayContaining(['JWT_SECRET', 'REDIS_URL', 'REDIS_PASSWORD', 'REDIS_SENTINEL_PASSWORD']),
    );
    for (const key of secrets) {
      for (const given of [
        { [key]: secret },
        { [`${key}_FILE`]: fileWith(secret) },
        { [key]: secret, [`${key}_FILE`]: fileWith(secret) },
      ]) {
        const faults = faultsOf({ ...given, PORT: 'x', AUTH: 'x' });
        expect(faults.length).toBeGreaterThanOrEqual(2);
        expect(faults.join('\n')).not.toContain(secret);
      }
    }
  });

  it('cuts a long value short where it shows it', () => {
    expect(faultsOf({ ...ok, PORT: '9'.repeat(10_000) })[0]?.length).toBeLessThan(200);
  });

  it('refuses to start without a key unless everybody is let in by name', () => {
    expect(faultsOf({})).toEqual([
      expect.stringMatching(/^AUTH is not set .*JWT_SECRET.*JWKS_URL.*AUTH=anonymous/),
    ]);
    expect(faultsOf({ AUTH: 'jwt' })).toEqual([expect.stringMatching(/^AUTH is jwt, .*JWT_SECRET/)]);
    expect(faultsOf({ JWT_SECRET: 'x' })).toEqual([]);
    expect(faultsOf({ JWKS_URL: 'https://issuer.example/keys' })).toEqual([]);
    expect(faultsOf(ok)).toEqual([]);
  });

  it('says nothing of a missing key where the key that is there is faulty', () => {
    expect(faultsOf({ JWKS_URL: 'issuer.example/keys' })).toEqual([
      expect.stringMatching(/^JWKS_URL must be/),
    ]);
  });

  it('refuses settings that contradict each other', () => {
    expect(faultsOf({ ...ok, PING_INTERVAL_SECONDS: '5', PONG_TIMEOUT_SECONDS: '6' })).toEqual([
      'PONG_TIMEOUT_SECONDS must be at most PING_INTERVAL_SECONDS',
    ]);
    expect(faultsOf({ ...ok, CHANNELS: '{}', CHANNELS_FILE: '/x' })).toEqual([
      expect.stringMatching(/^CHANNELS and CHANNELS_FILE/),
    ]);
    expect(faultsOf({ ...ok, PORT: '9090' })).toEqual([
      expect.stringMatching(/^PORT and ADMIN_PORT are both 9090/),
    ]);
    expect(faultsOf({ ...ok, PORT: '8081', API_KEYS_FILE: '/x' })).toEqual([
      expect.stringMatching(/^PORT and API_PORT are both 8081/),
    ]);
  });

  it('allows what only seems to contradict', () => {
    expect(faultsOf({ ...ok, PING_INTERVAL_SECONDS: '5' })).toEqual([]); // the default time-out gives way
    expect(faultsOf({ ...ok, PORT: '8081' })).toEqual([]); // the API listener stays closed
    expect(faultsOf({ ...ok, PORT: '0', ADMIN_PORT: '0' })).toEqual([]);
  });
});

describe('traces', () => {
  const url = 'http://collector:4318';
  const urlOf = (env: Record<string, string>) => tracesUrl(readConfig({ ...ok, ...env }));
  const ratioOf = (env: Record<string, string>) => tracesRatio(readConfig({ ...ok, ...env }));

  it('go where the standard names say', () => {
    expect(urlOf({})).toBeUndefined();
    expect(urlOf({ OTEL_EXPORTER_OTLP_ENDPOINT: url })).toBe(`${url}/v1/traces`);
    expect(urlOf({ OTEL_EXPORTER_OTLP_ENDPOINT: `${url}/tenant/` })).toBe(`${url}/tenant/v1/traces`);
    const own = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${url}/own` };
    expect(urlOf({ OTEL_EXPORTER_OTLP_ENDPOINT: url, ...own })).toBe(`${url}/own`);
    expect(urlOf({ ...own, OTEL_SDK_DISABLED: 'true' })).toBeUndefined();
    expect(urlOf({ ...own, OTEL_TRACES_EXPORTER: 'none' })).toBeUndefined();
  });

  it('are of as many messages as the standard names say', () => {
    expect(ratioOf({})).toBe(0.01);
    expect(ratioOf({ OTEL_TRACES_SAMPLER_ARG: '1e-05' })).toBe(0.00001);
    expect(ratioOf({ OTEL_TRACES_SAMPLER: 'always_on', OTEL_TRACES_SAMPLER_ARG: '0.5' })).toBe(1);
    expect(ratioOf({ OTEL_TRACES_SAMPLER: 'parentbased_always_off' })).toBe(0);
    for (const OTEL_TRACES_SAMPLER_ARG of ['1.01', '-1', '1e3', 'half', '.', '1e-'])
      expect(faultsOf({ ...ok, OTEL_TRACES_SAMPLER_ARG })).toHaveLength(1);
  });
});

describe('helpText', () => {
  it('lists every setting with its group, default, help and what is allowed', () => {
    const help = helpText();
    for (const [key, setting] of table) {
      expect(help).toContain(`\n${setting.group}:\n`);
      expect(help).toContain(
        `\n  ${key}  (default: ${defaultText(setting)})\n      ${setting.help}\n      Allowed: ${setting.kind.allowed}.\n`,
      );
    }
  });
});

describe('the process', () => {
  const secret = 'hunter2-hunter2-hunter2';

  /** Runs it to its end. */
  async function run(env: Record<string, string>, ...args: string[]) {
    const gateway = spawnGateway(env, args);
    let closed = false;
    gateway.process.once('close', () => {
      closed = true;
    });
    await until(() => closed, { what: 'the process to end' });
    return { code: gateway.process.exitCode, stdout: gateway.stdout(), stderr: gateway.stderr() };
  }

  it('ends with 2 and every fault on stderr, and without any secret', async () => {
    const { code, stdout, stderr } = await run({
      PORT: 'x',
      REDIS_URL: secret,
      JWT_SECRET: secret,
      JWT_SECRET_FILE: '/x',
    });
    expect(code).toBe(2);
    for (const key of ['PORT', 'REDIS_URL', 'JWT_SECRET and JWT_SECRET_FILE'])
      expect(stderr).toContain(`tidegate: ${key} `);
    expect(stdout + stderr).not.toContain(secret);
  });

  it.each([[], ['--check']])(
    'ends with 2 and every fault of the files that are named, started with %j',
    async (...args) => {
      const { code, stdout, stderr } = await run(
        {
          JWT_SECRET: secret,
          JWT_ALGORITHMS: 'RS256',
          CHANNELS_FILE: fileWith('{namespaces: {room: {subscribe: all, publish: anyone}}, colour: blue}'),
          API_KEYS_FILE: fileWith('# no key\n\n'),
          REDIS_URL: `redis://:${secret}@a,b`,
          REDIS_CA_FILE: join(folder, 'missing'),
        },
        ...args,
      );
      expect(code).toBe(2);
      for (const fault of [
        /^tidegate: CHANNELS_FILE: namespaces\.room\.subscribe: /m,
        /^tidegate: CHANNELS_FILE: the file: .*colour/m,
        /^tidegate: JWT_ALGORITHMS /m,
        /^tidegate: API_KEYS_FILE: it holds no key/m,
        /^tidegate: REDIS_CA_FILE names a file that cannot be read/m,
      ]) {
        expect(stderr).toMatch(fault);
      }
      expect(stdout + stderr).not.toContain(secret);
    },
  );

  it('says with --check that a configuration is valid, and listens to nothing', async () => {
    const { code, stdout, stderr } = await run({ ...ok, REDIS_URL: 'redis://nowhere.invalid:1' }, '--check');
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: 'The configuration is valid.\n',
      stderr: '',
    });
  });

  it('prints the table with --help, and needs no configuration for that', async () => {
    expect(await run({}, '--help')).toEqual({ code: 0, stdout: helpText(), stderr: '' });
  });
});

/** A value for settings that have no default. */
function exampleOf(key: string): string {
  const examples: Record<string, string> = {
    AUTH: 'anonymous',
    ADMIN_TOKEN: 'sixteen-or-more-characters',
    JWKS_URL: 'https://issuer.example/keys',
    JWT_ALGORITHMS: 'ES256,RS256',
    ALLOWED_ORIGINS: 'https://app.example.com',
    REDIS_URL: 'redis://user:pass@redis:6379',
    BYTE_RATE: '1000',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318',
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector:4318/v1/traces',
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json',
  };
  return examples[key] ?? 'some text';
}

describe('a variable that is no setting', () => {
  it('is told where it looks like one, which is no fault', () => {
    const env = { ...ok, MAX_CONECTIONS: '5', JWT_SECRETS_FILE: '/x', JWKS_URI: 'https://x', PATH: '/bin' };
    expect(faultsOf(env)).toEqual([]);
    expect(suspicionsOf(env)).toEqual([
      'MAX_CONECTIONS is no setting: is it MAX_CONNECTIONS that you mean?',
      'JWT_SECRETS_FILE is no setting: is it JWT_SECRET_FILE that you mean?',
      'JWKS_URI is no setting: is it JWKS_URL that you mean?',
    ]);
  });

  it('is left alone where it is set by Kubernetes, a shell, or for OpenTelemetry', () => {
    const names = [
      'KUBERNETES_SERVICE_HOST KUBERNETES_PORT KUBERNETES_PORT_443_TCP_ADDR TIDEGATE_REDIS_PORT NODE_NAME POD_IP',
      'HOME HOSTNAME LANG LOGNAME PATH PWD SHELL TERM USER NODE_ENV NODE_OPTIONS NODE_VERSION',
      'OTEL_SERVICE_NAME OTEL_METRICS_EXPORTER OTEL_LOGS_EXPORTER OTEL_EXPORTER_OTLP_METRICS_ENDPOINT',
    ].flatMap((line) => line.split(' '));
    expect(suspicionsOf(Object.fromEntries(names.map((name) => [name, 'x'])))).toEqual([]);
  });

  it('is warned of at the start', async () => {
    const { log, process: child } = spawnGateway({ ...ok, PORT: '0', ADMIN_PORT: '0', MESSAGE_RATES: '5' });
    await until(() => log.some(({ msg }) => msg === 'ready'), { what: 'the start' });
    child.kill();
    expect(log).toContainEqual(
      expect.objectContaining({
        level: 40,
        msg: 'MESSAGE_RATES is no setting: is it MESSAGE_RATE that you mean?',
      }),
    );
  });
});
