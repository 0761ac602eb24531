// The npm scripts: installs what is missing, finds a current Node, and runs the command with it.
// Plain JavaScript without dependencies, because it runs first, on whatever Node (20 or later) the machine has.

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { constants as osConstants, tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isatty } from 'node:tty';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const modules = join(root, 'node_modules');
const stampFile = join(modules, '.tidegate-installed.json');
const windows = process.platform === 'win32';
const minimumRedis = '7.0';

const parent = process.ppid;
const startedByNpm = process.env.npm_lifecycle_event !== undefined;
const onTerminal = [0, 1, 2].some((descriptor) => isatty(descriptor));

/** Each command gets the Node to use and the arguments after it, and returns how it ended: { code, signal }. */
const commands = {
  // In a group of its own: a second signal ends a gateway at once, so each must reach it just once.
  start: (node, args) => run(node, ['src/gateway.ts', ...args], startDefaults(), 'inherit', !windows),
  test: async (node, args) => {
    await ensureRedis();
    await tryFor('chromium', ['chromium', 'chromium-browser', 'google-chrome'], '~1 min');
    await tryFor('prometheus', ['prometheus'], '~20 s');
    return run(node, ['node_modules/vitest/vitest.mjs', 'run', ...args]);
  },
  check,
  bench: (node, args) => run(node, ['bench/main.ts', ...args]),
  'bench:scaling': (node, args) => run(node, ['bench/scaling.ts', ...args]),
  'bench:capacity': (node, args) => run(node, ['bench/capacity.ts', ...args]),
  capacity: (node, args) => run(node, ['capacity/main.ts', ...args]),
  drill: async (node, args) => {
    await ensureRedis();
    return run(node, ['drill/main.ts', ...args]);
  },
  e2e: (node, args) => run(node, ['e2e/main.ts', ...args]),
  'hpa:simulate': (node, args) => run(node, ['simulate/main.ts', ...args]),
  docs: async (node, args) => {
    for (const script of ['docs', 'crd', 'monitoring', 'chart', 'manifests', 'third-party']) {
      const end = await run(node, [`scripts/${script}.ts`, ...args]);
      if (end.code !== 0) return end;
    }
    return { code: 0 };
  },
  'build:client': (node, args) => run(node, ['scripts/client.ts', ...args]),
  'build:loadtest': (node, args) => run(node, ['scripts/loadtest.ts', ...args]),
  audit: (node, args) => run(node, ['scripts/audit.ts', ...args]),
  hostile: async (node, args) => {
    await ensureRedis();
    return run(node, ['hostile/main.ts', ...args]);
  },
  bundle: (node, args) => run(node, ['scripts/bundle.ts', ...args]),
  image: (node, args) => run(node, ['scripts/image.ts', ...args]),
  sbom: (node, args) => run(node, ['scripts/sbom.ts', ...args]),
  release: (node, args) => run(node, ['scripts/release.ts', ...args]),
  format: (node, args) => run(node, [biome, 'check', '--write', '.', ...args]),
};
const biome = 'node_modules/@biomejs/biome/bin/biome';
const tsc = 'node_modules/typescript/bin/tsc';

/** What scripts/audit.ts ends with where the registry does not answer. */
const notAnswered = 75;

/** A fault that the person at the keyboard can mend: printed without a stack. */
class Fault extends Error {}

async function main([name, ...rest]) {
  const command = Object.hasOwn(commands, name ?? '') ? commands[name] : undefined;
  if (command === undefined) {
    console.error(`usage: node scripts/run.mjs <${Object.keys(commands).join('|')}> [-- arguments]`);
    return { code: 2 };
  }
  if (rest[0] === '--') rest.shift();
  const node = chooseNode(await ensureInstalled());
  // Children that call `node` themselves (the bench, the tests' gateways) get the same one.
  prependPath(dirname(node));
  return command(node, rest);
}

// ── Commands ────────────────────────────────────────────────────────────────────────────────────

/**
 * What `npm start` adds so that it works without any configuration. A variable that is set but empty
 * counts as set: a secret that failed to expand must not turn into anonymous access.
 */
function startDefaults() {
  const isSet = (name) => process.env[name] !== undefined;
  const defaults = {};
  if (!['AUTH', 'JWT_SECRET', 'JWT_SECRET_FILE', 'JWKS_URL'].some(isSet)) defaults.AUTH = 'anonymous';
  if (!isSet('DEMO')) defaults.DEMO = 'true';
  const channels = 'demo/channels.yaml';
  if (!['CHANNELS', 'CHANNELS_FILE'].some(isSet) && existsSync(join(root, channels))) {
    defaults.CHANNELS_FILE = channels;
  }
  return defaults;
}

