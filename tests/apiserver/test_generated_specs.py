"""Random specs from the CRD: models and API server accept the same specs, and the API server stores the objects that
the operator creates for a valid spec without changes.
"""

import asyncio
from collections.abc import Callable, Iterator
from secrets import token_hex

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.kube import kinds
from mlflow_operator.kube.apply import diff
from mlflow_operator.kube.apply.unmanaged_fields import removals
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from mlflow_operator.status.metrics import Metrics
from tests.apiserver.client import ApiError, Client
from tests.apiserver.control_plane import ControlPlane
from tests.unit.api.specs import specs

GENERATED = desired.GeneratedValues("user", *(token_hex(12) for _ in range(5)))

# The same specs in every run, so that the result does not depend on chance.
REPRODUCIBLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(scope="module")
def rejection(admin: Client, namespace: str) -> Callable[[Object], str]:
    """Send a new resource as a dry run; return the error message of the API server, or "" if it is accepted."""

    def send(body: Object) -> str:
        try:
            admin.request("POST", kinds.MLFLOWSERVER.path(namespace), body, dryRun="All")
        except ApiError as error:
            if error.status != 422:
                raise
            return str(error)
        return ""

    return send


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all specs, because the connections of the client belong to it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, runner: asyncio.Runner) -> Iterator[KubernetesClient]:
    """The Kubernetes client of the operator."""
    connected = runner.run(KubernetesClient.connect(Metrics(), str(control_plane.kubeconfig)))
    yield connected
    runner.run(connected.close())


def resource(spec: Object, namespace: str, name: str) -> Object:
    """An MLflowServer."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": meta, "spec": spec}


def objects(resource: Object) -> list[Object]:
    """All objects that the operator creates for a resource, without owner references."""
    server = resolve(api.parse(resource), ClusterDefaults(Images()))
    return [*desired.secrets(server, GENERATED), *desired.objects(server)]


def test_models_and_api_server_reject_the_same_specs(
    rejection: Callable[[Object], str], namespace: str
) -> None:
    """`render`, and an operator that is newer than the CRD, reject the same specs as the API server."""

    @settings(REPRODUCIBLE, max_examples=120)
    @given(specs(arbitrary_one_in=15))
    def agree(spec: Object) -> None:
        body, model_error = resource(spec, namespace, "any"), ""
        try:
            objects(body)
        except api.InvalidResource as error:
            model_error = str(error)
        server_error = rejection(body)
        assert bool(model_error) == bool(server_error), (
            f"models: {model_error or 'accepted'}\nAPI server: {server_error or 'accepted'}"
        )

    agree()


def test_objects_of_valid_specs_are_applied_once(
    rejection: Callable[[Object], str], cluster: KubernetesClient, runner: asyncio.Runner, namespace: str
) -> None:
    """The API server accepts every object. A second apply changes nothing, and the operator finds no difference."""
    accepted = 0

    @settings(REPRODUCIBLE, max_examples=24)
    @given(specs(arbitrary_one_in=0))
    def apply_once(spec: Object) -> None:
        nonlocal accepted
        body = resource(spec, namespace, f"any-{accepted}")
        if rejection(body):
            return
        accepted += 1
        for obj in objects(body):
            runner.run(_apply_twice(cluster, obj))

    apply_once()
    assert accepted >= 5


async def _apply_twice(cluster: KubernetesClient, obj: Object) -> None:
    await cluster.apply(obj)
    observed = await cluster.get(kinds.of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])
    assert observed
    assert (diff.drift(obj, observed), removals(obj, observed)) == ([], [])
    second = await cluster.apply(obj)
    for answer in (observed, second):
        # The API server rewrites the managed fields of some kinds (PersistentVolumeClaim) even if nothing changes.
        del answer["metadata"]["resourceVersion"], answer["metadata"]["managedFields"]
    assert second == observed
