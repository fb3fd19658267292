"""At rest the operator writes nothing, however often it reconciles."""

import json
from functools import partial

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.cluster import Cluster
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.server import Server, eventually

RECONCILES = 4


@pytest.fixture
def own_operator(operators: Operators, namespace: str) -> Operator:
    """An operator that reconciles the servers of the test's namespace only, so that its metrics are about them."""
    running = operators.start({"watchNamespaces": [namespace]})
    eventually("the operator leads", running.leads)
    return running


def reconciles(operator: Operator) -> float:
    """Number of reconciles so far, whatever their result."""
    found = operator.metrics()
    return sum(value for name, value in found.items() if name.startswith("mlflow_operator_reconciles_total"))


def _has_reconciled(operator: Operator, times: float) -> bool:
    return reconciles(operator) >= times


def writes(cluster: Cluster, namespace: str) -> list[tuple[str, str]]:
    """Writes of the operator in a namespace, as the API server's audit log has them: verb and address."""
    lines = cluster.control_plane.audit_log.read_text().splitlines()
    entries: list[Object] = [json.loads(line) for line in lines if f"/namespaces/{namespace}/" in line]
    return [
        (entry["verb"], entry["requestURI"])
        for entry in entries
        if entry["user"]["username"].startswith("system:serviceaccount:operators:")
    ]


def reconcile_again(server: Server, operator: Operator, times: int = RECONCILES) -> None:
    """Have the operator reconcile: each change of an annotation is noticed, and changes nothing that it sets."""
    for _ in range(times):
        enough = reconciles(operator) + 1
        server.touch()
        eventually("the server is reconciled", partial(_has_reconciled, operator, enough))


def versions(server: Server) -> dict[tuple[str, str], str]:
    """The resourceVersion of every object of the namespace, but for the one that the test itself changes."""
    owned = (
        *(kinds.DEPLOYMENT, kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.SECRET),
        *(kinds.PVC, kinds.JOB, kinds.CRONJOB, kinds.PDB, kinds.EVENT),
    )
    return {
        (kind.kind, obj["metadata"]["name"]): obj["metadata"]["resourceVersion"]
        for kind in owned
        for obj in server.objects(kind)
    }


def test_ready_server_is_not_written(
    own_operator: Operator, cluster: Cluster, admin: Client, namespace: str, spec: Object
) -> None:
    """No object, no status and no Event, by the API server's own record and by the operator's metrics."""
    server = Server(admin, namespace)
    server.apply({**spec, "replicas": 2, "garbageCollection": {}, "backup": {"schedule": "0 3 1 1 *"}})
    server.until("ServerAvailable")
    # Backups were never made and cannot be made here; what that says must be said once.
    eventually("the backup condition is there", lambda: server.conditions().get("BackupReady"))
    reconcile_again(server, own_operator, 1)
    before, written, counted = versions(server), writes(cluster, namespace), _counted(own_operator)
    assert written
    reconcile_again(server, own_operator)
    assert writes(cluster, namespace) == written
    assert versions(server) == before
    assert _counted(own_operator) == counted


def test_waiting_server_is_not_written(
    own_operator: Operator, cluster: Cluster, admin: Client, namespace: str
) -> None:
    """A server whose database does not answer is reconciled every few seconds: with nothing new there is no write."""
    server = Server(admin, namespace).apply()
    server.until("DatabaseReady", "False")
    server.stores_run()
    reconcile_again(server, own_operator, 2)
    written = writes(cluster, namespace)
    assert written
    reconcile_again(server, own_operator)
    assert writes(cluster, namespace) == written


def _counted(operator: Operator) -> dict[str, float]:
    name = "mlflow_operator_api_writes_total"
    return {
        key: value for key, value in operator.metrics().items() if key.startswith(name) and "Lease" not in key
    }