/** Runs every check, also after one has failed, so that one run tells all there is to mend. */
async function check(node) {
  const steps = [
    ['types', [tsc, '-p', '.']],
    ['k6', [tsc, '-p', 'loadtest']],
    ['biome', [biome, 'check', '--error-on-warnings', '.']],
    ['docs', ['scripts/docs.ts', '--check']],
    ['crd', ['scripts/crd.ts', '--check']],
    ['monitoring', ['scripts/monitoring.ts', '--check']],
    ['chart', ['scripts/chart.ts', '--check']],
    ['manifests', ['scripts/manifests.ts', '--check']],
    ['third-party', ['scripts/third-party.ts', '--check']],
    ['audit', ['scripts/audit.ts']],
  ].filter(([, [script]]) => existsSync(join(root, script)));
  const summary = [];
  for (const [name, args] of steps) {
    const started = performance.now();
    const end = await run(node, args);
    if (end.signal) return end;
    const outcome =
      end.code === 0 ? 'ok' : name === 'audit' && end.code === notAnswered ? 'NOT CHECKED' : 'FAILED';
    summary.push({ name, outcome, seconds: (performance.now() - started) / 1000 });
  }
  for (const { name, outcome, seconds } of summary) {
    console.log(`${outcome.padEnd(11)}  ${name.padEnd(11)} ${seconds.toFixed(1)} s`);
  }
  // Without a registry that answers nobody can do better here; a release asks again, and is not made without an answer.
  return { code: summary.some(({ outcome }) => outcome === 'FAILED') ? 1 : 0 };
}

// ── Running ─────────────────────────────────────────────────────────────────────────────────────

/**
 * Runs a program in the project's root, and passes on the signals that end it, each wish once: to a
 * gateway that drains, a second signal means "at once".
 */
function run(program, args, env = {}, stdio = 'inherit', detached = false) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio, detached, env: { ...process.env, ...env } });
    const recent = new Set();
    let asked = false;
    const forward = (signal) => {
      asked = true;
      // From a terminal, Ctrl-C and hang-up reach every process of the group, so the child has it already.
      if (!detached && onTerminal && signal !== 'SIGTERM') return;
      if (recent.has(signal)) return; // npm passes on what the whole group was sent, a moment later
      recent.add(signal);
      setTimeout(() => recent.delete(signal), 100).unref();
      child.kill(signal);
    };
    // npm runs scripts in a shell, and where that is dash it ends on SIGTERM without passing it on.
    const orphanCheck = setInterval(() => {
      if (startedByNpm && process.ppid !== parent && !asked) forward('SIGTERM');
    }, 200);
    const signals = windows ? ['SIGINT', 'SIGTERM'] : ['SIGINT', 'SIGTERM', 'SIGHUP'];
    for (const signal of signals) process.on(signal, forward);
    const finish = () => {
      clearInterval(orphanCheck);
      for (const signal of signals) process.off(signal, forward);
    };
    child.once('error', (error) => {
      finish();
      reject(new Fault(`cannot run ${program}: ${error.message}`));
    });
    child.once('exit', (code, signal) => {
      finish();
      resolve({ code: code ?? 1, signal });
    });
  });
}

/** Ends this process the way the child ended. */
function endLike({ code, signal }) {
  process.exitCode = signal ? 128 + osConstants.signals[signal] : code;
  if (signal && !windows) process.kill(process.pid, signal);
}

function prependPath(directory) {
  const key = pathKey();
  process.env[key] = `${directory}${delimiter}${process.env[key] ?? ''}`;
}

function pathKey() {
  return Object.keys(process.env).find((key) => key.toUpperCase() === 'PATH') ?? 'PATH';
}

