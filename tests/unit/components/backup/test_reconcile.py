"""Backups, in the moments that a real cluster can't be brought to at will."""

import asyncio
import json
from typing import Any

import pytest

from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import NAMESPACE, World

OLD = "3.14.0"
HOUR = "2026-01-01T{:02}:00:00Z"
ELSEWHERE: Object = {"bucket": "vault", "credentialsSecretRef": {"name": "vault"}}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server with a backup each hour, Ready and at rest."""
    return await backed_up(monkeypatch)


async def backed_up(monkeypatch: pytest.MonkeyPatch, **backup: Any) -> World:
    """The same, with more in `spec.backup`."""
    made = World(monkeypatch, {"backup": {"schedule": "0 * * * *", **backup}})
    made.now = HOUR.format(1)
    made.put_secret("vault", accessKeyID="k", secretAccessKey="s")
    await made.until_settled()
    assert made.condition("Ready")[0] == "True"
    return made


def status(world: World) -> Object:
    """`status.backup`."""
    found = world.get("MLflowServer", "a")
    assert found
    return dict(found["status"].get("backup") or {})


def ended(world: World, name: str, at: str, said: Object | str) -> None:
    """A Job of the CronJob has ended at that time; complete, if its answer has a backup."""
    answer = said if isinstance(said, str) else json.dumps(said)
    done = not isinstance(said, str) and said["backup"] is not None
    carried = labels.owned("a", labels.BACKUP_POD)
    meta = {"name": name, "namespace": NAMESPACE, "labels": carried, "uid": f"job-{name}"}
    end = {"type": "Complete" if done else "Failed", "status": "True", "lastTransitionTime": at}
    world.api.put(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "status": {"conditions": [end]}}
    )
    containers = [
        {"name": "pg-dump", "state": {"terminated": {"exitCode": 0 if done else 1, "message": "of pg_dump"}}},
        {"name": "backup", "state": {"terminated": {"exitCode": 0 if done else 1, "message": answer}}},
    ]
    world.api.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-pod",
                "namespace": NAMESPACE,
                "labels": carried,
                "ownerReferences": [{"kind": "Job", "name": name, "uid": f"job-{name}"}],
            },
            "status": {"phase": "Succeeded" if done else "Failed", "containerStatuses": containers},
        }
    )


def good(at: str, number: int = 1, size: int = 1000) -> Object:
    """The answer of a backup that was done at that time."""
    made = {
        "id": f"20260101T000000Z-{number:08}",
        "uri": f"s3://mlflow/b/{number}",
        "sizeBytes": size,
        "schemaRevision": "dc11669786a5",
        "startTime": at,
        "completionTime": at,
    }
    return {"backup": made, "faults": []}


def bad(kind: str, said: str) -> Object:
    """The answer of one that failed."""
    return {"backup": None, "faults": [{"kind": kind, "said": said}]}


async def test_the_cronjob_comes_with_the_tables_and_goes_with_the_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before there are any it would fail; what was backed up stays known."""
    world = World(monkeypatch, {"backup": {}})
    await world.reconcile()
    assert world.get("CronJob", "a-backup") is None
    assert world.condition("BackupReady")[1] == "WaitingForDependency"
    await world.until_settled()
    cronjob = world.get("CronJob", "a-backup")
    assert cronjob
    assert cronjob["spec"]["schedule"] == "0 2 * * *"
    assert not cronjob["spec"]["suspend"]
    ended(world, "a-backup-1", HOUR.format(1), good(HOUR.format(1)))
    await world.until_settled()
    world.change(backup=None)
    await world.until_settled()
    assert world.get("CronJob", "a-backup") is None
    with pytest.raises(StopIteration):
        world.condition("BackupReady")
    assert status(world)["lastID"]


