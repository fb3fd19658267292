"""Reconciliation of a restore in a simulated cluster."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secrets
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.unit.simulation import NAMESPACE, ProcessKilled, SimulatedCluster

RESTORE_FROM: Object = {"serverName": "old"}
OLD_VERSION = "3.14.0"


def with_restore(**spec: Any) -> SimulatedCluster:
    """A new server with `spec.restoreFrom`."""
    return SimulatedCluster({"restoreFrom": RESTORE_FROM, **spec})


def jobs(simulation: SimulatedCluster, kind: str) -> list[Object]:
    """Jobs of one kind: restore, migrate, preflight."""
    return [o for (k, name), o in simulation.api.objects.items() if k == "Job" and f"-{kind}-" in name]


async def start_restore(simulation: SimulatedCluster) -> Object:
    """Reconcile until the restore Job exists; return it."""
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    (job,) = jobs(simulation, "restore")
    return job


def put_pod(simulation: SimulatedCluster, job: Object, **states: Object) -> None:
    """Create the Job's pod, with these container states."""
    name = job["metadata"]["name"]
    terminated = all("terminated" in state for state in states.values())
    simulation.api.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-pod",
                "namespace": NAMESPACE,
                "labels": labels.for_component("a", labels.RESTORE_POD),
                "ownerReferences": [{"kind": "Job", "name": name, "uid": job["metadata"]["uid"]}],
            },
            "status": {
                "phase": "Failed" if terminated else "Running",
                "containerStatuses": [
                    {"name": container, "state": state} for container, state in states.items()
                ],
            },
        }
    )


def fail_job(
    simulation: SimulatedCluster,
    job: Object,
    code: str,
    message: str = "why",
    postgres_message: str = "ERROR: of psql",
) -> None:
    """Fail the Job with an error of this code."""
    result = json.dumps({"backup": None, "errors": [{"code": code, "message": message}]})
    conditions = [{"type": "Failed", "status": "True", "lastTransitionTime": simulation.now}]
    simulation.api.edit(
        "Job", job["metadata"]["name"], lambda observed: observed.update(status={"conditions": conditions})
    )
    s3_container: Object = {"terminated": {"exitCode": 1, "message": result}}
    postgres_container: Object = {"terminated": {"exitCode": 1, "message": postgres_message}}
    put_pod(simulation, job, **{"restore": s3_container, "pg-restore": postgres_container})


def restored_backup(simulation: SimulatedCluster) -> str | None:
    """`status.restoredBackup`."""
    resource = simulation.get("MLflowServer", "a")
    assert resource
    backup: str | None = resource["status"].get("restoredBackup")
    return backup


async def test_restore_runs_before_migration_and_server() -> None:
    """No migration creates tables that conflict with the restore, and no server starts on an empty database."""
    simulation = with_restore()
    await start_restore(simulation)
    assert not jobs(simulation, "migrate")
    assert simulation.get("Deployment", "a") is None
    assert simulation.condition("SchemaReady")[:2] == ("False", "Progressing")
    assert "newest backup of team/old" in simulation.condition("SchemaReady")[2]
    await simulation.reconcile_until_ready()
    assert len(jobs(simulation, "restore")) == 1
    assert not jobs(simulation, "migrate")


async def test_older_schema_is_migrated_after_restore_only_for_explicit_version() -> None:
    """Without `spec.version`, the server runs the version of the backup."""
    simulation = with_restore(version=DEFAULT_VERSION)
    simulation.backup_revision = SCHEMA_HEADS[OLD_VERSION]
    await simulation.reconcile_until_stable(20)
    assert simulation.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]
    assert simulation.condition("Ready")[0] == "True"

    simulation = with_restore()
    simulation.backup_revision = SCHEMA_HEADS[OLD_VERSION]
    await simulation.reconcile_until_stable(20)
    assert simulation.postgres.revision == SCHEMA_HEADS[OLD_VERSION]
    resource = simulation.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["version"] == OLD_VERSION


