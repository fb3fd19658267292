"""Objects held against schemas by kubeconform, as strictly as it can: no unknown field, and no kind without a schema.

Kubernetes' own schemas come with the package kubernetes-validate, that of ServiceMonitor with cloudcoil's models, that
of MLflowServer from our definition, that of CloudNativePG's Cluster, as far as it is used, from tests/cloudnativepg.py;
each is written down as kubeconform reads it.
"""

import json
import tempfile
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
from kubernetes_validate.utils import all_versions, latest_version

from mlflow_operator.kube.objects import Object
from tests.cloudnativepg import CLUSTER
from tests.cluster.settings import load
from tests.generate import tool
from tests.server_values import resource

TESTED = load().pins["KUBERNETES"]
OLDEST = "1.30.0"
NEWEST = latest_version()


def misfits(objects: Iterable[Object], kubernetes: str) -> list[str]:
    """What is wrong with any of them in that Kubernetes (`1.30.0`), a line each; a kind without a schema is."""
    shipped = max(
        (known for known in all_versions() if _minor(known) <= _minor(kubernetes)),
        key=_minor,
    )
    wanted = [*objects]
    told = tool(
        "kubeconform",
        "-strict",
        "-output=json",
        "-verbose",
        f"-kubernetes-version={shipped}",
        f"-schema-location={_schemas(shipped)}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        stdin="\n---\n".join(map(json.dumps, wanted)),
        accept=(0, 1),
    )
    results = json.loads(told)["resources"]
    assert len(results) == len(wanted), "kubeconform lost some of the objects"
    return [f"{r['kind']} {r['name']}: {r['msg']}" for r in results if r["status"] != "statusValid"]


@cache
def _schemas(kubernetes: str) -> Path:
    """A folder with all of them, gone when the last test is done with it."""
    folder = Path(_FOLDER.name, kubernetes)
    folder.mkdir()
    shipped = (
        resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{kubernetes}-local-strict"
    )
    for file in shipped.iterdir():
        # They refer to each other by paths on a web site, on which there is nothing.
        text = file.read_text().replace('"https://kubernetes.io/api/', '"/api/')
        (folder / file.name).write_text(text.replace('"/api/', f'"file://{folder}/'))
    (folder / "mlflowserver-mlflow-operator-v1alpha1.json").write_text(json.dumps(resource()))
    theirs = _strict(ServiceMonitor.model_json_schema(by_alias=True))
    (folder / "servicemonitor-monitoring-v1.json").write_text(json.dumps(theirs))
    (folder / "cluster-postgresql-v1.json").write_text(json.dumps(_strict(CLUSTER)))
    return folder


_FOLDER = tempfile.TemporaryDirectory()


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict):
        strict.setdefault("additionalProperties", False)
    return strict


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
