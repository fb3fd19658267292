"""A database of CloudNativePG, from before its operator is installed to a failover."""

from typing import Any

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import NAMESPACE, World

SPEC: Object = {"database": {"cloudNativePG": {"clusterName": "pg"}}}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server that names a Cluster; there is none."""
    return World(monkeypatch, SPEC)


def cluster(world: World, **status: Any) -> None:
    """The Cluster, as CloudNativePG reports it."""
    meta = {"name": "pg", "namespace": NAMESPACE}
    world.api.put(
        {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": meta, "status": status}
    )


def secrets(world: World) -> None:
    """What it makes for a Cluster."""
    world.put_secret(
        "pg-app", username="app", password="p@ss", host="pg-rw", port="5432", dbname="app", uri="unused"
    )
    world.put_secret("pg-ca", **{"ca.crt": "PEM"})


async def test_each_thing_that_is_missing_is_told_in_turn(world: World) -> None:
    """The Cluster, an instance of it, its Secret; then the server comes up, on the primary, verified."""
    await world.reconcile()
    _, reason, message = world.condition("CredentialsReady")
    assert reason == "DatabaseUnreachable"
    assert 'no Cluster "pg" of CloudNativePG' in message
    cluster(world, phase="Setting up primary", readyInstances=0)
    await world.reconcile()
    assert world.condition("CredentialsReady")[1:] == (
        "WaitingForDependency",
        'Waits for an instance of Cluster "pg" (it says: "Setting up primary").',
    )
    cluster(world, phase="Cluster in healthy state", readyInstances=1)
    await world.reconcile()
    _, reason, message = world.condition("CredentialsReady")
    assert reason == "SecretNotFound"
    assert '"pg-app"' in message
    secrets(world)
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    uri = world.secret("a-server")["backend-store-uri"]
    assert uri.startswith("postgresql+psycopg2://app:p%40ss@pg-rw:5432/app?")
    assert "sslmode=verify-ca&sslrootcert=" in uri
    resource = world.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["database"]["type"] == "CloudNativePG"


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Ready", "status": "True"}]},
        # a replica is away
        {"conditions": [{"type": "Ready", "status": "False"}], "readyInstances": 1},
    ],
)
async def test_one_instance_is_enough(world: World, status: Object) -> None:
    """Whether it may be written to it says for itself."""
    cluster(world, **status)
    secrets(world)
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_without_the_right_to_look_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the server's other parts go on."""
    get = world.api.get

    async def limited(kind: Kind, namespace: str | None, name: str) -> Object | None:
        if kind == kinds.CLOUD_NATIVE_PG:
            raise Forbidden("get Cluster team/pg: 403")
        return await get(kind, namespace, name)

    monkeypatch.setattr(world.api, "get", limited)
    await world.reconcile()
    _, reason, message = world.condition("CredentialsReady")
    assert reason == "ProvisioningDenied"
    assert "get on clusters of postgresql.cnpg.io" in message
