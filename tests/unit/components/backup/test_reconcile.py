"""Reconciliation of backups in a simulated cluster."""

import asyncio
import json
from typing import Any

import pytest

from mlflow_operator.framework.dependencies import Timeouts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import NAMESPACE, FakeObjectStore, SimulatedCluster

OLD_VERSION = "3.14.0"
HOUR = "2026-01-01T{:02}:00:00Z"
SEPARATE_BUCKET: Object = {"bucket": "vault", "credentialsSecretRef": {"name": "vault"}}


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server with an hourly backup, after its last reconcile."""
    return await with_hourly_backup()


async def with_hourly_backup(**backup: Any) -> SimulatedCluster:
    """The same, with more fields in `spec.backup`."""
    simulation = SimulatedCluster({"backup": {"schedule": "0 * * * *", **backup}})
    simulation.now = HOUR.format(1)
    simulation.put_secret("vault", accessKeyID="k", secretAccessKey="s")
    await simulation.reconcile_until_ready()
    return simulation


def status(simulation: SimulatedCluster) -> Object:
    """`status.backup`."""
    resource = simulation.get("MLflowServer", "a")
    assert resource
    return dict(resource["status"].get("backup") or {})


def finish_job(simulation: SimulatedCluster, name: str, finished_at: str, result: Object | str) -> None:
    """Finish a Job of the CronJob: complete if its result has a backup, otherwise failed."""
    message = result if isinstance(result, str) else json.dumps(result)
    succeeded = not isinstance(result, str) and result["backup"] is not None
    job_labels = labels.for_component("a", labels.BACKUP_POD)
    meta = {"name": name, "namespace": NAMESPACE, "labels": job_labels, "uid": f"job-{name}"}
    condition = {
        "type": "Complete" if succeeded else "Failed",
        "status": "True",
        "lastTransitionTime": finished_at,
    }
    simulation.api.put(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "status": {"conditions": [condition]}}
    )
    exit_code = 0 if succeeded else 1
    containers = [
        {"name": "pg-dump", "state": {"terminated": {"exitCode": exit_code, "message": "of pg_dump"}}},
        {"name": "backup", "state": {"terminated": {"exitCode": exit_code, "message": message}}},
    ]
    simulation.api.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-pod",
                "namespace": NAMESPACE,
                "labels": job_labels,
                "ownerReferences": [{"kind": "Job", "name": name, "uid": f"job-{name}"}],
            },
            "status": {"phase": "Succeeded" if succeeded else "Failed", "containerStatuses": containers},
        }
    )


def success(completed_at: str, number: int = 1, size: int = 1000) -> Object:
    """Result of a successful backup."""
    backup = {
        "id": f"20260101T000000Z-{number:08}",
        "uri": f"s3://mlflow/b/{number}",
        "sizeBytes": size,
        "schemaRevision": "dc11669786a5",
        "startTime": completed_at,
        "completionTime": completed_at,
    }
    return {"backup": backup, "errors": []}


def failure(code: str, message: str) -> Object:
    """Result of a failed backup."""
    return {"backup": None, "errors": [{"code": code, "message": message}]}


async def test_cronjob_is_created_after_migration_and_deleted_with_the_spec() -> None:
    """A backup without tables would fail. `status.backup` stays after the deletion."""
    simulation = SimulatedCluster({"backup": {}})
    await simulation.reconcile()
    assert simulation.get("CronJob", "a-backup") is None
    assert simulation.condition("BackupReady")[1] == "WaitingForDependency"
    await simulation.reconcile_until_stable()
    cronjob = simulation.get("CronJob", "a-backup")
    assert cronjob
    assert cronjob["spec"]["schedule"] == "0 2 * * *"
    assert not cronjob["spec"]["suspend"]
    finish_job(simulation, "a-backup-1", HOUR.format(1), success(HOUR.format(1)))
    await simulation.reconcile_until_stable()
    simulation.update_spec(backup=None)
    await simulation.reconcile_until_stable()
    assert simulation.get("CronJob", "a-backup") is None
    with pytest.raises(StopIteration):
        simulation.condition("BackupReady")
    assert status(simulation)["lastID"]


async def test_result_of_an_evicted_pod_does_not_replace_that_of_its_successor(
    simulation: SimulatedCluster,
) -> None:
    """A pod that a node under memory pressure has evicted stays listed, with its termination message."""
    finish_job(simulation, "a-backup-1", HOUR.format(1), success(HOUR.format(1)))
    successor = simulation.get("Pod", "a-backup-1-pod")
    assert successor
    simulation.api.edit(
        "Pod", "a-backup-1-pod", lambda pod: pod["metadata"].update(creationTimestamp=HOUR.format(1))
    )
    message = json.dumps(failure("interrupted", "it was terminated before it was complete"))
    terminated = {"terminated": {"exitCode": 1, "message": message}}
    meta = {**successor["metadata"], "name": "a-backup-1-zzz", "creationTimestamp": HOUR.format(0)}
    containers = [{"name": "backup", "state": terminated}]
    evicted = {"phase": "Failed", "reason": "Evicted", "containerStatuses": containers}
    simulation.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": evicted})
    await simulation.reconcile()
    assert status(simulation)["lastID"] == "20260101T000000Z-00000001"


async def test_successful_backup_is_reported_in_status(simulation: SimulatedCluster) -> None:
    """There is no further write while nothing changes. An older backup that is read later changes nothing."""
    assert simulation.condition("BackupReady")[:2] == ("False", "Progressing")
    assert "kubectl create job -n team --from=cronjob/a-backup" in simulation.condition("BackupReady")[2]
    finish_job(simulation, "a-backup-2", HOUR.format(2), success(HOUR.format(2), 2, 2000))
    await simulation.reconcile_until_stable()
    assert simulation.condition("BackupReady") == ("True", "Ready", "The last backup is s3://mlflow/b/2.")
    expected = {
        "lastID": "20260101T000000Z-00000002",
        "lastURI": "s3://mlflow/b/2",
        "lastSuccessTime": HOUR.format(2),
        "lastSizeBytes": 2000,
    }
    assert status(simulation) == expected
    finish_job(simulation, "a-backup-1", HOUR.format(1), success(HOUR.format(1)))
    write_count = len(simulation.api.writes)
    await simulation.reconcile()
    assert (status(simulation), len(simulation.api.writes)) == (expected, write_count)


async def test_failed_backup_is_reported_until_one_succeeds(simulation: SimulatedCluster) -> None:
    """The server stays Ready. The report survives the deletion of the pod and of the Job."""
    finish_job(simulation, "a-backup-1", HOUR.format(2), failure("store", "AccessDenied"))
    await simulation.reconcile_until_stable()
    state, reason, message = simulation.condition("BackupReady")
    assert (state, reason) == ("False", "BackupFailed")
    assert "AccessDenied" in message
    assert "kubectl logs -n team job/a-backup-1" in message
    assert simulation.condition("Ready")[0] == "True"
    assert status(simulation) == {"lastFailureTime": HOUR.format(2)}
    assert (False, "BackupFailed", message) in simulation.events.published
    for kind, name in (("Pod", "a-backup-1-pod"), ("Job", "a-backup-1")):
        del simulation.api.objects[kind, name]
        await simulation.reconcile_until_stable()
        assert simulation.condition("BackupReady")[1] == "BackupFailed"
    finish_job(simulation, "a-backup-2", HOUR.format(3), success(HOUR.format(3)))
    await simulation.reconcile_until_stable()
    assert simulation.condition("BackupReady")[0] == "True"


async def test_job_without_readable_result_is_a_failure(simulation: SimulatedCluster) -> None:
    """For example an OOMKilled container: the message quotes its last lines."""
    finish_job(simulation, "a-backup-1", HOUR.format(2), "Traceback: no memory")
    await simulation.reconcile_until_stable()
    assert simulation.condition("BackupReady")[1] == "BackupFailed"
    assert "no memory" in simulation.condition("BackupReady")[2]
    finish_job(simulation, "a-backup-2", HOUR.format(3), '{"backup": {"id": "x"}, "errors": []}')
    await simulation.reconcile_until_stable()
    assert "lastID" not in status(simulation)


async def test_stale_backup_is_reported(simulation: SimulatedCluster) -> None:
    """After twice the interval of the schedule, also if there never was a backup. The message does not change."""
    simulation.api.edit(
        "CronJob",
        "a-backup",
        lambda cronjob: cronjob["metadata"].update(creationTimestamp=HOUR.format(1)),
    )
    for hour, reason in ((3, "Progressing"), (4, "BackupStale")):
        simulation.now = HOUR.format(hour)
        await simulation.reconcile()
        assert simulation.condition("BackupReady")[1] == reason
    finish_job(simulation, "a-backup-1", HOUR.format(4), success(HOUR.format(4)))
    for hour, reason in ((5, "Ready"), (6, "Ready"), (7, "BackupStale")):
        simulation.now = HOUR.format(hour)
        await simulation.reconcile()
        assert simulation.condition("BackupReady")[1] == reason
    condition = simulation.condition("BackupReady")
    simulation.now = HOUR.format(9)
    await simulation.reconcile()
    assert simulation.condition("BackupReady") == condition
    assert simulation.condition("Ready")[0] == "True"


async def test_cronjob_is_suspended_with_the_server(simulation: SimulatedCluster) -> None:
    """The database is down then."""
    simulation.update_spec(suspend=True)
    await simulation.reconcile_until_stable()
    cronjob = simulation.get("CronJob", "a-backup")
    assert cronjob
    assert cronjob["spec"]["suspend"]
    assert simulation.condition("BackupReady")[1] == "Suspended"
    simulation.update_spec(suspend=False)
    await simulation.reconcile_until_stable()
    cronjob = simulation.get("CronJob", "a-backup")
    assert cronjob
    assert not cronjob["spec"]["suspend"]


async def test_separate_bucket_is_checked_before_the_first_backup() -> None:
    """A missing access key and an error of the store are reported at once, not only when the backup runs."""
    simulation = await with_hourly_backup(s3=SEPARATE_BUCKET)
    bucket = next(bucket for bucket in simulation.store.checked_buckets if bucket.name == "vault")
    assert (bucket.access_key, bucket.field) == ("k", "spec.backup.s3.credentialsSecretRef")
    del simulation.api.objects["Secret", "vault"]
    await simulation.reconcile()
    assert simulation.condition("BackupReady")[1] == "SecretNotFound"
    assert "spec.backup.s3.credentialsSecretRef" in simulation.condition("BackupReady")[2]
    simulation.put_secret("vault", accessKeyID="k", secretAccessKey="s")

    class StoreWithoutSeparateBucket(FakeObjectStore):
        async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
            if bucket.name == "vault":
                raise ConfigurationError(Reason.BUCKET_NOT_FOUND, "See spec.artifacts.s3.bucket.")
            return await super().ensure_bucket(bucket, create)

    simulation.store = StoreWithoutSeparateBucket()
    await simulation.reconcile()
    assert simulation.condition("BackupReady")[1:] == ("BucketNotFound", "See spec.backup.s3.bucket.")
    assert simulation.condition("Ready")[0] == "True"


async def test_unresponsive_separate_bucket_does_not_block_reconcile() -> None:
    """The timeout is reported, and the other conditions do not wait for the store."""
    simulation = await with_hourly_backup(s3=SEPARATE_BUCKET)

    class StoreWithUnresponsiveBucket(FakeObjectStore):
        async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
            await asyncio.sleep(0 if bucket.name != "vault" else 3600)
            return False

    simulation.store = StoreWithUnresponsiveBucket()
    simulation.timeouts = Timeouts(bucket_check=0.01)
    await simulation.reconcile()
    assert simulation.condition("BackupReady")[1] == "ArtifactStoreUnreachable"
    assert "backup store" in simulation.condition("BackupReady")[2]
    assert simulation.condition("Ready")[0] == "True"


async def test_invalid_schedule_is_reported() -> None:
    """The schema of the CRD cannot check time zones and all schedules."""
    simulation = SimulatedCluster({"backup": {"timeZone": "Mars/Olympus"}})
    await simulation.reconcile_until_stable()
    assert simulation.condition("BackupReady")[1] == "InvalidResource"
    assert "spec.backup.timeZone" in simulation.condition("BackupReady")[2]
    assert simulation.condition("Ready")[0] == "True"
    simulation.update_spec(backup={"schedule": "61 * * * *"})
    await simulation.reconcile_until_stable()
    assert "spec.backup.schedule" in simulation.condition("BackupReady")[2]


async def with_old_version(**spec: Any) -> SimulatedCluster:
    """A Ready server with backups, whose upgrade to the default version needs a schema migration."""
    simulation = SimulatedCluster({"version": OLD_VERSION, "backup": {}, **spec})
    await simulation.reconcile_until_ready()
    return simulation


def jobs(simulation: SimulatedCluster, kind: str) -> list[Object]:
    """Jobs of one kind: migrate, preflight, backup."""
    return [o for (k, name), o in simulation.api.objects.items() if k == "Job" and f"-{kind}-" in name]


async def start_upgrade(simulation: SimulatedCluster) -> Object:
    """Start the upgrade to the default version; return the Job of the backup before the migration."""
    simulation.update_spec(version=DEFAULT_VERSION)
    await simulation.reconcile()
    (preflight,) = jobs(simulation, "preflight")
    simulation.finish_job(preflight, "Complete")
    await simulation.reconcile()
    (job,) = jobs(simulation, "backup")
    return job


def image_and_replicas(simulation: SimulatedCluster) -> tuple[str, int]:
    """Image and replicas of the Deployment."""
    deployment = simulation.get("Deployment", "a")
    assert deployment
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image, deployment["spec"]["replicas"]


OLD_SERVER = (f"ghcr.io/mlflow/mlflow:v{OLD_VERSION}-full", 1)
NEW_SERVER = (f"ghcr.io/mlflow/mlflow:v{DEFAULT_VERSION}-full", 1)


async def test_migration_waits_for_complete_backup() -> None:
    """The old version runs meanwhile. The backup uses its image and environment."""
    simulation = await with_old_version()
    job = await start_upgrade(simulation)
    for _ in range(3):
        await simulation.reconcile()
    assert simulation.postgres.revision == SCHEMA_HEADS[OLD_VERSION]
    assert image_and_replicas(simulation) == OLD_SERVER
    assert len(jobs(simulation, "migrate")) == 1, "only the Job of the first start"
    assert simulation.condition("UpgradeReady")[:2] == ("False", "Progressing")
    containers = job["spec"]["template"]["spec"]["containers"]
    assert {container["name"]: container["image"] for container in containers}["backup"] == OLD_SERVER[0]
    simulation.finish_job(job, "Complete")
    await simulation.reconcile_until_stable()
    assert image_and_replicas(simulation) == NEW_SERVER
    assert simulation.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]
    assert not jobs(simulation, "backup"), "a later upgrade needs its own backup"


async def test_failed_backup_blocks_migration_and_is_retried() -> None:
    """The condition does not change with each retry. After a successful backup the upgrade continues."""
    simulation = await with_old_version()
    job = await start_upgrade(simulation)
    simulation.finish_job(job, "Failed")
    await simulation.reconcile()
    state, reason, message = simulation.condition("UpgradeReady")
    assert (state, reason) == ("False", "BackupRequired")
    assert f"version {OLD_VERSION} keeps running" in message
    assert "spec.upgrade.backupBeforeMigration to Skip" in message
    assert (image_and_replicas(simulation), simulation.postgres.revision) == (
        OLD_SERVER,
        SCHEMA_HEADS[OLD_VERSION],
    )
    simulation.events.published.clear()
    simulation.now = "2026-01-01T00:00:15Z"
    await simulation.reconcile()
    await simulation.reconcile()
    (second,) = jobs(simulation, "backup")
    assert second["metadata"]["uid"] != job["metadata"]["uid"]
    assert simulation.condition("UpgradeReady") == (state, reason, message)
    assert not [event for event in simulation.events.published if event[1] == "BackupRequired"]
    await simulation.reconcile_until_stable()
    assert image_and_replicas(simulation) == NEW_SERVER


@pytest.mark.parametrize(
    "spec",
    [{"upgrade": {"backupBeforeMigration": "Skip"}}, {"backup": None}],
    ids=["skipped", "not-configured"],
)
async def test_no_backup_before_migration_if_skipped_or_not_configured(spec: Object) -> None:
    """The upgrade does not wait for one."""
    simulation = await with_old_version(**spec)
    simulation.update_spec(version=DEFAULT_VERSION)
    await simulation.reconcile_until_stable()
    assert image_and_replicas(simulation) == NEW_SERVER
    assert not [name for _, name in simulation.api.writes if name.startswith("Job/a-backup-")]


async def test_cancelled_upgrade_deletes_its_backup_job() -> None:
    """A later upgrade must not use its result."""
    simulation = await with_old_version()
    await start_upgrade(simulation)
    simulation.update_spec(version=OLD_VERSION)
    await simulation.reconcile_until_ready()
    assert not jobs(simulation, "backup")


async def test_no_backup_without_migration() -> None:
    """An upgrade that needs no migration cannot lose data."""
    simulation = await with_old_version(version="3.17.0")
    simulation.update_spec(version="3.17.2")
    await simulation.reconcile_until_stable()
    assert image_and_replicas(simulation) == ("ghcr.io/mlflow/mlflow:v3.17.2-full", 1)
    assert not [name for _, name in simulation.api.writes if name.startswith("Job/a-backup-")]


async def test_backup_job_deleted_during_migration_starts_no_server() -> None:
    """For example by a cleanup of finished Jobs: it is too late to create another backup."""
    simulation = await with_old_version()
    simulation.finish_job(await start_upgrade(simulation), "Complete")
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    assert len(jobs(simulation, "migrate")) == 2
    (complete,) = jobs(simulation, "backup")
    del simulation.api.objects["Job", complete["metadata"]["name"]]
    await simulation.reconcile()
    assert image_and_replicas(simulation)[1] == 0
    assert not jobs(simulation, "backup")


REJECTED = 'pods "x" is forbidden: failed quota: compute: must specify limits.cpu for: backup,pg-dump'
LIMITED: Object = {"limits": {"cpu": "1", "memory": "2Gi"}}


def reject_pod(simulation: SimulatedCluster, job: Object) -> None:
    """Report like the Job controller that the API server rejects the pod."""
    event = {"reason": "FailedCreate", "message": REJECTED, "lastTimestamp": simulation.now}
    simulation.api.events[job["metadata"]["uid"]] = [event]


async def test_rejected_backup_job_is_replaced_when_the_resources_are_corrected() -> None:
    """The Job before a migration: Kubernetes would retry with the previous template for 24 hours."""
    simulation = await with_old_version()
    job = await start_upgrade(simulation)
    reject_pod(simulation, job)
    await simulation.reconcile()
    _, reason, message = simulation.condition("UpgradeReady")
    assert reason == "QuotaExceeded"
    assert (
        "must specify limits.cpu for: backup,pg-dump. Set spec.podTemplate.components[Backup].resources"
        in message
    )
    assert jobs(simulation, "backup") == [job]
    simulation.update_spec(resources=LIMITED)
    for _ in range(3):
        await simulation.reconcile()
        for preflight in jobs(simulation, "preflight"):
            if not preflight.get("status"):
                simulation.finish_job(preflight, "Complete")
    (second,) = jobs(simulation, "backup")
    assert second["metadata"]["uid"] != job["metadata"]["uid"]
    assert all(c["resources"]["limits"]["cpu"] for c in second["spec"]["template"]["spec"]["containers"])
    await simulation.reconcile_until_stable()
    assert image_and_replicas(simulation) == NEW_SERVER


async def test_rejected_scheduled_job_is_deleted_when_the_resources_are_corrected(
    simulation: SimulatedCluster,
) -> None:
    """The CronJob starts no other Job before this one ends."""
    template = simulation.api.objects["CronJob", "a-backup"]["spec"]["jobTemplate"]
    job = simulation.api.put(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "a-backup-1", "namespace": NAMESPACE, **template["metadata"]},
            "spec": template["spec"],
        }
    )
    reject_pod(simulation, job)
    await simulation.reconcile()
    assert simulation.condition("BackupReady")[1] == "QuotaExceeded"
    assert simulation.get("Job", "a-backup-1")
    simulation.update_spec(resources=LIMITED)
    await simulation.reconcile()
    assert simulation.get("Job", "a-backup-1") is None
