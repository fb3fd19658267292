"""Changes of ConfigMaps, Secrets and passwords roll a server's pods; the old pod serves until the new pod is ready.

The tests share one server on the platform's stores, and each leaves it Ready.
"""

import pytest
import requests

from tests.e2e import timeouts
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform

GROUP = "rotation"

pytestmark = pytest.mark.start_early


def config_map(**values: str) -> Object:
    """Return the ConfigMap `team` with these values."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "team"}, "data": values}


def environment_variable(server: Server, variable: str) -> str:
    """Return an environment variable of the server's container."""
    return server.kube.kubectl("exec", server.pod()["metadata"]["name"], "--", "printenv", variable).strip()


def status_code(server: Server, host: str) -> int:
    """Return the status code of a request with this Host header."""
    url = f"{server.url}/api/2.0/mlflow/experiments/search?max_results=1"
    return requests.get(url, headers={"Host": host}, timeout=10).status_code


@pytest.fixture(scope="module")
def _server(module_ns: Kube, _platform: Platform) -> Server:
    module_ns.apply(config_map(TEAM="one"), secret("token", value="first"))
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}]
    return Server(module_ns).apply(
        small_spec(
            envFrom=[{"configMapRef": {"name": "team"}}],
            env=env,
            allowedHosts=["mlflow.team.example"],
            **_platform.stores_spec(module_ns),
        )
    )


@pytest.fixture
def server(_server: Server, module_evidence: None) -> Server:
    """The module's server, Ready and with one pod."""
    _server.wait_ready()
    eventually("the rollout is complete", lambda: len(_server.pods("server")) == 1, timeouts.DELETION_SECONDS)
    return _server


def test_database_with_current_schema_needs_no_migration_job(server: Server) -> None:
    """A server may use the database of an earlier server."""
    assert not server.kube.list("Job")
    assert server.status["schemaRevision"]


def test_config_map_change_rolls_pods(server: Server) -> None:
    """At the next resync at the latest: the operator does not watch ConfigMaps."""
    old = server.pod()
    server.kube.apply(config_map(TEAM="two"))
    server.wait_replaced("server", old, timeouts.RESYNC_SECONDS + timeouts.ROLLOUT_SECONDS)
    assert environment_variable(server, "TEAM") == "two"


def test_secret_change_rolls_pods(server: Server) -> None:
    """The Secret provides one environment variable."""
    old = server.pod()
    assert environment_variable(server, "TOKEN") == "first"
    server.kube.apply(secret("token", value="second"))
    server.trigger_reconcile()
    server.wait_replaced("server", old, timeouts.ROLLOUT_SECONDS)
    assert environment_variable(server, "TOKEN") == "second"


def test_only_allowed_hosts_of_spec_are_accepted(server: Server) -> None:
    """With and without a port. Adding a host rolls the pods."""
    assert status_code(server, "mlflow.team.example") == requests.codes.ok
    assert status_code(server, "mlflow.team.example:443") == requests.codes.ok
    assert status_code(server, "other.team.example") == requests.codes.forbidden
    server.patch_spec(allowedHosts=["mlflow.team.example", "other.team.example"])
    server.wait_ready()
    eventually(
        "the new host is accepted",
        lambda: status_code(server, "other.team.example") == requests.codes.ok,
        timeouts.ROLLOUT_SECONDS,
    )


def test_changed_database_password_is_used(server: Server, platform: Platform) -> None:
    """The password is changed first in Postgres, then in the Secret; no manual restart is necessary."""
    ns, workload = server.kube, Workload(server.url)
    data, old = workload.log_data(), server.pod()
    user = str(server.resource()["spec"]["database"]["external"]["databaseName"])
    platform.postgres.query(f"ALTER ROLE \"{user}\" PASSWORD 'another/one@now'")
    ns.apply(secret("tracking-database", username=user, password="another/one@now"))
    server.trigger_reconcile()
    server.wait_replaced("server", old, timeouts.ROLLOUT_SECONDS)
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'"
    platform.postgres.query(statement.format(user))
    server.wait_ready()
    workload.check_data(data)


def test_crash_of_new_pods_is_reported_while_the_old_pod_serves(server: Server) -> None:
    """The message has the last log lines, or the command that shows the log if there are no lines to quote."""
    ns, faults, old = server.kube, FaultExpectations(server), server.pod()["metadata"]["uid"]
    ns.apply(config_map(PYTHONHASHSEED="nonsense"))
    server.trigger_reconcile()
    faults.expect(
        "ServerAvailable",
        "ServerCrashing",
        "exit code 1",
        "Its last lines:",
        "PYTHONHASHSEED must be",
        within=timeouts.ROLLOUT_SECONDS,
    )
    # with this limit of requests, uvicorn ends at once, with exit code 0
    ns.apply(config_map(UVICORN_LIMIT_MAX_REQUESTS="0"))
    server.trigger_reconcile()
    message = faults.expect(
        "ServerAvailable",
        "ServerCrashing",
        "exit code 0",
        f"kubectl logs -n {ns.namespace}",
        within=timeouts.ROLLOUT_SECONDS,
    )
    command = message.partition("kubectl ")[2].split()

    def log_shows_cause() -> bool:
        try:
            return "Maximum request limit of 0 exceeded" in ns.kubectl(*command)
        except CommandError:
            return False  # no previous container until the first restart

    eventually(f"{command} shows the cause", log_shows_cause, timeouts.STATUS_SECONDS)
    server.wait_reachable()
    assert old in {pod["metadata"]["uid"] for pod in server.pods("server")}
    ns.apply(config_map(TEAM="two"))
    server.trigger_reconcile()
    faults.expect_recovery("ServerAvailable", within=timeouts.ROLLOUT_SECONDS)
    server.wait_ready()
