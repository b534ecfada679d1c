{{/*
The processes, as in docker-compose.yml. `secrets` and `env` name the blocks of values.yaml that a process is
given. `reaches` are the rules of its network policy, in network-policies.yaml. `volume`: the shared one.
*/}}
{{- define "tollgate.processes" -}}
web:
  image: django
  command: [granian, --interface, asginl, --http, "1", --no-ws, --http1-header-read-timeout, "15000", --backpressure, "8192", "config.asgi:application"]
  secrets: [django, web]
  env: [django, web]
  port: 8000
  live: /_health
  # The database answers. Without Redis it is slower, and still ready.
  ready: /_ready
  volume: true
  grace: 30
  reaches: [database, redis, temporal, gateway, internet]
worker:
  image: django
  command: [python, manage.py, run_worker]
  secrets: [django]
  env: [django]
  metricsPort: 9100
  volume: true
  grace: 15
  reaches: [database, redis, temporal, gateway, internet]
celery:
  image: django
  command: [celery, --quiet, --app, config.celery, worker, --pool, threads, --concurrency, "8", --loglevel, WARNING, --without-gossip, --without-mingle, --without-heartbeat]
  secrets: [django]
  env: [django]
  metricsPort: 9100
  volume: true
  grace: 30
  reaches: [database, redis, temporal, gateway, internet]
beat:
  image: django
  command: [celery, --quiet, --app, config.celery, beat, --scheduler, "celery.beat:Scheduler"]
  secrets: [django]
  env: [django]
  # A second beat would only send every hint twice.
  recreate: true
  grace: 15
  reaches: [redis, internet]
reconciler:
  image: django
  command: [python, manage.py, run_reconciler]
  secrets: [django]
  env: [django]
  metricsPort: 9100
  grace: 15
  reaches: [database, redis, internet]
sockets:
  image: django
  command: [python, manage.py, slack_socket]
  secrets: [django, sockets]
  env: [django]
  metricsPort: 9100
  volume: true
  grace: 25
  reaches: [database, redis, temporal, internet]
agents:
  image: django
  command: [python, -m, coding_tasks.agent_worker]
  secrets: []
  env: [agents]
  sandbox: true
  volume: true
  grace: 15
  reaches: [temporal, gateway]
gateway:
  image: gateway
  command: [python, -m, gateway]
  secrets: [gateway]
  env: [gateway]
  port: 8100
  # Once it was able to serve, it stays in service. Its refusals say when to come back; nobody would read
  # them if all gateways left the service whenever Redis or Django is down.
  started: /_ready
  live: /_health
  ready: /_health
  # Time to finish and book the calls in flight.
  grace: 60
  reaches: [gatewayRedis, web, internet]
{{- end }}

{{- define "tollgate.labels" -}}
app.kubernetes.io/part-of: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The variables that the chart knows; those of values.yaml come after them and replace them. */}}
{{- define "tollgate.env.django" -}}
PUBLIC_URL: {{ required "Set publicUrl." .Values.publicUrl | quote }}
ALLOWED_HOSTS: {{ printf "%s,%s-web" (urlParse .Values.publicUrl).hostname .Release.Name | quote }}
GATEWAY_URL: http://{{ .Release.Name }}-gateway:8100
TEMPORAL_ADDRESS: {{ required "Set temporal.address." .Values.temporal.address | quote }}
TEMPORAL_NAMESPACE: {{ .Values.temporal.namespace | quote }}
AGENT_EXCHANGE_DIRECTORY: /var/lib/tollgate/exchange
REPOSITORIES_DIRECTORY: /var/lib/tollgate/git
{{- end }}
{{- define "tollgate.env.web" -}}
{{- end }}
{{- define "tollgate.env.agents" -}}
TEMPORAL_ADDRESS: {{ required "Set temporal.address." .Values.temporal.address | quote }}
TEMPORAL_NAMESPACE: {{ .Values.temporal.namespace | quote }}
AGENT_EXCHANGE_DIRECTORY: /var/lib/tollgate/exchange
{{- end }}
{{- define "tollgate.env.gateway" -}}
TOLLGATE_URL: http://{{ .Release.Name }}-web:8000
BILLING_URL: {{ printf "%s/admin/" (trimSuffix "/" .Values.publicUrl) | quote }}
{{- end }}

{{- define "tollgate.env" -}}
{{- $env := dict }}
{{- range .process.env }}
{{- $env = mergeOverwrite $env (include (printf "tollgate.env.%s" .) $.root | fromYaml | default dict) (index $.root.Values.env .) }}
{{- end }}
{{- with .process.metricsPort }}{{ $_ := set $env "METRICS_PORT" (toString .) }}{{ end }}
{{- range $name, $value := $env }}
- {name: {{ $name }}, value: {{ toString $value | quote }}}
{{- end }}
{{- end }}

{{- define "tollgate.envFrom" -}}
{{- range .process.secrets }}
- secretRef: {name: {{ required (printf "Set secrets.%s." .) (index $.root.Values.secrets .) | quote }}}
{{- end }}
{{- end }}

{{- define "tollgate.image" -}}
{{ required (printf "Set images.%s." .process.image) (index .root.Values.images .process.image) | quote }}
{{- end }}
