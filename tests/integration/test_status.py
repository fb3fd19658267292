"""Status, conditions and Events."""

from datetime import datetime

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.server import DATABASE_SECRET, Server, database_secret, eventually


def test_status_of_a_ready_server(server: Server, spec: Object) -> None:
    """Where the server is and what it stands on; each condition is about the current generation."""
    stored = server.stored()
    status = stored["status"]
    database = spec["database"]["external"]
    assert status["url"] == f"http://{server.name}.{server.namespace}.svc:5000"
    assert status["image"].endswith(f"v{status['version']}-full")
    assert status["schemaRevision"]
    assert status["database"]["type"] == "External"
    assert database["databaseName"] in str(status["database"])
    assert status["artifacts"]["uri"] == "s3://models"
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert server.get(kinds.CONFIGMAP, status["clientConfigMapRef"]["name"])
    types = [condition["type"] for condition in status["conditions"]]
    assert types == [
        "Ready",
        "CredentialsReady",
        "DatabaseReady",
        "ArtifactStoreReady",
        "UpgradeReady",
        "SchemaReady",
        "ServerAvailable",
    ]
    generation = stored["metadata"]["generation"]
    assert {condition["observedGeneration"] for condition in status["conditions"]} == {generation}
    assert {condition["status"] for condition in status["conditions"]} == {"True"}


def test_condition_names_a_missing_secret_and_recovers(
    operator: Operator, admin: Client, namespace: str, spec: Object
) -> None:
    """Reason, name and next step. The Secret is noticed without any other change. The transition time changes when the
    status of the condition does.
    """
    admin.delete(kinds.SECRET, namespace, DATABASE_SECRET)
    server = Server(admin, namespace).apply(spec)
    missing = server.until("CredentialsReady", "False", "SecretNotFound")
    assert f'"{DATABASE_SECRET}"' in missing["message"]
    assert server.until("Ready", "False")["reason"] == "SecretNotFound"
    waiting = server.until("SchemaReady", "Unknown", "WaitingForDependency")

    server.change(workers=3)
    generation = server.stored()["metadata"]["generation"]
    eventually("the status is about the new spec", lambda: server.status["observedGeneration"] == generation)
    again = server.conditions()["CredentialsReady"]
    assert again["lastTransitionTime"] == missing["lastTransitionTime"]
    assert again["observedGeneration"] == generation

    admin.apply(kinds.SECRET, database_secret(namespace))
    ready = server.until("SchemaReady")
    assert _time(ready) >= _time(waiting)
    server.ready()


def test_each_change_is_one_event(operator: Operator, admin: Client, namespace: str, spec: Object) -> None:
    """Reconciling again without a change publishes nothing."""
    admin.delete(kinds.SECRET, namespace, DATABASE_SECRET)
    server = Server(admin, namespace).apply(spec)
    server.until("Ready", "False", "SecretNotFound")
    eventually("the Events are published", lambda: server.events("SecretNotFound"))
    before = _told(server)
    assert len(before) == len(set(before))

    # Each of these changes is a reconcile; the last one shows that all of them are over.
    for _ in range(3):
        server.touch()
    server.change(workers=3)
    generation = server.stored()["metadata"]["generation"]
    eventually("the status is about the new spec", lambda: server.status["observedGeneration"] == generation)
    assert _told(server) == before

    admin.apply(kinds.SECRET, database_secret(namespace))
    server.touch()
    server.ready()
    eventually("Ready is told", lambda: [e for e in server.events("Ready") if e["type"] == "Normal"])
    told = _told(server)
    assert len(told) == len(set(told))


def test_a_rejected_object_is_reported(
    operator: Operator, admin: Client, namespace: str, spec: Object
) -> None:
    """Admission refuses what the operator creates: the status says which object, and why."""
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"count/deployments.apps": "0"}}}
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    admin.request("POST", path, quota)
    eventually(
        "the quota counts", lambda: (admin.request("GET", f"{path}/small").get("status") or {}).get("hard")
    )
    server = Server(admin, namespace).apply(spec)
    refused = server.until("ServerAvailable", "False", "QuotaExceeded")
    assert "count/deployments.apps" in refused["message"]

    admin.request("DELETE", f"{path}/small")
    server.touch()
    server.ready()


def _told(server: Server) -> list[tuple[str, str, str]]:
    found = [(e["type"], e["reason"], e["message"]) for e in server.events()]
    return sorted(found)


def _time(condition: Object) -> datetime:
    return datetime.fromisoformat(condition["lastTransitionTime"])
