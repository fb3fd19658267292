"""Releases come and go, of a server and of the operator: data and servers stay."""

import pytest
import yaml

from tests.e2e import release, timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, small

CHART = "charts/mlflow-server"
NAME = "tracking"
KINDS = ("MLflowServer", "Deployment", "StatefulSet", "Service", "ConfigMap", "Secret", "Pod")
VOLUMES = "PersistentVolumeClaim"


def helm(kube: Kube, *args: str, values: Object | None = None, within: float = 300) -> str:
    """Helm in the namespace; `values` as of a file."""
    given = ("-f", "-") if values is not None else ()
    return kube.run("helm", "-n", kube.namespace, *args, *given, stdin=yaml.safe_dump(values), within=within)


def uids(kube: Kube, *kinds: str) -> dict[tuple[str, str], str]:
    """What the namespace holds of these kinds: a name that comes back with another uid was made anew."""
    return {
        (kind, obj["metadata"]["name"]): obj["metadata"]["uid"] for kind in kinds for obj in kube.list(kind)
    }


def test_a_server_s_data_outlives_its_release(ns: Kube) -> None:
    """Installed, tested by `helm test`, upgraded, rolled back, uninstalled, installed again: the run is there."""
    values = {**small(), "labels": {"example.com/team": "a"}}
    notes = helm(ns, "install", NAME, CHART, values=values)
    assert f"mlflowserver/{NAME}" in notes
    # Asked at once: the test's pod waits for the server by itself.
    said = ns.run("sh", "-c", f"helm -n {ns.namespace} test {NAME} 2>&1")
    assert "ok  the artifact is read back, byte for byte" in said
    assert "Phase:          Succeeded" in said
    server = Server(ns, NAME).ready()
    assert server.live()["metadata"]["labels"]["example.com/team"] == "a"
    work = Scientist(server.url).work()
    before = uids(ns, *KINDS, VOLUMES)

    ns.kubectl("scale", f"mlflowserver/{NAME}", "--replicas=0")
    mark = {"example.com/mark": "upgraded"}
    changed = {**values, "service": {**values["service"], "annotations": mark}}
    helm(ns, "upgrade", NAME, CHART, values=changed)
    eventually("the upgrade arrives", lambda: marked(server) == mark, timeouts.SETTLED)
    assert server.live()["spec"]["replicas"] == 0, "an upgrade undid what kubectl scale had set"
    assert server.status["image"] in helm(ns, "get", "hooks", NAME)
    helm(ns, "rollback", NAME, "1")
    eventually("the rollback arrives", lambda: not marked(server), timeouts.SETTLED)
    ns.kubectl("scale", f"mlflowserver/{NAME}", "--replicas=1")
    server.ready()
    after = uids(ns, *KINDS, VOLUMES)
    assert {key: uid for key, uid in before.items() if key[0] != "Pod" and after.get(key) != uid} == {}

    helm(ns, "uninstall", NAME, "--wait")
    eventually("the server's pods are gone", lambda: not server.pods(), timeouts.GONE)
    assert not ns.list("MLflowServer")
    assert uids(ns, VOLUMES) == {key: uid for key, uid in before.items() if key[0] == VOLUMES}
    helm(ns, "install", NAME, CHART, values=values)
    server.ready()
    Scientist(server.url).finds(work)
    assert uids(ns, VOLUMES) == {key: uid for key, uid in before.items() if key[0] == VOLUMES}


def marked(server: Server) -> Object:
    """The Service's annotations that the test's values name."""
    annotations = server.service["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key.startswith("example.com/")}


def test_what_the_definition_forbids_is_told_by_helm(ns: Kube) -> None:
    """The API server's own sentence, with the way out, where a schema of values can't see it."""
    both = {"database": {"embedded": {}, "external": {"host": "db", "credentialsSecretRef": {"name": "db"}}}}
    with pytest.raises(AssertionError, match=r"spec\.database takes at most one of embedded, external"):
        helm(ns, "install", NAME, CHART, values=both)


@pytest.mark.restarts_operator
def test_servers_run_on_while_the_operator_s_release_comes_and_goes(shared: Server) -> None:
    """Uninstalled, installed again, upgraded, rolled back: nothing is made anew, and it is at work afterwards."""
    kube = shared.kube
    work = Scientist(shared.url).work()
    everything = (*KINDS, VOLUMES)
    before = uids(kube, *everything)
    release.uninstall(kube, namespace=release.NAMESPACE, release=release.RELEASE)
    eventually("the operator is gone", lambda: not release.pods(kube), timeouts.GONE)
    Scientist(shared.url).finds(work)
    assert uids(kube, *everything) == before

    release.install(kube)
    back(shared)
    release.install(kube, "log.level=debug")
    helm(kube.within(release.NAMESPACE), "rollback", release.RELEASE, "--wait", "--timeout", release.WAIT)
    back(shared)
    Scientist(shared.url).finds(work)
    assert uids(kube, *everything) == before


def back(server: Server) -> None:
    """Waits until somebody mends what clients are told."""
    name = server.names.client
    right = server.kube.need("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere.example.com"}})
    eventually(
        f"ConfigMap {name} is repaired",
        lambda: server.kube.need("ConfigMap", name)["data"] == right,
        timeouts.SETTLED,
    )
