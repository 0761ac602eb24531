// The examples in k8s/examples, and what the chart makes of them: a real API server checks every object, those of other
// projects against the definitions that these publish. Nothing of it is made.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { useDefinitions } from './definitions.ts';
import { run, runToEnd } from './programs.ts';
import { chart, type Values } from './release.ts';
import { useSpace } from './space.ts';

const examples = new URL('../k8s/examples/', import.meta.url);

const space = useSpace('examples', async () => {});
useDefinitions();

interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** The kinds that an example is about. What else the chart makes of it is checked all the same. */
const EXPECTED: Readonly<Record<string, readonly string[]>> = {
  alb: ['Ingress'],
  'alb-gateway-api': [
    'Gateway',
    'GatewayClass',
    'HTTPRoute',
    'LoadBalancerConfiguration',
    'TargetGroupConfiguration',
  ],
  'argo-cd': ['Application', 'Lease'],
  'envoy-gateway': ['BackendTrafficPolicy', 'ClientTrafficPolicy', 'Gateway', 'GatewayClass', 'HTTPRoute'],
  'external-redis-tls': ['Deployment'],
  'k6-operator': ['Deployment'],
  keda: ['PodMonitor', 'ScaledObject', 'TriggerAuthentication'],
  'prometheus-adapter': ['HorizontalPodAutoscaler', 'PodMonitor'],
};

/** Kinds in the examples that are of the whole cluster. */
const CLUSTER_WIDE = ['GatewayClass'];

/** Values of another chart than ours. */
const FOREIGN_VALUES = ['adapter-values.yaml'];

describe('examples', () => {
  test('every folder is one that is checked here', () => {
    const folders = readdirSync(examples, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(folders.map(({ name }) => name).sort()).toEqual(Object.keys(EXPECTED).sort());
  });

  for (const [name, kinds] of Object.entries(EXPECTED)) {
    test(`the objects of ${name} are valid`, async () => {
      const objects = [...(await renderExample(name)), ...readObjects(name)];
      expect(objects.map(({ kind }) => kind)).toEqual(expect.arrayContaining([...kinds]));
      expect(await refusals(objects)).toEqual([]);
    });
  }

  test('the load tests are valid', async () => {
    const objects = readFolder(new URL('../k8s/loadtest/', import.meta.url));
    expect(objects.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['Job', 'TestRun']));
    expect(await refusals(objects)).toEqual([]);
  });

  test("the values in Argo CD's Application are the chart's", async () => {
    const files = readObjects('argo-cd');
    const application = files.find(({ kind }) => kind === 'Application') as
      | { spec: { source: { helm: { valuesObject: Values } } } }
      | undefined;
    const objects = await render(application?.spec.source.helm.valuesObject ?? {});
    expect(await refusals(objects)).toEqual([]);
    // Each render makes new ones, so there must be none.
    expect(objects.filter(({ kind }) => kind === 'Secret')).toEqual([]);
    // Argo CD never applies a Lease, so the example brings each of them.
    const leases = (all: readonly KubeObject[]) =>
      all.filter(({ kind }) => kind === 'Lease').map(({ metadata }) => metadata.name);
    expect(leases(files)).toEqual(leases(objects));
    // The HorizontalPodAutoscaler owns the number.
    expect(objects.find(({ kind }) => kind === 'Deployment')).not.toHaveProperty('spec.replicas');
  });

  test("the rule for prometheus-adapter names the metric that the chart's HPA asks for", async () => {
    const { rules } = parse(
      readFileSync(new URL('prometheus-adapter/adapter-values.yaml', examples), 'utf8'),
    );
    const [hpa] = (await renderExample('prometheus-adapter')).filter(
      ({ kind }) => kind === 'HorizontalPodAutoscaler',
    );
    expect(hpa).toHaveProperty('spec.metrics[1].pods.metric.name', rules.custom[0].name.as);
  });
});

