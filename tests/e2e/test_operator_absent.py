"""The operator is killed, and uninstalled by Helm: servers keep serving, and the next operator takes them over."""

import pytest

from mlflow_operator.kube import labels
from tests.e2e import fault_injection, operator_release, timeouts
from tests.e2e.helm import uids
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually, is_ready, restarts, small

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
GONE = 90.0
"""Seconds within which a server is gone after it was deleted."""


def kill_operator(kube: Kube) -> None:
    """SIGKILL to its process, from outside of its container; waits until it runs again."""
    (pod,) = operator_release.pods(kube)
    fault_injection.kill(kube, pod)

    def again() -> bool:
        found = operator_release.pods(kube)
        return bool(found) and restarts(found[0]) > restarts(pod) and is_ready(found[0])

    eventually("the operator runs again after SIGKILL", again, timeouts.SETTLED)


def repairs(server: Server) -> None:
    """Waits until the operator has set right what the test changes in the ConfigMap for clients."""
    name = server.names.client
    right = server.kube.need("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere.example.com"}})
    eventually(
        f"ConfigMap {name} is repaired",
        lambda: server.kube.need("ConfigMap", name)["data"] == right,
        timeouts.ROLLED,
    )


def sentence(server: Server, reason: str) -> str:
    """The message of the one Event about a server with this reason."""

    def found() -> list[str]:
        return [
            event["message"]
            for event in server.kube.list("Event")
            if event["involvedObject"]["name"] == server.name and event["reason"] == reason
        ]

    (message,) = eventually(f"an Event {reason}", found, timeouts.NOTICED)
    return str(message)


@pytest.mark.restarts_operator
def test_servers_serve_without_the_operator_and_the_next_one_takes_them_over(kube: Kube, ns: Kube) -> None:
    """A server with deletionPolicy Delete keeps its data while there is no operator, and an Event says so.

    Alone, because every server of the cluster has the same operator.
    """
    server = Server(ns).apply(small(deletionPolicy="Delete")).ready()
    work = Scientist(server.url).work()
    passwords, before = server.generated(), uids(ns, *KINDS)
    assert server.live()["metadata"]["finalizers"] == [labels.FINALIZER]

    kill_operator(ns)
    repairs(server)
    Scientist(server.ready(timeouts.SETTLED).url).finds(work)
    assert uids(ns, *KINDS) == before

    operator_release.uninstall(kube, namespace=operator_release.NAMESPACE, release=operator_release.RELEASE)
    try:
        assert not operator_release.pods(kube)
        assert not server.live()["metadata"].get("finalizers")
        message = sentence(server, "DataKept")
        assert "being uninstalled" in message
        assert '"tracking-postgres-data"' in message
        scientist = Scientist(server.url)
        scientist.finds(work)
        unattended = scientist.work("unattended")
        assert uids(ns, *KINDS) == before
        ns.kubectl("delete", "mlflowserver", server.name, f"--timeout={GONE:.0f}s")
        eventually("its pods are gone", lambda: not ns.list("Pod"), GONE)
    finally:
        operator_release.install(kube)
    kept = {("Secret", name) for name in (server.names.database_secret, server.names.artifacts_secret)}
    eventually("credentials are kept", lambda: uids(ns, "Secret").keys() == kept, timeouts.GONE)
    claims = uids(ns, "PersistentVolumeClaim")
    assert claims == {key: uid for key, uid in before.items() if key[0] == "PersistentVolumeClaim"}

    server.apply(small(deletionPolicy="Delete")).ready()
    assert server.generated()["database password"] == passwords["database password"]
    for each in (work, unattended):
        Scientist(server.url).finds(each)
    ns.kubectl("delete", "mlflowserver", server.name, f"--timeout={GONE:.0f}s")
    eventually("its data is gone", lambda: not uids(ns, "Secret", "PersistentVolumeClaim"), timeouts.GONE)
    assert sentence(server, "DataDeleted")
