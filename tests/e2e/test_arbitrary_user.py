"""Namespaces that prescribe a user id: every image works under any id that is not root."""

from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, small

USER = 1000650000


def test_all_pods_run_under_an_id_that_no_image_knows(ns: Kube) -> None:
    """As OpenShift does it; the whole way, with files on all volumes."""
    ids = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    server = Server(ns).apply(small(podTemplate={"spec": {"securityContext": ids}})).ready()
    pods = server.pods()
    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in pods} == {USER}
    for component in ("server", "database", "artifact-store"):
        name = server.pod(component)["metadata"]["name"]
        assert ns.kubectl("exec", name, "--", "id", "-u").strip() == str(USER)
    scientist = Scientist(server.url)
    scientist.finds(scientist.work())
