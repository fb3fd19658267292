"""A change of database or artifact location: the server keeps the old one until the new one has been checked."""

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.unit.simulation import DATABASE_UNREACHABLE, EXTERNAL, URI, ProcessKilled, SimulatedCluster

ALLOW = "Allow"
OTHER_BUCKET: Object = {
    "s3": {"bucket": "others", "endpoint": "http://s3:9000", "credentialsSecretRef": {"name": "keys"}}
}


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server on an external database and bucket."""
    return await SimulatedCluster.with_external_stores()


def pod_template(simulation: SimulatedCluster) -> Object:
    """The pod template of the Deployment."""
    live = simulation.get("Deployment", "a")
    assert live
    template: Object = live["spec"]["template"]
    return template


def artifacts_destination(simulation: SimulatedCluster) -> str:
    """The artifact location of the pods."""
    env = pod_template(simulation)["spec"]["containers"][0]["env"]
    return next(str(e["value"]) for e in env if e["name"] == "MLFLOW_ARTIFACTS_DESTINATION")


def database_uri(simulation: SimulatedCluster) -> str:
    """The database URI that a starting container of the server reads."""
    return simulation.secret("a-server")["backend-store-uri"]


def event_messages(simulation: SimulatedCluster) -> list[str]:
    """The messages of StorageChanged Events."""
    return [message for _, reason, message in simulation.events.published if reason == "StorageChanged"]


def switch_database(simulation: SimulatedCluster) -> None:
    """Point the spec at the empty database on host `two`."""
    simulation.put_secret("db", uri=URI.format(host="two"))
    simulation.update_spec(storageChangePolicy=ALLOW)
    simulation.postgres.revision = None


async def test_containers_started_during_schema_creation_use_the_old_database(
    simulation: SimulatedCluster,
) -> None:
    """The kubelet restarts containers of existing pods at any time, independently of the operator."""
    before = pod_template(simulation)
    switch_database(simulation)
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
        assert "@one/" in database_uri(simulation).replace(":5432", "")
    assert pod_template(simulation) == before
    job = next(o for (kind, _), o in simulation.api.objects.items() if kind == "Job" and not o.get("status"))
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env[0]["valueFrom"]["secretKeyRef"]["key"] == "next-store-uri"
    assert "two" in simulation.secret("a-server")["next-store-uri"]
    await simulation.reconcile_until_stable()
    assert "@two" in database_uri(simulation)
    assert "next-store-uri" not in simulation.secret("a-server")
    assert simulation.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    "error",
    [DATABASE_UNREACHABLE, ConfigurationError(Reason.DATABASE_ENCODING_UNSUPPORTED, "It is SQL_ASCII.")],
)
async def test_unusable_new_database_leaves_the_server_on_the_old_one(
    simulation: SimulatedCluster, error: ReconcileError
) -> None:
    """The error is reported and nothing is changed. Pointing the spec back resolves it."""
    before = database_uri(simulation), pod_template(simulation)
    switch_database(simulation)
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    simulation.postgres.error = error
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers()
    assert (database_uri(simulation), pod_template(simulation)) == before
    assert simulation.condition("DatabaseReady")[:2] == ("False", error.reason.value)
    simulation.postgres.error = None
    simulation.put_secret("db", uri=URI.format(host="one"))
    await simulation.reconcile_until_stable()
    assert (database_uri(simulation), pod_template(simulation)) == before
    assert not event_messages(simulation)
    assert "next-store-uri" not in simulation.secret("a-server")


async def test_database_with_a_newer_schema_is_refused(simulation: SimulatedCluster) -> None:
    """No Job runs on it."""
    simulation.update_spec(version="3.14.0")
    simulation.postgres.revision = SCHEMA_HEADS["3.14.0"]
    await simulation.reconcile_until_stable()
    before = pod_template(simulation), sum(kind == "Job" for kind, _ in simulation.api.objects)
    switch_database(simulation)
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await simulation.reconcile()
    status, reason, message = simulation.condition("SchemaReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert f"holds the schema of MLflow {DEFAULT_VERSION}" in message
    assert (pod_template(simulation), sum(kind == "Job" for kind, _ in simulation.api.objects)) == before
    assert "@one" in database_uri(simulation)


async def test_unusable_new_bucket_leaves_the_server_on_the_old_one(
    simulation: SimulatedCluster,
) -> None:
    """For example, the bucket does not exist or is not writable."""
    simulation.store.error = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The key may not write.")
    simulation.update_spec(storageChangePolicy=ALLOW, artifacts=OTHER_BUCKET)
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers()
    assert artifacts_destination(simulation) == "s3://models"
    assert simulation.condition("ArtifactStoreReady")[1] == "BucketAccessDenied"
    assert "Waiting for the new artifact store" in simulation.condition("ServerAvailable")[2]
    simulation.store.error = None
    await simulation.reconcile_until_stable()
    assert artifacts_destination(simulation) == "s3://others"
    assert simulation.condition("Ready")[0] == "True"


async def test_unavailable_current_bucket_does_not_stop_reconciliation_of_the_deployment(
    simulation: SimulatedCluster,
) -> None:
    """Only a new location must be ready before the pods are changed."""
    simulation.store.error = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The key may not write.")
    simulation.api.edit("Deployment", "a", lambda live: live["spec"].update(replicas=5))
    await simulation.reconcile()
    live = simulation.get("Deployment", "a")
    assert live
    assert live["spec"]["replicas"] == 1


async def test_retained_storage_is_reported_once(simulation: SimulatedCluster) -> None:
    """The Event names the old database and bucket with their addresses."""
    switch_database(simulation)
    simulation.update_spec(artifacts=OTHER_BUCKET)
    await simulation.reconcile_until_stable()
    (message,) = event_messages(simulation)
    assert message == (
        "The server now stores runs in the database two:5432/mlflow and artifacts at s3://others. Data that was logged "
        "before is neither moved nor deleted: the database one:5432/mlflow; the artifacts at s3://models in "
        "http://s3:9000."
    )


async def test_another_endpoint_is_another_location(simulation: SimulatedCluster) -> None:
    """A bucket with the same name in another store."""
    other_store = {**EXTERNAL["artifacts"]["s3"], "endpoint": "http://other:9000"}
    simulation.update_spec(storageChangePolicy=ALLOW, artifacts={"s3": other_store})
    await simulation.reconcile_until_stable()
    (message,) = event_messages(simulation)
    assert message.endswith("deleted: the artifacts at s3://models in http://s3:9000.")


async def test_retained_volumes_and_secrets_are_reported() -> None:
    """The server switches from embedded to external stores."""
    simulation = SimulatedCluster()
    await simulation.reconcile_until_stable()
    simulation.put_secret("db", uri=URI.format(host="two"))
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    simulation.update_spec(storageChangePolicy=ALLOW, **EXTERNAL)
    await simulation.reconcile_until_stable()
    (message,) = event_messages(simulation)
    for name in ("a-postgres-data", "a-database", "a-artifacts-data", "a-artifacts"):
        assert f'"{name}"' in message


async def test_storage_change_resumes_after_operator_crash_at_any_write() -> None:
    """A container that starts in between never gets a database without a schema."""
    uninterrupted = await SimulatedCluster.with_external_stores()
    writes_before = len(uninterrupted.api.writes)
    switch_database(uninterrupted)
    await uninterrupted.reconcile_until_stable()
    for n in range(len(uninterrupted.api.writes) - writes_before):
        simulation = await SimulatedCluster.with_external_stores()
        switch_database(simulation)
        simulation.api.crash_after_writes = len(simulation.api.writes) + n
        with pytest.raises((ProcessKilled, BaseExceptionGroup)):
            await simulation.reconcile_until_stable()
        assert (
            "@one" in database_uri(simulation)
            or simulation.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]
        ), f"crash after write {n}"
        simulation.api.crash_after_writes = None
        await simulation.reconcile_until_stable()
        assert "@two" in database_uri(simulation)
        assert simulation.condition("Ready")[0] == "True"
        assert event_messages(simulation), f"crash after write {n}"
