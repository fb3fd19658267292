"""Rendering of the charts with `helm template`, and values for it."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from mlflow_operator.kube.objects import Object
from tests.chart.kubeconform import TESTED_KUBERNETES
from tests.generate import CHART, SERVER_CHART, ToolError, helm

RELEASE, NAMESPACE = "mlflow-operator", "operators"

Values = Mapping[str, Any]

ALL_VALUES: Values = {
    "global": {"from": "a parent chart"},
    "nameOverride": "operator",
    "fullnameOverride": "an-operator",
    "image": {"repository": "registry.example.com:5000/operator", "tag": "2.0.0", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "login"}],
    "replicaCount": 3,
    "platformSecrets": {"mlflow-platform": ["postgres-admin", "ca"]},
    "images": {
        "mlflow": "registry.example.com:5000/mlflow",
        "mlflowDigests": {"3.17.2": "sha256:" + "a" * 64, "3.16.1": "sha256:" + "b" * 64},
        "postgres": "registry.example.com/postgres:17",
        "minio": "registry.example.com/minio@sha256:" + "0" * 64,
        "seaweedfs": "registry.example.com/seaweedfs:4",
    },
    "clusterDomain": "cluster.example.com",
    "log": {"level": "debug", "format": "text"},
    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "system-cluster-critical",
    "podAnnotations": {"example.com/a": "1"},
    "podLabels": {"example.com/team": "platform"},
    "uninstall": {
        "podLabels": {"sidecar.istio.io/inject": None, "example.com/mesh": "none"},
        "podAnnotations": {"example.com/mesh": "none"},
    },
    "serviceAccount": {"create": True, "name": "existing", "annotations": {"example.com/role": "r"}},
    "userRoles": {"create": False, "aggregateToEdit": True},
    "admissionPolicy": {"enabled": False},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "deletion": {"allowed": False},
    "crds": {"enabled": True, "keep": False},
    "metrics": {
        "service": {"enabled": True, "annotations": {"prometheus.io/scrape": "true"}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "30s"},
    },
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
}
"""A value other than the default for every key except watchNamespaces."""

VALUES_CASES: Mapping[str, Values] = {
    "defaults": {},
    "all values": ALL_VALUES,
    "two replicas": {"replicaCount": 2},
    "watched namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "watched namespaces with the operator's namespace": {"watchNamespaces": ["team-a", NAMESPACE]},
    "watched namespaces with Secrets of platforms": {
        "watchNamespaces": ["team-a"],
        "platformSecrets": {"platform": ["postgres-admin", "minio-admin"], "default": ["ca"]},
    },
    "all optional objects disabled": {
        "replicaCount": 0,
        "crds": {"enabled": False},
        "serviceAccount": {"create": False},
        "userRoles": {"create": False},
        "admissionPolicy": {"enabled": False},
        "metrics": {"service": {"enabled": False}},
        "resources": {},
    },
}


SERVER_VALUES_CASES: Mapping[str, Values] = {
    "defaults": {},
    "many values": {
        "global": {"from": "a parent chart"},
        "fullnameOverride": "other",
        "labels": {"example.com/team": "research"},
        "annotations": {"helm.sh/resource-policy": "keep"},
        "test": {
            "image": "registry.example.com/mlflow:v3.17.2-full",
            "podLabels": {"sidecar.istio.io/inject": "true"},
            "podAnnotations": {"linkerd.io/inject": "enabled"},
            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
        },
        "version": "3.17.2",
        "imagePullPolicy": "Always",
        "replicas": 0,
        "suspend": False,
        "env": [{"name": "A", "value": "1"}],
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}},
        "service": {"port": 80},
        "podTemplate": {
            "spec": {
                "serviceAccountName": "tracking",
                "priorityClassName": "high",
                "imagePullSecrets": [{"name": "login"}],
                "nodeSelector": {"kubernetes.io/arch": "amd64"},
                "tolerations": [{"operator": "Exists"}],
                "securityContext": {"runAsUser": 1000650000, "fsGroup": 1000650000},
            }
        },
        "database": {"embedded": {"storage": {"size": "50Gi"}}},
    },
    "presigned URLs and a private CA": {
        "artifacts": {
            "access": "Presigned",
            "s3": {
                "endpoint": "https://minio.example.com",
                "bucket": "models",
                "credentialsSecretRef": {"name": "keys"},
                "tls": {"caSecretRef": {"name": "company-ca"}},
            },
        }
    },
}
"""Values for the chart mlflow-server."""


def render(
    values: Values | None = None,
    chart: str = str(CHART),
    kubernetes: str = TESTED_KUBERNETES,
    release: str = RELEASE,
    api_versions: tuple[str, ...] = (),
) -> list[Object]:
    """Render a chart, for a cluster with additional API versions. Raises ToolError with the error message of Helm."""
    return [dict(obj) for obj in _render(json.dumps(values or {}), chart, kubernetes, release, api_versions)]


def render_server(values: Values | None = None, **options: Any) -> list[Object]:
    """Render the chart mlflow-server."""
    return render(values, str(SERVER_CHART), **{"release": "tracking", **options})


def render_error(values: Values, **options: Any) -> str:
    """Error message of Helm, or "" if it accepts the values."""
    try:
        render(values, **options)
    except ToolError as error:
        return str(error)
    return ""


def get_object(objects: list[Object], kind: str) -> Object:
    """Return the only object of a kind."""
    (match,) = (obj for obj in objects if obj["kind"] == kind)
    return match


@cache
def _render(
    values: str, chart: str, kubernetes: str, release: str, api_versions: tuple[str, ...]
) -> tuple[Object, ...]:
    value_flags = [f"--set-json={key}={json.dumps(value)}" for key, value in json.loads(values).items()]
    api_flags = [f"--api-versions={api}" for api in api_versions]
    text = helm(
        "template",
        release,
        chart,
        f"--namespace={NAMESPACE}",
        f"--kube-version={kubernetes}",
        *api_flags,
        *value_flags,
    )
    return tuple(obj for obj in yaml.safe_load_all(text) if obj)
