"""Deletion of MLflowServers: which objects and data are deleted, and which are retained."""

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server
from tests.polling import eventually

OWNED_KINDS = (
    kinds.DEPLOYMENT,
    kinds.STATEFULSET,
    kinds.SERVICE,
    kinds.CONFIGMAP,
    kinds.JOB,
    kinds.POD,
    kinds.PDB,
)


def data_uids(server: Server) -> dict[str, str]:
    """Return the uids of the volume claims and generated Secrets of a server with embedded stores, by name.

    Its database does not run here, and therefore it has no encryption keys.
    """
    names = server.names
    found = [*server.objects(kinds.PVC), *server.objects(kinds.SECRET)]
    names_with_data = {
        names.postgres_data,
        names.artifact_store_data,
        names.database_secret,
        names.artifacts_secret,
    }
    return {
        obj["metadata"]["name"]: obj["metadata"]["uid"]
        for obj in found
        if obj["metadata"]["name"] in names_with_data
    }


def remaining_objects(server: Server) -> set[str]:
    """Return the remaining objects that the operator created for the server, as Kind/name."""
    return {
        f"{kind.kind}/{obj['metadata']['name']}"
        for kind in (*OWNED_KINDS, kinds.SECRET, kinds.PVC)
        for obj in server.objects(kind)
        if labels.SERVER in (obj["metadata"].get("labels") or {})
    }


def is_gone(server: Server) -> bool:
    """Whether the MLflowServer is gone."""
    return server.get(kinds.MLFLOWSERVER, server.name) is None


def event_messages(server: Server, reason: str) -> set[str]:
    """Return the different messages of the Events with this reason.

    The operator publishes these Events before the write that completes the deletion. If that write fails, the next
    reconcile publishes the same Event again.
    """
    return {event["message"] for event in server.events(reason)}


def finalizers(server: Server) -> list[str]:
    """Return the finalizers of the MLflowServer."""
    found: list[str] = server.resource()["metadata"].get("finalizers") or []
    return found


def test_retained_data_is_adopted_by_a_new_server(operator: Operator, admin: Client, namespace: str) -> None:
    """The default: volume claims and generated Secrets stay, one Event names them, and a new server uses them."""
    server = Server(admin, namespace).apply().wait_stores_running()
    assert finalizers(server) == []
    before = data_uids(server)
    assert len(before) == 4
    server.delete()
    expected = {f"Secret/{server.names.database_secret}", f"Secret/{server.names.artifacts_secret}"}
    expected |= {f"PersistentVolumeClaim/{server.names.postgres_data}"}
    expected |= {f"PersistentVolumeClaim/{server.names.artifact_store_data}"}
    eventually("only the data is left", lambda: remaining_objects(server) == expected)
    eventually("an Event names the retained data", lambda: server.events("DataKept"))
    (message,) = event_messages(server, "DataKept")
    assert all(f'"{name}"' in message for name in before)

    server.apply().wait_stores_running()
    assert data_uids(server) == before


def test_delete_policy_deletes_data_with_the_server(
    operator: Operator, admin: Client, namespace: str
) -> None:
    """With `deletionPolicy: Delete`, a finalizer keeps the resource until pods, Secrets and volume claims are gone."""
    server = Server(admin, namespace).apply({"deletionPolicy": "Delete"}).wait_stores_running()
    assert finalizers(server) == [labels.FINALIZER]
    assert len(data_uids(server)) == 4
    server.delete()
    eventually("the server is gone", lambda: is_gone(server))
    assert data_uids(server) == {}
    eventually("everything is gone", lambda: remaining_objects(server) == set())
    (message,) = event_messages(server, "DataDeleted")
    assert "its data and its passwords" in message


def test_deletion_policy_can_be_changed_until_deletion(
    operator: Operator, admin: Client, namespace: str
) -> None:
    """The finalizer follows the spec. The policy at the time of the deletion decides."""
    server = Server(admin, namespace).apply({"deletionPolicy": "Delete"}).wait_stores_running()
    server.patch_spec(deletionPolicy="Retain")
    eventually("the finalizer is removed", lambda: finalizers(server) == [])
    server.patch_spec(deletionPolicy="Delete")
    eventually("the finalizer is added", lambda: finalizers(server) == [labels.FINALIZER])
    server.patch_spec(deletionPolicy="Retain")
    eventually("the finalizer is removed", lambda: finalizers(server) == [])
    before = data_uids(server)
    server.delete()
    eventually("the server is gone", lambda: is_gone(server))
    eventually("the pods are gone", lambda: not server.objects(kinds.POD))
    assert data_uids(server) == before