async def test_restore_into_existing_data_is_refused() -> None:
    """Without a Job. After `spec.restoreFrom` is removed, the server uses the existing data."""
    simulation = with_restore()
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers()
    assert not jobs(simulation, "restore")
    state, reason, message = simulation.condition("SchemaReady")
    assert (state, reason) == ("False", "RestoreRefused")
    assert "remove spec.restoreFrom" in message
    assert (False, reason, message) in simulation.events.published
    simulation.update_spec(restoreFrom=None)
    await simulation.reconcile_until_ready()


async def test_restore_is_not_repeated() -> None:
    """Neither for a recreated server with the same data, nor after the tables were replaced by other means."""
    simulation = with_restore()
    await simulation.reconcile_until_stable()
    simulation.delete_server()
    simulation.create_server({"restoreFrom": RESTORE_FROM})
    await simulation.reconcile_until_ready()
    assert not jobs(simulation, "restore")
    assert restored_backup(simulation) == "20260101T000000Z-00000001"
    simulation.postgres.table_comment = None
    await simulation.reconcile_until_ready()
    assert restored_backup(simulation) is None


async def test_failed_restore_is_reported_and_not_retried() -> None:
    """The message does not change until the Job is deleted; then a new Job runs."""
    simulation = with_restore()
    job = await start_restore(simulation)
    fail_job(simulation, job, "pg_restore", "psql ended with exit code 3")
    await simulation.reconcile()
    state, reason, message = simulation.condition("SchemaReady")
    assert (state, reason) == ("False", "RestoreFailed")
    assert "Its last lines: ERROR: of psql" in message
    write_count = len(simulation.api.writes)
    for hour in range(3):
        simulation.now = f"2026-01-01T{hour:02}:00:00Z"
        await simulation.reconcile()
    assert len(simulation.api.writes) == write_count
    del simulation.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await simulation.reconcile()
    assert simulation.condition("SchemaReady")[2] == message

    command = f"kubectl delete job -n team {job['metadata']['name']}"
    assert command in message
    del simulation.api.objects["Job", job["metadata"]["name"]]
    await simulation.reconcile_until_ready()


async def test_newer_backup_is_restored_after_version_change() -> None:
    """Another image gets another Job."""
    simulation = with_restore(version=OLD_VERSION)
    job = await start_restore(simulation)
    fail_job(simulation, job, "newer_schema", f"{DEFAULT_VERSION} {SCHEMA_HEADS[DEFAULT_VERSION]}")
    await simulation.reconcile()
    assert simulation.condition("SchemaReady")[1] == "RestoreRefused"
    simulation.update_spec(version=DEFAULT_VERSION)
    await simulation.reconcile_until_stable(20)
    assert simulation.condition("Ready")[0] == "True"


async def test_failed_container_is_reported_before_the_other_one_ends() -> None:
    """The other container may wait for 15 minutes."""
    simulation = with_restore()
    job = await start_restore(simulation)
    killed: Object = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "Killed"}}
    put_pod(simulation, job, **{"restore": killed, "pg-restore": {"running": {}}})
    await simulation.reconcile()
    assert simulation.condition("SchemaReady")[1] == "RestoreFailed"


async def test_cancelled_restore_ends_before_migration() -> None:
    """The pod may still write to the database after `spec.restoreFrom` is removed."""
    simulation = with_restore()
    job = await start_restore(simulation)
    put_pod(simulation, job, **{"restore": {"running": {}}, "pg-restore": {"running": {}}})
    simulation.update_spec(restoreFrom=None)
    for _ in range(3):
        await simulation.reconcile()
    assert not jobs(simulation, "restore")
    assert not jobs(simulation, "migrate")
    assert "cancelled restore" in simulation.condition("SchemaReady")[2]
    del simulation.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await simulation.reconcile_until_ready()
    assert jobs(simulation, "migrate")


