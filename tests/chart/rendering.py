"""The charts as Helm renders them, without a cluster."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from mlflow_operator.kube.objects import Object
from tests.chart.kubeconform import TESTED
from tests.generate import CHART, SERVER_CHART, Failed, helm

RELEASE, NAMESPACE = "mlflow-operator", "operators"

Values = Mapping[str, Any]

EVERYTHING: Values = {
    "global": {"from": "a parent chart"},
    "nameOverride": "operator",
    "fullnameOverride": "an-operator",
    "image": {"repository": "registry.example.com:5000/operator", "tag": "2.0.0", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "login"}],
    "replicas": 3,
    "adminSecrets": {"platform": ["postgres-admin", "minio-admin"]},
    "images": {
        "mlflow": "registry.example.com:5000/mlflow",
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
    "serviceAccount": {"create": True, "name": "somebody", "annotations": {"example.com/role": "r"}},
    "userRoles": {"create": False},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "deletion": {"allowed": False},
    "crds": {"install": True, "keep": False},
    "metrics": {
        "service": {"create": True, "annotations": {"prometheus.io/scrape": "true"}},
        "serviceMonitor": {"create": True, "labels": {"release": "prometheus"}, "interval": "30s"},
    },
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
}
"""A value other than the default for every setting but watchNamespaces."""

CASES: Mapping[str, Values] = {
    "as it comes": {},
    "everything set": EVERYTHING,
    "two replicas": {"replicas": 2},
    "some namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "some namespaces and its own": {"watchNamespaces": ["team-a", NAMESPACE]},
    "some namespaces on a shared platform": {
        "watchNamespaces": ["team-a"],
        "adminSecrets": {"platform": ["postgres-admin", "minio-admin"], "other": ["admin"]},
    },
    "as little as possible": {
        "replicas": 0,
        "crds": {"install": False},
        "serviceAccount": {"create": False},
        "userRoles": {"create": False},
        "metrics": {"service": {"create": False}},
        "resources": {},
    },
}


SERVER_CASES: Mapping[str, Values] = {
    "as it comes": {},
    "some of everything": {
        "global": {"from": "a parent chart"},
        "fullnameOverride": "other",
        "labels": {"example.com/team": "research"},
        "annotations": {"helm.sh/resource-policy": "keep"},
        "test": {"image": "registry.example.com/mlflow:v3.17.2-full"},
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
    "a store that clients reach, of a private authority": {
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
"""Values of the chart mlflow-server."""


def render(
    values: Values | None = None,
    chart: str = str(CHART),
    kubernetes: str = TESTED,
    release: str = RELEASE,
    apis: tuple[str, ...] = (),
) -> list[Object]:
    """Every object of a chart, in a cluster that knows `apis` as well. Failed: Helm refuses, in its own words."""
    return [dict(found) for found in _render(json.dumps(values or {}), chart, kubernetes, release, apis)]


def render_server(values: Values | None = None, **more: Any) -> list[Object]:
    """The same of the chart mlflow-server."""
    return render(values, str(SERVER_CHART), **{"release": "tracking", **more})


def refusal(values: Values, **more: Any) -> str:
    """What Helm says to values that it refuses; nothing if it takes them."""
    try:
        render(values, **more)
    except Failed as error:
        return str(error)
    return ""


def only(objects: list[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = (obj for obj in objects if obj["kind"] == kind)
    return found


@cache
def _render(
    values: str, chart: str, kubernetes: str, release: str, apis: tuple[str, ...]
) -> tuple[Object, ...]:
    chosen = [f"--set-json={key}={json.dumps(value)}" for key, value in json.loads(values).items()]
    known = [f"--api-versions={api}" for api in apis]
    text = helm(
        "template",
        release,
        chart,
        f"--namespace={NAMESPACE}",
        f"--kube-version={kubernetes}",
        *known,
        *chosen,
    )
    return tuple(obj for obj in yaml.safe_load_all(text) if obj)
