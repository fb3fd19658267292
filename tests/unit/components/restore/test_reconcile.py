"""Restoring, in the moments that a real cluster can't be brought to at will."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.unit.simulation import NAMESPACE, CutOff, World

FROM: Object = {"serverName": "old"}
OLD = "3.14.0"


def asking(monkeypatch: pytest.MonkeyPatch, **spec: Any) -> World:
    """A new server that is to begin with a backup."""
    return World(monkeypatch, {"restoreFrom": FROM, **spec})


def jobs(world: World, kind: str) -> list[Object]:
    """Jobs of a kind: restore, migrate, preflight."""
    return [o for (k, name), o in world.api.objects.items() if k == "Job" and f"-{kind}-" in name]


async def begun(world: World) -> Object:
    """Until its restore Job is there; gives it."""
    for _ in range(4):
        await world.reconcile()
        world.settle(jobs=False)
    (job,) = jobs(world, "restore")
    return job


def pod(world: World, job: Object, **containers: Object) -> None:
    """The Job's pod, its containers in these states."""
    name = job["metadata"]["name"]
    ended = all("terminated" in state for state in containers.values())
    world.api.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-pod",
                "namespace": NAMESPACE,
                "labels": labels.owned("a", labels.RESTORE_POD),
                "ownerReferences": [{"kind": "Job", "name": name, "uid": job["metadata"]["uid"]}],
            },
            "status": {
                "phase": "Failed" if ended else "Running",
                "containerStatuses": [{"name": n, "state": state} for n, state in containers.items()],
            },
        }
    )


def fail(world: World, job: Object, kind: str, said: str = "why", words: str = "ERROR: of psql") -> None:
    """It ends with a fault of that kind."""
    answer = json.dumps({"backup": None, "faults": [{"kind": kind, "said": said}]})
    conditions = [{"type": "Failed", "status": "True", "lastTransitionTime": world.now}]
    world.api.edit(
        "Job", job["metadata"]["name"], lambda live: live.update(status={"conditions": conditions})
    )
    first = {"terminated": {"exitCode": 1, "message": answer}}
    pod(world, job, **{"restore": first, "pg-restore": {"terminated": {"exitCode": 1, "message": words}}})


def came_from(world: World) -> str | None:
    """The backup that the status names."""
    found = world.get("MLflowServer", "a")
    assert found
    backup: str | None = found["status"].get("restoredBackup")
    return backup


async def test_the_backup_comes_before_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No migration makes tables that it would collide with, and no server starts on an empty database."""
    world = asking(monkeypatch)
    await begun(world)
    assert not jobs(world, "migrate")
    assert world.get("Deployment", "a") is None
    assert world.condition("SchemaReady")[:2] == ("False", "Progressing")
    assert "newest backup of team/old" in world.condition("SchemaReady")[2]
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert len(jobs(world, "restore")) == 1
    assert not jobs(world, "migrate")


async def test_tables_of_an_older_version_move_after_they_are_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked for by name; by itself the server goes on at the backup's version."""
    world = asking(monkeypatch, version=DEFAULT_VERSION)
    world.backed_up = SCHEMA_HEADS[OLD]
    await world.until_settled(20)
    assert world.revision == SCHEMA_HEADS[DEFAULT_VERSION]
    assert world.condition("Ready")[0] == "True"

    world = asking(monkeypatch)
    world.backed_up = SCHEMA_HEADS[OLD]
    await world.until_settled(20)
    assert world.revision == SCHEMA_HEADS[OLD]
    found = world.get("MLflowServer", "a")
    assert found
    assert found["status"]["version"] == OLD


