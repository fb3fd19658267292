"""Faults in the moments that a real cluster can't be brought to at will; `tests/e2e` makes the rest for real."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import EXTERNAL, URI, World

QUOTA = 'pods "a-0" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0'


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty spec, nothing made yet."""
    return World(monkeypatch)


@pytest.fixture
async def external(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server on a database and a bucket of somebody else's, Ready and at rest."""
    return await World.on_external_stores(monkeypatch)


@pytest.fixture
async def failed(world: World) -> World:
    """A server whose first migration failed just now."""
    for _ in range(3):
        await world.reconcile()
        world.settle(jobs=False)
    world.end_job(job(world), "Failed", "2026/01/01 00:00:00 ERROR boom: no space")
    await world.reconcile()
    return world


def job(world: World) -> Object:
    """The one Job."""
    (found,) = (obj for (kind, _), obj in world.api.objects.items() if kind == "Job")
    return found


def event(reason: str, message: str) -> Object:
    """One of a controller's."""
    return {"reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:00:00Z"}


async def test_a_failed_migration_speaks_and_is_tried_again_within_a_minute(failed: World) -> None:
    """The Job's last lines; and who mends the cause need do nothing else."""
    status, reason, message = failed.condition("SchemaReady")
    assert (status, reason) == ("False", "MigrationFailed")
    assert "boom: no space" in message
    assert "tried again by itself" in message
    first = job(failed)
    failed.now = "2026-01-01T00:00:14Z"
    assert (await failed.reconcile()).requeue_after == 1
    assert job(failed)["metadata"]["uid"] == first["metadata"]["uid"]
    failed.now = "2026-01-01T00:00:15Z"
    await failed.reconcile()
    assert job(failed)["metadata"]["uid"] != first["metadata"]["uid"]
    assert job(failed)["metadata"]["name"] == first["metadata"]["name"]
    await failed.until_settled()
    assert failed.condition("Ready")[0] == "True"


async def test_tries_that_fail_alike_are_one_piece_of_news(failed: World) -> None:
    """Neither the beginning nor the end of a further try writes a status, or an Event."""
    failed.events.published.clear()
    before = failed.condition("SchemaReady")
    for minute in range(1, 4):
        failed.now = f"2026-01-01T00:0{minute}:00Z"
        await failed.reconcile()
        await failed.reconcile()
        assert failed.condition("SchemaReady") == before
        assert job(failed)["metadata"]["annotations"][labels.ATTEMPT] == str(minute + 1)
        said = f"2026/01/01 00:0{minute}:09 ERROR boom: no space"
        failed.end_container(job(failed), 1, said)
        await failed.reconcile()
        assert failed.condition("SchemaReady") == before
        failed.end_job(job(failed), "Failed", said)
        await failed.reconcile()
        assert failed.condition("SchemaReady") == before
    assert failed.events.published == []


async def test_a_database_that_a_failed_migration_has_moved_is_left_to_people(world: World) -> None:
    """Of an image whose last revision nobody knows: whether that was all, the operator can't tell."""
    world.change(image="own/mlflow:9")
    for _ in range(3):
        await world.reconcile()
        world.settle(jobs=False)
    world.end_job(job(world), "Failed", "boom")
    world.revision, world.now = "halfway", "2026-01-01T01:00:00Z"
    first = job(world)
    await world.reconcile()
    assert job(world) == first
    message = world.condition("SchemaReady")[2]
    assert "not tried again blindly" in message
    assert f"kubectl delete job -n team {first['metadata']['name']}" in message
    del world.api.objects["Job", first["metadata"]["name"]]
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_a_migration_that_can_t_succeed_is_not_begun(world: World) -> None:
    """Its sentence says what to grant, and no pod is started to find out."""
    world.obstacle = ConfigurationError(Reason.DATABASE_PRIVILEGE_MISSING, "The user may not.")
    for _ in range(3):
        world.settle()
        await world.reconcile()
    assert world.condition("SchemaReady") == ("False", "DatabasePrivilegeMissing", "The user may not.")
    assert not any(kind == "Job" for kind, _ in world.api.objects)
    world.obstacle = None
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_a_server_whose_tables_are_there_needs_no_such_privilege(world: World) -> None:
    """To take CREATE away after the migration is good practice."""
    await world.until_settled()
    world.obstacle = ConfigurationError(Reason.DATABASE_PRIVILEGE_MISSING, "The user may not.")
    await world.reconcile()
    assert world.condition("Ready")[0] == "True"


async def test_a_store_that_gets_no_pod_says_why_and_is_tried_again_each_minute(world: World) -> None:
    """A StatefulSet's status does not tell, and its controller would wait up to a quarter of an hour."""
    await world.reconcile()
    stateful_set = world.get("StatefulSet", "a-postgres")
    assert stateful_set
    world.api.events[stateful_set["metadata"]["uid"]] = [event("FailedCreate", QUOTA)]
    said, words = set(), []
    for minute in range(4):
        world.now = f"2026-01-01T00:0{minute}:00Z"
        for _ in range(3):
            before = len(world.api.writes)
            await world.reconcile()
            words += [
                write for write in world.api.writes[before:] if write == ("patch", "StatefulSet/a-postgres")
            ]
        said.add(world.condition("DatabaseReady"))
    assert len(said) == 1
    status, reason, message = said.pop()
    assert (status, reason) == ("False", "QuotaExceeded")
    assert "requested: pods=1, limited: pods=0" in message
    assert len(words) == 3
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_a_migration_that_gets_no_pod_says_why(world: World) -> None:
    """Kubernetes tries again by itself, once a minute at least."""
    for _ in range(2):
        await world.reconcile()
        world.settle(jobs=False)
    world.api.events[job(world)["metadata"]["uid"]] = [event("FailedCreate", QUOTA)]
    await world.reconcile()
    assert world.condition("SchemaReady")[1] == "QuotaExceeded"


async def test_a_claim_without_a_volume_says_why(world: World) -> None:
    """In place of what follows from it: that no node takes the pod."""
    await world.reconcile()
    world.api.edit(
        "PersistentVolumeClaim", "a-postgres-data", lambda c: c.update(status={"phase": "Pending"})
    )
    claim = world.get("PersistentVolumeClaim", "a-postgres-data")
    assert claim
    world.api.events[claim["metadata"]["uid"]] = [event("ProvisioningFailed", 'class "x" not found')]
    await world.reconcile()
    status, reason, message = world.condition("DatabaseReady")
    assert (status, reason) == ("False", "VolumePending")
    assert 'PersistentVolumeClaim "a-postgres-data" gets no volume: class "x" not found.' in message


async def test_who_may_not_read_events_goes_without_them(world: World) -> None:
    """A role of one's own costs the explanation, and nothing else."""
    world.api.refuses["Event"] = Forbidden("list events: 403")
    await world.reconcile()
    await world.reconcile()
    assert world.condition("DatabaseReady")[1] == "Progressing"
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_an_object_of_another_server_is_not_to_be_deleted(world: World) -> None:
    """Servers `a` and `a-postgres`: whoever follows the advice for a stranger's Service breaks the other server."""
    meta = {
        "name": "a-postgres",
        "namespace": "team",
        "labels": labels.owned("a-postgres", labels.SERVER_POD),
    }
    world.api.put({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {}})
    await world.reconcile()
    status, reason, message = world.condition("DatabaseReady")
    assert (status, reason) == ("False", "NameConflict")
    assert 'Service "a-postgres" belongs to MLflowServer "a-postgres"' in message
    assert "another name" in message
    assert "elete" not in message


async def test_a_line_break_after_a_store_s_key_is_told(external: World) -> None:
    """The store would answer with a riddle about signatures, and the pods send it, too."""
    external.put_secret("keys", accessKeyID="k", secretAccessKey="hunter2\n")
    await external.reconcile()
    status, reason, message = external.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretValueInvalid")
    assert 'Key "secretAccessKey" of Secret "keys"' in message
    assert "printf" in message
    assert "hunter2" not in message


async def test_a_line_break_after_a_refused_password_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be meant; but where it is refused, it is the likeliest why."""
    named = {"host": "one", "credentialsSecretRef": {"name": "db"}}
    world = World(monkeypatch, {**EXTERNAL, "database": {"external": named}})
    world.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    world.put_secret("db", username="u", password="hunter2\n")
    world.database_fault = ConfigurationError(Reason.DATABASE_AUTHENTICATION_FAILED, "It is refused.")
    await world.reconcile()
    message = world.condition("DatabaseReady")[2]
    assert message.startswith("It is refused. The password there ends in a space or a line break")


async def test_a_secret_that_points_to_another_port_is_refused(external: World) -> None:
    """Two Postgres on one host are two databases."""
    external.put_secret("db", uri="postgresql://u:hunter2@one:5433/mlflow")
    await external.reconcile()
    status, reason, message = external.condition("CredentialsReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert "from one:5432/mlflow to one:5433/mlflow" in message


async def test_a_status_from_before_ports_were_noted_refuses_nothing(external: World) -> None:
    """An upgrade of the operator must not stop a server on another port than 5432."""
    external.api.edit("MLflowServer", "a", lambda live: live["status"]["database"].pop("port"))
    external.put_secret("db", uri="postgresql://u:hunter2@one:5433/mlflow")
    await external.until_settled()
    assert external.condition("Ready")[0] == "True"


async def test_what_people_mend_is_looked_at_long_before_the_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has just created a Secret waits for it."""
    world = World(monkeypatch, EXTERNAL)
    again = (await world.reconcile()).requeue_after
    assert again is not None
    assert again <= 15
    world.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    world.put_secret("db", uri=URI.format(host="one"))
    await world.until_settled()
    assert (await world.reconcile()).requeue_after is None


async def test_a_server_that_gets_no_pod_is_tried_again_each_minute(world: World) -> None:
    """And looked at more often: a Secret of the owner's may be what mends it."""
    await world.until_settled()
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": QUOTA,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    world.api.edit("Deployment", "a", lambda d: d.update(status={"conditions": [failure], "replicas": 0}))
    words = []
    for second in (0, 30, 60, 90, 119, 120):
        world.now = f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"
        before = len(world.api.writes)
        again = (await world.reconcile()).requeue_after
        assert again is not None
        assert again <= 15
        words += [second for write in world.api.writes[before:] if write == ("patch", "Deployment/a")]
    assert words == [60, 120]
    assert world.condition("ServerAvailable")[1] == "QuotaExceeded"
