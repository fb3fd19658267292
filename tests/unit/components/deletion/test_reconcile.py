"""The deletion of a server: what is deleted in which order, what is kept, and that it never blocks forever."""

from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.components.deletion import retained_event
from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import EXTERNAL, NAME, ProcessKilled, SimulatedCluster

DELETE: Object = {"deletionPolicy": "Delete"}
DATA = {
    ("Secret", "a-database"),
    ("Secret", "a-artifacts"),
    ("Secret", "a-encryption"),
    ("PersistentVolumeClaim", "a-postgres-data"),
    ("PersistentVolumeClaim", "a-artifacts-data"),
}


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server with `deletionPolicy: Delete`."""
    return await SimulatedCluster.ready(DELETE)


def resource(simulation: SimulatedCluster) -> Object | None:
    """The MLflowServer, None if it is deleted."""
    return simulation.get(api.KIND, NAME)


def remaining_data(simulation: SimulatedCluster) -> set[tuple[str, str]]:
    """The data objects that still exist."""
    return DATA & simulation.api.objects.keys()


async def reconcile_until_gone(simulation: SimulatedCluster, rounds: int = 20) -> None:
    """Reconcile and run the controllers until the resource is gone."""
    for _ in range(rounds):
        if resource(simulation) is None:
            return
        await simulation.reconcile()
        simulation.run_controllers()
    raise AssertionError(f"still exists: {simulation.condition('Ready')}")


def annotate(simulation: SimulatedCluster, key: str) -> None:
    """Set an annotation to "true", like `kubectl annotate`."""
    simulation.api.edit(api.KIND, NAME, lambda live: live["metadata"].update(annotations={key: "true"}))


def events(simulation: SimulatedCluster) -> list[tuple[str, str]]:
    """Reasons and messages of all Events."""
    return [(reason, message) for _, reason, message in simulation.events.published]


async def test_retain_policy_adds_no_finalizer() -> None:
    """The deletion must be immediate, even if no operator runs any more."""
    simulation = await SimulatedCluster.ready()
    assert "finalizers" not in (resource(simulation) or {})["metadata"]


async def test_finalizer_is_added_before_any_object_is_created() -> None:
    """Otherwise a deletion in the first second would leave new objects behind."""
    simulation = SimulatedCluster(DELETE)
    await simulation.reconcile()
    assert simulation.api.writes[0] == ("patch", f"MLflowServer/{NAME}")
    assert (resource(simulation) or {})["metadata"]["finalizers"] == [labels.FINALIZER]


async def test_other_finalizers_are_kept() -> None:
    """They belong to other controllers."""
    simulation = SimulatedCluster(DELETE)
    simulation.api.edit(
        api.KIND, NAME, lambda live: live["metadata"].update(finalizers=["example.com/theirs"])
    )
    await simulation.reconcile()
    assert (resource(simulation) or {})["metadata"]["finalizers"] == ["example.com/theirs", labels.FINALIZER]


async def test_finalizer_causes_no_repeated_writes(simulation: SimulatedCluster) -> None:
    """A present finalizer is not added again."""
    before = list(simulation.api.writes)
    await simulation.reconcile()
    assert simulation.api.writes == before


async def test_changing_the_policy_to_retain_removes_the_finalizer(simulation: SimulatedCluster) -> None:
    """Finalizers of other controllers are kept."""
    simulation.api.edit(
        api.KIND, NAME, lambda live: live["metadata"]["finalizers"].append("example.com/theirs")
    )
    simulation.update_spec(deletionPolicy="Retain")
    await simulation.reconcile()
    assert (resource(simulation) or {})["metadata"]["finalizers"] == ["example.com/theirs"]


async def test_policy_changed_right_before_the_deletion_keeps_all_data(simulation: SimulatedCluster) -> None:
    """No reconcile between the change and the deletion removes the finalizer."""
    simulation.update_spec(deletionPolicy="Retain")
    simulation.delete_server()
    await reconcile_until_gone(simulation)
    assert remaining_data(simulation) == DATA
    assert [reason for reason, _ in events(simulation)][-1] == "DataKept"
    assert "spec.deletionPolicy is Retain" in events(simulation)[-1][1]


async def test_policy_changed_during_the_deletion_keeps_the_remaining_data(
    simulation: SimulatedCluster,
) -> None:
    """The pods are stopped by then, and nothing else is deleted."""
    simulation.delete_server()
    await simulation.reconcile()
    simulation.update_spec(deletionPolicy="Retain")
    await reconcile_until_gone(simulation)
    assert remaining_data(simulation) == DATA


async def test_data_is_deleted_after_the_pods_are_gone(simulation: SimulatedCluster) -> None:
    """Pods, then Secrets, then volumes; an Event reports it."""
    writes_before = len(simulation.api.writes)
    simulation.delete_server()
    await simulation.reconcile()
    assert remaining_data(simulation) == DATA, "nothing is deleted while a pod may still write"
    await reconcile_until_gone(simulation)
    assert not remaining_data(simulation)
    deleted_names = [
        name for verb, name in simulation.api.writes[writes_before:] if verb == "delete" and "Job" not in name
    ]
    assert deleted_names == [
        "Secret/a-database",
        "Secret/a-artifacts",
        "Secret/a-encryption",
        "PersistentVolumeClaim/a-postgres-data",
        "PersistentVolumeClaim/a-artifacts-data",
    ]
    assert events(simulation)[-1] == ("DataDeleted", "Deleted the server, its data and its passwords.")


async def test_deletion_resumes_after_operator_crash_at_any_write() -> None:
    """For each N: the process dies after its Nth write, and a new process deletes the rest."""
    uninterrupted = await SimulatedCluster.ready(DELETE)
    writes_before = len(uninterrupted.api.writes)
    uninterrupted.delete_server()
    await reconcile_until_gone(uninterrupted)
    for n in range(len(uninterrupted.api.writes) - writes_before):
        simulation = await SimulatedCluster.ready(DELETE)
        simulation.delete_server()
        simulation.api.crash_after_writes = len(simulation.api.writes) + n
        with pytest.raises(ProcessKilled):
            await reconcile_until_gone(simulation)
        simulation.api.crash_after_writes = None
        await reconcile_until_gone(simulation)
        assert not remaining_data(simulation), f"crash after write {n}"


async def test_pod_that_does_not_terminate_blocks_the_deletion(simulation: SimulatedCluster) -> None:
    """It may still write. The message names the pod and how to end the wait."""
    simulation.delete_server()
    await simulation.reconcile()
    assert simulation.condition("Ready")[1:] == (
        "Progressing",
        'Deleting the server and its data. Waiting for pod "a-pod" to terminate.',
    )
    simulation.now = "2026-01-01T00:05:00Z"
    await simulation.reconcile()
    _, reason, message = simulation.condition("Ready")
    assert reason == "DeletionBlocked"
    assert 'pod "a-pod"' in message
    assert "kubectl annotate mlflowserver -n team a mlflow-operator.dev/skip-data-deletion=true" in message
    assert remaining_data(simulation) == DATA


async def test_deletion_names_the_lost_node_of_a_pod(simulation: SimulatedCluster) -> None:
    """Its pods never end by themselves."""
    conditions = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]
    lost = {"spec": {"nodeName": "node-1"}, "status": {"phase": "Running", "conditions": conditions}}
    simulation.api.edit("Pod", "a-pod", lambda pod: pod.update(lost))
    simulation.delete_server()
    await simulation.reconcile()
    message = simulation.condition("Ready")[2]
    assert 'on node "node-1", which does not respond' in message
    assert "kubectl taint node node-1" in message


async def test_skip_annotation_ends_the_deletion_and_keeps_the_data(simulation: SimulatedCluster) -> None:
    """It works independently of what blocks the deletion. The Event names the remaining data."""
    simulation.delete_server()
    await simulation.reconcile()
    annotate(simulation, labels.SKIP_DATA_DELETION)
    await simulation.reconcile()
    assert resource(simulation) is None
    assert remaining_data(simulation) == DATA
    reason, message = events(simulation)[-1]
    assert reason == "DataKept"
    assert all(f'"{name}"' in message for _, name in DATA)


async def test_skip_annotation_works_for_an_invalid_resource(simulation: SimulatedCluster) -> None:
    """Its data is unknown, but the resource must not exist forever."""
    simulation.api.edit(api.KIND, NAME, lambda live: live["spec"].update(replicas=-1))
    simulation.delete_server()
    await simulation.reconcile()
    assert simulation.condition("Ready")[1] == "DeletionBlocked"
    annotate(simulation, labels.SKIP_DATA_DELETION)
    await simulation.reconcile()
    assert resource(simulation) is None
    assert remaining_data(simulation) == DATA


async def test_rejected_requests_are_reported_and_retried(simulation: SimulatedCluster) -> None:
    """For example, the operator's role lacks the permission to delete Secrets."""
    simulation.delete_server()
    await simulation.reconcile()
    simulation.run_controllers()
    simulation.api.errors_by_kind["Secret"] = Forbidden(
        "delete Secret team/a-database: 403 Forbidden: not allowed."
    )
    await simulation.reconcile()
    _, reason, message = simulation.condition("Ready")
    assert reason == "DeletionBlocked"
    assert "The API server rejects the request: delete Secret team/a-database" in message
    simulation.api.errors_by_kind.clear()
    await reconcile_until_gone(simulation)
    assert not remaining_data(simulation)


