{{/* Names and labels that several objects share. A name has 53 characters at most: suffixes follow. */}}

{{- define "mlflow-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "mlflow-operator.fullname" -}}
{{- $name := include "mlflow-operator.name" . }}
{{- $release := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $release | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "mlflow-operator.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "mlflow-operator.fullname" .) "default") }}
{{- end }}

{{/* What the Deployment selects by: it can't change once made. */}}
{{- define "mlflow-operator.selector" -}}
app.kubernetes.io/name: {{ include "mlflow-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* app.kubernetes.io/managed-by is not here: Helm adds it by itself, and manifests made from this must not claim it. */}}
{{- define "mlflow-operator.labels" -}}
{{ include "mlflow-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Of what runs before the release goes; the Deployment must not select it. */}}
{{- define "mlflow-operator.uninstall" -}}
app.kubernetes.io/name: {{ include "mlflow-operator.name" . }}-uninstall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: uninstall
{{- end }}
