"""The operator is killed and uninstalled by Helm: servers keep serving, and the next operator adopts them."""

import pytest

from mlflow_operator.kube import labels
from tests.e2e import fault_injection, operator_release, timeouts
from tests.e2e.helm import uids
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually, is_ready, restart_count, small_spec

KINDS = (
    "MLflowServer",
    "Deployment",
    "StatefulSet",
    "Service",
    "ConfigMap",
    "Secret",
    "Pod",
    "PersistentVolumeClaim",
)
DELETION_TIMEOUT_SECONDS = 90.0
"""Limit for the deletion of a server."""


def kill_operator(kube: Kube) -> None:
    """Kill the operator's process with SIGKILL from outside its container, and wait until it is ready again."""
    (pod,) = operator_release.pods(kube)
    fault_injection.kill(kube, pod)

    def is_restarted() -> bool:
        found = operator_release.pods(kube)
        return bool(found) and restart_count(found[0]) > restart_count(pod) and is_ready(found[0])

    eventually("the operator is ready again after SIGKILL", is_restarted, timeouts.STATUS_SECONDS)


def wait_for_repair(server: Server) -> None:
    """Change the ConfigMap for clients, and wait until the operator has repaired it."""
    name = server.names.client
    expected = server.kube.require("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere.example.com"}})
    eventually(
        f"ConfigMap {name} is repaired",
        lambda: server.kube.require("ConfigMap", name)["data"] == expected,
        timeouts.ROLLOUT_SECONDS,
    )


def event_message(server: Server, reason: str) -> str:
    """Wait for an Event about a server with this reason; returns its message, which must be the only one.

    The operator publishes the Event again if the write that follows it fails.
    """

    def found() -> set[str]:
        return {
            event["message"]
            for event in server.kube.list("Event")
            if event["involvedObject"]["name"] == server.name and event["reason"] == reason
        }

    (message,) = eventually(f"an Event {reason}", found, timeouts.RESYNC_SECONDS)
    return str(message)


@pytest.mark.restarts_operator
def test_servers_keep_serving_without_operator_and_are_adopted_by_the_next(kube: Kube, ns: Kube) -> None:
    """A server with deletionPolicy Delete keeps its data while there is no operator, and an Event reports that.

    The test runs alone, because all servers of the cluster have the same operator.
    """
    server = Server(ns).apply(small_spec(deletionPolicy="Delete")).wait_ready()
    data_before = Workload(server.url).log_data()
    passwords, before = server.generated_values(), uids(ns, *KINDS)
    assert server.resource()["metadata"]["finalizers"] == [labels.FINALIZER]

    kill_operator(ns)
    wait_for_repair(server)
    Workload(server.wait_ready(timeouts.STATUS_SECONDS).url).check_data(data_before)
    assert uids(ns, *KINDS) == before

    operator_release.uninstall(kube, namespace=operator_release.NAMESPACE, release=operator_release.RELEASE)
    try:
        assert not operator_release.pods(kube)
        assert not server.resource()["metadata"].get("finalizers")
        message = event_message(server, "DataKept")
        assert "being uninstalled" in message
        assert '"tracking-postgres-data"' in message
        workload = Workload(server.url)
        workload.check_data(data_before)
        data_meanwhile = workload.log_data("unattended")
        assert uids(ns, *KINDS) == before
        ns.kubectl("delete", "mlflowserver", server.name, f"--timeout={DELETION_TIMEOUT_SECONDS:.0f}s")
        eventually("its pods are gone", lambda: not ns.list("Pod"), DELETION_TIMEOUT_SECONDS)
    finally:
        operator_release.install(kube)
    names = server.names
    expected_secrets = {
        ("Secret", name) for name in (names.database_secret, names.artifacts_secret, names.encryption_secret)
    }
    eventually(
        "only the generated credentials are left",
        lambda: uids(ns, "Secret").keys() == expected_secrets,
        timeouts.DELETION_SECONDS,
    )
    claims = uids(ns, "PersistentVolumeClaim")
    assert claims == {key: uid for key, uid in before.items() if key[0] == "PersistentVolumeClaim"}

    server.apply(small_spec(deletionPolicy="Delete")).wait_ready()
    assert server.generated_values()["database password"] == passwords["database password"]
    for data in (data_before, data_meanwhile):
        Workload(server.url).check_data(data)
    ns.kubectl("delete", "mlflowserver", server.name, f"--timeout={DELETION_TIMEOUT_SECONDS:.0f}s")
    eventually(
        "its data is gone", lambda: not uids(ns, "Secret", "PersistentVolumeClaim"), timeouts.DELETION_SECONDS
    )
    assert event_message(server, "DataDeleted")
