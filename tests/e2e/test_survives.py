"""Pods die, and so does the operator: nothing that was logged is lost, and all is Ready again."""

import pytest
import requests

from tests.e2e import release, timeouts, trouble
from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, is_ready, restarts, small


@pytest.mark.restarts_operator
def test_nothing_logged_is_lost_whoever_dies(ns: Kube) -> None:
    """Each pod in turn, without a grace, then the operator by SIGKILL."""
    server = Server(ns).apply(small()).ready()
    scientist = Scientist(server.url)
    works = [scientist.work("before")]

    for component in ("server", "database", "artifact-store"):
        old = server.pod(component)
        ns.delete("Pod", old["metadata"]["name"], grace=0)
        server.replaced(component, old)
        server.ready(timeouts.ROLLED)
        works.append(scientist.work(f"after-{component}"))
        for work in works:
            scientist.finds(work)

    kill_operator(ns)
    server.ready(timeouts.SETTLED)
    for work in works:
        scientist.finds(work)
    ns.delete("Service", server.names.service)
    eventually("the operator works again", lambda: ns.get("Service", server.names.service), timeouts.ROLLED)


@pytest.mark.restarts_operator
def test_an_operator_killed_half_way_finishes_what_it_began(ns: Kube) -> None:
    """SIGKILL while the first objects are being made; no object is made twice, no password twice."""
    server = Server(ns).apply(small())
    eventually("the first Secret is made", lambda: ns.get("Secret", server.names.database_secret), 30)
    generated = ns.need("Secret", server.names.database_secret)["data"]
    kill_operator(ns)
    server.ready()
    assert ns.need("Secret", server.names.database_secret)["data"] == generated
    assert len(ns.list("Job")) == 1
    scientist = Scientist(server.url)
    scientist.finds(scientist.work())


@pytest.mark.restarts_operator
def test_the_server_serves_while_the_operator_is_away(shared: Server) -> None:
    """The operator is no part of the way from a client to its data."""
    operator = shared.kube.within(release.NAMESPACE)
    operator.kubectl("scale", f"deployment/{release.RELEASE}", "--replicas=0")
    try:
        eventually("the operator is gone", lambda: not release.pods(operator), timeouts.GONE)
        scientist = Scientist(shared.url)
        scientist.finds(scientist.work("unattended"))
        assert requests.get(f"{shared.url}/health", timeout=5).ok
    finally:
        operator.kubectl("scale", f"deployment/{release.RELEASE}", "--replicas=1")
        operator.kubectl("rollout", "status", f"deployment/{release.RELEASE}", "--timeout=60s")


def kill_operator(kube: Kube) -> None:
    """SIGKILL to its process, from outside of its container; waits until it runs again."""
    (pod,) = release.pods(kube)
    trouble.kill(kube, pod)

    def again() -> bool:
        found = release.pods(kube)
        return bool(found) and restarts(found[0]) > restarts(pod) and is_ready(found[0])

    eventually("the operator runs again after SIGKILL", again, timeouts.SETTLED)
