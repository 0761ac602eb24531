{{/* The operator: its name, and whose it is that serves this release. */}}

{{- define "tidegate.operatorName" -}}{{ include "tidegate.fullname" . }}-operator{{- end -}}

{{- define "tidegate.operatorServiceAccount" -}}
{{- .Values.operator.serviceAccount.name | default (.Values.operator.serviceAccount.create | ternary (include "tidegate.operatorName" .) "default") -}}
{{- end -}}

{{/* What is named after the operator and has no namespace: two releases of one name must not collide. */}}
{{- define "tidegate.operatorClusterName" -}}{{ .Release.Namespace }}-{{ include "tidegate.operatorName" . }}{{- end -}}

{{/* Whether an operator works on this release: its own, or the one that is named. */}}
{{- define "tidegate.operated" -}}
{{- if or .Values.operator.enabled .Values.operator.servedBy.name }}true{{ end -}}
{{- end -}}

{{/* Whether this release serves the metrics API of the cluster. */}}
{{- define "tidegate.servesMetrics" -}}
{{- if and .Values.operator.enabled (include "tidegate.scalesBy" (list . "operator")) }}true{{ end -}}
{{- end -}}

{{/* Who the operator that works on this release is: `namespace/name`. */}}
{{- define "tidegate.operatorIdentity" -}}
{{- with .Values.operator -}}
{{- if .enabled }}{{ $.Release.Namespace }}/{{ include "tidegate.operatorName" $ }}
{{- else }}{{ .servedBy.namespace | default $.Release.Namespace }}/{{ .servedBy.name }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The Secret that the operator of another release reads: with the admin token alone, unless you have named one. */}}
{{- define "tidegate.servedTokenSecret" -}}
{{- .Values.operator.servedBy.tokenSecret | default (.Values.auth.existingSecret | default (include "tidegate.operatorName" .)) -}}
{{- end -}}

{{/* What the operator may do where it has policies to work on. */}}
{{- define "tidegate.operatorRules" -}}
# What it is asked to do, and what it says back.
- apiGroups: [tidegate.dev]
  resources: [connectionpolicies]
  verbs: [get, list, watch]
- apiGroups: [tidegate.dev]
  resources: [connectionpolicies/status]
  verbs: [patch]
# The workloads, their autoscalers, and whether they are rolling.
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
# Where the pods are. The ValidatingAdmissionPolicy lets nothing be patched but their deletion cost.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
