"""Validation of objects with kubeconform. Unknown fields and kinds without a schema are errors.

The schemas of Kubernetes are those of the package kubernetes-validate, the schema of ServiceMonitor is from cloudcoil's
models, those of MLflowServer and MLflowPlatform are from the CRDs, and that of the CloudNativePG Cluster, limited to
the fields that are used, from tests/cloudnativepg.py. All are converted to the format of kubeconform.
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

from mlflow_operator.api.crd import CUSTOM_RESOURCES
from mlflow_operator.kube.objects import Object
from tests.cloudnativepg import CLUSTER_SCHEMA
from tests.cluster.settings import load
from tests.generate import tool
from tests.server_values import resource_schema

TESTED_KUBERNETES = load().pins["KUBERNETES"]
OLDEST_KUBERNETES = "1.30.0"
NEWEST_KUBERNETES = latest_version()


def schema_errors(objects: Iterable[Object], kubernetes: str) -> list[str]:
    """Validate objects for a Kubernetes version, such as `1.30.0`. Returns one line for each invalid object."""
    schema_version = max(
        (version for version in all_versions() if _minor(version) <= _minor(kubernetes)),
        key=_minor,
    )
    manifests = [*objects]
    output = tool(
        "kubeconform",
        "-strict",
        "-output=json",
        "-verbose",
        f"-kubernetes-version={schema_version}",
        f"-schema-location={_schema_dir(schema_version)}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        stdin="\n---\n".join(map(json.dumps, manifests)),
        accept=(0, 1),
    )
    results = json.loads(output)["resources"]
    assert len(results) == len(manifests), "kubeconform did not validate all objects"
    return [f"{r['kind']} {r['name']}: {r['msg']}" for r in results if r["status"] != "statusValid"]


@cache
def _schema_dir(kubernetes: str) -> Path:
    """Directory with all schemas. It is deleted at the end of the process."""
    directory = Path(_TEMP_DIR.name, kubernetes)
    directory.mkdir()
    kubernetes_schemas = (
        resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{kubernetes}-local-strict"
    )
    for file in kubernetes_schemas.iterdir():
        # The schemas refer to each other by URLs that do not exist.
        text = file.read_text().replace('"https://kubernetes.io/api/', '"/api/')
        (directory / file.name).write_text(text.replace('"/api/', f'"file://{directory}/'))
    for resource in CUSTOM_RESOURCES:
        file_name = f"{resource.kind.lower()}-mlflow-operator-v1alpha1.json"
        (directory / file_name).write_text(json.dumps(resource_schema(resource)))
    service_monitor = _strict(ServiceMonitor.model_json_schema(by_alias=True))
    (directory / "servicemonitor-monitoring-v1.json").write_text(json.dumps(service_monitor))
    (directory / "cluster-postgresql-v1.json").write_text(json.dumps(_strict(CLUSTER_SCHEMA)))
    return directory


_TEMP_DIR = tempfile.TemporaryDirectory()


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
