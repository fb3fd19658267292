"""Failures in states that cannot be produced in a real cluster at will; `tests/e2e` covers the others."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Forbidden, QuotaExceeded
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import EXTERNAL, URI, SimulatedCluster

QUOTA_ERROR = 'pods "a-0" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0'


@pytest.fixture
async def failed_migration(simulation: SimulatedCluster) -> SimulatedCluster:
    """A server whose first migration has just failed."""
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    simulation.finish_job(migration_job(simulation), "Failed", "2026/01/01 00:00:00 ERROR boom: no space")
    await simulation.reconcile()
    return simulation


def migration_job(simulation: SimulatedCluster) -> Object:
    """The only Job."""
    (job,) = (obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job")
    return job


def event(reason: str, message: str) -> Object:
    """An Event of a Kubernetes controller."""
    return {"reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:00:00Z"}


async def test_failed_migration_is_reported_and_retried_within_a_minute(
    failed_migration: SimulatedCluster,
) -> None:
    """The message contains the last lines of the Job. After the cause is fixed, users need not do anything else."""
    status, reason, message = failed_migration.condition("SchemaReady")
    assert (status, reason) == ("False", "MigrationFailed")
    assert "boom: no space" in message
    assert "is retried automatically" in message
    first = migration_job(failed_migration)
    failed_migration.now = "2026-01-01T00:00:14Z"
    assert (await failed_migration.reconcile()).requeue_after == 1
    assert migration_job(failed_migration)["metadata"]["uid"] == first["metadata"]["uid"]
    failed_migration.now = "2026-01-01T00:00:15Z"
    await failed_migration.reconcile()
    assert migration_job(failed_migration)["metadata"]["uid"] != first["metadata"]["uid"]
    assert migration_job(failed_migration)["metadata"]["name"] == first["metadata"]["name"]
    await failed_migration.reconcile_until_ready()


async def test_repeated_migration_failure_is_reported_once(failed_migration: SimulatedCluster) -> None:
    """Neither the start nor the end of another attempt writes the status or publishes an Event."""
    failed_migration.events.published.clear()
    before = failed_migration.condition("SchemaReady")
    for minute in range(1, 4):
        failed_migration.now = f"2026-01-01T00:0{minute}:00Z"
        await failed_migration.reconcile()
        await failed_migration.reconcile()
        assert failed_migration.condition("SchemaReady") == before
        assert migration_job(failed_migration)["metadata"]["annotations"][labels.ATTEMPT] == str(minute + 1)
        log = f"2026/01/01 00:0{minute}:09 ERROR boom: no space"
        failed_migration.terminate_container(migration_job(failed_migration), 1, log)
        await failed_migration.reconcile()
        assert failed_migration.condition("SchemaReady") == before
        failed_migration.finish_job(migration_job(failed_migration), "Failed", log)
        await failed_migration.reconcile()
        assert failed_migration.condition("SchemaReady") == before
    assert failed_migration.events.published == []


async def test_failed_migration_that_changed_the_schema_is_not_retried(
    simulation: SimulatedCluster,
) -> None:
    """The head revision of a custom image is unknown, so the operator cannot tell whether the migration completed."""
    simulation.update_spec(image="own/mlflow:9")
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    simulation.finish_job(migration_job(simulation), "Failed", "boom")
    simulation.postgres.revision, simulation.now = "halfway", "2026-01-01T01:00:00Z"
    first = migration_job(simulation)
    await simulation.reconcile()
    assert migration_job(simulation) == first
    message = simulation.condition("SchemaReady")[2]
    assert "not retried automatically" in message
    assert f"kubectl delete job -n team {first['metadata']['name']}" in message
    del simulation.api.objects["Job", first["metadata"]["name"]]
    await simulation.reconcile_until_ready()


async def test_migration_without_required_privileges_is_not_started(simulation: SimulatedCluster) -> None:
    """The message names the missing privilege. No pod is needed to detect it."""
    simulation.postgres.obstacle = ConfigurationError(Reason.DATABASE_PRIVILEGE_MISSING, "The user may not.")
    for _ in range(3):
        simulation.run_controllers()
        await simulation.reconcile()
    assert simulation.condition("SchemaReady") == ("False", "DatabasePrivilegeMissing", "The user may not.")
    assert not any(kind == "Job" for kind, _ in simulation.api.objects)
    simulation.postgres.obstacle = None
    await simulation.reconcile_until_ready()


async def test_server_with_up_to_date_schema_does_not_need_migration_privileges(
    simulation: SimulatedCluster,
) -> None:
    """To revoke CREATE after the migration is good practice."""
    await simulation.reconcile_until_stable()
    simulation.postgres.obstacle = ConfigurationError(Reason.DATABASE_PRIVILEGE_MISSING, "The user may not.")
    await simulation.reconcile()
    assert simulation.condition("Ready")[0] == "True"


async def test_pod_creation_failure_of_a_store_is_reported_and_retried_each_minute(
    simulation: SimulatedCluster,
) -> None:
    """The status of a StatefulSet does not contain the error, and its controller backs off for up to 15 minutes."""
    await simulation.reconcile()
    stateful_set = simulation.get("StatefulSet", "a-postgres")
    assert stateful_set
    simulation.api.events[stateful_set["metadata"]["uid"]] = [event("FailedCreate", QUOTA_ERROR)]
    reported, retries = set(), []
    for minute in range(4):
        simulation.now = f"2026-01-01T00:0{minute}:00Z"
        for _ in range(3):
            before = len(simulation.api.writes)
            await simulation.reconcile()
            retries += [
                write
                for write in simulation.api.writes[before:]
                if write == ("patch", "StatefulSet/a-postgres")
            ]
        reported.add(simulation.condition("DatabaseReady"))
    assert len(reported) == 1
    status, reason, message = reported.pop()
    assert (status, reason) == ("False", "QuotaExceeded")
    assert "requested: pods=1, limited: pods=0" in message
    assert len(retries) == 3
    await simulation.reconcile_until_ready()


async def test_pod_creation_failure_of_the_migration_is_reported(simulation: SimulatedCluster) -> None:
    """Kubernetes retries by itself, at least once a minute."""
    for _ in range(2):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    simulation.api.events[migration_job(simulation)["metadata"]["uid"]] = [event("FailedCreate", QUOTA_ERROR)]
    await simulation.reconcile()
    assert simulation.condition("SchemaReady")[1] == "QuotaExceeded"


async def test_object_that_exceeds_a_quota_is_named(simulation: SimulatedCluster) -> None:
    """By the client's error, whatever its text looks like."""
    cause = (
        'statefulsets.apps "a-postgres" is forbidden: exceeded quota: q, limited: count/statefulsets.apps=0'
    )
    simulation.api.errors_by_kind["StatefulSet"] = QuotaExceeded(cause, "StatefulSet team/a-postgres")
    await simulation.reconcile()
    _, reason, message = simulation.condition("DatabaseReady")
    assert reason == "QuotaExceeded"
    assert "does not allow StatefulSet team/a-postgres: exceeded quota: q, limited: count" in message


