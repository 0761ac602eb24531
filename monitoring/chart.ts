// The chart's part: the template that brings the rules, made of them, and the values that tune them.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, stringify } from 'yaml';
import { isAlert, type Place, type RuleGroup, ruleGroups, type Tuning } from './rules.ts';

export const chartFolder = fileURLToPath(new URL('../charts/tidegate', import.meta.url));

/** Where the rules hold where they are tested. */
export const testPlace: Place = {
  pods: 'namespace="chat",pod=~"tidegate-[a-z0-9]+-[a-z0-9]{5}"',
  release: 'tidegate',
  recorded: 'namespace="chat",release="tidegate"',
  maxPods: 10,
};

/** What values.yaml has below `monitoring.rules`, and beside it. */
export function chartTuning(): Tuning {
  const values = parse(readFileSync(join(chartFolder, 'values.yaml'), 'utf8')) as {
    monitoring: { rules: Tuning };
  };
  return values.monitoring.rules;
}

/** The groups as a rules file for Prometheus. */
export function rulesFile(groups: readonly RuleGroup[]): string {
  return stringify({ groups: groups.map(({ name, rules }) => ({ name, rules })) }, { lineWidth: 0 });
}

/** An action of Helm that prints a value. It is put into the YAML last, behind marks that no rule contains. */
const [OPEN, CLOSE] = ['⟦', '⟧'];
const action = (text: string) => `${OPEN}${text}${CLOSE}`;

/** Stands for values: whatever is read from it is an action that prints the value of that path. */
function standIn(path: string): Tuning {
  const leaf = (at: string): unknown =>
    new Proxy(
      {},
      {
        get: (_, key) =>
          key === Symbol.toPrimitive || key === 'toString'
            ? () => action(`.Values.${at}`)
            : typeof key === 'string'
              ? leaf(`${at}.${key}`)
              : undefined,
      },
    );
  return leaf(path) as Tuning;
}

/** templates/prometheusrule.yaml. */
export function ruleTemplate(): string {
  const groups = ruleGroups(standIn('monitoring.rules'), {
    pods: action('$pods'),
    release: action('$release | quote'),
    recorded: action('$recorded'),
    maxPods: action('.Values.autoscaling.maxReplicas'),
  });
  const body = groups.map((group) => {
    const data = [{ name: group.name, rules: group.rules.map(ruleOf) }];
    const text = toHelm(stringify(data, YAML)).replace(/^(?=.)/gm, '    ');
    return group.autoscaled ? `    {{- if .Values.autoscaling.enabled }}\n${text}    {{- end }}\n` : text;
  });
  return `{{- /* Made of monitoring/rules.ts by \`npm run docs\`: change it there. */ -}}
{{- if .Values.monitoring.rules.enabled -}}
{{- $release := include "tidegate.fullname" . -}}
{{- $pods := printf "namespace=%q,pod=~%q" .Release.Namespace (printf "%s-[a-z0-9]+-[a-z0-9]{5}" $release) -}}
{{- $recorded := printf "namespace=%q,release=%q" .Release.Namespace $release -}}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  {{- include "tidegate.metadata" (dict "root" . "component" "gateway" "labels" .Values.monitoring.rules.labels) | nindent 2 }}
spec:
  groups:
${body.join('')}{{- end }}
`;
}

const YAML = {
  lineWidth: 0,
  blockQuote: 'literal',
  aliasDuplicateObjects: false,
} as const;

/** A rule as plain data, with what the chart adds to alerts. */
function ruleOf(rule: RuleGroup['rules'][number]): Record<string, unknown> {
  if (!isAlert(rule)) return { ...rule };
  const { alert, expr, labels, annotations } = rule;
  return {
    alert,
    expr,
    ...(rule.for !== undefined && { for: `${rule.for}` }),
    labels: { ...labels, LABELS: 'here' },
    annotations: {
      ...annotations,
      runbook_url: `${action('.Values.monitoring.rules.runbookUrl')}/${alert}.md`,
    },
  };
}

/** Escapes what is Prometheus' own template, and puts Helm's actions in. */
function toHelm(yaml: string): string {
  return yaml
    .replace(/\{\{ .*? \}\}/g, (own) => `{{ \`${own}\` }}`)
    .replace(/^( *)LABELS: here\n/gm, (_, indent: string) =>
      [
        '{{- with $.Values.monitoring.rules.alertLabels }}',
        `{{- toYaml . | nindent ${indent.length + 4} }}`,
        '{{- end }}\n',
      ]
        .map((line) => indent + line)
        .join('\n'),
    )
    .replaceAll(`{${OPEN}`, `{ ${OPEN}`) // three braces in a row are no action
    .replaceAll(OPEN, '{{ ')
    .replaceAll(CLOSE, ' }}');
}
