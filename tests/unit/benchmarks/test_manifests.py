"""Manifests of the benchmarks: the API server would reject an invalid one only after minutes."""

from benchmarks import platform, provisioned

from mlflow_operator import api
from mlflow_operator.api import mlflowplatform
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform_choice
from mlflow_operator.model.platform import Part, resolve_platform

NAMESPACE = "bench-provisioned-1"
HOST, ENDPOINT = "postgres.bench-stores-1.svc", "http://172.18.0.2:31234"


def parsed_server(spec: Object) -> api.MLflowServer:
    """The server of a benchmark, as the operator reads it."""
    resource = provisioned.server("tracking-0", spec)
    return api.parse({**resource, "metadata": {**resource["metadata"], "namespace": NAMESPACE, "uid": "1"}})


def test_platform_is_the_default_of_the_servers_only() -> None:
    manifest = platform.manifest(NAMESPACE, HOST, ENDPOINT, "bench-stores-1")
    parsed = mlflowplatform.parse({**manifest, "metadata": {**manifest["metadata"], "uid": "1"}})
    assert parsed.is_default
    resolved = resolve_platform(parsed)
    assert resolved.parts == set(Part)
    assert resolved.selects({"kubernetes.io/metadata.name": NAMESPACE})
    assert not resolved.selects({"kubernetes.io/metadata.name": "bench-stores-1"})


def test_servers_without_stores_take_them_from_the_platform() -> None:
    requested = platform_choice.request(parsed_server({}))
    assert requested
    assert requested.open == set(Part)
    assert not requested.name


def test_servers_with_stores_use_no_platform() -> None:
    assert platform_choice.request(parsed_server(provisioned.spec(HOST, ENDPOINT, "tracking-0"))) is None