async def test_secret_of_separate_bucket_is_checked_first() -> None:
    """A pod could not start without it, and its error would be less useful."""
    store = {"bucket": "vault", "credentialsSecretRef": {"name": "vault"}}
    simulation = with_restore(restoreFrom={**RESTORE_FROM, "s3": store})
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers()
    state, reason, message = simulation.condition("SchemaReady")
    assert (state, reason) == ("False", "SecretNotFound")
    assert "spec.restoreFrom.s3.credentialsSecretRef" in message
    assert not jobs(simulation, "restore")
    simulation.put_secret("vault", accessKeyID="k", secretAccessKey="s")
    await simulation.reconcile_until_ready()


async def test_restore_completes_after_operator_crash_at_any_write() -> None:
    """With one restore Job and no migration."""
    uninterrupted = with_restore()
    await uninterrupted.reconcile_until_stable()
    for write_count in range(len(uninterrupted.api.writes)):
        simulation = with_restore()
        simulation.api.crash_after_writes = write_count
        with pytest.raises((ProcessKilled, BaseExceptionGroup)):  # a group, where two steps run concurrently
            await simulation.reconcile_until_stable()
        simulation.api.crash_after_writes = None
        await simulation.reconcile_until_ready()
        assert len(jobs(simulation, "restore")) == 1
        assert not jobs(simulation, "migrate")


async def test_restore_without_the_keys_names_them_and_both_secrets() -> None:
    """Nothing is changed. The restored secrets are then encrypted with the keys of this server."""
    simulation = with_restore()
    job = await start_restore(simulation)
    fail_job(simulation, job, "missing_keys", "passphrase-4711")
    await simulation.reconcile()
    status, reason, message = simulation.condition("SchemaReady")
    assert (status, reason) == ("False", "RestoreRefused")
    assert 'keys which Secret "a-encryption" does not have: passphrase-4711.' in message
    assert 'the Secret of that server, "old-encryption" in namespace team,' in message
    assert "Nothing was changed." in message
    assert simulation.postgres.revision is None

    secret = simulation.get("Secret", "a-encryption")
    assert secret
    simulation.api.edit(
        "Secret",
        "a-encryption",
        lambda obj: obj["data"].update({"passphrase-4711": secrets.encode("copied")}),
    )
    del simulation.api.objects["Job", job["metadata"]["name"]]
    simulation.postgres.encrypted = EncryptedSecrets(frozenset({4711}))
    await simulation.reconcile_until_stable(20)
    assert simulation.condition("Ready")[0] == "True"
    assert simulation.condition("EncryptionReady")[0] == "True"
    version = int(simulation.secret("a-encryption")["passphrase-version"])
    assert simulation.postgres.encrypted.passphrase_versions == {version} != {4711}


async def test_lost_keys_of_a_backup_can_be_ignored() -> None:
    """The server then encrypts new secrets with its own passphrase, and reports the unreadable ones."""
    simulation = SimulatedCluster({"restoreFrom": {**RESTORE_FROM, "missingKeyPolicy": "Ignore"}})
    simulation.postgres.encrypted = EncryptedSecrets(frozenset({4711}))
    await simulation.reconcile_until_stable(20)
    assert simulation.condition("Ready")[0] == "True"
    assert simulation.condition("EncryptionReady")[1] == "SecretsUnreadable"
    assert simulation.secret("a-encryption")["passphrase"]
    assert not jobs(simulation, "rewrap")


async def test_change_of_the_keys_does_not_replace_a_running_restore() -> None:
    """The generated passphrase becomes the current one while the Job runs."""
    simulation = with_restore()
    job = await start_restore(simulation)
    assert "passphrase" in simulation.secret("a-encryption")
    for _ in range(3):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()
    assert [found["metadata"]["uid"] for found in jobs(simulation, "restore")] == [job["metadata"]["uid"]]
