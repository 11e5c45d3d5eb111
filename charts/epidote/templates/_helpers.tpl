{{- define "epidote.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "epidote.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "epidote.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "epidote.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "epidote.selector" -}}
app.kubernetes.io/name: epidote-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "epidote.testSelector" -}}
app.kubernetes.io/name: epidote-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "epidote.labels" -}}
{{ include "epidote.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: epidote
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "epidote.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-operator" (include "epidote.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "epidote.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}

{{- define "epidote.workerImage" -}}
{{- printf "%s:%s" .Values.workers.image.repository (default .Chart.AppVersion .Values.workers.image.tag) }}
{{- end }}

{{- define "epidote.webhookName" -}}
{{- printf "%s-webhook" (include "epidote.fullname" .) }}
{{- end }}

{{- define "epidote.webhookSecret" -}}
{{- default (printf "%s-webhook-tls" (include "epidote.fullname" .)) .Values.webhook.certificates.secretName }}
{{- end }}

{{/* Cluster-scoped names hold the namespace: two releases may share a name. */}}
{{- define "epidote.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "epidote.fullname" .) }}
{{- end }}
