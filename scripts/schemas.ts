// The schemas of other projects' kinds, which the end-to-end tests hold the chart and the examples against: writes
// e2e/schemas from what those projects publish as Go modules. Needs `go`, and runs only when a version here is changed.

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';

const folder = fileURLToPath(new URL('../e2e/schemas/', import.meta.url));

/** Where CustomResourceDefinitions are published, all under the Apache License 2.0. */
const SOURCES = [
  {
    module: 'sigs.k8s.io/gateway-api@v1.5.1',
    files: ['gatewayclasses', 'gateways', 'httproutes'].map(
      (name) => `config/crd/standard/gateway.networking.k8s.io_${name}.yaml`,
    ),
  },
  {
    module: 'github.com/envoyproxy/gateway@v1.9.1',
    files: ['backendtrafficpolicies', 'clienttrafficpolicies'].map(
      (name) => `charts/gateway-crds-helm/templates/generated/gateway.envoyproxy.io_${name}.yaml`,
    ),
  },
  {
    module: 'github.com/kedacore/keda/v2@v2.21.0',
    files: ['scaledobjects', 'triggerauthentications'].map((name) => `config/crd/bases/keda.sh_${name}.yaml`),
  },
  {
    module: 'github.com/prometheus-operator/prometheus-operator@v0.85.0',
    files: ['podmonitors', 'prometheusrules', 'servicemonitors'].map(
      (name) => `example/prometheus-operator-crd/monitoring.coreos.com_${name}.yaml`,
    ),
  },
  {
    module: 'github.com/grafana/k6-operator@v1.3.2',
    files: ['config/crd/bases/k6.io_testruns.yaml'],
  },
  {
    module: 'github.com/argoproj/argo-cd/v3@v3.5.7',
    files: ['manifests/crds/application-crd.yaml'],
  },
] as const;

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

interface Definition {
  kind: string;
  metadata: { name: string; annotations?: Record<string, string> };
  spec: { versions: { schema: { openAPIV3Schema: { properties: Record<string, Json> } } }[] };
}

for (const { module, files } of SOURCES) {
  const { status, stdout, stderr } = spawnSync('go', ['mod', 'download', '-json', module], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`go cannot download ${module}: ${stdout}${stderr}`);
  const { Dir: source } = JSON.parse(stdout) as { Dir: string };
  for (const file of files) {
    // Some are templates of a chart, with a condition around the whole.
    const text = readFileSync(join(source, file), 'utf8').replace(/^\{\{.*\}\}$/gm, '');
    for (const document of parseAllDocuments(text)) {
      const definition = document.toJS() as Definition | null;
      if (definition?.kind !== 'CustomResourceDefinition') continue;
      const { annotations = {} } = definition.metadata;
      definition.metadata.annotations = { ...annotations, 'tidegate.dev/source': `${module} ${file}` };
      for (const { schema } of definition.spec.versions) {
        delete schema.openAPIV3Schema.properties.status;
        withoutDescriptions(schema.openAPIV3Schema as Json);
      }
      writeFileSync(join(folder, `${definition.metadata.name}.json`), `${JSON.stringify(definition)}\n`);
    }
  }
}

/** Takes out the prose, which is nine tenths of such a file. A property may have the name `description`, too. */
function withoutDescriptions(node: Json | undefined, isProperties = false): void {
  if (typeof node !== 'object' || node === null) return;
  if (!Array.isArray(node) && !isProperties) delete node.description;
  for (const [key, child] of Object.entries(node))
    withoutDescriptions(child, !isProperties && key === 'properties');
}