async def test_a_database_with_data_is_never_restored_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused without a Job; whoever takes the wish away goes on with what is there."""
    world = asking(monkeypatch)
    world.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    for _ in range(4):
        await world.reconcile()
        world.settle()
    assert not jobs(world, "restore")
    state, reason, message = world.condition("SchemaReady")
    assert (state, reason) == ("False", "RestoreRefused")
    assert "take spec.restoreFrom away" in message
    assert (False, reason, message) in world.events.published
    world.change(restoreFrom=None)
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_what_was_restored_once_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a server made again on its data, nor where somebody has put the tables back by other means since."""
    world = asking(monkeypatch)
    await world.until_settled()
    world.delete()
    world.make({"restoreFrom": FROM})
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert not jobs(world, "restore")
    assert came_from(world) == "20260101T000000Z-00000001"
    world.comment_of_tables = None
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert came_from(world) is None


async def test_a_failed_restore_tells_why_and_waits_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the Job is deleted there is another try; the same words all the while."""
    world = asking(monkeypatch)
    job = await begun(world)
    fail(world, job, "pg_restore", "psql ended with exit code 3")
    await world.reconcile()
    state, reason, message = world.condition("SchemaReady")
    assert (state, reason) == ("False", "RestoreFailed")
    assert "Its last lines: ERROR: of psql" in message
    before = len(world.api.writes)
    for hour in range(3):
        world.now = f"2026-01-01T{hour:02}:00:00Z"
        await world.reconcile()
    assert len(world.api.writes) == before
    del world.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await world.reconcile()
    assert world.condition("SchemaReady")[2] == message

    command = f"kubectl delete job -n team {job['metadata']['name']}"
    assert command in message
    del world.api.objects["Job", job["metadata"]["name"]]
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_a_backup_that_is_too_new_is_taken_once_the_version_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another image makes another try."""
    world = asking(monkeypatch, version=OLD)
    fail(world, await begun(world), "newer", f"{DEFAULT_VERSION} {SCHEMA_HEADS[DEFAULT_VERSION]}")
    await world.reconcile()
    assert world.condition("SchemaReady")[1] == "RestoreRefused"
    world.change(version=DEFAULT_VERSION)
    await world.until_settled(20)
    assert world.condition("Ready")[0] == "True"


async def test_a_container_that_dies_before_the_other_is_a_failure_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one may wait a quarter of an hour for it."""
    world = asking(monkeypatch)
    job = await begun(world)
    dead: Object = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "Killed"}}
    pod(world, job, **{"restore": dead, "pg-restore": {"running": {}}})
    await world.reconcile()
    assert world.condition("SchemaReady")[1] == "RestoreFailed"


async def test_a_restore_that_is_no_longer_wanted_ends_before_tables_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Taken away while it runs: its pod may still be at it."""
    world = asking(monkeypatch)
    job = await begun(world)
    pod(world, job, **{"restore": {"running": {}}, "pg-restore": {"running": {}}})
    world.change(restoreFrom=None)
    for _ in range(3):
        await world.reconcile()
    assert not jobs(world, "restore")
    assert not jobs(world, "migrate")
    assert "given up" in world.condition("SchemaReady")[2]
    del world.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert jobs(world, "migrate")


async def test_keys_of_another_store_are_looked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod could not start without, and would say less."""
    store = {"bucket": "vault", "credentialsSecretRef": {"name": "vault"}}
    world = asking(monkeypatch, restoreFrom={**FROM, "s3": store})
    for _ in range(4):
        await world.reconcile()
        world.settle()
    state, reason, message = world.condition("SchemaReady")
    assert (state, reason) == ("False", "SecretNotFound")
    assert "spec.restoreFrom.s3.credentialsSecretRef" in message
    assert not jobs(world, "restore")
    world.put_secret("vault", accessKeyID="k", secretAccessKey="s")
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_an_operator_killed_at_any_write_ends_it_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """One restore, no migration, Ready; wherever it was cut off."""
    whole = asking(monkeypatch)
    await whole.until_settled()
    for written in range(len(whole.api.writes)):
        world = asking(monkeypatch)
        world.api.dies_after = written
        with pytest.raises((CutOff, BaseExceptionGroup)):  # a group, where two steps run at once
            await world.until_settled()
        world.api.dies_after = None
        await world.until_settled()
        assert world.condition("Ready")[0] == "True"
        assert len(jobs(world, "restore")) == 1
        assert not jobs(world, "migrate")
