"""The API server restarts, or the CRD is missing, replaced or deleted: the operator waits and goes on."""

from collections.abc import Callable

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver import crds
from tests.apiserver.client import Client
from tests.integration.cluster import Cluster
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.server import Server, eventually

NOTICED_SECONDS = 150.0
"""Limit for two checks of the servers that exist, a new process, and the Lease of the old one."""

WATCH_LOST = 1
"""Exit code of an operator that has to start again."""

OBJECTS = (
    *(kinds.DEPLOYMENT, kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.SECRET, kinds.PVC),
    *(kinds.JOB, kinds.CRONJOB, kinds.POD, kinds.PDB),
)


def contents(server: Server) -> dict[tuple[str, str], tuple[object, ...]]:
    """What every object of the namespace is: its uid and what it says."""
    return {
        (kind.kind, obj["metadata"]["name"]): (obj["metadata"]["uid"], obj.get("spec"), obj.get("data"))
        for kind in OBJECTS
        for obj in server.objects(kind)
    }


def restores(server: Server) -> None:
    """The operator watches and writes: a changed object is restored."""
    name = server.names.client
    right = server.need(kinds.CONFIGMAP, name)["data"]
    server.merge(kinds.CONFIGMAP, name, {"data": {"MLFLOW_TRACKING_URI": "http://other"}})
    eventually("the ConfigMap is restored", lambda: server.need(kinds.CONFIGMAP, name)["data"] == right)


def unchanged_by(server: Server, outage: Callable[[], None]) -> None:
    """No object changes because of the outage; afterwards the operator works and the server is Ready."""
    before = contents(server)
    outage()
    restores(server)
    server.ready()
    assert contents(server) == before


def test_api_server_restarts(
    operators: Operators, cluster: Cluster, admin: Client, namespace: str, spec: Object
) -> None:
    """The watches are opened again, and no error is logged, although a new API server answers 403 until it has read
    all roles. The operator may lose its Lease meanwhile: then the kubelet starts it again.
    """
    operator = operators.start()
    server = Server(admin, namespace).apply(spec).ready()

    def leads() -> bool:
        operator.restart_if_ended()
        return operator.leads()

    def restart() -> None:
        cluster.control_plane.restart_apiserver()
        eventually("the operator leads", leads)

    unchanged_by(server, restart)
    assert operator.complaints() == []


def test_crd_is_applied_again_and_replaced(server: Server, admin: Client) -> None:
    """By server-side apply, and by a replacement that takes other clients' labels away."""

    def replace() -> None:
        admin.apply(kinds.CRD, crds.manifest(), fieldManager="helm")
        path = kinds.CRD.path(None, crds.NAME)
        version = admin.request("GET", path)["metadata"]["resourceVersion"]
        replacement = crds.manifest()
        replacement["metadata"]["resourceVersion"] = version
        admin.request("PUT", path, replacement)
        crds.wait_until_served(admin, replacement)

    unchanged_by(server, replace)


def test_operator_waits_for_the_crd(
    operators: Operators, admin: Client, namespace: str, spec: Object
) -> None:
    """Started before the CRD is installed it says so, stays healthy, and serves the CRD without help."""
    _delete_crd(admin)
    try:
        operator = operators.start()
        eventually("the operator leads", operator.leads)
        eventually(
            "the log names the resource", lambda: any("mlflowservers" in m for m in operator.messages())
        )
    finally:
        crds.install(admin)
    server = Server(admin, namespace).apply(spec)
    _is_noticed(server, operator)
    server.ready()
    assert operator.process.returncode is None
    assert operator.complaints() == []


def test_servers_of_a_deleted_crd_end_as_their_policy_says(
    operators: Operators, admin: Client, namespace: str
) -> None:
    """With their data or without it; and the operator serves the next CRD.

    Its process may end when the API server does not know the resource any more: then the kubelet starts it again.
    """
    operator = operators.start()
    stays, goes = (Server(admin, namespace, name) for name in ("stays", "goes"))
    for server, policy in ((stays, "Retain"), (goes, "Delete")):
        server.apply({"deletionPolicy": policy}).stores_run()
    names = stays.names
    data = {
        f"Secret/{names.database_secret}",
        f"Secret/{names.artifacts_secret}",
        f"PersistentVolumeClaim/{names.postgres_data}",
        f"PersistentVolumeClaim/{names.artifact_store_data}",
    }
    try:
        _delete_crd(admin)
        eventually("the pods are gone", lambda: not stays.objects(kinds.POD))
        eventually("only the retained data is left", lambda: _left(stays) == data)
        assert operator.process.returncode in {None, WATCH_LOST}
    finally:
        crds.install(admin)
    stays.apply()
    _is_noticed(stays, operator)
    stays.stores_run()
    assert operator.complaints() == []


def _delete_crd(admin: Client) -> None:
    admin.delete(kinds.CRD, None, crds.NAME)
    eventually("the CRD is gone", lambda: admin.get(kinds.CRD, None, crds.NAME) is None)


def _is_noticed(server: Server, operator: Operator) -> None:
    """Wait until the operator reconciles a server of a CRD that was just installed.

    If kopf has missed the CRD the operator's process ends after two checks of the servers that exist.
    """

    def noticed() -> bool:
        operator.restart_if_ended()
        return bool(server.stored().get("status"))

    eventually("the server is noticed", noticed, NOTICED_SECONDS)


def _left(server: Server) -> set[str]:
    return {
        f"{kind.kind}/{obj['metadata']['name']}"
        for kind in OBJECTS
        for obj in server.objects(kind)
        if labels.SERVER in (obj["metadata"].get("labels") or {})
    }
