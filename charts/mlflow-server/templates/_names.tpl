{{- define "mlflow-server.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name }}
{{- if or (gt (len $name) 40) (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name)) }}
{{- $whence := empty .Values.fullnameOverride | ternary "The name of the release" "fullnameOverride" }}
{{- fail (printf "%s, %q, can't be the name of an MLflowServer: it names Services and Secrets as well. Take at most 40 characters (these are %d) of a-z, 0-9 and '-', beginning with a letter and not ending with '-'; or leave the release its name, and set fullnameOverride." $whence $name (len $name)) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* app.kubernetes.io/managed-by is not here: Helm adds it by itself. */}}
{{- define "mlflow-server.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Whether the cluster knows MLflowServer. Without a cluster (`helm template`) nobody can tell, and so it does: the API
named second is in every cluster, and not among those that Helm makes up.
*/}}
{{- define "mlflow-server.definition" -}}
{{- $known := .Capabilities.APIVersions.Has "mlflow-operator.dev/v1alpha1/MLflowServer" }}
{{- if and (not $known) (.Capabilities.APIVersions.Has "apiregistration.k8s.io/v1") }}
{{- fail "This cluster does not know MLflowServer (mlflow-operator.dev/v1alpha1), so there is nothing that this chart could make. Install the operator first: helm upgrade --install mlflow-operator charts/mlflow-operator -n mlflow-operator --create-namespace" }}
{{- end }}
{{- if $known }}known{{ end }}
{{- end }}

{{/*
The image for `helm test`: the server's own, for it holds a client of the very version and can be pulled here. Which
that is only the operator knows; where it has not said yet, what it gives a new server.
*/}}
{{- define "mlflow-server.testImage" -}}
{{- $live := dict }}
{{- if include "mlflow-server.definition" . }}
{{- $live = lookup "mlflow-operator.dev/v1alpha1" "MLflowServer" .Release.Namespace (include "mlflow-server.name" .) | default dict }}
{{- end }}
{{- $status := get $live "status" | default dict }}
{{- $version := .Values.version | default (get $status "version") | default .Chart.AppVersion }}
{{- $repository := "ghcr.io/mlflow/mlflow" }}
{{- $tag := printf ":v%s-full" (get $status "version") }}
{{- if hasSuffix $tag (get $status "image" | default "") }}
{{- $repository = trimSuffix $tag (get $status "image") }}
{{- end }}
{{- .Values.test.image | default .Values.image | default (printf "%s:v%s-full" $repository $version) }}
{{- end }}