async def test_a_good_backup_shows_in_the_status(world: World) -> None:
    """And nothing is written again while nothing changes; an older one that is read later changes nothing."""
    assert world.condition("BackupReady")[:2] == ("False", "Progressing")
    assert "kubectl create job -n team --from=cronjob/a-backup" in world.condition("BackupReady")[2]
    ended(world, "a-backup-2", HOUR.format(2), good(HOUR.format(2), 2, 2000))
    await world.until_settled()
    assert world.condition("BackupReady") == ("True", "Ready", "The last backup is s3://mlflow/b/2.")
    wanted = {
        "lastID": "20260101T000000Z-00000002",
        "lastURI": "s3://mlflow/b/2",
        "lastSuccessTime": HOUR.format(2),
        "lastSizeBytes": 2000,
    }
    assert status(world) == wanted
    ended(world, "a-backup-1", HOUR.format(1), good(HOUR.format(1)))
    before = len(world.api.writes)
    await world.reconcile()
    assert (status(world), len(world.api.writes)) == (wanted, before)


async def test_a_backup_that_failed_is_told_with_its_cause_until_one_is_good(world: World) -> None:
    """The server is Ready all the same; the Job and its pod may go meanwhile."""
    ended(world, "a-backup-1", HOUR.format(2), bad("store", "AccessDenied"))
    await world.until_settled()
    state, reason, message = world.condition("BackupReady")
    assert (state, reason) == ("False", "BackupFailed")
    assert "AccessDenied" in message
    assert "kubectl logs -n team job/a-backup-1" in message
    assert world.condition("Ready")[0] == "True"
    assert status(world) == {"lastFailureTime": HOUR.format(2)}
    assert (False, "BackupFailed", message) in world.events.published
    for kind, name in (("Pod", "a-backup-1-pod"), ("Job", "a-backup-1")):
        del world.api.objects[kind, name]
        await world.until_settled()
        assert world.condition("BackupReady")[1] == "BackupFailed"
    ended(world, "a-backup-2", HOUR.format(3), good(HOUR.format(3)))
    await world.until_settled()
    assert world.condition("BackupReady")[0] == "True"


async def test_a_job_without_an_answer_is_no_backup(world: World) -> None:
    """Killed for want of memory, say: the last lines are all there is."""
    ended(world, "a-backup-1", HOUR.format(2), "Traceback: no memory")
    await world.until_settled()
    assert world.condition("BackupReady")[1] == "BackupFailed"
    assert "no memory" in world.condition("BackupReady")[2]
    ended(world, "a-backup-2", HOUR.format(3), '{"backup": {"id": "x"}, "faults": []}')
    await world.until_settled()
    assert "lastID" not in status(world)


async def test_a_backup_that_is_too_old_is_told(world: World) -> None:
    """Older than twice its schedule, to the hour; also where there never was one. What stands there stays the same."""
    world.api.edit(
        "CronJob", "a-backup", lambda live: live["metadata"].update(creationTimestamp=HOUR.format(1))
    )
    for hour, reason in ((3, "Progressing"), (4, "BackupStale")):
        world.now = HOUR.format(hour)
        await world.reconcile()
        assert world.condition("BackupReady")[1] == reason
    ended(world, "a-backup-1", HOUR.format(4), good(HOUR.format(4)))
    for hour, reason in ((5, "Ready"), (6, "Ready"), (7, "BackupStale")):
        world.now = HOUR.format(hour)
        await world.reconcile()
        assert world.condition("BackupReady")[1] == reason
    before = world.condition("BackupReady")
    world.now = HOUR.format(9)
    await world.reconcile()
    assert world.condition("BackupReady") == before
    assert world.condition("Ready")[0] == "True"


async def test_a_suspended_server_makes_no_backups(world: World) -> None:
    """Its database is down; what was made stays known."""
    world.change(suspend=True)
    await world.until_settled()
    cronjob = world.get("CronJob", "a-backup")
    assert cronjob
    assert cronjob["spec"]["suspend"]
    assert world.condition("BackupReady")[1] == "Suspended"
    world.change(suspend=False)
    await world.until_settled()
    cronjob = world.get("CronJob", "a-backup")
    assert cronjob
    assert not cronjob["spec"]["suspend"]


