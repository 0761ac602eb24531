// The custom resource of the chart, made from the operator's own schema, so that the two cannot differ. Writes
// charts/tidegate/crds/connectionpolicies.yaml, or with --check says that it is stale.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { z } from 'zod';
import { conditionTypes } from '../src/operator/conditions.ts';
import { MAX_STATUS_PODS, policyResource, specSchema } from '../src/operator/policy.ts';
import { version } from '../src/platform/version.ts';

type Json = { readonly [key: string]: unknown };

const root = fileURLToPath(new URL('..', import.meta.url));
const file = join(root, 'charts/tidegate/crds/connectionpolicies.yaml');

/** What no field can say by itself. The reason is shown to whoever applies the policy. */
const rules: readonly { readonly rule: string; readonly message: string; readonly fieldPath?: string }[] = [
  {
    rule: "self.targetRef.kind != 'StatefulSet' || !self.scaleIn.protect",
    message:
      'a StatefulSet removes its highest ordinal whatever the deletion costs are: set scaleIn.protect to false',
    fieldPath: '.scaleIn.protect',
  },
  // The minimum in the schema is cut to a whole number where the value is one, so that 1 would pass.
  {
    rule: 'self.rebalance.maxSkew >= 1.05',
    message: 'rebalance.maxSkew must be 1.05 or more: pods are never even to the last connection',
    fieldPath: '.rebalance.maxSkew',
  },
  {
    rule: '!has(self.rebalance.window) || self.rebalance.window.days.all(day, self.rebalance.window.days.filter(it, it == day).size() == 1)',
    message: 'rebalance.window.days names a day twice',
    fieldPath: '.rebalance.window.days',
  },
];

const text = (description: string, rest: Json = {}) => ({ type: 'string', description, ...rest });
const whole = (description: string) => ({ type: 'integer', minimum: 0, description });
const number = (description: string) => ({ type: 'number', minimum: 0, description });
const time = (description: string) => text(description, { format: 'date-time' });
const object = (description: string, properties: Json, required: readonly string[] = []) => ({
  type: 'object',
  description,
  properties,
  ...(required.length > 0 && { required }),
});

const rebalance = object('What one rebalance did, from its first ceiling to its last.', {
  startedAt: time('When it began.'),
  finishedAt: time('When it ended. Absent while it is under way.'),
  skewBefore: number('The skew when it began.'),
  skewAfter: number('The skew when it ended.'),
  asked: whole('Connections that were asked to move, as the pods count them.'),
  moved: whole('Connections that moved.'),
  stayed: whole('Connections that found no better pod and stayed.'),
  outcome: text('Why it ended: Even, or the reason that stopped it.'),
});

const pod = object(
  'One pod.',
  {
    name: text('Its name.'),
    connections: whole('Its connections. Absent while it is unknown.'),
    load: number('CPU that it uses, in cores, where it tells that.'),
    ceiling: whole('Connections above which it asks clients to move. Absent: it has no ceiling.'),
    deletionCost: { type: 'integer', description: 'What its removal costs; the cheapest goes first.' },
  },
  ['name'],
);

const condition = object(
  'As every condition in Kubernetes.',
  {
    type: text('Which one.', { enum: Object.keys(conditionTypes) }),
    status: text('Whether it holds.', { enum: ['True', 'False', 'Unknown'] }),
    reason: text('Why, in one word. docs/operator.md has them all.', { maxLength: 1024 }),
    message: text('Why, in a sentence.', { maxLength: 32_768 }),
    observedGeneration: whole('The generation of the policy that this is about.'),
    lastTransitionTime: time('When `status` changed last.'),
  },
  ['type', 'status', 'reason', 'message', 'lastTransitionTime'],
);

const status = object('What the operator says back.', {
  observedGeneration: whole('The generation of the policy that this is about.'),
  readyPods: whole('Pods of the workload that are ready.'),
  desiredPods: whole('Pods that the workload should have.'),
  connections: whole('Connections on all ready pods. Absent while one of them is unknown.'),
  skew: number('The fullest pod divided by the mean. Absent while a pod is unknown.'),
  state: text('Why things are as they are now, in one word.'),
  message: text('Why things are as they are now, in a sentence.'),
  hpa: object('The autoscaler of the workload, where it has one.', {
    name: text('Its name.'),
    desired: whole('Replicas that it wants.'),
    actual: whole('Replicas that it has seen.'),
  }),
  pods: {
    type: 'array',
    description: `The fullest pods, at most ${MAX_STATUS_PODS}.`,
    maxItems: MAX_STATUS_PODS,
    items: pod,
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['name'],
  },
  lastRebalance: rebalance,
  conditions: {
    type: 'array',
    description: 'Each is described in docs/operator.md.',
    items: condition,
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['type'],
  },
});

/** A JSON schema as a custom resource may have it: pruning does what `additionalProperties: false` says. */
function structural(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(structural);
  if (typeof schema !== 'object' || schema === null) return schema;
  const { $schema, additionalProperties, const: only, ...rest } = schema as Json;
  const made = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, structural(value)]));
  return only === undefined ? made : { ...made, enum: [only] };
}

function crd(): Json {
  const { group, version: name, kind, plural, singular, shortName } = policyResource;
  const spec = {
    ...(structural(z.toJSONSchema(specSchema, { io: 'input' })) as Json),
    'x-kubernetes-validations': rules,
  };
  const column = (title: string, type: string, jsonPath: string, priority?: number) => ({
    name: title,
    type,
    jsonPath,
    ...(priority && { priority }),
  });
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      labels: { 'app.kubernetes.io/name': 'tidegate', 'app.kubernetes.io/part-of': 'tidegate' },
      // An older chart leaves a newer one alone.
      annotations: { 'tidegate.dev/version': version },
    },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, listKind: `${kind}List`, plural, singular, shortNames: [shortName] },
      versions: [
        {
          name,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: [
            column('Target', 'string', '.spec.targetRef.name'),
            column('Pods', 'integer', '.status.readyPods'),
            column('Connections', 'integer', '.status.connections'),
            column('Skew', 'number', '.status.skew'),
            column('State', 'string', '.status.state'),
            column('HPA wants', 'integer', '.status.hpa.desired', 1),
            column('Message', 'string', '.status.message', 1),
            column('Age', 'date', '.metadata.creationTimestamp'),
          ],
          schema: {
            openAPIV3Schema: {
              type: 'object',
              description: 'What the operator is asked to do for the connections of one workload.',
              properties: {
                apiVersion: { type: 'string' },
                kind: { type: 'string' },
                metadata: {
                  type: 'object',
                  // It becomes part of labels and of messages.
                  properties: { name: { type: 'string', maxLength: 63 } },
                },
                spec,
                status,
              },
              required: ['spec'],
            },
          },
        },
      ],
    },
  };
}

const header = '# Made from src/operator/policy.ts by `npm run docs`.\n';
const made = header + stringify(crd(), { lineWidth: 120, aliasDuplicateObjects: false });
const found = (() => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
})();
if (found !== made) {
  if (process.argv.includes('--check')) {
    console.error(
      'charts/tidegate/crds/connectionpolicies.yaml is stale: run `npm run docs` and commit what it writes.',
    );
    process.exitCode = 1;
  } else {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, made);
    console.log('written: charts/tidegate/crds/connectionpolicies.yaml');
  }
}
