// Prometheus in the cluster: scrapes the pods of a release as the chart's PodMonitor says, with the chart's own rules.

import { parse } from 'yaml';
import { core, eventually } from './cluster.ts';
import { apply, run } from './programs.ts';
import { chart, type Values } from './release.ts';
import type { Space } from './space.ts';
import { call } from './tunnel.ts';

/** The PrometheusRule that the chart makes of these values, as a file for Prometheus. A cluster without the
 * Prometheus operator could not take the object itself. */
async function rulesOf(namespace: string, name: string, values: Values): Promise<string> {
  const args = ['template', name, chart, '--namespace', namespace, '--values', '-'];
  const show = ['--set', 'monitoring.rules.enabled=true', '--show-only', 'templates/prometheusrule.yaml'];
  const text = await run('helm', [...args, ...show], { input: JSON.stringify(values) });
  const { spec } = parse(text) as { spec: object };
  return JSON.stringify(spec);
}

/** A Prometheus in the cluster. */
export class Prometheus {
  readonly #url: string;

  private constructor(url: string) {
    this.#url = url;
  }

  /** Starts one for the release `name`, whose rules come of these values. It looks every two seconds. */
  static async start({ namespace, say }: Space, name: string, values: Values): Promise<Prometheus> {
    say('starting a Prometheus');
    const labels = { app: 'prometheus' };
    const metadata = { name: 'prometheus', namespace };
    const config = {
      global: { scrape_interval: '2s', evaluation_interval: '2s' },
      rule_files: ['/etc/prometheus/rules.json'],
      scrape_configs: [
        {
          job_name: 'pods',
          kubernetes_sd_configs: [{ role: 'pod', namespaces: { names: [namespace] } }],
          // As the Prometheus operator makes them of a PodMonitor.
          relabel_configs: [
            {
              source_labels: ['__meta_kubernetes_pod_label_app_kubernetes_io_component'],
              regex: 'gateway|operator',
              action: 'keep',
            },
            { source_labels: ['__meta_kubernetes_pod_container_port_name'], regex: 'admin', action: 'keep' },
            { source_labels: ['__meta_kubernetes_namespace'], target_label: 'namespace' },
            { source_labels: ['__meta_kubernetes_pod_name'], target_label: 'pod' },
          ],
        },
      ],
    };
    const rules = await rulesOf(namespace, name, values);
    await apply(
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'Role',
        metadata,
        rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch'] }],
      },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'RoleBinding',
        metadata,
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'prometheus' },
        subjects: [{ kind: 'ServiceAccount', name: 'prometheus', namespace }],
      },
      {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata,
        data: { 'prometheus.yml': JSON.stringify(config), 'rules.json': rules },
      },
      { apiVersion: 'v1', kind: 'Service', metadata, spec: { selector: labels, ports: [{ port: 9090 }] } },
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { ...metadata, labels },
        spec: {
          serviceAccountName: 'prometheus',
          terminationGracePeriodSeconds: 1,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: 65534,
            fsGroup: 65534,
            seccompProfile: { type: 'RuntimeDefault' },
          },
          containers: [
            {
              name: 'prometheus',
              image: process.env.E2E_PROMETHEUS_IMAGE || 'docker.io/prom/prometheus:v2',
              imagePullPolicy: 'IfNotPresent',
              args: ['--config.file=/etc/prometheus/prometheus.yml', '--storage.tsdb.path=/data'],
              readinessProbe: { httpGet: { path: '/-/ready', port: 9090 }, periodSeconds: 1 },
              resources: { requests: { cpu: '10m', memory: '64Mi' } },
              securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
              volumeMounts: [
                { name: 'config', mountPath: '/etc/prometheus' },
                { name: 'data', mountPath: '/data' },
              ],
            },
          ],
          volumes: [
            { name: 'config', configMap: { name: 'prometheus' } },
            { name: 'data', emptyDir: {} },
          ],
        },
      },
    );
    await eventually('Prometheus to be ready', 180, async () => {
      const { status } = await core.readNamespacedPod({ name: 'prometheus', namespace });
      return status?.conditions?.some((it) => it.type === 'Ready' && it.status === 'True');
    });
    return new Prometheus(`http://prometheus.${namespace}.svc:9090`);
  }

  /** What an expression gives: the value of its first series, or undefined. */
  async value(expr: string): Promise<number | undefined> {
    const { text } = await call(`${this.#url}/api/v1/query?${new URLSearchParams({ query: expr })}`);
    type Answer = { data?: { result: { value: [number, string] }[] }; error?: string };
    const { data, error } = JSON.parse(text) as Answer;
    if (data === undefined) throw new Error(`${error}: ${expr}`);
    const [first] = data.result;
    return first && Number(first.value[1]);
  }

  /** What went wrong when rules were evaluated. */
  async ruleErrors(): Promise<string[]> {
    const { text } = await call(`${this.#url}/api/v1/rules`);
    type Rule = { name: string; health: string; lastError?: string };
    const { data } = JSON.parse(text) as { data: { groups: { rules: Rule[] }[] } };
    return data.groups.flatMap(({ rules }) =>
      rules.flatMap(({ name, health, lastError }) => (health === 'ok' ? [] : [`${name}: ${lastError}`])),
    );
  }

  /** The alerts that fire, with their labels and annotations. */
  async firing(): Promise<FiringAlert[]> {
    const { text } = await call(`${this.#url}/api/v1/alerts`);
    const { data } = JSON.parse(text) as { data: { alerts: (FiringAlert & { state: string })[] } };
    return data.alerts.filter(({ state }) => state === 'firing');
  }

  /** Waits until an alert fires, and returns it. */
  async fires(name: string, seconds = 120): Promise<FiringAlert> {
    return eventually(`${name} to fire`, seconds, async () =>
      (await this.firing()).find(({ labels }) => labels.alertname === name),
    );
  }

  /** Waits until an alert does not fire any more. */
  async ends(name: string, seconds = 120): Promise<void> {
    await eventually(`${name} to end`, seconds, async () =>
      (await this.firing()).every(({ labels }) => labels.alertname !== name),
    );
  }
}

export interface FiringAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}
