{{/* Names and labels. */}}

{{- define "tidegate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "tidegate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tidegate.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.redisName" -}}{{ include "tidegate.fullname" . }}-redis{{- end -}}

{{/* What a resource is found by. Never more than this: selectors cannot be changed. (list $ component) */}}
{{- define "tidegate.selectorLabels" -}}
{{- $component := index . 1 -}}
{{- with index . 0 -}}
app.kubernetes.io/name: {{ include "tidegate.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ $component }}
{{- end -}}
{{- end -}}

{{/* What Prometheus scrapes: the gateways, and the operator where it is. Redis has no port of that name. */}}
{{- define "tidegate.scrapedSelector" -}}
matchLabels:
  {{- omit (include "tidegate.selectorLabels" (list . "gateway") | fromYaml) "app.kubernetes.io/component" | toYaml | nindent 2 }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values: {{ .Values.operator.enabled | ternary (list "gateway" "operator") (list "gateway") | toJson }}
{{- end -}}

{{/* Name, namespace, labels and annotations of a resource. A namespace of "-" is none, for what has none.
     (dict "root" $ "component" component "name" name "namespace" namespace "annotations" dict) */}}
{{- define "tidegate.metadata" -}}
name: {{ .name | default (include "tidegate.fullname" .root) | quote }}
{{- if ne (.namespace | default "") "-" }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
{{- end }}
labels:
  {{- $own := include "tidegate.selectorLabels" (list .root .component) | fromYaml -}}
  {{- $own = merge $own (dict
        "app.kubernetes.io/version" (.root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | trimSuffix "-")
        "app.kubernetes.io/managed-by" .root.Release.Service
        "app.kubernetes.io/part-of" "tidegate"
        "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63)) }}
  {{- toYaml (merge $own (.labels | default dict) .root.Values.commonLabels) | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image by digest where there is one. (dict "image" values "tag" default tag) */}}
{{- define "tidegate.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{- define "tidegate.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "tidegate.fullname" .) "default") -}}
{{- end -}}

{{/* Ways in: every one that is on, with what it asks of the pods. Seconds, except `proxies`; `delay` is how long it waits
     for a pod's connections, where it has such a setting, and `delayName` the value that sets it. */}}
{{- define "tidegate.ways" -}}
{{- $ways := list -}}
{{- with .Values.ingress -}}
  {{- if .enabled -}}
    {{- $way := dict "way" (printf "ingress.preset %s" .preset) "idle" 60 "preStop" 10 "minPreStop" 0 "proxies" 1 -}}
    {{- if eq .preset "alb" -}}
      {{- $way = merge (dict "preStop" 20 "minPreStop" 20 "delay" .alb.deregistrationDelaySeconds
            "delayName" "ingress.alb.deregistrationDelaySeconds") $way -}}
    {{- else if eq .preset "gce" -}}
      {{- $way = merge (dict "idle" 600 "preStop" 60 "proxies" 2 "delay" .gce.drainingTimeoutSeconds
            "delayName" "ingress.gce.drainingTimeoutSeconds") $way -}}
    {{- end -}}
    {{- $ways = append $ways $way -}}
  {{- end -}}
{{- end -}}
{{- with .Values.gatewayApi -}}
  {{- if .enabled -}}
    {{- $way := dict "way" (printf "gatewayApi.preset %s" .preset) "idle" 60 "preStop" 10 "minPreStop" 0 "proxies" 1 -}}
    {{- if eq .preset "envoy" -}}
      {{- $way = merge (dict "idle" 300) $way -}}
    {{- else if eq .preset "aws" -}}
      {{- $way = merge (dict "preStop" 20 "minPreStop" 20 "delay" .aws.deregistrationDelaySeconds
            "delayName" "gatewayApi.aws.deregistrationDelaySeconds") $way -}}
    {{- else if eq .preset "gke" -}}
      {{- $way = merge (dict "idle" 600 "preStop" 60 "proxies" 2 "delay" .gke.drainingTimeoutSeconds
            "delayName" "gatewayApi.gke.drainingTimeoutSeconds") $way -}}
    {{- end -}}
    {{- $ways = append $ways $way -}}
  {{- end -}}
{{- end -}}
{{- with .Values.loadBalancer -}}
  {{- if .enabled -}}
    {{- $way := dict "way" (printf "loadBalancer.preset %s" .preset) "idle" 60 "preStop" 20 "minPreStop" 0 "proxies" 0 -}}
    {{- if eq .preset "nlb" -}}
      {{- $way = merge (dict "idle" 350 "preStop" 120 "minPreStop" 120 "delay" .deregistrationDelaySeconds
            "delayName" "loadBalancer.deregistrationDelaySeconds") $way -}}
    {{- end -}}
    {{- $ways = append $ways $way -}}
  {{- end -}}
{{- end -}}
{{- toYaml $ways -}}
{{- end -}}

{{/* The life of a pod, in seconds: what the values say, or what follows from the ways in. One dict for all, because each of
     them follows from the one before. */}}
{{- define "tidegate.times" -}}
{{- $ways := include "tidegate.ways" . | fromYamlArray -}}
{{- $idle := 60 -}}{{- $preStop := 5 -}}{{- $proxies := 0 -}}
{{- range $at, $way := $ways -}}
  {{- $idle = eq $at 0 | ternary (int $way.idle) (min $idle (int $way.idle)) -}}
  {{- $preStop = max $preStop (int $way.preStop) -}}
  {{- $proxies = max $proxies (int $way.proxies) -}}
{{- end -}}
{{- $v := .Values -}}
{{- if not (kindIs "invalid" $v.idleTimeoutSeconds) -}}{{- $idle = int $v.idleTimeoutSeconds -}}{{- end -}}
{{- if not (kindIs "invalid" $v.preStopSeconds) -}}{{- $preStop = int $v.preStopSeconds -}}{{- end -}}
{{- if not (kindIs "invalid" $v.trustedProxies) -}}{{- $proxies = int $v.trustedProxies -}}{{- end -}}
{{- /* What a gateway needs beyond its drain: cutting what is left, closing the bus, writing the log. */ -}}
{{- $slack := 10 -}}
{{- $leave := add $preStop (int $v.drainSeconds) -}}
{{- $grace := kindIs "invalid" $v.terminationGracePeriodSeconds | ternary (add $leave $slack) (int $v.terminationGracePeriodSeconds) -}}
{{- $minReady := kindIs "invalid" $v.minReadySeconds | ternary (add $leave $slack) (int $v.minReadySeconds) -}}
{{- $deadline := kindIs "invalid" $v.progressDeadlineSeconds | ternary (add $minReady 300) (int $v.progressDeadlineSeconds) -}}
{{- $period := kindIs "invalid" $v.autoscaling.scaleDown.periodSeconds | ternary (max 60 $grace) (int $v.autoscaling.scaleDown.periodSeconds) -}}
{{- dict "idle" $idle "preStop" $preStop "proxies" $proxies "slack" $slack "leave" $leave "grace" $grace
      "minReady" $minReady "deadline" $deadline "scaleDownPeriod" $period | toYaml -}}
{{- end -}}

{{/* How long a load balancer waits for the connections of a pod that is taken out. (list $ value) */}}
{{- define "tidegate.delay" -}}
{{- $times := include "tidegate.times" (index . 0) | fromYaml -}}
{{- kindIs "invalid" (index . 1) | ternary (add $times.grace 10) (int (index . 1)) -}}
{{- end -}}

{{/* Whether connections are counted for the HPA by this source. (list $ source) */}}
{{- define "tidegate.scalesBy" -}}
{{- with (index . 0).Values.autoscaling -}}
{{- if and .enabled .connections.enabled (eq .connections.source (index $ 1)) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* A quantity of CPU in thousandths of a core. */}}
{{- define "tidegate.milliCpu" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}{{ trimSuffix "m" $text | float64 }}{{- else -}}{{ mulf (float64 $text) 1000 }}{{- end -}}
{{- end -}}

{{/* A quantity of memory in MiB. */}}
{{- define "tidegate.mebibytes" -}}
{{- $text := toString . -}}
{{- $units := dict "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "k" 0.00095367431640625 "M" 0.95367431640625
      "G" 953.67431640625 "T" 953674.31640625 -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit | default 0.00000095367431640625) -}}
{{- end -}}

{{/* Values that are generated once and then kept: those of the Secret in the cluster, where there is one. They are remembered
     for the rest of the render, because the checksum of the pods has to be of the same ones. In base64, because YAML on its
     way through a template loses the end of a last line, and Helm would then want to change what is kept.
     (dict "root" $ "name" name of the Secret "wanted" (dict key value-or-empty)) */}}
{{- define "tidegate.keptSecret" -}}
{{- $memo := get .root.Values "keptSecrets" | default dict -}}
{{- if not (hasKey $memo .name) -}}
  {{- $live := (lookup "v1" "Secret" .root.Release.Namespace .name).data | default dict -}}
  {{- $data := dict -}}
  {{- range $key, $value := .wanted -}}
    {{- $_ := set $data $key (b64enc $value | default (get $live $key) | default (randAlphaNum 48 | b64enc)) -}}
  {{- end -}}
  {{- $_ := set $memo .name $data -}}
  {{- $_ := set .root.Values "keptSecrets" $memo -}}
{{- end -}}
{{- get $memo .name | toYaml -}}
{{- end -}}

{{- define "tidegate.authSecretName" -}}
{{- .Values.auth.existingSecret | default (printf "%s-auth" (include "tidegate.fullname" .)) -}}
{{- end -}}

{{/* What is in the chart's own Secret of keys, in base64; nothing where it is yours. */}}
{{- define "tidegate.authSecret" -}}
{{- if not .Values.auth.existingSecret -}}
{{- include "tidegate.keptSecret" (dict "root" . "name" (include "tidegate.authSecretName" .)
      "wanted" (dict "jwt-secret" .Values.auth.jwtSecret "api-key" .Values.auth.apiKey
        "admin-token" .Values.auth.adminToken)) -}}
{{- end -}}
{{- end -}}

{{/* The ports of the cluster's DNS, for a NetworkPolicy: large answers come over TCP. */}}
{{- define "tidegate.dnsPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.dnsPorts | default (list 53) -}}
{{- $ports = append (append $ports (dict "port" . "protocol" "UDP")) (dict "port" . "protocol" "TCP") -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}

{{/* Whether tokens are checked by the Secret's `jwt-secret`. */}}
{{- define "tidegate.usesJwtSecret" -}}
{{- with .Values.auth -}}
{{- if and (eq .mode "jwt") .sharedSecret (contains "HS" (join "," .algorithms | default "HS")) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Where Redis is and how to get in, whichever it is: url, secret (empty: no password), key and sentinelKey. */}}
{{- define "tidegate.redis" -}}
{{- $name := include "tidegate.redisName" . -}}
{{- $redis := dict "url" (printf "redis://%s.%s.svc:6379" $name .Release.Namespace) "secret" $name
      "key" "redis-password" "sentinelKey" "" -}}
{{- if not .Values.redis.enabled -}}
  {{- with .Values.externalRedis -}}
    {{- $redis = dict "url" .url "secret" (or .password .sentinelPassword | empty | ternary "" $name)
          "key" (.password | empty | ternary "" "redis-password")
          "sentinelKey" (.sentinelPassword | empty | ternary "" "redis-sentinel-password") -}}
  {{- end -}}
{{- end -}}
{{- $yours := .Values.redis.enabled | ternary
      (dict "secret" .Values.redis.existingSecret "key" .Values.redis.existingSecretKey "sentinelKey" "")
      (dict "secret" .Values.externalRedis.existingSecret "key" .Values.externalRedis.existingSecretKey
        "sentinelKey" .Values.externalRedis.existingSecretSentinelKey) -}}
{{- if $yours.secret }}{{ $redis = merge (dict "url" $redis.url) $yours }}{{ end -}}
{{- toYaml $redis -}}
{{- end -}}

{{/* What is in the chart's own Secret for Redis, in base64; nothing where there is no password or it is yours. */}}
{{- define "tidegate.redisSecret" -}}
{{- if .Values.redis.enabled -}}
  {{- if not .Values.redis.existingSecret -}}
  {{- include "tidegate.keptSecret" (dict "root" . "name" (include "tidegate.redisName" .)
        "wanted" (dict "redis-password" .Values.redis.password)) -}}
  {{- end -}}
{{- else if not .Values.externalRedis.existingSecret -}}
  {{- $data := dict -}}
  {{- with .Values.externalRedis.password }}{{ $_ := set $data "redis-password" (b64enc .) }}{{ end -}}
  {{- with .Values.externalRedis.sentinelPassword }}{{ $_ := set $data "redis-sentinel-password" (b64enc .) }}{{ end -}}
  {{- if $data }}{{ toYaml $data }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Whether the pod of a `helm test` that passed stays. Helm does not delete at an uninstall what hooks made, so it would
     better go at once; but Helm 3 asks for its logs only afterwards, and `--logs` would fail. */}}
{{- define "tidegate.testPodStays" -}}
{{- if semverCompare "<4.0.0-0" .Capabilities.HelmVersion.Version }}true{{ end -}}
{{- end -}}

{{/* The first durable namespace that `helm test` may subscribe to; empty where there is none. */}}
{{- define "tidegate.testNamespace" -}}
{{- $found := "" -}}
{{- range $name, $namespace := .Values.channels.namespaces -}}
  {{- $may := has $namespace.subscribe (include "tidegate.usesJwtSecret" $ | empty | ternary (list "anyone") (list "anyone" "claim")) -}}
  {{- if and $namespace.durable $may (not $found) }}{{ $found = $name }}{{ end -}}
{{- end -}}
{{- $found -}}
{{- end -}}
