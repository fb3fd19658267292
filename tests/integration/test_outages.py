"""The API server restarts, or the CRD is missing, replaced or deleted: the operator waits and continues."""

from collections.abc import Callable

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver import crds
from tests.apiserver.client import ApiError, Client
from tests.integration.cluster import Cluster
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.server import Server
from tests.polling import TIMEOUT_SECONDS, eventually

RECOVERY_SECONDS = 150.0
"""Limit for two checks of the existing servers, a new process, and the expiry of the old process's Lease."""

MAX_REPLACE_ATTEMPTS = 5
CONFLICT_STATUS = 409

WATCH_LOST_EXIT_CODE = 1
"""Exit code of an operator that must be restarted because it lost a watch."""

OBJECTS = (
    *(kinds.DEPLOYMENT, kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.SECRET, kinds.PVC),
    *(kinds.JOB, kinds.CRONJOB, kinds.POD, kinds.PDB),
)


def object_contents(server: Server) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return the uid, spec and data of every object in the namespace."""
    return {
        (kind.kind, obj["metadata"]["name"]): (obj["metadata"]["uid"], obj.get("spec"), obj.get("data"))
        for kind in OBJECTS
        for obj in server.objects(kind)
    }


def check_operator_works(server: Server, restartable: Operator | None = None) -> None:
    """Check that the operator watches and writes: it restores a changed object.

    The process of the operator `restartable` may end meanwhile; then it is restarted.
    """
    name = server.names.client
    expected = server.require(kinds.CONFIGMAP, name)["data"]
    server.merge(kinds.CONFIGMAP, name, {"data": {"MLFLOW_TRACKING_URI": "http://other"}})

    def restored() -> bool:
        if restartable is not None:
            restartable.restart_if_ended()
        return bool(server.require(kinds.CONFIGMAP, name)["data"] == expected)

    eventually("the ConfigMap is restored", restored, RECOVERY_SECONDS if restartable else TIMEOUT_SECONDS)


def check_unchanged_by(
    server: Server, outage: Callable[[], None], restartable: Operator | None = None
) -> None:
    """Check that the outage changes no object, and that afterwards the operator works and the server is Ready."""
    before = object_contents(server)
    outage()
    check_operator_works(server, restartable)
    server.wait_ready()
    assert object_contents(server) == before


def test_api_server_restart_changes_nothing(
    operators: Operators, cluster: Cluster, admin: Client, namespace: str, spec: Object
) -> None:
    """The operator opens its watches again and logs no error, although a new API server answers 403 until it has read
    all roles. The operator may lose its Lease meanwhile; then the kubelet restarts it. It may still report that it
    leads when the API server is back, and exit only at the renew deadline.
    """
    operator = operators.start()
    server = Server(admin, namespace).apply(spec).wait_ready()

    def leads() -> bool:
        operator.restart_if_ended()
        return operator.is_leader()

    def restart() -> None:
        cluster.control_plane.restart_apiserver()
        eventually("the operator leads", leads)

    check_unchanged_by(server, restart, operator)
    assert operator.error_messages() == []


def test_applying_and_replacing_the_crd_changes_nothing(server: Server, admin: Client) -> None:
    """By server-side apply, and by a replacement that removes other clients' labels."""

    def replace() -> None:
        admin.apply(kinds.CRD, crds.manifest(), fieldManager="helm")
        _replace_crd(admin)
        crds.wait_until_served(admin, crds.manifest())

    check_unchanged_by(server, replace)


def test_operator_waits_for_the_crd(
    operators: Operators, admin: Client, namespace: str, spec: Object
) -> None:
    """An operator that starts before the CRD is installed logs that, stays healthy, and later needs no restart."""
    _delete_crd(admin)
    try:
        operator = operators.start()
        eventually("the operator leads", operator.is_leader)
        eventually(
            "the log names the resource", lambda: any("mlflowservers" in m for m in operator.messages())
        )
    finally:
        crds.install(admin)
    server = Server(admin, namespace).apply(spec)
    _wait_until_noticed(server, operator)
    server.wait_ready()
    assert operator.process.returncode is None
    assert operator.error_messages() == []


def test_crd_deletion_honors_deletion_policy(operators: Operators, admin: Client, namespace: str) -> None:
    """The data is retained or deleted, and the operator works with the CRD that is installed next.

    Its process may end when the API server no longer knows the resource; then the kubelet restarts it.
    """
    operator = operators.start()
    retained, deleted = (Server(admin, namespace, name) for name in ("retained", "deleted"))
    for server, policy in ((retained, "Retain"), (deleted, "Delete")):
        server.apply({"deletionPolicy": policy}).wait_stores_running()
    names = retained.names
    data = {
        f"Secret/{names.database_secret}",
        f"Secret/{names.artifacts_secret}",
        f"PersistentVolumeClaim/{names.postgres_data}",
        f"PersistentVolumeClaim/{names.artifact_store_data}",
    }
    try:
        _delete_crd(admin)
        eventually("the pods are gone", lambda: not retained.objects(kinds.POD))
        eventually("only the retained data is left", lambda: _remaining_objects(retained) == data)
        assert operator.process.returncode in {None, WATCH_LOST_EXIT_CODE}
    finally:
        crds.install(admin)
    retained.apply()
    _wait_until_noticed(retained, operator)
    retained.wait_stores_running()
    assert operator.error_messages() == []


def _replace_crd(admin: Client) -> None:
    """Replace the CRD. Tries again if the API server writes the CRD's status between the two requests."""
    path, replacement = kinds.CRD.path(None, crds.NAME), crds.manifest()
    for attempt in range(1, MAX_REPLACE_ATTEMPTS + 1):
        version = admin.request("GET", path)["metadata"]["resourceVersion"]
        replacement["metadata"]["resourceVersion"] = version
        try:
            admin.request("PUT", path, replacement)
        except ApiError as error:
            if error.status != CONFLICT_STATUS or attempt == MAX_REPLACE_ATTEMPTS:
                raise
        else:
            return


def _delete_crd(admin: Client) -> None:
    admin.delete(kinds.CRD, None, crds.NAME)
    eventually("the CRD is gone", lambda: admin.get(kinds.CRD, None, crds.NAME) is None)


def _wait_until_noticed(server: Server, operator: Operator) -> None:
    """Wait until the operator reconciles a server of a CRD that was just installed.

    If kopf has missed the CRD, the operator's process ends after two checks of the existing servers.
    """

    def noticed() -> bool:
        operator.restart_if_ended()
        return bool(server.resource().get("status"))

    eventually("the server is noticed", noticed, RECOVERY_SECONDS)


def _remaining_objects(server: Server) -> set[str]:
    return {
        f"{kind.kind}/{obj['metadata']['name']}"
        for kind in OBJECTS
        for obj in server.objects(kind)
        if labels.SERVER in (obj["metadata"].get("labels") or {})
    }
