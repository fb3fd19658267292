"""Whatever befalls the operator, the API server or the network between them: not one object of a server moves."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.cluster import operator_image
from tests.e2e import fault_injection, operator_release, timeouts
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Scientist, Work
from tests.e2e.server import Server, eventually, is_ready, restarts

GROUP = "shared"

OUTAGE = 90.0
"""Seconds without a packet: longer than a lease, a request and a silent watch last."""

COUNTED = ("MLflowServer", "Deployment", "StatefulSet", "PodDisruptionBudget", "Job")
"""Kinds whose every change of the spec raises `metadata.generation`."""


OUTAGE_TEST = pytest.mark.long_running(
    reason="nothing can run beside it; tests/integration/test_outages.py and test_election.py make the same outages"
)


@pytest.fixture(scope="module")
def work(_shared: Server) -> Work:
    """A run, a file and a model, logged before anything happens."""
    return Scientist(_shared.ready().url).work("outages")


def made_of(kube: Kube) -> dict[str, tuple[object, ...]]:
    """What a server is made of: each object's uid and contents, each pod's template and restarts."""
    facts: dict[str, tuple[object, ...]] = {}
    for kind in COUNTED:
        for obj in kube.list(kind):
            meta = obj["metadata"]
            facts[f"{kind} {meta['name']}"] = (meta["uid"], meta["generation"])
    for kind in ("Service", "ConfigMap", "Secret", "PersistentVolumeClaim"):
        for obj in kube.list(kind):
            contents = json.dumps([obj.get(part) for part in ("data", "spec")], sort_keys=True).encode()
            facts[f"{kind} {obj['metadata']['name']}"] = (
                obj["metadata"]["uid"],
                hashlib.sha256(contents).hexdigest(),
            )
    for pod in kube.list("Pod"):
        meta = pod["metadata"]
        labels = meta["labels"]
        template = labels.get("pod-template-hash") or labels.get("controller-revision-hash")
        facts[f"Pod {meta['name']}"] = (meta["uid"], template, restarts(pod))
    return facts


@contextmanager
def unmoved(server: Server, work: Work) -> Iterator[None]:
    """What happens inside moves nothing; afterwards all is Ready, the operator at work, and the data there."""
    before = made_of(server.kube)
    yield
    mends(server)
    server.ready(timeouts.SETTLED)
    assert made_of(server.kube) == before
    Scientist(server.url).finds(work)


def mends(server: Server) -> None:
    """The operator leads, watches and writes: what somebody changed by hand is put right."""
    name = server.names.client
    right = server.kube.need("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
    eventually(
        "the operator mends", lambda: server.kube.need("ConfigMap", name)["data"] == right, timeouts.ROLLED
    )


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_the_api_server_restarts(shared: Server, work: Work) -> None:
    """The operator may lose its lease over that, and its process be started again."""
    with unmoved(shared, work):
        fault_injection.restart_api_server(shared.kube)


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_no_packet_passes_between_operator_and_api_server(shared: Server, work: Work) -> None:
    """The operator ends, for another may be leading by now, comes back, and waits. Servers serve all the while."""
    kube = shared.kube.within(operator_release.NAMESPACE)
    (pod,) = operator_release.pods(kube)
    renewed = kube.need("Lease", operator_release.RELEASE)["spec"]["renewTime"]
    with unmoved(shared, work):
        with fault_injection.cut_off(kube, pod) as cut:
            ends = time.monotonic() + OUTAGE
            eventually("packets are dropped", cut.dropped, timeouts.SETTLED)
            while time.monotonic() < ends:
                assert requests.get(f"{shared.url}/health", timeout=5).ok
                time.sleep(1)
            silent = kube.need("Lease", operator_release.RELEASE)["spec"]
        assert silent["holderIdentity"].startswith(pod["metadata"]["name"])
        assert cut_at_once(renewed, silent["renewTime"]), "the operator reached the API server meanwhile"
    assert [p["metadata"]["uid"] for p in operator_release.pods(kube)] == [pod["metadata"]["uid"]]


def cut_at_once(before: str, after: str) -> bool:
    """Whether a lease was last renewed (RFC 3339) within the seconds that it takes to cut the line."""
    first, last = (time.mktime(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) for moment in (before, after))
    return last - first < 10


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_the_leader_is_killed_and_the_standby_goes_on(shared: Server, work: Work) -> None:
    """The dead one's lease runs out, unless its container comes back first; then it stands by in turn."""
    kube = shared.kube.within(operator_release.NAMESPACE)
    kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=2")
    try:
        kube.kubectl("rollout", "status", f"deployment/{operator_release.RELEASE}", "--timeout=60s")
        with unmoved(shared, work):
            old = eventually("somebody leads", lambda: fault_injection.leader(kube), timeouts.SETTLED)
            fault_injection.kill(kube, old)

            def taken() -> bool:
                new = fault_injection.leader(kube)
                return new is not None and new["metadata"]["uid"] != old["metadata"]["uid"]

            eventually("the standby leads", taken, timeouts.SETTLED)
    finally:
        kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=1")
        eventually("one is left", lambda: len(operator_release.pods(kube)) == 1, timeouts.GONE)


def test_applying_the_crd_again_changes_no_server(shared: Server, work: Work) -> None:
    """By server-side apply, and by a replacement that takes Helm's labels away."""
    kube = shared.kube
    with unmoved(shared, work):
        kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", "manifests/crd.yaml")
        kube.kubectl("replace", "-f", "manifests/crd.yaml")


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_the_operator_is_upgraded_by_helm_and_rolled_back(shared: Server, work: Work) -> None:
    """Another image, so another pod; the old one gives its lease back on its way out."""
    kube = shared.kube
    here = operator_image.reference(kube.settings, kube.shell)
    kube.node_command("ctr", "-n", "k8s.io", "images", "tag", "--force", here, f"{here}-next")
    (old,) = operator_release.pods(kube)
    with unmoved(shared, work):
        operator_release.install(kube, f"image.tag={here.rpartition(':')[2]}-next")
        (new,) = eventually("one is left", lambda: alone(kube), timeouts.GONE)
        assert new["spec"]["containers"][0]["image"] == f"{here}-next"
        assert new["metadata"]["uid"] != old["metadata"]["uid"]
    with unmoved(shared, work):
        kube.run(
            "helm", "rollback", operator_release.RELEASE, "--namespace", operator_release.NAMESPACE, "--wait"
        )
        (back,) = eventually("one is left", lambda: alone(kube), timeouts.GONE)
        assert back["spec"]["containers"][0]["image"] == here


def alone(kube: Kube) -> list[object]:
    """The operator's pods if it is one, and ready."""
    found = operator_release.pods(kube)
    return [*found] if len(found) == 1 and is_ready(found[0]) else []
