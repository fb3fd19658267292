"""The chart as Helm renders it, without a cluster."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import kubernetes_validate
import yaml

from mlflow_operator.core.objects import Object
from tests.cluster.settings import load
from tests.generate import CHART, Failed, helm

RELEASE, NAMESPACE = "mlflow-operator", "operators"
TESTED = load().pins["KUBERNETES"]
OLDEST = "1.30.0"
NEWEST = kubernetes_validate.latest_version()

Values = Mapping[str, Any]

EVERYTHING: Values = {
    "global": {"from": "a parent chart"},
    "nameOverride": "operator",
    "fullnameOverride": "an-operator",
    "image": {"repository": "registry.example.com:5000/operator", "tag": "2.0.0", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "login"}],
    "replicas": 3,
    "images": {
        "mlflow": "registry.example.com:5000/mlflow",
        "postgres": "registry.example.com/postgres:17",
        "minio": "registry.example.com/minio@sha256:" + "0" * 64,
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
    "crds": {"install": True, "keep": False},
    "metrics": {"service": {"create": True, "annotations": {"prometheus.io/scrape": "true"}}},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
}
"""A value other than the default for every setting but watchNamespaces."""

CASES: Mapping[str, Values] = {
    "as it comes": {},
    "everything set": EVERYTHING,
    "two replicas": {"replicas": 2},
    "some namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "some namespaces and its own": {"watchNamespaces": ["team-a", NAMESPACE]},
    "as little as possible": {
        "replicas": 0,
        "crds": {"install": False},
        "serviceAccount": {"create": False},
        "userRoles": {"create": False},
        "metrics": {"service": {"create": False}},
        "resources": {},
    },
}


def render(values: Values | None = None, chart: str = str(CHART), kubernetes: str = TESTED) -> list[Object]:
    """Every object of the chart. Failed: Helm refuses the values, in its own words."""
    return [dict(found) for found in _render(json.dumps(values or {}), chart, kubernetes)]


def refusal(values: Values) -> str:
    """What Helm says to values that it refuses; nothing if it takes them."""
    try:
        render(values)
    except Failed as error:
        return str(error)
    return ""


def only(objects: list[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = (obj for obj in objects if obj["kind"] == kind)
    return found


@cache
def _render(values: str, chart: str, kubernetes: str) -> tuple[Object, ...]:
    chosen = [f"--set-json={key}={json.dumps(value)}" for key, value in json.loads(values).items()]
    text = helm(
        "template", RELEASE, chart, f"--namespace={NAMESPACE}", f"--kube-version={kubernetes}", *chosen
    )
    return tuple(obj for obj in yaml.safe_load_all(text) if obj)
