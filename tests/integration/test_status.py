"""Status, conditions and Events."""

from datetime import datetime

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.server import DATABASE_SECRET, Server, database_secret
from tests.polling import eventually


def test_status_of_a_ready_server(server: Server, spec: Object) -> None:
    """The status has the server's URL, image, stores and replicas; all conditions are of the current generation."""
    resource = server.resource()
    status = resource["status"]
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
        "EncryptionReady",
        "ServerAvailable",
    ]
    generation = resource["metadata"]["generation"]
    assert {condition["observedGeneration"] for condition in status["conditions"]} == {generation}
    assert {condition["status"] for condition in status["conditions"]} == {"True"}


def test_condition_names_a_missing_secret_and_recovers(
    operator: Operator, admin: Client, namespace: str, spec: Object
) -> None:
    """The condition has reason, name and next step. The operator notices the new Secret without another change.

    The transition time only changes when the status of the condition changes.
    """
    admin.delete(kinds.SECRET, namespace, DATABASE_SECRET)
    server = Server(admin, namespace).apply(spec)
    missing = server.wait_for("CredentialsReady", "False", "SecretNotFound")
    assert f'"{DATABASE_SECRET}"' in missing["message"]
    assert server.wait_for("Ready", "False")["reason"] == "SecretNotFound"
    waiting = server.wait_for("SchemaReady", "Unknown", "WaitingForDependency")

    server.patch_spec(workers=3)
    generation = server.resource()["metadata"]["generation"]
    eventually(
        "the status is of the new generation", lambda: server.status["observedGeneration"] == generation
    )
    unchanged = server.conditions()["CredentialsReady"]
    assert unchanged["lastTransitionTime"] == missing["lastTransitionTime"]
    assert unchanged["observedGeneration"] == generation

    admin.apply(kinds.SECRET, database_secret(namespace))
    ready = server.wait_for("SchemaReady")
    assert _time(ready) >= _time(waiting)
    server.wait_ready()


def test_each_change_emits_one_event(operator: Operator, admin: Client, namespace: str, spec: Object) -> None:
    """Reconciling again without a change emits no Event."""
    admin.delete(kinds.SECRET, namespace, DATABASE_SECRET)
    server = Server(admin, namespace).apply(spec)
    server.wait_for("Ready", "False", "SecretNotFound")
    eventually("the Events are emitted", lambda: server.events("SecretNotFound"))
    before = _event_summaries(server)
    assert len(before) == len(set(before))

    # Each of these changes triggers a reconcile; after the last one all of them are complete.
    for _ in range(3):
        server.trigger_reconcile()
    server.patch_spec(workers=3)
    generation = server.resource()["metadata"]["generation"]
    eventually(
        "the status is of the new generation", lambda: server.status["observedGeneration"] == generation
    )
    assert _event_summaries(server) == before

    admin.apply(kinds.SECRET, database_secret(namespace))
    server.trigger_reconcile()
    server.wait_ready()
    eventually(
        "the Event Ready is emitted", lambda: [e for e in server.events("Ready") if e["type"] == "Normal"]
    )
    events = _event_summaries(server)
    assert len(events) == len(set(events))


def test_rejected_object_is_reported(operator: Operator, admin: Client, namespace: str, spec: Object) -> None:
    """If admission rejects an object of the operator, the status names the object and the cause."""
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"count/deployments.apps": "0"}}}
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    admin.request("POST", path, quota)
    eventually(
        "the quota is enforced",
        lambda: (admin.request("GET", f"{path}/small").get("status") or {}).get("hard"),
    )
    server = Server(admin, namespace).apply(spec)
    condition = server.wait_for("ServerAvailable", "False", "QuotaExceeded")
    assert "count/deployments.apps" in condition["message"]

    admin.request("DELETE", f"{path}/small")
    server.trigger_reconcile()
    server.wait_ready()


def _event_summaries(server: Server) -> list[tuple[str, str, str]]:
    found = [(e["type"], e["reason"], e["message"]) for e in server.events()]
    return sorted(found)


def _time(condition: Object) -> datetime:
    return datetime.fromisoformat(condition["lastTransitionTime"])