def test_external_database_is_never_deleted(
    operator: Operator, admin: Client, namespace: str, spec: Object, postgres: Postgres
) -> None:
    """The operator does not delete what it did not create, and the Event names it."""
    server = Server(admin, namespace).apply({**spec, "deletionPolicy": "Delete"}).wait_ready()
    server.delete()
    eventually("the server is gone", lambda: is_gone(server))
    assert spec["database"]["external"]["databaseName"] in postgres.databases()
    (message,) = event_messages(server, "DataDeleted")
    assert "the database in spec.database" in message
    assert "s3://models" in message


def test_deletion_waits_until_provisioned_database_can_be_deleted(
    operator: Operator, admin: Client, namespace: str, postgres: Postgres
) -> None:
    """While the administrator's Secret is missing, the status names what blocks the deletion and how to unblock it."""
    before = postgres.databases(), postgres.roles()
    admin.apply(kinds.SECRET, _admin_secret(namespace))
    server = _wait_for_database(Server(admin, namespace).apply(_provisioned_spec(postgres)))
    assert len(postgres.databases()) == len(before[0]) + 1

    admin.delete(kinds.SECRET, namespace, "administrator")
    server.delete()
    blocked = server.wait_for("Ready", "False", "DeletionBlocked")
    assert '"administrator"' in blocked["message"]
    assert labels.SKIP_DATA_DELETION in blocked["message"]
    assert not is_gone(server)

    admin.apply(kinds.SECRET, _admin_secret(namespace))
    eventually("the server is gone", lambda: is_gone(server))
    assert (postgres.databases(), postgres.roles()) == before


def test_skip_data_deletion_annotation_unblocks_deletion(
    operator: Operator, admin: Client, namespace: str, postgres: Postgres
) -> None:
    """The annotation that the status names removes the finalizer; the data stays."""
    admin.apply(kinds.SECRET, _admin_secret(namespace))
    server = _wait_for_database(Server(admin, namespace).apply(_provisioned_spec(postgres)))
    databases = postgres.databases()
    admin.delete(kinds.SECRET, namespace, "administrator")
    server.delete()
    server.wait_for("Ready", "False", "DeletionBlocked")
    server.merge(
        kinds.MLFLOWSERVER, server.name, {"metadata": {"annotations": {labels.SKIP_DATA_DELETION: "true"}}}
    )
    eventually("the server is gone", lambda: is_gone(server))
    assert postgres.databases() == databases


def test_namespace_deletion_deletes_its_servers(operator: Operator, admin: Client, namespace: str) -> None:
    """With both policies, no finalizer blocks the deletion of a namespace.

    The servers are suspended, because the namespace controller would wait for the grace period of their pods.
    """
    for name, policy in (("retain", "Retain"), ("delete", "Delete")):
        server = Server(admin, namespace, name).apply({"deletionPolicy": policy, "suspend": True})
        server.wait_for("Ready", "False", "Suspended")
        assert finalizers(server) == ([labels.FINALIZER] if policy == "Delete" else [])
        assert server.get(kinds.SECRET, server.names.database_secret)
    admin.delete(kinds.NAMESPACE, None, namespace)
    eventually("the namespace is gone", lambda: admin.get(kinds.NAMESPACE, None, namespace) is None)


def _wait_for_database(server: Server) -> Server:
    server.wait_for("DatabaseReady")
    return server


def _provisioned_spec(postgres: Postgres) -> Object:
    provision = {
        "host": "127.0.0.1",
        "port": postgres.port,
        "adminSecretRef": {"name": "administrator"},
        "tls": {"mode": "Disable"},
    }
    return {
        "deletionPolicy": "Delete",
        "database": {"provision": provision},
        "artifacts": {"s3": {"bucket": "models"}},
        "podTemplate": {"spec": {"serviceAccountName": "default"}},
    }


def _admin_secret(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "administrator", "namespace": namespace},
        "stringData": {"username": "postgres", "password": "any"},
    }
