"""A server that is recreated from a backup of the cluster: its objects have no ownerReferences and no status."""

from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.server import Server
from tests.integration.test_deletion import data_uids, is_gone
from tests.polling import eventually

DISPOSABLE_KINDS = (kinds.DEPLOYMENT, kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP)


def owner_uids(server: Server) -> set[str]:
    """The uids of the owners of all disposable objects of the server; empty for an object without owner."""
    objects = [*_disposable(server), server.require(kinds.SECRET, server.names.server_secret)]
    return {(obj["metadata"].get("ownerReferences") or [{"uid": ""}])[0]["uid"] for obj in objects}


def _disposable(server: Server) -> list[Object]:
    return [
        obj
        for kind in DISPOSABLE_KINDS
        for obj in server.objects(kind)
        if (obj["metadata"].get("labels") or {}).get("mlflow-operator.dev/server") == server.name
    ]


def uids(server: Server, kind: Kind) -> set[str]:
    """The uids of all objects of a kind."""
    return {obj["metadata"]["uid"] for obj in server.objects(kind)}


def recreate_without_owner(server: Server, spec: Object) -> None:
    """Delete the MLflowServer, keep all its objects without ownerReferences, and create it again without a status."""
    server.delete(propagation="Orphan")
    eventually("the MLflowServer is gone", lambda: is_gone(server))
    assert owner_uids(server) == {""}
    server.apply(spec)


def test_recreated_server_adopts_its_objects(server: Server) -> None:
    """No object is replaced, no pod is restarted, and no migration runs."""
    spec = server.resource()["spec"]
    before = {kind: uids(server, kind) for kind in (*DISPOSABLE_KINDS, kinds.SECRET, kinds.POD)}
    recreate_without_owner(server, spec)
    server.wait_ready()
    eventually(
        "all objects are adopted", lambda: owner_uids(server) == {server.resource()["metadata"]["uid"]}
    )
    assert {kind: uids(server, kind) for kind in before} == before


def test_recreated_server_with_embedded_stores_keeps_its_data(
    operator: Operator, admin: Client, namespace: str
) -> None:
    """The pods are simulated, so only the volumes, the Secrets and the owners are checked."""
    server = Server(admin, namespace).apply().wait_stores_running()
    data = data_uids(server)
    recreate_without_owner(server, {})
    eventually(
        "all objects are adopted", lambda: owner_uids(server) == {server.resource()["metadata"]["uid"]}
    )
    server.wait_stores_running()
    assert data_uids(server) == data


def test_restored_workloads_wait_for_their_data(operator: Operator, admin: Client, namespace: str) -> None:
    """A tool restores the objects in any order. The operator must not create a password that the tool then skips."""
    server = Server(admin, namespace).apply().wait_stores_running()
    secret = server.require(kinds.SECRET, server.names.database_secret)
    server.delete(propagation="Orphan")
    eventually("the MLflowServer is gone", lambda: is_gone(server))
    admin.delete(kinds.SECRET, namespace, server.names.database_secret)
    server.apply()
    condition = server.wait_for("CredentialsReady", "False", "SecretNotFound")
    assert server.names.postgres_data in condition["message"]
    assert server.get(kinds.SECRET, server.names.database_secret) is None

    meta = {key: secret["metadata"][key] for key in ("name", "namespace", "labels")}
    admin.create(kinds.SECRET, {**secret, "metadata": meta})
    eventually(
        "all objects are adopted", lambda: owner_uids(server) == {server.resource()["metadata"]["uid"]}
    )
