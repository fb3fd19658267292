"""Upgrades from earlier versions of MLflow. test_image_change tests images with the same schema."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.e2e import timeouts
from tests.e2e.earlier_data import check_data, log_data
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import COMPONENT, SERVER_LABEL, Server, small_spec
from tests.e2e.shared_stores import Platform

TRIGGER_ERROR = "schema changes are blocked by the test"
UPGRADE_TIMEOUT_SECONDS = 2 * timeouts.READY_SECONDS
"""Limit for an upgrade while another upgrade runs on the same two cores."""

PARALLEL_UPGRADES = 2
"""With three, beside other tests, the API server once did not answer for so long that the operator lost its Lease."""


def deployment_image(server: Server) -> str:
    """Return the image of the server's Deployment."""
    deployment = server.kube.require("Deployment", server.names.deployment)
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def jobs(server: Server, component: str) -> list[Object]:
    """Return the server's Jobs of a component (`migration`, `preflight`)."""
    return server.kube.list("Job", {SERVER_LABEL: server.name, COMPONENT: component})


def block_schema_changes(platform: Platform, database: str) -> None:
    """Block the creation and change of tables and indexes in a database by an event trigger, for all users."""
    platform.postgres.query(
        "CREATE FUNCTION frozen() RETURNS event_trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{TRIGGER_ERROR}'; END $$",
        database,
    )
    platform.postgres.query(
        "CREATE EVENT TRIGGER frozen ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', "
        "'CREATE INDEX', 'DROP INDEX') EXECUTE FUNCTION frozen()",
        database,
    )


def check_failed_migration(platform: Platform, server: Server, version: str) -> None:
    """The migration fails, and the previous version serves again. Once the cause is fixed and the failed Job is
    deleted, the upgrade continues."""
    database = server.status["database"]["name"]
    block_schema_changes(platform, database)
    server.patch_spec(version=DEFAULT_VERSION, image=None)
    message = FaultExpectations(server).expect(
        "SchemaReady",
        "MigrationFailed",
        TRIGGER_ERROR,
        "The database and the running version are unchanged",
        within=UPGRADE_TIMEOUT_SECONDS,
    )
    server.wait_for("ServerAvailable", within=UPGRADE_TIMEOUT_SECONDS)
    assert server.status["version"] == version
    server.wait_reachable()
    platform.postgres.query("DROP EVENT TRIGGER frozen", database)
    (failed,) = (job for job in jobs(server, "migration") if (job.get("status") or {}).get("failed"))
    command = f"kubectl delete job -n {server.kube.namespace} {failed['metadata']['name']}"
    assert command in message
    server.kube.run(*command.split())


def check_refused_rolling_update(server: Server, version: str) -> None:
    """The way from this version to the default one requires that all writers are stopped."""
    server.patch_spec(version=DEFAULT_VERSION, image=None, upgrade={"strategy": "RollingUpdate"})
    FaultExpectations(server).expect(
        "UpgradeReady",
        "UpgradeStrategyRefused",
        "requires that no server writes to the database",
        f"version {version} keeps running",
        within=UPGRADE_TIMEOUT_SECONDS,
    )
    assert server.status["version"] == version
    server.wait_reachable()
    server.patch_spec(upgrade={"strategy": "Recreate"})


@pytest.mark.start_early
@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs images of earlier versions; tests/unit/components/upgrade/test_reconcile.py simulates the steps"
)
def test_data_of_earlier_versions_is_readable_after_the_upgrade(
    platform: Platform, ns: Kube, earlier_images: dict[str, str]
) -> None:
    """Experiments, runs, models, aliases and artifacts. One of the migrations fails at first."""

    def upgrade_from(version: str) -> Object:
        server = Server(ns, f"from-{version.replace('.', '-')}")
        stores = {"database": platform.provision_spec(ns), "artifacts": platform.bucket_spec(ns, server.name)}
        server.apply(small_spec(version=version, image=earlier_images[version], **stores)).wait_ready(
            UPGRADE_TIMEOUT_SECONDS
        )
        data = log_data(server)
        assert data["client"] == version
        if version.startswith("3.16"):
            check_refused_rolling_update(server, version)
            check_failed_migration(platform, server, version)
        else:
            server.patch_spec(version=DEFAULT_VERSION, image=None)
        server.wait_ready(UPGRADE_TIMEOUT_SECONDS)
        assert server.status["version"] == DEFAULT_VERSION
        assert deployment_image(server).endswith(f":v{DEFAULT_VERSION}-full")
        check_data(server, data)
        status: Object = server.status["upgrade"]
        assert (status["fromVersion"], status["toVersion"]) == (version, DEFAULT_VERSION)
        assert status["fromRevision"] != status["toRevision"] == server.status["schemaRevision"]
        assert status["completionTime"]
        return status

    with ThreadPoolExecutor(PARALLEL_UPGRADES) as pool:
        for status in pool.map(upgrade_from, earlier_images):
            print(f"{status['fromVersion']}: {status['downtimeSeconds']} s of downtime")
            assert status["downtimeSeconds"] > 0
    workload = Workload(Server(ns, f"from-{min(earlier_images).replace('.', '-')}").url)
    workload.check_data(workload.log_data())


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs an earlier version's image; tests/unit/components/upgrade/test_reconcile.py simulates the steps"
)
def test_rolling_update_keeps_previous_servers_during_migration(
    platform: Platform, ns: Kube, earlier_images: dict[str, str]
) -> None:
    """Strategy RollingUpdate: the server answers all the time, and the logged data is available afterwards."""
    stores = {
        "database": platform.provision_spec(ns),
        "artifacts": platform.bucket_spec(ns, f"{ns.namespace}-rolls"),
    }
    upgrade = {"strategy": "RollingUpdate"}
    version = "3.17.2"
    server = Server(ns).apply(
        small_spec(version=version, image=earlier_images[version], upgrade=upgrade, **stores)
    )
    data, revision_before = (
        log_data(server.wait_ready(UPGRADE_TIMEOUT_SECONDS)),
        server.status["schemaRevision"],
    )
    errors, stopped = [], threading.Event()

    def poll_server() -> None:
        while not stopped.wait(timeouts.POLL_INTERVAL_SECONDS):
            try:
                requests.get(f"{server.url}/version", timeout=10).raise_for_status()
            except requests.RequestException as error:
                errors.append(repr(error))

    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(poll_server)
        try:
            server.patch_spec(version=DEFAULT_VERSION, image=None)
            server.wait_ready(UPGRADE_TIMEOUT_SECONDS)
        finally:
            stopped.set()
        polling.result()
    assert errors == []
    status = server.status["upgrade"]
    assert (status["fromVersion"], status["toVersion"]) == (version, DEFAULT_VERSION)
    assert status["downtimeSeconds"] == 0
    assert status["fromRevision"] == revision_before != status["toRevision"]
    check_data(server, data)
