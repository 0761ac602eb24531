{{/* What no single value can see. Every fault is told at once, and each says what to change. */}}
{{- define "tidegate.check" -}}
{{- $v := .Values -}}
{{- $t := include "tidegate.times" . | fromYaml -}}
{{- $needed := add $t.leave $t.slack -}}
{{- $faults := list -}}

{{- /* Names. A Service has the strictest: a DNS label that begins with a letter. Capitals Helm refuses itself. */ -}}
{{- $name := include "tidegate.fullname" . -}}
{{- if not (regexMatch "(?i)^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
  {{- $faults = append $faults (printf "the Service would be named %q, and names of Services begin with a small letter and have only small letters, digits and - in them: set fullnameOverride." $name) -}}
{{- end -}}

{{- /* What is checked here must not be set behind it: of two variables with one name the last one counts. */ -}}
{{- $valueOf := dict "MAX_CONNECTIONS" "maxConnections" "PING_INTERVAL_SECONDS" "pingIntervalSeconds"
      "PONG_TIMEOUT_SECONDS" "pongTimeoutSeconds" "DRAIN_SECONDS" "drainSeconds" "TRUSTED_PROXIES" "trustedProxies" -}}
{{- range $v.extraEnv -}}
  {{- if hasKey $valueOf (toString .name) -}}
    {{- $faults = append $faults (printf "extraEnv has %s, past what is checked here: set %s instead." .name (get $valueOf .name)) -}}
  {{- else if has (toString .name) (list "PORT" "API_PORT" "ADMIN_PORT") -}}
    {{- $faults = append $faults (printf "extraEnv has %s, and probes, Services and NetworkPolicies lead to the port that the chart has: leave it out." .name) -}}
  {{- end -}}
{{- end -}}

{{- /* Connections */ -}}
{{- if ge (mul 2 (int $v.pingIntervalSeconds)) (int $t.idle) -}}
  {{- $faults = append $faults (printf "pingIntervalSeconds is %d, and connections are cut after %d idle seconds (idleTimeoutSeconds). A lost ping must not cut one: set pingIntervalSeconds to less than half, %d at the most, or raise idleTimeoutSeconds here and on the load balancer." (int $v.pingIntervalSeconds) (int $t.idle) (div (sub $t.idle 1) 2)) -}}
{{- end -}}
{{- if gt (int $v.pongTimeoutSeconds) (int $v.pingIntervalSeconds) -}}
  {{- $faults = append $faults (printf "pongTimeoutSeconds is %d, more than pingIntervalSeconds (%d): lower it to that or less." (int $v.pongTimeoutSeconds) (int $v.pingIntervalSeconds)) -}}
{{- end -}}

{{- /* Memory of a gateway without connections, and of each: see docs/capacity.md. Backlogs and returns come on top. */ -}}
{{- with dig "limits" "memory" "" $v.resources -}}
  {{- $needed := addf 110 (mulf (float64 $v.maxConnections) 13 (divf 1 1024)) -}}
  {{- if gt $needed (include "tidegate.mebibytes" . | float64) -}}
    {{- $faults = append $faults (printf "maxConnections is %d, for which a pod needs %.0fMi even where all are idle, and resources.limits.memory is %v, so it would be killed before it is full: raise resources.limits.memory (`npm run capacity` says how far), or lower maxConnections." (int $v.maxConnections) (ceil $needed) .) -}}
  {{- end -}}
{{- end -}}

{{- /* The life of a pod */ -}}
{{- if lt (int $t.grace) (int $needed) -}}
  {{- $faults = append $faults (printf "terminationGracePeriodSeconds is %d, and a pod needs %d to stop (preStopSeconds %d + drainSeconds %d + %d): raise it, or leave it null." (int $t.grace) (int $needed) (int $t.preStop) (int $v.drainSeconds) (int $t.slack)) -}}
{{- end -}}
{{- if lt (int $t.minReady) (int $t.leave) -}}
  {{- $faults = append $faults (printf "minReadySeconds is %d, and an old pod takes %d to leave (preStopSeconds %d + drainSeconds %d), so a roll would drain several at once: raise it to that or more, or leave it null." (int $t.minReady) (int $t.leave) (int $t.preStop) (int $v.drainSeconds)) -}}
{{- end -}}
{{- if lt (int $t.deadline) (int (add $t.minReady 60)) -}}
  {{- $faults = append $faults (printf "progressDeadlineSeconds is %d, and a new pod counts only after minReadySeconds (%d), so a roll would be reported as failed: raise it to %d or more, or leave it null." (int $t.deadline) (int $t.minReady) (int (add $t.minReady 60))) -}}
{{- end -}}

{{- /* Ways in */ -}}
{{- $proxies := list -}}
{{- range include "tidegate.ways" . | fromYamlArray -}}
  {{- $proxies = append $proxies (int .proxies) -}}
  {{- if lt (int $t.preStop) (int .minPreStop) -}}
    {{- $faults = append $faults (printf "preStopSeconds is %d, and with %s a load balancer sends new connections to a stopping pod for up to %d seconds: raise it to %d or more, or leave it null." (int $t.preStop) .way (int .minPreStop) (int .minPreStop)) -}}
  {{- end -}}
  {{- if .delayName -}}
    {{- $delay := include "tidegate.delay" (list $ .delay) | int -}}
    {{- if lt $delay (int $needed) -}}
      {{- $faults = append $faults (printf "%s is %d, and its clock starts with preStop: it has to be %d or more (preStopSeconds %d + drainSeconds %d + %d), or the load balancer cuts connections that are still draining. Raise it, or leave it null." .delayName $delay (int $needed) (int $t.preStop) (int $v.drainSeconds) (int $t.slack)) -}}
    {{- else if gt $delay 3600 -}}
      {{- $faults = append $faults (printf "%s comes to %d, and 3600 is the most there is: lower drainSeconds or preStopSeconds." .delayName $delay) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- /* An annotation of yours replaces the preset's, and with it what is checked here. */ -}}
{{- $kept := list -}}
{{- if and $v.ingress.enabled (eq $v.ingress.preset "alb") -}}
  {{- $kept = list
        (list "ingress" "alb.ingress.kubernetes.io/load-balancer-attributes" (printf "idle_timeout.timeout_seconds=%d" (int $t.idle)))
        (list "ingress" "alb.ingress.kubernetes.io/target-group-attributes"
          (printf "deregistration_delay.timeout_seconds=%s" (include "tidegate.delay" (list $ $v.ingress.alb.deregistrationDelaySeconds)))) -}}
{{- else if and $v.ingress.enabled (eq $v.ingress.preset "nginx") -}}
  {{- $kept = list
        (list "ingress" "nginx.ingress.kubernetes.io/proxy-read-timeout" (toString $t.idle))
        (list "ingress" "nginx.ingress.kubernetes.io/proxy-send-timeout" (toString $t.idle)) -}}
{{- end -}}
{{- if and $v.loadBalancer.enabled (eq $v.loadBalancer.preset "nlb") -}}
  {{- $kept = append $kept (list "loadBalancer" "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes"
        (printf "deregistration_delay.timeout_seconds=%s" (include "tidegate.delay" (list $ $v.loadBalancer.deregistrationDelaySeconds)))) -}}
{{- end -}}
{{- range $kept -}}
  {{- $way := index . 0 -}}{{- $key := index . 1 -}}{{- $wanted := index . 2 -}}
  {{- $given := get (get $v $way).annotations $key -}}
  {{- if and $given (not (has $wanted (splitList "," (nospace $given)))) -}}
    {{- $faults = append $faults (printf "%s.annotations replaces %s, and leaves out %s, which is what is checked here: put that in. To change it, set idleTimeoutSeconds or the delay of the preset." $way $key $wanted) -}}
  {{- end -}}
{{- end -}}
{{- if and (kindIs "invalid" $v.trustedProxies) (gt (len (uniq $proxies)) 1) -}}
  {{- $faults = append $faults "the ways in that are on differ in how many proxies add to X-Forwarded-For, so the address of a client cannot be told on all of them: set trustedProxies to the smallest number and know that address limits then hit the load balancer of the others, or use one way in." -}}
{{- end -}}
{{- if and $v.gatewayApi.enabled (not $v.gatewayApi.parentRefs) -}}
  {{- $faults = append $faults "gatewayApi.parentRefs is empty, so the HTTPRoute would lead nowhere: name your Gateway, as [{name: public, namespace: gateways}]." -}}
{{- end -}}

{{- /* Channels, as the gateway refuses them when it starts */ -}}
{{- if regexMatch "^tg(:|$)" $v.plain.channel -}}
  {{- $faults = append $faults (printf "plain.channel is %s, and names that begin with tg are the gateway's own: choose another." $v.plain.channel) -}}
{{- end -}}
{{- range $name, $namespace := $v.channels.namespaces -}}
  {{- if and $namespace.presenceEvents (not $namespace.presence) -}}
    {{- $faults = append $faults (printf "channels.namespaces.%s has presenceEvents, which tell of who is present: set its presence to true, or leave presenceEvents out." $name) -}}
  {{- end -}}
  {{- if gt (int64 ($namespace.maxMessageBytes | default 0)) (int64 $v.limits.messageBytes) -}}
    {{- $faults = append $faults (printf "channels.namespaces.%s.maxMessageBytes is %d, more than limits.messageBytes (%d): lower it, or raise the latter." $name (int64 $namespace.maxMessageBytes) (int64 $v.limits.messageBytes)) -}}
  {{- end -}}
{{- end -}}

{{- /* Who may connect */ -}}
{{- with $v.auth -}}
  {{- if and (eq .mode "jwt") (not .sharedSecret) (not .jwksUrl) -}}
    {{- $faults = append $faults "auth.mode is jwt, and there is no key to check tokens with: set auth.jwksUrl, or auth.sharedSecret to true." -}}
  {{- else if and (eq .mode "jwt") (not (include "tidegate.usesJwtSecret" $)) (not (and .jwksUrl (regexMatch "RS|PS|ES|Ed" (join "," .algorithms | default "Ed")))) -}}
    {{- $faults = append $faults "auth.algorithms has none that the keys can be of, so every token would be refused: those of auth.sharedSecret begin with HS, those of auth.jwksUrl do not. Add one, or leave auth.algorithms empty." -}}
  {{- end -}}
  {{- if and .existingSecret (or .jwtSecret .apiKey .adminToken) -}}
    {{- $faults = append $faults "auth.existingSecret is set together with auth.jwtSecret, auth.apiKey or auth.adminToken: put these into that Secret, or leave existingSecret empty." -}}
  {{- end -}}
{{- end -}}

{{- /* Autoscaling */ -}}
{{- with $v.autoscaling -}}
{{- if .enabled -}}
  {{- if gt (int .minReplicas) (int .maxReplicas) -}}
    {{- $faults = append $faults (printf "autoscaling.minReplicas (%d) is more than autoscaling.maxReplicas (%d): raise the latter." (int .minReplicas) (int .maxReplicas)) -}}
  {{- end -}}
  {{- if not (or .cpu.enabled .connections.enabled) -}}
    {{- $faults = append $faults "autoscaling is on without a reason to scale: set autoscaling.cpu.enabled or autoscaling.connections.enabled." -}}
  {{- end -}}
  {{- if lt (int $t.scaleDownPeriod) (int $t.grace) -}}
    {{- $faults = append $faults (printf "autoscaling.scaleDown.periodSeconds is %d, less than the grace period (%d), so several pods would drain at once: raise it to that or more, or leave it null." (int $t.scaleDownPeriod) (int $t.grace)) -}}
  {{- else if gt (int $t.scaleDownPeriod) 1800 -}}
    {{- $faults = append $faults (printf "autoscaling.scaleDown.periodSeconds comes to %d, and an HPA allows 1800 at the most: lower drainSeconds or preStopSeconds." (int $t.scaleDownPeriod)) -}}
  {{- end -}}
  {{- /* An HPA counts a pod that it added within the period as one that it may remove on top. */ -}}
  {{- if lt (int .scaleDown.stabilizationWindowSeconds) (int $t.scaleDownPeriod) -}}
    {{- $faults = append $faults (printf "autoscaling.scaleDown.stabilizationWindowSeconds is %d, less than the period in which one pod is removed (%d), so pods that were added just before would be removed all at once: raise it to that or more." (int .scaleDown.stabilizationWindowSeconds) (int $t.scaleDownPeriod)) -}}
  {{- end -}}
  {{- if .cpu.enabled -}}
    {{- $request := dig "requests" "cpu" "" $v.resources -}}
    {{- if eq (toString $request) "" -}}
      {{- $faults = append $faults "autoscaling.cpu measures against resources.requests.cpu, which is not set: set it, or autoscaling.cpu.enabled to false." -}}
    {{- else -}}
      {{- $milli := mulf (include "tidegate.milliCpu" $request | float64) (float64 .cpu.targetUtilization) 0.01 -}}
      {{- if gt $milli 800.0 -}}
        {{- $faults = append $faults (printf "autoscaling.cpu.targetUtilization is %d %% of %v, %.0fm, and one thread uses 1000m at the most, so the target is hardly ever reached: lower it to %.0f, or lower resources.requests.cpu; the product may be 800m." (int .cpu.targetUtilization) $request $milli (floor (divf 80000.0 (include "tidegate.milliCpu" $request | float64)))) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if .connections.enabled -}}
    {{- if gt (mul 10 (int .connections.target)) (mul 7 (int $v.maxConnections)) -}}
      {{- $faults = append $faults (printf "autoscaling.connections.target is %d, more than 0.7 of maxConnections (%d): pods would be full before new ones are there. Lower it to %d, or raise maxConnections." (int .connections.target) (int $v.maxConnections) (int (div (mul 7 (int $v.maxConnections)) 10))) -}}
    {{- end -}}
    {{- if eq .connections.source "none" -}}
      {{- $faults = append $faults "autoscaling.connections is on, and autoscaling.connections.source says that nobody tells the HPA of them: set it to prometheus-adapter or keda." -}}
    {{- else if and (eq .connections.source "operator") (not (include "tidegate.operated" $)) -}}
      {{- $faults = append $faults "autoscaling.connections.source is operator, and there is none: set operator.enabled, name the one that serves the cluster in operator.servedBy, or set the source to prometheus-adapter or keda." -}}
    {{- else if and (eq .connections.source "operator") (not (and $v.connectionPolicy.enabled $v.connectionPolicy.serveMetrics)) -}}
      {{- $faults = append $faults "autoscaling.connections.source is operator, and the policy does not let it serve metrics: set connectionPolicy.enabled and connectionPolicy.serveMetrics." -}}
    {{- else if and (eq .connections.source "keda") (not .keda.prometheusAddress) -}}
      {{- $faults = append $faults "autoscaling.connections.source is keda, which asks Prometheus: set autoscaling.keda.prometheusAddress, as http://prometheus.monitoring:9090." -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* Of two autoscalers with one name the new one cannot be made before the old one is gone. */ -}}
{{- if $v.autoscaling.enabled -}}
  {{- $live := lookup "autoscaling/v2" "HorizontalPodAutoscaler" .Release.Namespace $name -}}
  {{- $isOfKeda := false -}}
  {{- range dig "metadata" "ownerReferences" list $live }}{{ if eq .kind "ScaledObject" }}{{ $isOfKeda = true }}{{ end }}{{ end -}}
  {{- $wantsKeda := not (empty (include "tidegate.scalesBy" (list . "keda"))) -}}
  {{- if and $live (ne $isOfKeda $wantsKeda) -}}
    {{- $faults = append $faults (printf "autoscaling.connections.source goes %s keda, and the autoscaler that is there has the name of the new one: upgrade once with autoscaling.enabled false and replicaCount null, which leaves the pods as they are, and then to this." ($wantsKeda | ternary "to" "away from")) -}}
  {{- end -}}
{{- end -}}

{{- /* The operator */ -}}
{{- with $v.operator -}}
  {{- if and .enabled .servedBy.name -}}
    {{- $faults = append $faults "operator.enabled is on, and operator.servedBy names another: set operator.enabled to false, or leave operator.servedBy.name empty." -}}
  {{- end -}}
  {{- if and .enabled $.Release.IsUpgrade (not ($.Capabilities.APIVersions.Has "tidegate.dev/v1alpha1/ConnectionPolicy")) -}}
    {{- $faults = append $faults "the cluster does not know ConnectionPolicies, and Helm brings new kinds only with a first install: run `helm show crds CHART | kubectl apply --server-side --filename -` with this chart, then upgrade again, or set operator.enabled to false." -}}
  {{- end -}}
{{- end -}}
{{- if include "tidegate.servesMetrics" $ -}}
  {{- range (lookup "apiregistration.k8s.io/v1" "APIService" "" "").items -}}
    {{- if eq (dig "spec" "group" "" .) "custom.metrics.k8s.io" -}}
      {{- $by := printf "%s/%s" (dig "spec" "service" "namespace" "" .) (dig "spec" "service" "name" "" .) -}}
      {{- if ne $by (printf "%s/%s" $.Release.Namespace (include "tidegate.operatorName" $)) -}}
        {{- if eq (dig "metadata" "labels" "app.kubernetes.io/part-of" "" .) "tidegate" -}}
          {{- $faults = append $faults (printf "the custom metrics of this cluster are served by another release of this chart, by the operator %s: one serves all namespaces. Give that release operator.scope cluster, and set operator.enabled to false here, operator.servedBy.namespace to %s and operator.servedBy.name to %s." $by (first (splitList "/" $by)) (last (splitList "/" $by))) -}}
        {{- else -}}
          {{- $faults = append $faults (printf "%s already belongs to another provider (%s), and a cluster has one: joining it would take over every autoscaler of the cluster. Set autoscaling.connections.source to prometheus-adapter and let that provider serve tidegate_connections, or to keda, or remove that provider." .metadata.name $by) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and (include "tidegate.operated" $) $v.connectionPolicy.enabled (not (dig "suspend" false $v.connectionPolicy.rebalance)) -}}
  {{- $away := "so a client that is asked to move comes back to the pod it was on: turn that off, or set connectionPolicy.rebalance.suspend to true" -}}
  {{- if eq $v.service.sessionAffinity "ClientIP" -}}
    {{- $faults = append $faults (printf "service.sessionAffinity is ClientIP, %s." $away) -}}
  {{- end -}}
  {{- if and $v.ingress.enabled (eq $v.ingress.preset "alb") $v.ingress.alb.stickiness.enabled -}}
    {{- $faults = append $faults (printf "ingress.alb.stickiness is on, %s." $away) -}}
  {{- end -}}
  {{- range $way, $annotations := dict "ingress" (and $v.ingress.enabled $v.ingress.annotations) "loadBalancer" (and $v.loadBalancer.enabled $v.loadBalancer.annotations) -}}
    {{- range $key, $text := $annotations | default dict -}}
      {{- if or (contains "stickiness.enabled=true" $text) (and (hasSuffix "nginx.ingress.kubernetes.io/affinity" $key) (eq $text "cookie")) -}}
        {{- $faults = append $faults (printf "%s.annotations turns stickiness on with %s, %s." $way $key $away) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{- /* Redis */ -}}
{{- if and $v.redis.enabled $v.externalRedis.url -}}
  {{- $faults = append $faults "externalRedis.url is set, and redis.enabled brings a Redis of the chart's own: there is one, so set redis.enabled to false, or leave externalRedis.url empty." -}}
{{- else if not (or $v.redis.enabled $v.externalRedis.url) -}}
  {{- $faults = append $faults "redis.enabled is false, and there is no other Redis, without which the gateways do not hear each other: set externalRedis.url, as redis://redis.example.com:6379, or redis.enabled to true." -}}
{{- end -}}
{{- if $v.redis.enabled -}}
  {{- with $v.redis -}}
    {{- if and .existingSecret .password -}}
      {{- $faults = append $faults "redis.existingSecret is set together with redis.password: put it into that Secret, or leave existingSecret empty." -}}
    {{- end -}}
    {{- with dig "limits" "memory" "" .resources -}}
      {{- $limit := include "tidegate.mebibytes" . | float64 -}}
      {{- if gt (float64 $v.redis.maxMemoryMebibytes) (mulf $limit 0.6) -}}
        {{- $faults = append $faults (printf "redis.maxMemoryMebibytes is %d, more than 0.6 of the memory limit (%v), and rewriting the log copies what changes meanwhile, so Redis would be killed: lower it to %.0f, or raise redis.resources.limits.memory." (int $v.redis.maxMemoryMebibytes) . (floor (mulf $limit 0.6))) -}}
      {{- end -}}
    {{- end -}}
    {{- if and .persistence.enabled (lt (include "tidegate.mebibytes" .persistence.size | float64) (mulf (float64 .maxMemoryMebibytes) 3)) -}}
      {{- $faults = append $faults (printf "redis.persistence.size is %v, less than three times redis.maxMemoryMebibytes (%d), and the log grows to twice the data before it is rewritten beside itself: raise it to %dMi or more." .persistence.size (int .maxMemoryMebibytes) (int (mul 3 (int .maxMemoryMebibytes)))) -}}
    {{- end -}}
    {{- /* Kubernetes refuses to change the volume of a StatefulSet that is there, and does not say which field that was. */ -}}
    {{- with lookup "apps/v1" "StatefulSet" $.Release.Namespace (include "tidegate.redisName" $) -}}
      {{- $remedy := printf "Take it back, or run `kubectl --namespace %s delete statefulset %s --cascade=orphan`, which leaves its pod and its volume as they are, and upgrade again: see docs/operations.md." $.Release.Namespace .metadata.name -}}
      {{- $claims := dig "spec" "volumeClaimTemplates" list . -}}
      {{- $wants := $v.redis.persistence -}}
      {{- if ne (empty $claims) (not $wants.enabled) -}}
        {{- $faults = append $faults (printf "redis.persistence.enabled has changed, a StatefulSet keeps the volumes that it began with, and Redis would begin empty. %s" $remedy) -}}
      {{- else -}}
        {{- range $claims -}}
          {{- $size := .spec.resources.requests.storage -}}
          {{- if ne (include "tidegate.mebibytes" $size) (include "tidegate.mebibytes" $wants.size) -}}
            {{- $faults = append $faults (printf "redis.persistence.size is %s, and was %s, and a StatefulSet keeps the volumes that it began with. %s" $wants.size $size $remedy) -}}
          {{- end -}}
          {{- $class := .spec.storageClassName | default "" -}}
          {{- if ne $class $wants.storageClass -}}
            {{- $faults = append $faults (printf "redis.persistence.storageClass is %q, and was %q, and a StatefulSet keeps the volumes that it began with. %s" $wants.storageClass $class $remedy) -}}
          {{- end -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
    {{- if not (or .persistence.enabled .persistence.allowDurableWithout) -}}
      {{- range $name, $namespace := $v.channels.namespaces -}}
        {{- if $namespace.durable -}}
          {{- $faults = append $faults (printf "channels.namespaces.%s is durable, and Redis has no volume, so what it keeps is lost whenever Redis restarts: set redis.persistence.enabled, or redis.persistence.allowDurableWithout if that is meant." $name) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- else -}}
  {{- with $v.externalRedis -}}
    {{- if and .existingSecret (or .password .sentinelPassword) -}}
      {{- $faults = append $faults "externalRedis.existingSecret is set together with a password: put it into that Secret, or leave existingSecret empty." -}}
    {{- end -}}
    {{- if and .caSecret (not (hasPrefix "rediss://" .url)) -}}
      {{- $faults = append $faults "externalRedis.caSecret is set, and externalRedis.url begins with redis://, which is without TLS: begin it with rediss://, or leave caSecret empty." -}}
    {{- end -}}
    {{- if contains "@" .url -}}
      {{- $faults = append $faults "externalRedis.url holds a user or a password, for whoever may read pods to see: write it as redis://host:6379, the user into externalRedis.username, and the password into a Secret that externalRedis.existingSecret names." -}}
    {{- else if and .url (not (regexMatch "^rediss?://." .url)) -}}
      {{- $faults = append $faults (printf "externalRedis.url is %s: begin it with redis://, or with rediss:// for TLS." .url) -}}
    {{- end -}}
    {{- if and (eq .mode "standalone") (contains "," .url) -}}
      {{- $faults = append $faults "externalRedis.url lists several hosts, and externalRedis.mode is standalone: set it to sentinel or cluster." -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{- if and $v.monitoring.podMonitor.enabled $v.monitoring.serviceMonitor.enabled -}}
  {{- $faults = append $faults "monitoring.podMonitor and monitoring.serviceMonitor are both on, and everything would count twice: turn one of them off." -}}
{{- end -}}

{{- if $faults -}}
  {{- fail (printf "\n\ntidegate cannot be installed like this:\n\n- %s\n" (join "\n- " $faults)) -}}
{{- end -}}
{{- end -}}
