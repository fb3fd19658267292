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
    external_stores: SimulatedCluster,
) -> None:
    """The kubelet restarts containers of existing pods at any time, independently of the operator."""
    before = pod_template(external_stores)
    switch_database(external_stores)
    for _ in range(4):
        await external_stores.reconcile()
        external_stores.run_controllers(complete_jobs=False)
        assert "@one/" in database_uri(external_stores).replace(":5432", "")
    assert pod_template(external_stores) == before
    job = next(
        o for (kind, _), o in external_stores.api.objects.items() if kind == "Job" and not o.get("status")
    )
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env[0]["valueFrom"]["secretKeyRef"]["key"] == "next-store-uri"
    assert "two" in external_stores.secret("a-server")["next-store-uri"]
    await external_stores.reconcile_until_stable()
    assert "@two" in database_uri(external_stores)
    assert "next-store-uri" not in external_stores.secret("a-server")
    assert external_stores.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    "error",
    [DATABASE_UNREACHABLE, ConfigurationError(Reason.DATABASE_ENCODING_UNSUPPORTED, "It is SQL_ASCII.")],
)
async def test_unusable_new_database_leaves_the_server_on_the_old_one(
    external_stores: SimulatedCluster, error: ReconcileError
) -> None:
    """The error is reported and nothing is changed. Pointing the spec back resolves it."""
    before = database_uri(external_stores), pod_template(external_stores)
    switch_database(external_stores)
    external_stores.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    external_stores.postgres.error = error
    for _ in range(3):
        await external_stores.reconcile()
        external_stores.run_controllers()
    assert (database_uri(external_stores), pod_template(external_stores)) == before
    assert external_stores.condition("DatabaseReady")[:2] == ("False", error.reason.value)
    external_stores.postgres.error = None
    external_stores.put_secret("db", uri=URI.format(host="one"))
    await external_stores.reconcile_until_stable()
    assert (database_uri(external_stores), pod_template(external_stores)) == before
    assert not event_messages(external_stores)
    assert "next-store-uri" not in external_stores.secret("a-server")


async def test_database_with_a_newer_schema_is_refused(external_stores: SimulatedCluster) -> None:
    """No Job runs on it."""
    external_stores.update_spec(version="3.14.0")
    external_stores.postgres.revision = SCHEMA_HEADS["3.14.0"]
    await external_stores.reconcile_until_stable()
    before = pod_template(external_stores), sum(kind == "Job" for kind, _ in external_stores.api.objects)
    switch_database(external_stores)
    external_stores.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await external_stores.reconcile()
    status, reason, message = external_stores.condition("SchemaReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert f"holds the schema of MLflow {DEFAULT_VERSION}" in message
    assert (
        pod_template(external_stores),
        sum(kind == "Job" for kind, _ in external_stores.api.objects),
    ) == before
    assert "@one" in database_uri(external_stores)


async def test_unusable_new_bucket_leaves_the_server_on_the_old_one(
    external_stores: SimulatedCluster,
) -> None:
    """For example, the bucket does not exist or is not writable."""
    external_stores.store.error = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The key may not write.")
    external_stores.update_spec(storageChangePolicy=ALLOW, artifacts=OTHER_BUCKET)
    for _ in range(3):
        await external_stores.reconcile()
        external_stores.run_controllers()
    assert artifacts_destination(external_stores) == "s3://models"
    assert external_stores.condition("ArtifactStoreReady")[1] == "BucketAccessDenied"
    assert "Waiting for the new artifact store" in external_stores.condition("ServerAvailable")[2]
    external_stores.store.error = None
    await external_stores.reconcile_until_stable()
    assert artifacts_destination(external_stores) == "s3://others"
    assert external_stores.condition("Ready")[0] == "True"


async def test_unavailable_current_bucket_does_not_stop_reconciliation_of_the_deployment(
    external_stores: SimulatedCluster,
) -> None:
    """Only a new location must be ready before the pods are changed."""
    external_stores.store.error = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The key may not write.")
    external_stores.api.edit("Deployment", "a", lambda live: live["spec"].update(replicas=5))
    await external_stores.reconcile()
    live = external_stores.get("Deployment", "a")
    assert live
    assert live["spec"]["replicas"] == 1


async def test_retained_storage_is_reported_once(external_stores: SimulatedCluster) -> None:
    """The Event names the old database and bucket with their addresses."""
    switch_database(external_stores)
    external_stores.update_spec(artifacts=OTHER_BUCKET)
    await external_stores.reconcile_until_stable()
    (message,) = event_messages(external_stores)
    assert message == (
        "The server now stores runs in the database two:5432/mlflow and artifacts at s3://others. Data that was logged "
        "before is neither moved nor deleted: the database one:5432/mlflow; the artifacts at s3://models in "
        "http://s3:9000."
    )


async def test_another_endpoint_is_another_location(external_stores: SimulatedCluster) -> None:
    """A bucket with the same name in another store."""
    other_store = {**EXTERNAL["artifacts"]["s3"], "endpoint": "http://other:9000"}
    external_stores.update_spec(storageChangePolicy=ALLOW, artifacts={"s3": other_store})
    await external_stores.reconcile_until_stable()
    (message,) = event_messages(external_stores)
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