@pytest.mark.parametrize(
    ("kind", "name", "annotations"),
    [
        ("Namespace", "team", {}),
        ("CustomResourceDefinition", "mlflowservers.mlflow-operator.dev", {"deleted": "too"}),
    ],
)
async def test_deletion_gives_up_after_a_minute_if_namespace_or_crd_is_deleted(
    simulation: SimulatedCluster, kind: str, name: str, annotations: dict[str, Any]
) -> None:
    """Until then it is tried, because an external database may be reachable."""
    version = "v1" if kind == "Namespace" else "apiextensions.k8s.io/v1"
    meta = {"name": name, "deletionTimestamp": simulation.now, "annotations": annotations}
    simulation.delete_server()
    simulation.api.put({"apiVersion": version, "kind": kind, "metadata": meta})
    await simulation.reconcile()
    assert resource(simulation), "the timeout has not passed"
    simulation.now = "2026-01-01T00:01:00Z"
    await simulation.reconcile()
    assert resource(simulation) is None


async def test_external_stores_are_kept() -> None:
    """The stores and their Secrets were not created for this server."""
    simulation = await SimulatedCluster.with_external_stores()
    simulation.update_spec(deletionPolicy="Delete")
    await simulation.reconcile()
    simulation.delete_server()
    await reconcile_until_gone(simulation)
    assert simulation.get("Secret", "db")
    assert simulation.get("Secret", "keys")
    assert simulation.get("Secret", "a-encryption"), "it decrypts secrets in the database"
    assert events(simulation)[-1][1] == (
        "Deleted the server, its data and its passwords. Kept, because it does not belong to this server: the "
        "database in spec.database; the artifacts at s3://models; the encryption keys of that database in Secret "
        '"a-encryption".'
    )


