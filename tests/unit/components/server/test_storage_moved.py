"""A server is pointed at other data: it stays where it is until the new place was looked at."""

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.unit.simulation import DOWN, EXTERNAL, URI, CutOff, World

ALLOW = "Allow"
ELSEWHERE: Object = {
    "s3": {"bucket": "others", "endpoint": "http://s3:9000", "credentialsSecretRef": {"name": "keys"}}
}


@pytest.fixture
async def external(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server on a database and a bucket of somebody else's, Ready and at rest."""
    return await World.on_external_stores(monkeypatch)


def template(world: World) -> Object:
    """What the pods are made from."""
    live = world.get("Deployment", "a")
    assert live
    found: Object = live["spec"]["template"]
    return found


def bucket(world: World) -> str:
    """Where the pods keep artifacts."""
    env = template(world)["spec"]["containers"][0]["env"]
    return next(str(e["value"]) for e in env if e["name"] == "MLFLOW_ARTIFACTS_DESTINATION")


def uri(world: World) -> str:
    """The database that a container of the server finds as it starts."""
    return world.secret("a-server")["backend-store-uri"]


def told(world: World) -> list[str]:
    """What was said of a move."""
    return [message for _, reason, message in world.events.published if reason == "StorageChanged"]


def point_elsewhere(world: World) -> None:
    """At the database on host `two`, which is empty."""
    world.put_secret("db", uri=URI.format(host="two"))
    world.change(storageChangePolicy=ALLOW)
    world.revision = None


async def test_a_container_that_starts_while_the_new_schema_is_made_finds_the_old_database(
    external: World,
) -> None:
    """The pods of before are restarted by a kubelet without asking anybody."""
    before = template(external)
    point_elsewhere(external)
    for _ in range(4):
        await external.reconcile()
        external.settle(jobs=False)
        assert "@one/" in uri(external).replace(":5432", "")
    assert template(external) == before
    job = next(o for (kind, _), o in external.api.objects.items() if kind == "Job" and not o.get("status"))
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env[0]["valueFrom"]["secretKeyRef"]["key"] == "next-store-uri"
    assert "two" in external.secret("a-server")["next-store-uri"]
    await external.until_settled()
    assert "@two" in uri(external)
    assert "next-store-uri" not in external.secret("a-server")
    assert external.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    "away", [DOWN, ConfigurationError(Reason.DATABASE_ENCODING_UNSUPPORTED, "It is SQL_ASCII.")]
)
async def test_a_new_database_that_does_not_do_leaves_the_server_where_it_is(
    external: World, away: ReconcileError
) -> None:
    """Told, and nothing touched; pointing back is all it takes."""
    before = uri(external), template(external)
    point_elsewhere(external)
    external.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    external.database_fault = away
    for _ in range(3):
        await external.reconcile()
        external.settle()
    assert (uri(external), template(external)) == before
    assert external.condition("DatabaseReady")[:2] == ("False", away.reason.value)
    external.database_fault = None
    external.put_secret("db", uri=URI.format(host="one"))
    await external.until_settled()
    assert (uri(external), template(external)) == before
    assert not told(external)
    assert "next-store-uri" not in external.secret("a-server")


async def test_a_database_of_a_newer_mlflow_is_refused(external: World) -> None:
    """No Job is tried at it."""
    external.change(version="3.14.0")
    external.revision = SCHEMA_HEADS["3.14.0"]
    await external.until_settled()
    before = template(external), sum(kind == "Job" for kind, _ in external.api.objects)
    point_elsewhere(external)
    external.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await external.reconcile()
    status, reason, message = external.condition("SchemaReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert f"holds the tables of MLflow {DEFAULT_VERSION}" in message
    assert (template(external), sum(kind == "Job" for kind, _ in external.api.objects)) == before
    assert "@one" in uri(external)


async def test_a_new_bucket_that_does_not_do_leaves_the_server_where_it_is(external: World) -> None:
    """It may not be there, or not be written to."""
    external.store.fault = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The key may not write.")
    external.change(storageChangePolicy=ALLOW, artifacts=ELSEWHERE)
    for _ in range(3):
        await external.reconcile()
        external.settle()
    assert bucket(external) == "s3://models"
    assert external.condition("ArtifactStoreReady")[1] == "BucketAccessDenied"
    assert "waits for the other artifact store" in external.condition("ServerAvailable")[2]
    external.store.fault = None
    await external.until_settled()
    assert bucket(external) == "s3://others"
    assert external.condition("Ready")[0] == "True"


async def test_a_bucket_that_goes_away_where_it_is_touches_no_pod_and_stops_no_repair(
    external: World,
) -> None:
    """Only another place must be ready first."""
    external.store.fault = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The key may not write.")
    external.api.edit("Deployment", "a", lambda live: live["spec"].update(replicas=5))
    await external.reconcile()
    live = external.get("Deployment", "a")
    assert live
    assert live["spec"]["replicas"] == 1


async def test_what_stays_behind_is_named_once(external: World) -> None:
    """Which database and which bucket, and where."""
    point_elsewhere(external)
    external.change(artifacts=ELSEWHERE)
    await external.until_settled()
    (said,) = told(external)
    assert said == (
        "The server now keeps runs in the database two:5432/mlflow and artifacts at s3://others. What was logged "
        "before stays where it is, and is neither moved nor deleted: the database one:5432/mlflow; the artifacts at "
        "s3://models in http://s3:9000."
    )


async def test_an_endpoint_alone_is_another_place(external: World) -> None:
    """The same bucket's name in another store."""
    there = {**EXTERNAL["artifacts"]["s3"], "endpoint": "http://other:9000"}
    external.change(storageChangePolicy=ALLOW, artifacts={"s3": there})
    await external.until_settled()
    (said,) = told(external)
    assert said.endswith("deleted: the artifacts at s3://models in http://s3:9000.")


async def test_volumes_and_passwords_that_stay_behind_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """From embedded stores to those of somebody else."""
    world = World(monkeypatch)
    await world.until_settled()
    world.put_secret("db", uri=URI.format(host="two"))
    world.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    world.change(storageChangePolicy=ALLOW, **EXTERNAL)
    await world.until_settled()
    (said,) = told(world)
    for name in ("a-postgres-data", "a-database", "a-artifacts-data", "a-artifacts"):
        assert f'"{name}"' in said


async def test_cut_off_after_any_write_the_server_is_on_one_of_both_and_ends_on_the_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no container that starts meanwhile finds a database without a schema."""
    whole = await World.on_external_stores(monkeypatch)
    begun = len(whole.api.writes)
    point_elsewhere(whole)
    await whole.until_settled()
    for n in range(len(whole.api.writes) - begun):
        world = await World.on_external_stores(monkeypatch)
        point_elsewhere(world)
        world.api.dies_after = len(world.api.writes) + n
        with pytest.raises((CutOff, BaseExceptionGroup)):
            await world.until_settled()
        assert "@one" in uri(world) or world.revision == SCHEMA_HEADS[DEFAULT_VERSION], (
            f"cut off after write {n}"
        )
        world.api.dies_after = None
        await world.until_settled()
        assert "@two" in uri(world)
        assert world.condition("Ready")[0] == "True"
        assert told(world), f"cut off after write {n}"
