"""Without changes the operator writes nothing, however often it reconciles."""

import json
from functools import partial

import pytest

from mlflow_operator import api
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.cluster import Cluster
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.server import Server
from tests.polling import eventually

RECONCILE_COUNT = 4


@pytest.fixture
def namespaced_operator(operators: Operators, namespace: str) -> Operator:
    """An operator that only reconciles servers in the test's namespace, so that its metrics are only about them."""
    running = operators.start({"watchNamespaces": [namespace]})
    eventually("the operator leads", running.is_leader)
    return running


def reconcile_count(operator: Operator) -> float:
    """Return the number of reconciles so far, with any result."""
    metrics = operator.metrics()
    return sum(
        value for name, value in metrics.items() if name.startswith("mlflow_operator_reconciles_total")
    )


def _has_reconciled(operator: Operator, times: float) -> bool:
    return reconcile_count(operator) >= times


def operator_writes(cluster: Cluster, namespace: str) -> list[tuple[str, str]]:
    """Return the operator's writes in a namespace from the API server's audit log: verb and URI."""
    lines = cluster.control_plane.audit_log.read_text().splitlines()
    entries: list[Object] = [json.loads(line) for line in lines if f"/namespaces/{namespace}/" in line]
    return [
        (entry["verb"], entry["requestURI"])
        for entry in entries
        if entry["user"]["username"].startswith("system:serviceaccount:operators:")
    ]


def reconcile_again(server: Server, operator: Operator, times: int = RECONCILE_COUNT) -> None:
    """Trigger reconciles by changes of an annotation that the operator does not use."""
    for _ in range(times):
        expected_count = reconcile_count(operator) + 1
        server.trigger_reconcile()
        eventually("the server is reconciled", partial(_has_reconciled, operator, expected_count))


def resource_versions(server: Server) -> dict[tuple[str, str], str]:
    """Return the resourceVersions of the objects that the operator writes, without the MLflowServer, which the test
    changes, and without the Events of Kubernetes' controllers.
    """
    owned = (
        *(kinds.DEPLOYMENT, kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.SECRET),
        *(kinds.PVC, kinds.JOB, kinds.CRONJOB, kinds.PDB, kinds.EVENT),
    )
    return {
        (kind.kind, obj["metadata"]["name"]): obj["metadata"]["resourceVersion"]
        for kind in owned
        for obj in server.objects(kind)
        if kind != kinds.EVENT or obj["involvedObject"]["kind"] == api.KIND
    }


def _allows_disruption(server: Server) -> bool:
    """Whether the disruption controller has counted both pods."""
    budget = server.get(kinds.PDB, server.names.deployment) or {}
    return bool((budget.get("status") or {}).get("disruptionsAllowed") == 1)


def test_ready_server_causes_no_writes(
    namespaced_operator: Operator, cluster: Cluster, admin: Client, namespace: str, spec: Object
) -> None:
    """No write of an object, status or Event, according to the audit log and the operator's metrics."""
    server = Server(admin, namespace)
    server.apply({**spec, "replicas": 2, "garbageCollection": {}, "backup": {"schedule": "0 3 1 1 *"}})
    server.wait_for("ServerAvailable")
    # There is no backup and none can succeed in this cluster; the condition must only be written once.
    eventually("the server has the condition BackupReady", lambda: server.conditions().get("BackupReady"))
    eventually("the PodDisruptionBudget counts both pods", lambda: _allows_disruption(server))
    reconcile_again(server, namespaced_operator, 1)
    before, writes_before, counted = (
        resource_versions(server),
        operator_writes(cluster, namespace),
        _write_metrics(namespaced_operator),
    )
    assert writes_before
    reconcile_again(server, namespaced_operator)
    assert operator_writes(cluster, namespace) == writes_before
    assert resource_versions(server) == before
    assert _write_metrics(namespaced_operator) == counted


def test_waiting_server_causes_no_writes(
    namespaced_operator: Operator, cluster: Cluster, admin: Client, namespace: str
) -> None:
    """A server whose database does not answer is reconciled every few seconds, without a write if nothing changed."""
    server = Server(admin, namespace).apply()
    server.wait_for("DatabaseReady", "False")
    server.wait_stores_running()
    reconcile_again(server, namespaced_operator, 2)
    writes_before = operator_writes(cluster, namespace)
    assert writes_before
    reconcile_again(server, namespaced_operator)
    assert operator_writes(cluster, namespace) == writes_before


def _write_metrics(operator: Operator) -> dict[str, float]:
    name = "mlflow_operator_api_writes_total"
    return {
        key: value for key, value in operator.metrics().items() if key.startswith(name) and "Lease" not in key
    }