async def test_objects_without_the_operator_labels_are_kept(simulation: SimulatedCluster) -> None:
    """A matching name alone does not prove ownership."""
    for kind, name in (("Secret", "a-artifacts"), ("PersistentVolumeClaim", "a-postgres-data")):
        simulation.api.edit(kind, name, lambda live: live["metadata"].update(labels={"app": "theirs"}))
    simulation.delete_server()
    await reconcile_until_gone(simulation)
    assert remaining_data(simulation) == {
        ("Secret", "a-artifacts"),
        ("PersistentVolumeClaim", "a-postgres-data"),
    }


async def test_retained_data_is_reported_after_the_server_is_deleted() -> None:
    """The resource has no finalizer, so its last state comes from the watch."""
    simulation = await SimulatedCluster.ready()
    deleted = resource(simulation)
    assert deleted
    simulation.delete_server()
    await retained_event.emit_retained_event(deleted, simulation.dependencies())
    reason, message = events(simulation)[-1]
    assert reason == "DataKept"
    assert message == (
        'Deleted the server and kept its data: PersistentVolumeClaims "a-artifacts-data", "a-postgres-data"; Secrets '
        '"a-artifacts", "a-database", "a-encryption". An MLflowServer with the same name and storage in this namespace '
        "adopts all of it, with the same passwords and encryption keys."
    )


async def test_event_about_external_stores_promises_no_passwords() -> None:
    """The operator generated none."""
    simulation = await SimulatedCluster.with_external_stores()
    deleted = resource(simulation)
    assert deleted
    simulation.delete_server()
    await retained_event.emit_retained_event(deleted, simulation.dependencies())
    message = events(simulation)[-1][1]
    assert "kept its data" in message
    assert "passwords" not in message


async def test_no_second_event_for_a_resource_with_finalizer(simulation: SimulatedCluster) -> None:
    """`finalize` published an Event before; the deletion event of the watch comes later."""
    deleted = resource(simulation)
    assert deleted
    before = events(simulation)
    await retained_event.emit_retained_event(deleted, simulation.dependencies())
    assert events(simulation) == before


async def test_no_event_about_retained_data_in_a_terminating_namespace() -> None:
    """The data is about to be deleted with the namespace."""
    simulation = await SimulatedCluster.ready()
    deleted = resource(simulation)
    assert deleted
    simulation.api.edit(
        "Namespace", "team", lambda live: live["metadata"].update(deletionTimestamp=simulation.now)
    )
    before = events(simulation)
    await retained_event.emit_retained_event(deleted, simulation.dependencies())
    assert events(simulation) == before


async def test_retained_event_names_external_stores() -> None:
    """A user who deletes a server should know where its data is."""
    simulation = await SimulatedCluster.with_external_stores()
    deleted = resource(simulation)
    assert deleted
    simulation.delete_server()
    await retained_event.emit_retained_event(deleted, simulation.dependencies())
    assert "the database one:5432/mlflow and the artifacts at s3://models" in events(simulation)[-1][1]
    assert EXTERNAL["artifacts"]["s3"]["bucket"] == "models"


async def test_missing_permission_to_add_the_finalizer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data is created, because it could remain after the deletion."""
    simulation = SimulatedCluster(DELETE)

    async def forbidden(*_: object) -> Object:
        raise Forbidden("patch MLflowServer team/a: 403 Forbidden")

    monkeypatch.setattr(simulation.api, "json_patch", forbidden)
    await simulation.reconcile()
    assert simulation.condition("Ready")[1] == "OperationRefused"
    assert not remaining_data(simulation)
