"""Specs drawn at random from the CRD, held against a real API server: it and the models agree on what is refused,
takes every object that is made of the rest, and stores it so that nothing is left to write.

No operator has a part in it: the objects are made and applied here, in a namespace whose quota lets no pod be made.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from mlflow_operator import api
from mlflow_operator.controller.cluster import Cluster
from mlflow_operator.controller.metrics import Metrics
from mlflow_operator.core import compare, desired, kinds
from mlflow_operator.core.objects import Object
from mlflow_operator.core.resolve import Surroundings, resolve
from mlflow_operator.core.strangers import corrections
from mlflow_operator.core.versions import Images
from tests.e2e.kube import Kube
from tests.unit.api.specs import specs

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"
GENERATED = desired.Generated("user", *(token_hex(12) for _ in range(4)))
"""Random as the operator's own are: words would be found all over the cluster by the search for secrets."""

# the same ones in each run: what a stranger's change breaks must not depend on luck
DRAWN = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(autouse=True)
def watched() -> None:
    """Instead of the operator's log after each test: no operator has a part in this."""


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace in which no pod can be made, gone afterwards; the CRD is this checkout's."""
    kube.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", str(CRD))
    kube.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRD))
    name = f"any-spec-{uuid.uuid4().hex[:8]}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kube.within(name).kubectl("create", "quota", "none", "--hard=pods=0")
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def refusal(kube: Kube, namespace: str) -> Callable[[Object], str]:
    """What the API server says to a new resource, sent as a dry run; empty where it takes it."""
    custom = client.CustomObjectsApi(config.new_client_from_config(str(kube.settings.kubeconfig)))

    def send(body: Object) -> str:
        try:
            custom.create_namespaced_custom_object(
                api.GROUP, api.VERSION, namespace, api.PLURAL, body, dry_run="All"
            )
        except ApiException as error:
            if error.status != 422:
                raise
            return str(json.loads(error.body)["message"])
        return ""

    return send


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all, since the client's connections belong to it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def cluster(kube: Kube, runner: asyncio.Runner) -> Iterator[Cluster]:
    """The operator's own client."""
    found = runner.run(Cluster.connect(Metrics(), str(kube.settings.kubeconfig)))
    yield found
    runner.run(found.close())


def resource(spec: Object, namespace: str, name: str) -> Object:
    """A resource as somebody would write it."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": meta, "spec": spec}


def objects(resource: Object) -> list[Object]:
    """Everything that a resource leads to, its owner aside: there is none, and what it owns would go with it."""
    server = resolve(api.parse(resource), Surroundings(Images()))
    return [*desired.secrets(server, GENERATED), *desired.objects(server)]


def test_what_is_refused_is_refused_by_both(refusal: Callable[[Object], str], namespace: str) -> None:
    """`render`, and the operator before a rule of later, say what the API server says, and nothing else."""

    @settings(DRAWN, max_examples=120)
    @given(specs(odd=15))
    def same(spec: Object) -> None:
        body, ours = resource(spec, namespace, "any"), ""
        try:
            objects(body)
        except api.InvalidResource as error:
            ours = str(error)
        theirs = refusal(body)
        assert bool(ours) == bool(theirs), f"the models: {ours or 'fine'}\nthe API server: {theirs or 'fine'}"

    same()


def test_what_is_accepted_is_applied_once(
    refusal: Callable[[Object], str], cluster: Cluster, runner: asyncio.Runner, namespace: str
) -> None:
    """Every object is taken, and neither the operator's comparison nor the API server finds anything left to do."""
    taken = 0

    @settings(DRAWN, max_examples=24)
    @given(specs(odd=0))
    def rests(spec: Object) -> None:
        nonlocal taken
        body = resource(spec, namespace, f"any-{taken}")
        if refusal(body):
            return
        taken += 1
        for obj in objects(body):
            runner.run(_applied_once(cluster, obj))

    rests()
    assert taken >= 5


async def _applied_once(cluster: Cluster, obj: Object) -> None:
    await cluster.apply(obj)
    live = await cluster.get(kinds.of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])
    assert live
    assert (compare.drift(obj, live), corrections(obj, live)) == ([], [])
    again = await cluster.apply(obj)
    for record in (live, again):
        # controllers write the status meanwhile, and that alone
        record.pop("status", None)
        for moving in ("resourceVersion", "managedFields", "annotations"):
            record["metadata"].pop(moving, None)
    assert again == live