function isOnPath(program) {
  return (process.env[pathKey()] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

// ── Dependencies ────────────────────────────────────────────────────────────────────────────────

/**
 * Installs the dependencies unless the stamp says they are those of package-lock.json, and returns the
 * stamp. The stamp also keeps whether the Node that npm carries runs here, so that this is tried once.
 */
async function ensureInstalled() {
  const lockText = readFileSync(join(root, 'package-lock.json'));
  const lock = createHash('sha256').update(lockText).digest('hex');
  const machine = `${process.platform}-${process.arch}`;
  const isCurrent = (stamp) => stamp?.lock === lock && stamp.machine === machine;

  const stamp = readJson(stampFile);
  if (isCurrent(stamp)) return stamp;
  return withLock(async () => {
    const others = readJson(stampFile);
    if (isCurrent(others)) return others;
    if (!npmInstalled(JSON.parse(lockText))) await install();
    const made = { lock, machine, carriedNodeRuns: isRecent(versionOf(carriedNode())) };
    writeFileSync(stampFile, `${JSON.stringify(made)}\n`);
    return made;
  });
}

/** Whether a person's own `npm ci` or `npm install` has already brought what the lockfile names. */
function npmInstalled(lock) {
  const installed = readJson(join(modules, '.package-lock.json'))?.packages;
  if (installed === undefined) return false;
  return Object.entries(lock.packages).every(([path, wanted]) => {
    if (path === '') return true;
    const found = installed[path];
    if (found !== undefined) return found.version === wanted.version && found.integrity === wanted.integrity;
    return wanted.optional === true && !isForThisMachine(wanted);
  });
}

/** Optional packages are binaries for one platform; those with a `libc` may be for the other libc. */
function isForThisMachine({ os, cpu, libc }) {
  const names = (list, value) => [list ?? []].flat().includes(value);
  return libc === undefined && names(os, process.platform) && names(cpu, process.arch);
}

async function install() {
  console.error('Installing dependencies (once, ~15 s)…');
  const args = [
    'ci',
    '--include=dev',
    '--include=optional',
    '--prefer-offline',
    '--loglevel=error',
    '--no-progress',
  ];
  // `npm ci` replaces node_modules, so neither npm nor its install scripts may run on the Node in there.
  const key = pathKey();
  const env = {
    [key]: (process.env[key] ?? '')
      .split(delimiter)
      .filter((entry) => !entry.startsWith(modules))
      .join(delimiter),
  };
  const { npm_node_execpath: npmNode, npm_execpath: npm = '' } = process.env;
  const direct = npmNode && !npmNode.startsWith(modules) && npm.endsWith('npm-cli.js');
  const stdio = ['ignore', 'ignore', 'inherit'];
  const end = direct
    ? await run(npmNode, [npm, ...args], env, stdio)
    : windows
      ? await run('cmd.exe', ['/d', '/s', '/c', 'npm', ...args], env, stdio)
      : await run('npm', args, env, stdio);
  if (end.signal) throw new Fault(`npm ci was ended by ${end.signal}`);
  if (end.code !== 0) throw new Fault(`npm ci failed with exit code ${end.code}; its message is above`);
}

function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined; // absent, or half written when its process was ended: the same to every caller
  }
}

/**
 * Runs `work` while no other run on this machine installs for this clone. The lock is a directory that
 * holds its owner's process id and appears whole, by a rename; the lock of a process that is gone is
 * moved aside by the same name by all who see it, so that only one of them succeeds.
 */
async function withLock(work) {
  const lock = join(tmpdir(), `tidegate-${createHash('sha256').update(root).digest('hex').slice(0, 16)}`);
  const mine = mkdtempSync(`${lock}-`);
  writeFileSync(join(mine, 'pid'), String(process.pid));
  const deadline = Date.now() + 600_000;
  const leftovers = [mine];
  let told = false;
  try {
    while (!moved(mine, lock)) {
      const owner = readJson(join(lock, 'pid'));
      if (owner !== undefined && !isRunning(owner)) {
        const aside = `${lock}-of-${owner}`;
        if (moved(lock, aside)) leftovers.push(aside);
      } else if (owner !== undefined && !told) {
        console.error(`Another run (process ${owner}) is installing; waiting for it…`);
        told = true;
      }
      if (Date.now() > deadline)
        throw new Fault(`waited 10 minutes for another run; if none is there, remove ${lock}`);
      await delay(100);
    }
    leftovers.push(lock);
    return await work();
  } finally {
    for (const directory of leftovers) rmSync(directory, { recursive: true, force: true });
  }
}

function moved(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch {
    return false;
  }
}

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

// ── Node ────────────────────────────────────────────────────────────────────────────────────────

/** The Node that npm carries if it runs here, else the one that runs this. */
function chooseNode({ carriedNodeRuns }) {
  const carried = carriedNodeRuns ? carriedNode() : undefined;
  if (carried !== undefined) return carried;
  if (isRecent(process.versions.node)) return process.execPath;
  throw new Fault(
    `Tidegate needs Node ${minimumNode()} or later; this is ${process.versions.node}, and the one that npm ` +
      `installs for ${process.platform}-${process.arch} is missing or does not run here.\n` +
      'Install a current Node from https://nodejs.org/en/download and run this again.',
  );
}