async def test_volume_provisioning_failure_is_reported(simulation: SimulatedCluster) -> None:
    """The message contains the cause instead of its consequence, the unschedulable pod."""
    await simulation.reconcile()
    simulation.api.edit(
        "PersistentVolumeClaim", "a-postgres-data", lambda c: c.update(status={"phase": "Pending"})
    )
    claim = simulation.get("PersistentVolumeClaim", "a-postgres-data")
    assert claim
    simulation.api.events[claim["metadata"]["uid"]] = [event("ProvisioningFailed", 'class "x" not found')]
    await simulation.reconcile()
    status, reason, message = simulation.condition("DatabaseReady")
    assert (status, reason) == ("False", "VolumePending")
    assert 'PersistentVolumeClaim "a-postgres-data" is not bound: class "x" not found.' in message


async def test_operator_works_without_permission_to_read_events(simulation: SimulatedCluster) -> None:
    """With a custom role, only the explanation of failures is missing."""
    simulation.api.errors_by_kind["Event"] = Forbidden("list events: 403")
    await simulation.reconcile()
    await simulation.reconcile()
    assert simulation.condition("DatabaseReady")[1] == "Progressing"
    await simulation.reconcile_until_ready()


async def test_name_conflict_with_another_server_does_not_advise_deletion(
    simulation: SimulatedCluster,
) -> None:
    """For an unmanaged Service, the message advises to delete it. That would break the other server `a-postgres`."""
    meta = {
        "name": "a-postgres",
        "namespace": "team",
        "labels": labels.for_component("a-postgres", labels.SERVER_POD),
    }
    simulation.api.put({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {}})
    await simulation.reconcile()
    status, reason, message = simulation.condition("DatabaseReady")
    assert (status, reason) == ("False", "NameConflict")
    assert 'Service "a-postgres" belongs to MLflowServer "a-postgres"' in message
    assert "another name" in message
    assert "elete" not in message


