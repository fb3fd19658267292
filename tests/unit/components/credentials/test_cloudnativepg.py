"""The connection to a CloudNativePG database, from before CloudNativePG is installed until after a failover."""

from typing import Any

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from tests.unit.simulation import NAMESPACE, SimulatedCluster

SPEC: Object = {"database": {"cloudNativePG": {"clusterName": "pg"}}}


@pytest.fixture
def simulation() -> SimulatedCluster:
    """A server that references a Cluster that does not exist."""
    return SimulatedCluster(SPEC)


def put_cluster(simulation: SimulatedCluster, **status: Any) -> None:
    """Create or update the Cluster with a status as CloudNativePG reports it."""
    meta = {"name": "pg", "namespace": NAMESPACE}
    simulation.api.put(
        {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": meta, "status": status}
    )


def put_secrets(simulation: SimulatedCluster) -> None:
    """Create the Secrets that CloudNativePG creates for a Cluster."""
    simulation.put_secret(
        "pg-app", username="app", password="p@ss", host="pg-rw", port="5432", dbname="app", uri="unused"
    )
    simulation.put_secret("pg-ca", **{"ca.crt": "PEM"})


async def test_each_missing_dependency_is_reported_in_turn(simulation: SimulatedCluster) -> None:
    """The Cluster, a ready instance, its Secret. Then the server is Ready and verifies the primary's certificate."""
    await simulation.reconcile()
    _, reason, message = simulation.condition("CredentialsReady")
    assert reason == "DatabaseUnreachable"
    assert 'no Cluster "pg" of CloudNativePG' in message
    put_cluster(simulation, phase="Setting up primary", readyInstances=0)
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1:] == (
        "WaitingForDependency",
        'Waiting for a ready instance of Cluster "pg" (phase: "Setting up primary").',
    )
    put_cluster(simulation, phase="Cluster in healthy state", readyInstances=1)
    await simulation.reconcile()
    _, reason, message = simulation.condition("CredentialsReady")
    assert reason == "SecretNotFound"
    assert '"pg-app"' in message
    put_secrets(simulation)
    await simulation.reconcile_until_ready()
    uri = simulation.secret("a-server")["backend-store-uri"]
    assert uri.startswith("postgresql+psycopg2://app:p%40ss@pg-rw:5432/app?")
    assert "sslmode=verify-ca&sslrootcert=" in uri
    resource = simulation.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["database"]["type"] == "CloudNativePG"


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Ready", "status": "True"}]},
        # One replica is not ready.
        {"conditions": [{"type": "Ready", "status": "False"}], "readyInstances": 1},
    ],
)
async def test_one_ready_instance_is_enough(simulation: SimulatedCluster, status: Object) -> None:
    """Whether the database is writable is checked on the connection."""
    put_cluster(simulation, **status)
    put_secrets(simulation)
    await simulation.reconcile_until_ready()


async def test_missing_permission_to_read_clusters_is_reported(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reconciliation of the other components continues."""
    get = simulation.api.get

    async def get_without_permission(
        kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        if kind == kinds.CLOUD_NATIVE_PG:
            raise Forbidden("get Cluster team/pg: 403")
        return await get(kind, namespace, name, limit)

    monkeypatch.setattr(simulation.api, "get", get_without_permission)
    await simulation.reconcile()
    _, reason, message = simulation.condition("CredentialsReady")
    assert reason == "ProvisioningDenied"
    assert "get on clusters of postgresql.cnpg.io" in message
