"""Builders of MLflowServers and resolved servers for tests."""

from collections.abc import Iterator
from typing import Any

from mlflow_operator import api
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.server import Server
from mlflow_operator.model.versions import Images


def resource(spec: Object | None = None, name: str = "a", status: Object | None = None) -> api.MLflowServer:
    """An MLflowServer as read from the API server."""
    return api.parse(
        {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "metadata": {"name": name, "namespace": "team", "uid": "u-1", "generation": 1},
            "spec": spec or {},
            "status": status or {},
        }
    )


def server(
    spec: Object | None = None, defaults: ClusterDefaults | None = None, **resource_fields: Any
) -> Server:
    """The resolved server for `spec`."""
    return resolve(resource(spec, **resource_fields), defaults or ClusterDefaults(Images()))


def pod_specs(objects: list[Object]) -> Iterator[Object]:
    """Pod specs of all workloads."""
    for obj in objects:
        spec = obj.get("spec", {}).get("jobTemplate", obj).get("spec", {})
        if "template" in spec:
            yield spec["template"]["spec"]


def env(container: Object) -> dict[str, str]:
    """The container's environment variables with literal values."""
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}