async def test_line_break_at_the_end_of_an_access_key_is_reported(external_stores: SimulatedCluster) -> None:
    """The store would answer with an unclear signature error, and the pods would send the line break, too."""
    external_stores.put_secret("keys", accessKeyID="k", secretAccessKey="hunter2\n")
    await external_stores.reconcile()
    status, reason, message = external_stores.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretValueInvalid")
    assert 'Key "secretAccessKey" of Secret "keys"' in message
    assert "printf" in message
    assert "hunter2" not in message


async def test_line_break_at_the_end_of_a_rejected_password_is_reported() -> None:
    """The line break may be part of the password, but if the database rejects it, it is the most likely cause."""
    external = {"host": "one", "credentialsSecretRef": {"name": "db"}}
    simulation = SimulatedCluster({**EXTERNAL, "database": {"external": external}})
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    simulation.put_secret("db", username="u", password="hunter2\n")
    simulation.postgres.error = ConfigurationError(Reason.DATABASE_AUTHENTICATION_FAILED, "It is refused.")
    await simulation.reconcile()
    message = simulation.condition("DatabaseReady")[2]
    assert message.startswith("It is refused. The password begins or ends with a space or a line break")


async def test_secret_with_another_database_port_is_rejected(external_stores: SimulatedCluster) -> None:
    """Two Postgres instances on one host are two databases."""
    external_stores.put_secret("db", uri="postgresql://u:hunter2@one:5433/mlflow")
    await external_stores.reconcile()
    status, reason, message = external_stores.condition("CredentialsReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert "from one:5432/mlflow to one:5433/mlflow" in message


async def test_status_without_a_port_causes_no_rejection(
    external_stores: SimulatedCluster,
) -> None:
    """Older operators did not store the port. An upgrade must not stop a server on a port other than 5432."""
    external_stores.api.edit("MLflowServer", "a", lambda obj: obj["status"]["database"].pop("port"))
    external_stores.put_secret("db", uri="postgresql://u:hunter2@one:5433/mlflow")
    await external_stores.reconcile_until_ready()


async def test_user_errors_are_checked_before_the_resync() -> None:
    """A user who has just created a Secret waits for the result."""
    simulation = SimulatedCluster(EXTERNAL)
    requeue_after = (await simulation.reconcile()).requeue_after
    assert requeue_after is not None
    assert requeue_after <= 15
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    simulation.put_secret("db", uri=URI.format(host="one"))
    await simulation.reconcile_until_stable()
    assert (await simulation.reconcile()).requeue_after is None


async def test_pod_creation_failure_of_the_server_is_retried_each_minute(
    simulation: SimulatedCluster,
) -> None:
    """It is checked more often, because a changed Secret of the user may fix it."""
    await simulation.reconcile_until_stable()
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": QUOTA_ERROR,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    simulation.api.edit(
        "Deployment", "a", lambda d: d.update(status={"conditions": [failure], "replicas": 0})
    )
    retried_at = []
    for second in (0, 30, 60, 90, 119, 120):
        simulation.now = f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"
        before = len(simulation.api.writes)
        requeue_after = (await simulation.reconcile()).requeue_after
        assert requeue_after is not None
        assert requeue_after <= 15
        retried_at += [
            second for write in simulation.api.writes[before:] if write == ("patch", "Deployment/a")
        ]
    assert retried_at == [60, 120]
    assert simulation.condition("ServerAvailable")[1] == "QuotaExceeded"
