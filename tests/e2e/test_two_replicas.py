"""Two replicas on an empty database: servers never migrate, so none of them dies of the other."""

from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, restarts, small


def test_two_replicas_start_clean(ns: Kube) -> None:
    """No restart of any container; both know the same; one of them may go at any time."""
    server = Server(ns).apply(small(replicas=2)).ready()
    pods = server.pods("server")
    assert len(pods) == 2
    assert [restarts(pod) for pod in server.pods()] == [0] * len(server.pods())
    budget = ns.need("PodDisruptionBudget", server.names.deployment)
    assert budget["status"]["disruptionsAllowed"] == 1

    scientist = Scientist(server.url)
    work = scientist.work()
    # new connections are spread at random: enough of them meet both
    for _ in range(6):
        scientist.finds(work)
    ns.kubectl("scale", f"mlflowserver/{server.name}", "--replicas=1")
    eventually("one replica is left", lambda: len(server.pods("server")) == 1, 60)
    eventually("its budget is gone", lambda: not ns.get("PodDisruptionBudget", server.names.deployment), 60)
    scientist.finds(work)
