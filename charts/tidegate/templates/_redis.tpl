{{- define "tidegate.redisConfig" -}}
bind * -::*
port 6379
dir /data
# The user that the gateway is: written at the start, from the password's file.
include /run/redis/users.conf
# Every write is in the log; at most the last second is lost when the machine fails. No snapshots beside it.
appendonly yes
appendfsync everysec
save ""
# Full means full: evicting would take away history, bans and who is present without telling anybody.
maxmemory {{ .Values.redis.maxMemoryMebibytes }}mb
maxmemory-policy noeviction
# A pod that does not keep up is cut, and recovers by itself, before it costs the memory that all need. With less it
# would be cut by a burst.
client-output-buffer-limit pubsub 64mb 16mb 30
tcp-keepalive 60
timeout 0
{{- with .Values.redis.extraConfig }}
{{ . }}
{{- end }}
{{- end -}}