async def test_another_bucket_is_looked_at_before_the_first_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is missing, and a store that refuses, are told at once and not in the night."""
    world = await backed_up(monkeypatch, s3=ELSEWHERE)
    bucket = next(asked for asked in world.store.asked if asked.name == "vault")
    assert (bucket.access_key, bucket.field) == ("k", "spec.backup.s3.credentialsSecretRef")
    del world.api.objects["Secret", "vault"]
    await world.reconcile()
    assert world.condition("BackupReady")[1] == "SecretNotFound"
    assert "spec.backup.s3.credentialsSecretRef" in world.condition("BackupReady")[2]
    world.put_secret("vault", accessKeyID="k", secretAccessKey="s")
    refusing, ensure = (
        ConfigurationError(Reason.BUCKET_NOT_FOUND, "See spec.artifacts.s3.bucket."),
        world.store.ensure_bucket,
    )

    async def only_the_other(bucket: Any, create: bool) -> bool:
        if bucket.name == "vault":
            raise refusing
        return await ensure(bucket, create)

    monkeypatch.setattr(world.store, "ensure_bucket", only_the_other)
    await world.reconcile()
    assert world.condition("BackupReady")[1:] == ("BucketNotFound", "See spec.backup.s3.bucket.")
    assert world.condition("Ready")[0] == "True"


async def test_a_silent_bucket_for_backups_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and all else that is to be said does not wait for it."""
    world = await backed_up(monkeypatch, s3=ELSEWHERE)

    async def silent(bucket: Any, create: bool) -> bool:
        await asyncio.sleep(0 if bucket.name != "vault" else 3600)
        return False

    monkeypatch.setattr(world.store, "ensure_bucket", silent)
    monkeypatch.setattr(backup, "_LOOK_SECONDS", 0.01)
    await world.reconcile()
    assert world.condition("BackupReady")[1] == "ArtifactStoreUnreachable"
    assert "store of backups" in world.condition("BackupReady")[2]
    assert world.condition("Ready")[0] == "True"


async def test_a_schedule_that_no_cronjob_takes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CRD knows neither all time zones nor what each field may hold."""
    world = World(monkeypatch, {"backup": {"timeZone": "Mars/Olympus"}})
    await world.until_settled()
    assert world.condition("BackupReady")[1] == "InvalidResource"
    assert "spec.backup.timeZone" in world.condition("BackupReady")[2]
    assert world.condition("Ready")[0] == "True"
    world.change(backup={"schedule": "61 * * * *"})
    await world.until_settled()
    assert "spec.backup.schedule" in world.condition("BackupReady")[2]


async def serving(monkeypatch: pytest.MonkeyPatch, **spec: Any) -> World:
    """A server with backups whose tables have to move for the version tested."""
    made = World(monkeypatch, {"version": OLD, "backup": {}, **spec})
    await made.until_settled()
    assert made.condition("Ready")[0] == "True"
    return made


def jobs(world: World, kind: str) -> list[Object]:
    """Jobs of a kind: migrate, preflight, backup."""
    return [o for (k, name), o in world.api.objects.items() if k == "Job" and f"-{kind}-" in name]


async def gated(world: World) -> Object:
    """The Job that backs up before the upgrade to the version tested."""
    world.change(version=DEFAULT_VERSION)
    await world.reconcile()
    (asked,) = jobs(world, "preflight")
    world.end_job(asked, "Complete")
    await world.reconcile()
    (job,) = jobs(world, "backup")
    return job


def image(world: World) -> tuple[str, int]:
    """What serves, and how many."""
    live = world.get("Deployment", "a")
    assert live
    return live["spec"]["template"]["spec"]["containers"][0]["image"], live["spec"]["replicas"]


OLD_SERVES = (f"ghcr.io/mlflow/mlflow:v{OLD}-full", 1)
NEW_SERVES = (f"ghcr.io/mlflow/mlflow:v{DEFAULT_VERSION}-full", 1)


async def test_tables_move_only_after_a_backup_that_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of before serve meanwhile; it is made by their image, in the environment that they have."""
    world = await serving(monkeypatch)
    job = await gated(world)
    for _ in range(3):
        await world.reconcile()
    assert world.revision == SCHEMA_HEADS[OLD]
    assert image(world) == OLD_SERVES
    assert len(jobs(world, "migrate")) == 1, "the first start's"
    assert world.condition("UpgradeReady")[:2] == ("False", "Progressing")
    containers = job["spec"]["template"]["spec"]["containers"]
    assert {each["name"]: each["image"] for each in containers}["backup"] == OLD_SERVES[0]
    world.end_job(job, "Complete")
    await world.until_settled()
    assert image(world) == NEW_SERVES
    assert world.revision == SCHEMA_HEADS[DEFAULT_VERSION]
    assert not jobs(world, "backup"), "a later upgrade wants one of its own"