describe("the chart's objects of other projects' kinds", () => {
  const PARENTS = [{ name: 'public' }];
  const VALUES: Readonly<Record<string, Values>> = {
    'any Gateway': { gatewayApi: { enabled: true, parentRefs: PARENTS, hostnames: ['ws.example.com'] } },
    'Envoy Gateway': { gatewayApi: { enabled: true, parentRefs: PARENTS, preset: 'envoy' } },
    'AWS by the Gateway API': { gatewayApi: { enabled: true, parentRefs: PARENTS, preset: 'aws' } },
    'GKE by the Gateway API': { gatewayApi: { enabled: true, parentRefs: PARENTS, preset: 'gke' } },
    'GKE by an Ingress': { ingress: { enabled: true, preset: 'gce' } },
    'KEDA, with a TriggerAuthentication': {
      autoscaling: {
        enabled: true,
        connections: { enabled: true, source: 'keda' },
        keda: { prometheusAddress: 'http://prometheus:9090', authenticationRef: 'prometheus' },
      },
    },
    'a PodMonitor': { monitoring: { podMonitor: { enabled: true, labels: { release: 'prometheus' } } } },
    'a PrometheusRule': { monitoring: { rules: { enabled: true }, podMonitor: { enabled: true } } },
    'a ServiceMonitor': {
      monitoring: { serviceMonitor: { enabled: true, labels: { release: 'prometheus' } } },
    },
  };
  const seen = new Set<string>();

  for (const [name, values] of Object.entries(VALUES)) {
    test(`are valid with ${name}`, async () => {
      const objects = (await render(values)).filter(({ apiVersion }) => !isBuiltIn(apiVersion));
      expect(objects).not.toEqual([]);
      for (const { apiVersion, kind } of objects) seen.add(`${apiVersion} ${kind}`);
      expect(await refusals(objects)).toEqual([]);
    });
  }

  test('are of no kind that is left out above', () => {
    const templates = readdirSync(`${chart}/templates`, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.yaml'))
      .map((name) => readFileSync(`${chart}/templates/${name}`, 'utf8'));
    const kinds = templates.flatMap((text) =>
      [...text.matchAll(/^apiVersion: (\S+)\nkind: (\S+)$/gm)].map(
        ([, apiVersion, kind]) => `${apiVersion} ${kind}`,
      ),
    );
    const foreign = [...new Set(kinds)].filter((it) => !isBuiltIn(it));
    expect(foreign.length).toBeGreaterThan(0);
    expect(foreign.filter((it) => !seen.has(it))).toEqual([]);
  });
});

test('a mistake in an object of another project is found', async () => {
  const [scaledObject] = (await renderExample('keda')).filter(({ kind }) => kind === 'ScaledObject');
  const wrong = { ...scaledObject, spec: { minReplicasCount: 1 } } as unknown as KubeObject;
  expect((await refusals([wrong])).join()).toMatch(/minReplicasCount/);
});

/** Kubernetes's own groups have no dot, or are its own. */
function isBuiltIn(apiVersion: string): boolean {
  return (
    !apiVersion.includes('.') ||
    /^(apiregistration|networking|policy|rbac\.authorization|storage)\.k8s\.io\//.test(apiVersion)
  );
}

/** What the chart makes of these values. */
async function render(values: Values): Promise<KubeObject[]> {
  const args = ['template', 'tidegate', chart, '--namespace', space.namespace, '--kube-version', '1.35.0'];
  const input = JSON.stringify(values);
  return objectsOf(await run('helm', [...args, '--values', '-'], { input }));
}

/** What the chart makes of an example's values, where it has some. */
async function renderExample(name: string): Promise<KubeObject[]> {
  const file = new URL(`${name}/values.yaml`, examples);
  return existsSync(file) ? render(parse(readFileSync(file, 'utf8'))) : [];
}

/** An example's own objects, in the namespace of this test. */
function readObjects(name: string): KubeObject[] {
  return readFolder(new URL(`${name}/`, examples));
}

function readFolder(folder: URL): KubeObject[] {
  return readdirSync(folder)
    .filter((file) => file !== 'values.yaml' && !FOREIGN_VALUES.includes(file))
    .flatMap((file) => objectsOf(readFileSync(new URL(file, folder), 'utf8')))
    .map(({ metadata: { namespace, ...metadata }, ...rest }) => ({
      ...rest,
      metadata: { ...metadata, ...(!CLUSTER_WIDE.includes(rest.kind) && { namespace: space.namespace }) },
    }));
}

function objectsOf(text: string): KubeObject[] {
  const objects = parseAllDocuments(text, { version: '1.1' }).map(
    (document) => document.toJS() as KubeObject | null,
  );
  return objects.filter((object) => object !== null);
}

/** What the API server has against these objects: a line for each that it refuses. */
async function refusals(objects: readonly KubeObject[]): Promise<string[]> {
  const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
  const args = ['apply', '--dry-run=server', '--validate=strict', '--filename', '-'];
  const { code, output } = await runToEnd('kubectl', args, { input });
  // What kubectl logs is not of the objects, as that the metrics of another scenario cannot be asked for now.
  const isAnswer = (line: string) => line !== '' && !/^(Warning: |[EIW]\d{4} )/.test(line);
  const lines = output.split('\n').filter(isAnswer);
  const refused = lines.filter((line) => !line.endsWith(' (server dry run)'));
  // Every object has been answered for, or something else went wrong.
  if (code === 0) expect(lines).toHaveLength(objects.length);
  else expect(refused).not.toEqual([]);
  return refused;
}
