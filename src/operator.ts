// Starts the operator: reads the environment, puts the parts together in order, and takes them apart in reverse.

import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { OperatorAdmin } from './operator/admin.ts';
import { Applier } from './operator/apply.ts';
import { applyCrd } from './operator/crd.ts';
import { Kube } from './operator/kube.ts';
import { Leader } from './operator/leader.ts';
import { createOperatorMetrics } from './operator/metrics.ts';
import { MetricsApi } from './operator/metrics-api.ts';
import type { HpaObject, PolicyObject } from './operator/objects.ts';
import { policyResource } from './operator/policy.ts';
import { Poller } from './operator/poll.ts';
import { Reconciler } from './operator/reconcile.ts';
import { Served } from './operator/served.ts';
import { Serving } from './operator/serving.ts';
import { Tokens } from './operator/tokens.ts';
import { Watched } from './operator/watched.ts';
import {
  ConfigError,
  helpText,
  type OperatorConfig,
  operatorSettings,
  readOperatorConfig,
  suspicionsOf,
} from './platform/config.ts';
import { Files } from './platform/files.ts';
import { newId } from './platform/ids.ts';
import type { Log, Report } from './platform/logs.ts';
import { fail, processLog, runUntilSignal } from './platform/process.ts';
import { version } from './platform/version.ts';

/** An operator that runs. */
export interface Operator {
  readonly ports: { readonly admin: number };
  /** Gives the lease back and stops. The second call waits for the first. */
  stop(): Promise<void>;
}

/** Starts an operator and resolves when its probes are answered. It is ready a little later. */
export async function startOperator(config: OperatorConfig, log: Log, kube = new Kube()): Promise<Operator> {
  const metrics = createOperatorMetrics(version);
  const report: Report = (stage, error) => {
    metrics.failures.inc();
    log.error({ stage, err: error }, 'background failure');
  };
  const name = config.OPERATOR_NAME;
  const namespace = config.OPERATOR_NAMESPACE ?? kube.namespace;
  // Never the same twice: whoever comes back after a crash must not take its old lease for a new one.
  const identity = `${config.POD_NAME ?? hostname()}_${newId()}`;
  let over: AbortSignal | undefined;
  const leads = () => (over?.aborted === false ? over : undefined);
  const onRestart = () => metrics.watchRestarts.inc();

  let adminToken = config.ADMIN_TOKEN;
  const files = new Files(log, metrics);
  if (config.files.ADMIN_TOKEN !== undefined && adminToken !== undefined) {
    files.watch({
      setting: 'ADMIN_TOKEN_FILE',
      path: config.files.ADMIN_TOKEN,
      text: adminToken,
      apply(text) {
        const { parse, allowed } = operatorSettings.ADMIN_TOKEN.kind;
        const token = parse(text);
        if (token === undefined) throw new Error(`it must be ${allowed}`);
        adminToken = token;
        return {};
      },
    });
  }

  const poller = new Poller();
  const applier = new Applier({ kube, poller, metrics, report, identity });
  const scope = config.WATCH_NAMESPACES === 'own' ? `/namespaces/${namespace}` : '';
  const { group, version: policyVersion, plural } = policyResource;
  const policies = new Watched<PolicyObject>({
    kube,
    path: `/apis/${group}/${policyVersion}${scope}/${plural}`,
    report,
    onRestart,
    onChange: () => reconciler.sync(),
  });
  const hpas = new Watched<HpaObject>({
    kube,
    path: `/apis/autoscaling/v2${scope}/horizontalpodautoscalers`,
    report,
    onRestart,
  });
  const reconciler: Reconciler = new Reconciler({
    kube,
    poller,
    policies,
    hpas,
    tokens: new Tokens(kube, namespace, () => adminToken),
    applier,
    metrics,
    report,
    onRestart,
    leads,
    identity: `${namespace}/${name}`,
    metricsApi: () => serving?.state,
  });
  const api = new MetricsApi(new Served(() => reconciler.observers), (code) =>
    metrics.metricQueries.inc({ code: String(code) }),
  );
  const port = config.METRICS_API_PORT;
  const serving: Serving | undefined =
    port === undefined
      ? undefined
      : new Serving({ kube, api, namespace, name, port, host: config.HOST, report, leads });
  const leader = new Leader({
    kube,
    namespace,
    name,
    identity,
    report,
    onLead(term) {
      over = term;
      log.info({ identity }, 'leading');
      term.addEventListener('abort', () => log.info({ identity }, 'not leading any more'), { once: true });
      serving?.wake();
      reconciler.sync();
    },
  });
  metrics.leader.read = () => (leader.isLeading ? 1 : 0);
  metrics.policies.read = () => reconciler.observers.length;
  metrics.certificateExpiry.read = () => (serving?.expiresAtMs ?? 0) / 1000;

  const admin = new OperatorAdmin({
    metrics,
    faults: () => [
      ...(reconciler.isComplete ? [] : ['the policies have not been listed yet']),
      ...(serving?.state.fault === undefined ? [] : [serving.state.fault]),
    ],
  });
  const adminPort = await admin.start(config.ADMIN_PORT, config.HOST);
  policies.start();
  hpas.start();
  leader.start();
  serving?.start();
  const ports = { admin: adminPort };
  log.info({ version, ports, namespace, watches: config.WATCH_NAMESPACES }, 'started');

  async function stop(): Promise<void> {
    // The lease first, so that the other replica goes on while this one ends.
    await leader.stop();
    files.stop();
    await serving?.stop();
    await reconciler.stop();
    await Promise.all([policies.stop(), hpas.stop()]);
    await api.stop();
    poller.close();
    kube.close();
    await admin.stop();
    log.info('stopped');
  }

  let stopping: Promise<void> | undefined;
  return {
    ports,
    stop() {
      stopping ??= stop();
      return stopping;
    },
  };
}

/** The name of this program where it says what is wrong. */
const PROGRAM = 'tidegate operator';

/** Exit codes: 0 stopped as asked, 1 failed, 2 the configuration is wrong. */
async function main(args: readonly string[]): Promise<void> {
  if (args.includes('--help')) {
    return void process.stdout.write(helpText(operatorSettings, 'operator [--help | --apply-crd FILE]'));
  }
  const [option, file, ...more] = args;
  if (option === '--apply-crd' && file !== undefined && more.length === 0) {
    return void process.stdout.write(`${await applyCrd(new Kube(), file)}\n`);
  }
  if (args.length > 0) throw new ConfigError([`there is no option ${args.join(' ')}`]);
  const config = readOperatorConfig(process.env);
  const log = processLog(config);
  for (const suspicion of suspicionsOf(process.env, operatorSettings)) log.warn(suspicion);
  await runUntilSignal(PROGRAM, log, () => startOperator(config, log));
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await main(process.argv.slice(2)).catch((error) => fail(PROGRAM, error));
