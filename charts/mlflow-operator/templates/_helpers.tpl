{{/* Shared names and labels. Names are truncated to 53 characters, because suffixes are appended to them. */}}

{{- define "mlflow-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "mlflow-operator.fullname" -}}
{{- $name := include "mlflow-operator.name" . }}
{{- $release := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $release | trunc 53 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of roles for MLflowPlatforms. Operators in different namespaces with the same name need different roles. */}}
{{- define "mlflow-operator.platform" -}}
{{ include "mlflow-operator.fullname" . }}{{ with .Values.watchNamespaces }}-{{ $.Release.Namespace }}{{ end }}
{{- end }}

{{- define "mlflow-operator.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "mlflow-operator.fullname" .) "default") }}
{{- end }}

{{/* Selector labels of the Deployment, which are immutable. */}}
{{- define "mlflow-operator.selector" -}}
app.kubernetes.io/name: {{ include "mlflow-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Without app.kubernetes.io/managed-by: Helm adds it itself, and manifests/operator.yaml must not contain it. */}}
{{- define "mlflow-operator.labels" -}}
{{ include "mlflow-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of the pre-delete hook. The selector of the Deployment must not match them. */}}
{{- define "mlflow-operator.uninstall" -}}
app.kubernetes.io/name: {{ include "mlflow-operator.name" . }}-uninstall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: uninstall
{{- end }}

{{/* "true" if the chart contains the admission policy. apiregistration.k8s.io/v1 exists in every cluster, but not in the
default API list of `helm template`. */}}
{{- define "mlflow-operator.admissionPolicy" -}}
{{- if and .Values.admissionPolicy.enabled (or (not (.Capabilities.APIVersions.Has "apiregistration.k8s.io/v1")) (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")) }}true{{ end }}
{{- end }}
