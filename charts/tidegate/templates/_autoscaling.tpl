{{/* How fast the number of pods may change: up at once, because clients wait; down by one pod in a period no shorter than
     the grace period, because each pod that goes makes all of its clients reconnect. */}}
{{- define "tidegate.scalingBehavior" -}}
{{- $times := include "tidegate.times" . | fromYaml -}}
{{- with .Values.autoscaling -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUp.stabilizationWindowSeconds }}
  selectPolicy: Max
  policies:
    - {type: Pods, value: {{ .scaleUp.pods }}, periodSeconds: {{ .scaleUp.periodSeconds }}}
    - {type: Percent, value: 100, periodSeconds: {{ .scaleUp.periodSeconds }}}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDown.stabilizationWindowSeconds }}
  selectPolicy: Min
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ $times.scaleDownPeriod }}}
{{- end -}}
{{- end -}}