/** The binary inside the package itself: node_modules/.bin has a link to it only where links exist. */
function carriedNode() {
  const platform = windows ? 'win' : process.platform;
  const names = [`node-${platform}-${process.arch}`, `node-bin-${platform}-${process.arch}`];
  return names
    .map((name) => join(modules, name, 'bin', windows ? 'node.exe' : 'node'))
    .find((file) => existsSync(file));
}

function versionOf(node) {
  if (node === undefined) return undefined;
  return spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout?.trim().replace(/^v/, '');
}

function minimumNode() {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).engines.node.replace('>=', '');
}

function isRecent(version) {
  return version !== undefined && isAtLeast(version, minimumNode());
}

function isAtLeast(version, minimum) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [minimumMajor = 0, minimumMinor = 0] = minimum.split('.').map(Number);
  return major > minimumMajor || (major === minimumMajor && minor >= minimumMinor);
}

// ── Redis, Chromium and Prometheus, for the tests ───────────────────────────────────────────────────

/** The tests start real Redis servers: brings one where that is safe, else says the command that does. */
async function ensureRedis() {
  if (redisVersion() === undefined && mayInstall()) {
    await withLock(() => {
      if (redisVersion() !== undefined) return;
      const fault = aptInstall('redis-server', '~20 s');
      if (fault !== undefined) throw new Fault(`${fault}\nThe tests need it.`);
    });
  }
  const version = redisVersion();
  if (version === undefined) {
    throw new Fault(
      `the tests need redis-server ${minimumRedis} or later. Install it with:\n  ${redisInstallCommand()}`,
    );
  }
  if (!isAtLeast(version, minimumRedis)) {
    throw new Fault(
      `the tests need redis-server ${minimumRedis} or later, and the one on the PATH is ${version}.\n` +
        'Newer ones: https://redis.io/docs/latest/operate/oss_and_stack/install/',
    );
  }
}

function redisVersion() {
  // Redis says "Redis server v=7.0.15 …", Valkey "Valkey server v=8.1.0 …"; either will do.
  const { stdout } = spawnSync('redis-server', ['--version'], { encoding: 'utf8' });
  return /v=(\d+\.\d+\.\d+)/.exec(stdout ?? '')?.[1];
}

/** A few tests look at the demo page in a browser, or run what is asked of Prometheus in a real one. Without them
 * they say so and are skipped. */
async function tryFor(name, programs, time) {
  const missing = () => !programs.some(isOnPath);
  if (!missing() || !mayInstall()) return;
  await withLock(() => {
    const fault = missing() ? aptInstall(name, time) : undefined;
    if (fault !== undefined) console.error(`${fault}\nThe tests that need it are skipped.`);
  });
}

function mayInstall() {
  return process.getuid?.() === 0 && isOnPath('apt-get');
}

/** Installs a Debian package, and returns what went wrong, if anything did. */
function aptInstall(name, time) {
  console.error(`Installing ${name} with apt-get (once, ${time})…`);
  // RUNLEVEL=1 keeps Redis and Prometheus from starting one of their own on this machine.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const apt = (...args) =>
    spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], { encoding: 'utf8', env });
  const update = apt('update'); // one unreachable source fails it, and the install may still work
  const installed = apt('install', '-y', '--no-install-recommends', name);
  if (installed.status === 0) return undefined;
  const said = [update.stderr, installed.stdout, installed.stderr].filter(Boolean).join('');
  return `apt-get could not install ${name}:\n${said}`;
}

function redisInstallCommand() {
  if (process.platform === 'darwin') return 'brew install redis';
  if (windows) return 'wsl --install   (then clone and test inside it: Redis has no Windows version)';
  const sudo = process.getuid?.() === 0 ? '' : 'sudo ';
  const byManager = {
    'apt-get': `${sudo}apt-get update && ${sudo}apt-get install -y redis-server`,
    dnf: `${sudo}dnf install -y redis`,
    yum: `${sudo}yum install -y redis`,
    apk: `${sudo}apk add redis`,
    pacman: `${sudo}pacman -S --noconfirm valkey`,
    zypper: `${sudo}zypper install -y redis`,
  };
  const manager = Object.keys(byManager).find(isOnPath);
  return manager
    ? byManager[manager]
    : 'https://redis.io/docs/latest/operate/oss_and_stack/install/ says how';
}

// ────────────────────────────────────────────────────────────────────────────────────────────────

try {
  endLike(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
