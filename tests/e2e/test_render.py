"""`mlflow-operator render` prints, without a cluster, the objects that the operator creates in a cluster."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from kubernetes.utils.quantity import parse_quantity

from tests.e2e.kube import Object
from tests.e2e.server import Server

GROUP = "shared"


def differences(observed: Any, desired: Any, path: str = "") -> Iterator[str]:
    """Yield where `observed` differs from `desired`, without fields that only `observed` has: defaults."""
    if isinstance(desired, dict) and isinstance(observed, dict):
        for key, value in desired.items():
            yield from differences(observed.get(key), value, f"{path}.{key}")
    elif isinstance(desired, list) and isinstance(observed, list) and len(observed) == len(desired):
        # the API server keeps the order of lists and inserts no items
        for index, (desired_item, observed_item) in enumerate(zip(desired, observed, strict=True)):
            yield from differences(observed_item, desired_item, f"{path}[{index}]")
    elif observed != desired and (observed or desired) and not is_same_quantity(observed, desired):
        yield f"{path}: {observed!r} instead of {desired!r}"


def is_same_quantity(first: Any, second: Any) -> bool:
    """Compare quantities by value: the API server writes 2048Mi as 2Gi."""
    try:
        return bool(parse_quantity(first) == parse_quantity(second))
    except (ValueError, TypeError):
        return False


def render(server: Server) -> list[Object]:
    """Return the objects that `mlflow-operator render` prints for the stored resource."""
    resource = server.resource()
    metadata = {key: resource["metadata"][key] for key in ("name", "namespace", "uid")}
    text = yaml.safe_dump({**resource, "metadata": metadata})
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_operator.cli", "render", "-f", "-"],
        input=text,
        text=True,
        capture_output=True,
        check=True,
    )
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def test_rendered_objects_match_the_operators(shared_server: Server) -> None:
    """Every printed object exists with the printed fields, except for values that depend on the cluster."""
    objects = render(shared_server)
    kinds = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    assert ("Deployment", shared_server.names.deployment) in kinds
    assert ("Service", shared_server.names.service) in kinds
    assert len(kinds) >= 8
    for obj in objects:
        if obj["kind"] in {"Secret", "Job"}:
            continue  # the values of Secrets are generated, and a Job's name contains a hash of the database's state
        if obj["kind"] == "Deployment":
            remove_cluster_specific_values(obj)
        observed = shared_server.kube.require(obj["kind"], obj["metadata"]["name"])
        desired: Object = {field: obj[field] for field in ("spec", "data") if field in obj}
        desired["metadata"] = {"labels": obj["metadata"]["labels"]}
        assert not [*differences(observed, desired, f"{obj['kind']} {obj['metadata']['name']}")]


def remove_cluster_specific_values(deployment: Object) -> None:
    """Remove what is unknown without a cluster: the allowed hosts, which contain the NodePort, and Secrets' HMACs."""
    template = deployment["spec"]["template"]
    template["metadata"].pop("annotations", None)
    for variable in template["spec"]["containers"][0]["env"]:
        if variable["name"] in {"MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"}:
            variable.clear()