async def test_a_backup_that_fails_keeps_the_tables_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, tried again by itself, and told the same until it does better; mended, the upgrade goes on."""
    world = await serving(monkeypatch)
    job = await gated(world)
    world.end_job(job, "Failed")
    await world.reconcile()
    state, reason, message = world.condition("UpgradeReady")
    assert (state, reason) == ("False", "BackupRequired")
    assert f"version {OLD} serves on" in message
    assert "spec.upgrade.backupBeforeMigration to Skip" in message
    assert (image(world), world.revision) == (OLD_SERVES, SCHEMA_HEADS[OLD])
    world.events.published.clear()
    world.now = "2026-01-01T00:00:15Z"
    await world.reconcile()
    await world.reconcile()
    (second,) = jobs(world, "backup")
    assert second["metadata"]["uid"] != job["metadata"]["uid"]
    assert world.condition("UpgradeReady") == (state, reason, message)
    assert not [event for event in world.events.published if event[1] == "BackupRequired"]
    await world.until_settled()
    assert image(world) == NEW_SERVES


@pytest.mark.parametrize(
    "spec",
    [{"upgrade": {"backupBeforeMigration": "Skip"}}, {"backup": None}],
    ids=["skipped", "not configured"],
)
async def test_no_backup_is_made_where_none_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, spec: Object
) -> None:
    """The owner's word, or no place to put one."""
    world = await serving(monkeypatch, **spec)
    world.change(version=DEFAULT_VERSION)
    await world.until_settled()
    assert image(world) == NEW_SERVES
    assert not [name for _, name in world.api.writes if name.startswith("Job/a-backup-")]


async def test_an_upgrade_that_is_given_up_leaves_no_backup_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing that a later one would take for its own."""
    world = await serving(monkeypatch)
    await gated(world)
    world.change(version=OLD)
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert not jobs(world, "backup")


async def test_where_the_tables_fit_no_backup_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is about to be lost."""
    world = await serving(monkeypatch, version="3.17.0")
    world.change(version=DEFAULT_VERSION)
    await world.until_settled()
    assert image(world) == NEW_SERVES
    assert not [name for _, name in world.api.writes if name.startswith("Job/a-backup-")]


async def test_a_backup_that_vanishes_while_tables_move_starts_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody tidies up Jobs that are done: too late to begin another one."""
    world = await serving(monkeypatch)
    world.end_job(await gated(world), "Complete")
    for _ in range(4):
        await world.reconcile()
        world.settle(jobs=False)
    assert len(jobs(world, "migrate")) == 2
    (done,) = jobs(world, "backup")
    del world.api.objects["Job", done["metadata"]["name"]]
    await world.reconcile()
    assert image(world)[1] == 0
    assert not jobs(world, "backup")
