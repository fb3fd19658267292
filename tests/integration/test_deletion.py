"""What a deleted MLflowServer leaves, and what goes with it."""

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server, eventually

OWNED = (kinds.DEPLOYMENT, kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.JOB, kinds.POD, kinds.PDB)


def data(server: Server) -> dict[str, str]:
    """Volumes and generated Secrets of a server with embedded stores, with their uids."""
    names = server.names
    found = [*server.objects(kinds.PVC), *server.objects(kinds.SECRET)]
    wanted = {names.postgres_data, names.artifact_store_data, names.database_secret, names.artifacts_secret}
    return {
        obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in found if obj["metadata"]["name"] in wanted
    }


def left(server: Server) -> set[str]:
    """Everything in the namespace that was created for the server, as Kind/name."""
    return {
        f"{kind.kind}/{obj['metadata']['name']}"
        for kind in (*OWNED, kinds.SECRET, kinds.PVC)
        for obj in server.objects(kind)
        if labels.SERVER in (obj["metadata"].get("labels") or {})
    }


def is_gone(server: Server) -> bool:
    """Whether the resource is gone."""
    return server.get(kinds.MLFLOWSERVER, server.name) is None


def finalizers(server: Server) -> list[str]:
    """Finalizers of the resource."""
    found: list[str] = server.stored()["metadata"].get("finalizers") or []
    return found


def test_retained_data_outlives_the_server_and_is_taken_back(
    operator: Operator, admin: Client, namespace: str
) -> None:
    """The default. Volumes and generated Secrets stay, one Event names them, and a new server uses them."""
    server = Server(admin, namespace).apply().stores_run()
    assert finalizers(server) == []
    before = data(server)
    assert len(before) == 4
    server.delete()
    kept = {f"Secret/{server.names.database_secret}", f"Secret/{server.names.artifacts_secret}"}
    kept |= {f"PersistentVolumeClaim/{server.names.postgres_data}"}
    kept |= {f"PersistentVolumeClaim/{server.names.artifact_store_data}"}
    eventually("only the data is left", lambda: left(server) == kept)
    eventually("it is told what was kept", lambda: server.events("DataKept"))
    (event,) = server.events("DataKept")
    assert all(f'"{name}"' in event["message"] for name in before)

    server.apply().stores_run()
    assert data(server) == before


def test_deleted_data_goes_with_the_server(operator: Operator, admin: Client, namespace: str) -> None:
    """`deletionPolicy: Delete`: a finalizer holds the resource until pods, Secrets and volumes are gone."""
    server = Server(admin, namespace).apply({"deletionPolicy": "Delete"}).stores_run()
    assert finalizers(server) == [labels.FINALIZER]
    assert len(data(server)) == 4
    server.delete()
    eventually("the server is gone", lambda: is_gone(server))
    assert data(server) == {}
    eventually("everything is gone", lambda: left(server) == set())
    (event,) = server.events("DataDeleted")
    assert "its data and passwords with it" in event["message"]


def test_deletion_policy_can_be_changed_until_the_end(
    operator: Operator, admin: Client, namespace: str
) -> None:
    """The finalizer follows the spec; what counts is the policy at the time of the deletion."""
    server = Server(admin, namespace).apply({"deletionPolicy": "Delete"}).stores_run()
    server.change(deletionPolicy="Retain")
    eventually("the finalizer is removed", lambda: finalizers(server) == [])
    server.change(deletionPolicy="Delete")
    eventually("the finalizer is added", lambda: finalizers(server) == [labels.FINALIZER])
    server.change(deletionPolicy="Retain")
    eventually("the finalizer is removed", lambda: finalizers(server) == [])
    before = data(server)
    server.delete()
    eventually("the server is gone", lambda: is_gone(server))
    eventually("the pods are gone", lambda: not server.objects(kinds.POD))
    assert data(server) == before


def test_external_database_is_never_deleted(
    operator: Operator, admin: Client, namespace: str, spec: Object, postgres: Postgres
) -> None:
    """What the operator did not create stays, and the Event names it."""
    server = Server(admin, namespace).apply({**spec, "deletionPolicy": "Delete"}).ready()
    server.delete()
    eventually("the server is gone", lambda: is_gone(server))
    assert spec["database"]["external"]["databaseName"] in postgres.databases()
    (event,) = server.events("DataDeleted")
    assert "the database of its spec" in event["message"]
    assert "s3://models" in event["message"]


def test_provisioned_database_goes_with_the_server_once_it_is_reachable(
    operator: Operator, admin: Client, namespace: str, postgres: Postgres
) -> None:
    """While the administrator's Secret is missing, the status says what blocks the deletion and how to end it."""
    before = postgres.databases(), postgres.roles()
    admin.apply(kinds.SECRET, _administrator(namespace))
    server = _with_database(Server(admin, namespace).apply(_provisioned(postgres)))
    assert len(postgres.databases()) == len(before[0]) + 1

    admin.delete(kinds.SECRET, namespace, "administrator")
    server.delete()
    blocked = server.until("Ready", "False", "DeletionBlocked")
    assert '"administrator"' in blocked["message"]
    assert labels.SKIP_DATA_DELETION in blocked["message"]
    assert not is_gone(server)

    admin.apply(kinds.SECRET, _administrator(namespace))
    eventually("the server is gone", lambda: is_gone(server))
    assert (postgres.databases(), postgres.roles()) == before


def test_blocked_deletion_ends_at_the_owner_s_word(
    operator: Operator, admin: Client, namespace: str, postgres: Postgres
) -> None:
    """The annotation that the status names releases the resource; the data stays."""
    admin.apply(kinds.SECRET, _administrator(namespace))
    server = _with_database(Server(admin, namespace).apply(_provisioned(postgres)))
    databases = postgres.databases()
    admin.delete(kinds.SECRET, namespace, "administrator")
    server.delete()
    server.until("Ready", "False", "DeletionBlocked")
    server.merge(
        kinds.MLFLOWSERVER, server.name, {"metadata": {"annotations": {labels.SKIP_DATA_DELETION: "true"}}}
    )
    eventually("the server is gone", lambda: is_gone(server))
    assert postgres.databases() == databases


def test_namespace_goes_with_the_servers_in_it(operator: Operator, admin: Client, namespace: str) -> None:
    """No finalizer keeps a namespace that is being deleted, with either policy.

    The servers are suspended: the namespace controller would wait for the grace period of their pods.
    """
    for name, policy in (("stays", "Retain"), ("goes", "Delete")):
        server = Server(admin, namespace, name).apply({"deletionPolicy": policy, "suspend": True})
        server.until("Ready", "False", "Suspended")
        assert finalizers(server) == ([labels.FINALIZER] if policy == "Delete" else [])
        assert server.get(kinds.SECRET, server.names.database_secret)
    admin.delete(kinds.NAMESPACE, None, namespace)
    eventually("the namespace is gone", lambda: admin.get(kinds.NAMESPACE, None, namespace) is None)


def _with_database(server: Server) -> Server:
    server.until("DatabaseReady")
    return server


def _provisioned(postgres: Postgres) -> Object:
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


def _administrator(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "administrator", "namespace": namespace},
        "stringData": {"username": "postgres", "password": "any"},
    }
