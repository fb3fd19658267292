{{- define "mlflow-server.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name }}
{{- if or (gt (len $name) 40) (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name)) }}
{{- $source := empty .Values.fullnameOverride | ternary "The release name" "fullnameOverride" }}
{{- fail (printf "%s, %q, is not a valid name for an MLflowServer, because its Services and Secrets use the name, too. Use at most 40 characters (it has %d) of a-z, 0-9 and '-', begin with a letter and do not end with '-'; or keep the release name and set fullnameOverride." $source $name (len $name)) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* Without app.kubernetes.io/managed-by: Helm adds it itself. */}}
{{- define "mlflow-server.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
"known" if the cluster has the CRD MLflowServer; fails if it does not. Without a cluster (`helm template`) this cannot
be checked: apiregistration.k8s.io/v1 exists in every cluster, but not in the default API list of `helm template`.
*/}}
{{- define "mlflow-server.crd" -}}
{{- $known := .Capabilities.APIVersions.Has "mlflow-operator.dev/v1alpha1/MLflowServer" }}
{{- if and (not $known) (.Capabilities.APIVersions.Has "apiregistration.k8s.io/v1") }}
{{- fail "This cluster does not have the CRD MLflowServer (mlflow-operator.dev/v1alpha1), which this chart requires. Install the operator first: helm upgrade --install mlflow-operator charts/mlflow-operator -n mlflow-operator --create-namespace" }}
{{- end }}
{{- if $known }}known{{ end }}
{{- end }}

{{/*
Name and password of the administrator, as JSON: `username`, `secret` and `key`; `{}` if clients need no credentials.
*/}}
{{- define "mlflow-server.administrator" -}}
{{- $auth := .Values.auth | default dict }}
{{- if and $auth (not (hasKey $auth "none")) }}
{{- $admin := get $auth "admin" | default dict }}
{{- $ref := get $admin "passwordSecretRef" | default dict }}
{{- $generated := printf "%s-admin" (include "mlflow-server.name" .) }}
{{- dict "username" (get $admin "username" | default "admin") "secret" (get $ref "name" | default $generated) "key" (get $ref "key" | default "password") | toJson }}
{{- else }}{}{{ end }}
{{- end }}

{{/*
The image of the `helm test` pod. The default is the image of the server, which contains a client of the same version
and can be pulled in this cluster. It is read from the status of the MLflowServer; without a status, it is the default image
of a new server.
*/}}
{{- define "mlflow-server.testImage" -}}
{{- $server := dict }}
{{- if include "mlflow-server.crd" . }}
{{- $server = lookup "mlflow-operator.dev/v1alpha1" "MLflowServer" .Release.Namespace (include "mlflow-server.name" .) | default dict }}
{{- end }}
{{- $status := get $server "status" | default dict }}
{{- $version := .Values.version | default (get $status "version") | default .Chart.AppVersion }}
{{- $repository := "ghcr.io/mlflow/mlflow" }}
{{- $tag := printf ":v%s-full" (get $status "version") }}
{{- $image := get $status "image" | default "" | splitList "@" | first }}
{{- if hasSuffix $tag $image }}
{{- $repository = trimSuffix $tag $image }}
{{- end }}
{{- .Values.test.image | default .Values.image | default (printf "%s:v%s-full" $repository $version) }}
{{- end }}
