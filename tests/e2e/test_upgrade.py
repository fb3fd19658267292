"""Upgrades from earlier versions of MLflow. test_new_image tests what needs no other schema."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.e2e import timeouts
from tests.e2e.earlier_data import finds, logged
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import COMPONENT, SERVER_LABEL, Server, small
from tests.e2e.shared_stores import Platform

FROZEN = "the tables of this team are frozen"
LONG = 2 * timeouts.READY
"""Seconds for an upgrade, with others on the same two cores."""

AT_A_TIME = 2
"""With three, and what other tests do, the API server was once silent for so long that the operator lost its lease."""


def image(server: Server) -> str:
    """What its Deployment runs."""
    made = server.kube.need("Deployment", server.names.deployment)
    return str(made["spec"]["template"]["spec"]["containers"][0]["image"])


def jobs(server: Server, component: str) -> list[Object]:
    """Its Jobs of a kind: `migration`, `preflight`."""
    return server.kube.list("Job", {SERVER_LABEL: server.name, COMPONENT: component})


def freeze(platform: Platform, database: str) -> None:
    """From now on no table there can be made or changed, whatever rights a user has."""
    platform.postgres.query(
        "CREATE FUNCTION frozen() RETURNS event_trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{FROZEN}'; END $$",
        database,
    )
    platform.postgres.query(
        "CREATE EVENT TRIGGER frozen ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', "
        "'CREATE INDEX', 'DROP INDEX') EXECUTE FUNCTION frozen()",
        database,
    )


def fails_first(platform: Platform, server: Server, version: str) -> None:
    """Its migration fails, the server of before serves again; mended, the upgrade goes on when the Job is deleted."""
    database = server.status["database"]["name"]
    freeze(platform, database)
    server.change(version=DEFAULT_VERSION, image=None)
    told = server.until("SchemaReady", "False", "MigrationFailed", within=LONG)
    assert FROZEN in told["message"]
    assert "and so is what serves" in told["message"]
    server.until("ServerAvailable", within=LONG)
    assert server.status["version"] == version
    server.answers()
    platform.postgres.query("DROP EVENT TRIGGER frozen", database)
    (failed,) = (job for job in jobs(server, "migration") if (job.get("status") or {}).get("failed"))
    command = f"kubectl delete job -n {server.kube.namespace} {failed['metadata']['name']}"
    assert command in told["message"]
    server.kube.run(*command.split())


@pytest.mark.start_early
@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs images of earlier versions; tests/unit/components/migration/test_reconcile.py plays the steps"
)
def test_data_of_earlier_versions_is_readable_after_the_upgrade(
    platform: Platform, ns: Kube, earlier: dict[str, str]
) -> None:
    """Experiments, runs, models, aliases, artifacts. In one of them the migration fails at first."""

    def life(version: str) -> Object:
        server = Server(ns, f"from-{version.replace('.', '-')}")
        stores = {"database": platform.provision(), "artifacts": platform.bucket(server.name)}
        server.apply(small(version=version, image=earlier[version], **stores)).ready(LONG)
        work = logged(server)
        assert work["client"] == version
        if version.startswith("3.16"):
            fails_first(platform, server, version)
        else:
            server.change(version=DEFAULT_VERSION, image=None)
        server.ready(LONG)
        assert server.status["version"] == DEFAULT_VERSION
        assert image(server).endswith(f":v{DEFAULT_VERSION}-full")
        finds(server, work)
        told: Object = server.status["upgrade"]
        assert (told["fromVersion"], told["toVersion"]) == (version, DEFAULT_VERSION)
        assert told["fromRevision"] != told["toRevision"] == server.status["schemaRevision"]
        assert told["completionTime"]
        return told

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for told in pool.map(life, earlier):
            print(f"{told['fromVersion']}: nobody answered for {told['downtimeSeconds']} s")
            assert told["downtimeSeconds"] > 0
    scientist = Scientist(Server(ns, f"from-{min(earlier).replace('.', '-')}").url)
    scientist.finds(scientist.work())


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs an earlier version's image; tests/unit/components/migration/test_reconcile.py plays the steps"
)
def test_servers_of_before_may_go_on_while_their_tables_move(
    platform: Platform, ns: Kube, earlier: dict[str, str]
) -> None:
    """RollingUpdate: somebody listens all the time, and what was logged is there."""
    stores = {"database": platform.provision(), "artifacts": platform.bucket(f"{ns.namespace}-rolls")}
    upgrade = {"strategy": "RollingUpdate"}
    version = "3.16.1"
    server = Server(ns).apply(small(version=version, image=earlier[version], upgrade=upgrade, **stores))
    work, before = logged(server.ready(LONG)), server.status["schemaRevision"]
    silent, over = [], threading.Event()

    def listen() -> None:
        while not over.wait(timeouts.POLL):
            try:
                requests.get(f"{server.url}/version", timeout=10).raise_for_status()
            except requests.RequestException as error:
                silent.append(repr(error))

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        try:
            server.change(version=DEFAULT_VERSION, image=None)
            server.ready(LONG)
        finally:
            over.set()
        listening.result()
    assert silent == []
    told = server.status["upgrade"]
    assert (told["fromVersion"], told["toVersion"], told["downtimeSeconds"]) == (version, DEFAULT_VERSION, 0)
    assert told["fromRevision"] == before != told["toRevision"]
    finds(server, work)
