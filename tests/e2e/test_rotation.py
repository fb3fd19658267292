"""What a server reads changes: its pods roll and have the new values, and the old pod serves until a new one does.

The tests share one server on the platform's stores; each leaves it Ready.
"""

import pytest
import requests

from tests.e2e import timeouts
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.shared_stores import Platform

GROUP = "rotation"

pytestmark = pytest.mark.start_early


def config_map(**values: str) -> Object:
    """ConfigMap `team` with these values."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "team"}, "data": values}


def environment(server: Server, variable: str) -> str:
    """A variable as the running server process has it."""
    return server.kube.kubectl("exec", server.pod()["metadata"]["name"], "--", "printenv", variable).strip()


def status(server: Server, host: str) -> int:
    """What the server answers to a request with this Host header."""
    url = f"{server.url}/api/2.0/mlflow/experiments/search?max_results=1"
    return requests.get(url, headers={"Host": host}, timeout=10).status_code


@pytest.fixture(scope="module")
def _server(module_ns: Kube, _platform: Platform) -> Server:
    module_ns.apply(config_map(TEAM="one"), secret("token", value="first"))
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}]
    return Server(module_ns).apply(
        small(
            envFrom=[{"configMapRef": {"name": "team"}}],
            env=env,
            allowedHosts=["mlflow.team.example"],
            **_platform.stores(module_ns),
        )
    )


@pytest.fixture
def server(_server: Server, evidence_of_module: None) -> Server:
    """The module's server, Ready with one pod."""
    _server.ready()
    eventually("the roll-out is over", lambda: len(_server.pods("server")) == 1, timeouts.GONE)
    return _server


def test_a_database_with_current_tables_needs_no_migration_job(server: Server) -> None:
    """A server may be created on what an earlier one left."""
    assert not server.kube.list("Job")
    assert server.status["schemaRevision"]


def test_pods_roll_when_a_config_map_changes(server: Server) -> None:
    """At the next resync at the latest: the operator does not watch ConfigMaps."""
    old = server.pod()
    server.kube.apply(config_map(TEAM="two"))
    server.replaced("server", old, timeouts.NOTICED + timeouts.ROLLED)
    assert environment(server, "TEAM") == "two"


def test_pods_roll_when_a_secret_changes(server: Server) -> None:
    """One variable comes from it."""
    old = server.pod()
    assert environment(server, "TOKEN") == "first"
    server.kube.apply(secret("token", value="second"))
    server.look()
    server.replaced("server", old, timeouts.ROLLED)
    assert environment(server, "TOKEN") == "second"


def test_host_names_of_the_spec_are_answered_and_no_others(server: Server) -> None:
    """With and without a port; adding one rolls the pods."""
    assert status(server, "mlflow.team.example") == requests.codes.ok
    assert status(server, "mlflow.team.example:443") == requests.codes.ok
    assert status(server, "other.team.example") == requests.codes.forbidden
    server.change(allowedHosts=["mlflow.team.example", "other.team.example"])
    server.ready()
    eventually(
        "the new name is answered",
        lambda: status(server, "other.team.example") == requests.codes.ok,
        timeouts.ROLLED,
    )


def test_a_database_password_changed_by_its_owner_is_used(server: Server, platform: Platform) -> None:
    """First in Postgres, then in the Secret: nobody restarts anything by hand."""
    ns, scientist = server.kube, Scientist(server.url)
    work, old = scientist.work(), server.pod()
    user = str(server.live()["spec"]["database"]["external"]["databaseName"])
    platform.postgres.query(f"ALTER ROLE \"{user}\" PASSWORD 'another/one@now'")
    ns.apply(secret("tracking-database", username=user, password="another/one@now"))
    server.look()
    server.replaced("server", old, timeouts.ROLLED)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'"
    platform.postgres.query(ended.format(user))
    server.ready()
    scientist.finds(work)


def test_a_crash_of_new_pods_is_reported_while_the_old_pod_serves(server: Server) -> None:
    """With its last lines, or with the command that shows them where there is nothing to quote."""
    ns, faults, old = server.kube, Faults(server), server.pod()["metadata"]["uid"]
    ns.apply(config_map(PYTHONHASHSEED="nonsense"))
    server.look()
    faults.told(
        "ServerAvailable",
        "ServerCrashing",
        "exit code 1",
        "Its last lines:",
        "PYTHONHASHSEED must be",
        within=timeouts.ROLLED,
    )
    # uvicorn takes this for all the requests that it shall ever answer, and ends with exit code 0
    ns.apply(config_map(UVICORN_LIMIT_MAX_REQUESTS="0"))
    server.look()
    message = faults.told(
        "ServerAvailable",
        "ServerCrashing",
        "exit code 0",
        f"kubectl logs -n {ns.namespace}",
        within=timeouts.ROLLED,
    )
    command = message.partition("kubectl ")[2].split()

    def shown() -> bool:
        try:
            return "Maximum request limit of 0 exceeded" in ns.kubectl(*command)
        except CommandError:
            return False  # until the container has been started again there is no previous one

    eventually(f"{command} shows why", shown, timeouts.SETTLED)
    server.answers()
    assert old in {pod["metadata"]["uid"] for pod in server.pods("server")}
    ns.apply(config_map(TEAM="two"))
    server.look()
    faults.mended("ServerAvailable", within=timeouts.ROLLED)
    server.ready()
