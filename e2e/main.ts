// Runs the suite: finds the cluster, brings the image there, opens the way in, and leaves nothing behind.

import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { addressOf, deleteRun, eventually } from './cluster.ts';
import { apply, exists, run, runToEnd } from './programs.ts';
import { artifacts, givenImage, image, loadCommand, runLabel, runName, say } from './settings.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const RELAY_PORT = 7000;
/** What is kept of what the way in says, and how long it rests before it opens again. */
const MAX_OUTPUT = 4000;
const RESTART_MS = 500;

/** A fault that the person at the keyboard can mend: printed without a stack. */
class Fault extends Error {}

/** What ends early when the run is interrupted. */
const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => interrupt.abort());

async function main(): Promise<number> {
  const startedMs = performance.now();
  rmSync(artifacts, { recursive: true, force: true });
  await findTools();
  await findCluster();
  await deleteRun(runName, (names) => say('e2e', `removing what a run has left: ${names.join(', ')}`));
  try {
    await bringImage();
    const relay = await openRelay();
    say('e2e', 'the scenarios begin');
    const code = interrupt.signal.aborted ? 1 : await runScenarios(relay.port);
    relay.close();
    say('e2e', `took ${Math.round((performance.now() - startedMs) / 1000)} s`);
    return code;
  } finally {
    await deleteRun(runName, () => say('e2e', 'deleting what is left'));
  }
}

async function findTools(): Promise<void> {
  if (!(await exists('kubectl', 'version', '--client')))
    throw new Fault('The end-to-end tests need kubectl.');
  if (!(await exists('helm', 'version'))) throw new Fault('The end-to-end tests need helm, version 3 or 4.');
}

async function findCluster(): Promise<void> {
  const { code, output } = await runToEnd('kubectl', ['get', '--raw', '/readyz', '--request-timeout=30s']);
  if (code !== 0) {
    throw new Fault(
      `The end-to-end tests need a cluster, and kubectl reaches none:\n${output.trim()}\n` +
        'Set KUBECONFIG, or make one: kind create cluster. e2e/README.md says the rest.',
    );
  }
}

async function bringImage(): Promise<void> {
  if (givenImage !== undefined) return say('e2e', `the image is ${image}`);
  if (loadCommand === undefined) {
    throw new Fault(
      'How does an image get into your cluster? Set E2E_LOAD to the command, as\n' +
        "  E2E_LOAD='kind load docker-image' npm run e2e\n" +
        'or E2E_IMAGE to an image that the cluster can pull.',
    );
  }
  say('e2e', `building ${image} (about a minute)`);
  const built = await runToEnd('npm', ['run', 'image'], { cwd: root, env: { IMAGE: image } });
  if (built.code !== 0) throw new Fault(`The image could not be built:\n${built.output}`);
  say('e2e', `loading it: ${[...loadCommand, image].join(' ')}`);
  const [program = '', ...args] = loadCommand;
  await run(program, [...args, image], { cwd: root });
}

/** Starts the relay, and what leads from a port on this machine to it. */
async function openRelay(): Promise<{ port: number; close: () => void }> {
  const namespace = `${runName}-relay`;
  const source = readFileSync(new URL('relay.mjs', import.meta.url), 'utf8');
  await apply(namespaceOf(namespace), {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'relay', namespace },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'relay',
          image,
          imagePullPolicy: 'IfNotPresent',
          command: ['/usr/local/bin/node', '--input-type=module', '--eval', source],
          ports: [{ containerPort: RELAY_PORT }],
          readinessProbe: { tcpSocket: { port: RELAY_PORT }, periodSeconds: 1 },
          // Everything goes through it: where it waits for its turn, every scenario does.
          resources: { requests: { cpu: '200m', memory: '32Mi' }, limits: { memory: '256Mi' } },
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
  await addressOf(namespace, 'relay');
  let port = '';
  let output = '';
  let isClosed = false;
  let end = () => {};
  const forward = () => {
    if (isClosed) return;
    const args = ['--namespace', namespace, 'port-forward', 'pod/relay', `${port}:${RELAY_PORT}`];
    const child = spawn('kubectl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        output = (output + chunk).slice(-MAX_OUTPUT);
      });
    }
    end = () => void child.kill();
    // It gives up where the API server restarts. Scenarios that begin later need not fail over it.
    child.once('exit', () => {
      if (isClosed) return;
      say('e2e', `kubectl port-forward has ended, and with it every connection; it starts again:\n${output}`);
      setTimeout(forward, RESTART_MS);
    });
  };
  const close = () => {
    isClosed = true;
    end();
  };
  process.once('exit', close);
  try {
    forward();
    port = await eventually('kubectl port-forward', 60, () => /127\.0\.0\.1:(\d+)/.exec(output)?.[1]);
  } catch (error) {
    close();
    throw error;
  }
  return { port: Number(port), close };
}

/** A namespace of this run. */
function namespaceOf(name: string): object {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: { [runLabel]: runName } } };
}

async function runScenarios(port: number): Promise<number> {
  const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'e2e/vitest.config.ts'];
  const child = spawn(process.execPath, [...vitest, ...process.argv.slice(2)], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, E2E_RELAY_PORT: String(port) },
  });
  interrupt.signal.addEventListener('abort', () => child.kill());
  return new Promise((resolve) => child.once('exit', (code) => resolve(code ?? 1)));
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
