"""An operator that may see a list of namespaces and nothing else of the cluster."""

from collections.abc import Iterator

import pytest

from mlflow_operator.core import labels
from tests.e2e import release, timeouts
from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, small

RELEASE = "mlflow-operator-narrow"


@pytest.fixture
def narrow(kube: Kube, ns: Kube) -> Iterator[None]:
    """An operator for the namespace `ns` alone, in the place of the one for all."""
    everywhere = kube.within(release.NAMESPACE)
    everywhere.kubectl("scale", f"deployment/{release.RELEASE}", "--replicas=0")
    eventually("the other operator is gone", lambda: not release.pods(kube), timeouts.GONE)
    names = f"watchNamespaces={{{ns.namespace}}}"
    release.install(
        kube, names, "crds.install=false", "userRoles.create=false", namespace=RELEASE, release=RELEASE
    )
    yield
    release.uninstall(kube, namespace=RELEASE, release=RELEASE)
    held = [server for server in ns.list("MLflowServer") if server["metadata"].get("finalizers")]
    kube.kubectl("delete", "namespace", RELEASE, "--wait=false")
    everywhere.kubectl("scale", f"deployment/{release.RELEASE}", "--replicas=1")
    everywhere.kubectl("rollout", "status", f"deployment/{release.RELEASE}", "--timeout=60s")
    assert not held, "the operator is gone, and they would wait for it"


@pytest.mark.restarts_operator
def test_an_operator_of_some_namespaces_needs_no_right_on_the_cluster(
    narrow: None, ns: Kube, other_ns: Kube
) -> None:
    """Its own namespace is served, another is not touched, and no ClusterRole is bound to it."""
    elsewhere = Server(other_ns).apply(small())
    server = Server(ns).apply(small(deletionPolicy="Delete")).ready()
    scientist = Scientist(server.url)
    scientist.finds(scientist.work())
    assert not other_ns.list("Secret")
    assert not elsewhere.live().get("status")

    bound = ns.kubectl(
        "get", "clusterrolebindings", "-o", "name", "-l", f"app.kubernetes.io/instance={RELEASE}"
    )
    assert not bound.strip()
    account = f"system:serviceaccount:{RELEASE}:{RELEASE}"
    for verb, what in (("list", "pods"), ("get", "secrets")):
        answer = other_ns.run(
            "sh", "-c", f"kubectl auth can-i {verb} {what} -n {other_ns.namespace} --as {account} || true"
        )
        assert answer.strip() == "no"
    narrowed = ns.within(RELEASE)
    ns.delete("Service", server.names.service)
    eventually(
        "what is deleted comes back", lambda: ns.get("Service", server.names.service), timeouts.REPAIRED
    )
    assert server.live()["metadata"]["finalizers"] == [labels.FINALIZER]
    log = narrowed.kubectl("logs", f"deployment/{RELEASE}")
    assert not release.complaints(log.splitlines())
