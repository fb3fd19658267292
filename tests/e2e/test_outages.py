"""Outages of the operator, of the API server and of the network between them: no object of a server changes."""

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
from tests.e2e.mlflow_workload import LoggedData, Workload
from tests.e2e.server import Server, eventually, is_ready, restart_count

GROUP = "shared"

OUTAGE_SECONDS = 90.0
"""Duration of the network partition: longer than the timeouts of the Lease, of a request and of a silent watch."""

KINDS_WITH_GENERATION = ("MLflowServer", "Deployment", "StatefulSet", "PodDisruptionBudget", "Job")
"""Kinds whose `metadata.generation` increases with every change of the spec."""

OUTAGE_TEST = pytest.mark.long_running(
    reason="must run alone; tests/integration/test_outages.py and test_election.py cause the same outages"
)


@pytest.fixture(scope="module")
def logged_data(_shared_server: Server) -> LoggedData:
    """A run, a file and a model, logged before the outages."""
    return Workload(_shared_server.wait_ready().url).log_data("outages")


def fingerprint(kube: Kube) -> dict[str, tuple[object, ...]]:
    """Return the uid and contents of each object of a server, and the template and restart count of each pod."""
    facts: dict[str, tuple[object, ...]] = {}
    for kind in KINDS_WITH_GENERATION:
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
        facts[f"Pod {meta['name']}"] = (meta["uid"], template, restart_count(pod))
    return facts


@contextmanager
def unchanged(server: Server, logged_data: LoggedData) -> Iterator[None]:
    """The outage inside the context changes no object. Afterwards the server is Ready with its data, and the operator
    works."""
    before = fingerprint(server.kube)
    yield
    wait_for_repair(server)
    server.wait_ready(timeouts.STATUS_SECONDS)
    assert fingerprint(server.kube) == before
    Workload(server.url).check_data(logged_data)


def wait_for_repair(server: Server) -> None:
    """Change the ConfigMap for clients, and wait until the operator has repaired it: it leads, watches and writes."""
    name = server.names.client
    expected = server.kube.require("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
    eventually(
        "the operator repairs the ConfigMap",
        lambda: server.kube.require("ConfigMap", name)["data"] == expected,
        timeouts.ROLLOUT_SECONDS,
    )


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_api_server_restart_changes_nothing(shared_server: Server, logged_data: LoggedData) -> None:
    """The operator may lose its Lease, and its container may restart."""
    with unchanged(shared_server, logged_data):
        fault_injection.restart_api_server(shared_server.kube)


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_network_partition_between_operator_and_api_server_changes_nothing(
    shared_server: Server, logged_data: LoggedData
) -> None:
    """The operator exits, because another one may lead by now, restarts, and waits. The server answers all the time."""
    kube = shared_server.kube.in_namespace(operator_release.NAMESPACE)
    (pod,) = operator_release.pods(kube)
    with unchanged(shared_server, logged_data):
        with fault_injection.network_partition(kube, pod) as partition:
            renewed = kube.require("Lease", operator_release.RELEASE)["spec"]["renewTime"]
            deadline = time.monotonic() + OUTAGE_SECONDS
            eventually("packets are dropped", partition.dropped_packets, timeouts.STATUS_SECONDS)
            while time.monotonic() < deadline:
                assert requests.get(f"{shared_server.url}/health", timeout=5).ok
                time.sleep(1)
            lease = kube.require("Lease", operator_release.RELEASE)["spec"]
        assert lease["holderIdentity"].startswith(pod["metadata"]["name"])
        assert cut_promptly(renewed, lease["renewTime"]), "the operator reached the API server meanwhile"
    assert [p["metadata"]["uid"] for p in operator_release.pods(kube)] == [pod["metadata"]["uid"]]


def cut_promptly(before: str, after: str) -> bool:
    """Whether the Lease's last renewal (RFC 3339) is less than 10 s after `before`, when all packets were dropped."""
    first, last = (time.mktime(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) for moment in (before, after))
    return last - first < 10


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_standby_takes_over_when_leader_is_killed(shared_server: Server, logged_data: LoggedData) -> None:
    """The killed leader's Lease must expire. If its container restarts before that, it is another standby, which may
    become the next leader."""
    kube = shared_server.kube.in_namespace(operator_release.NAMESPACE)
    kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=2")
    try:
        kube.kubectl("rollout", "status", f"deployment/{operator_release.RELEASE}", "--timeout=60s")
        with unchanged(shared_server, logged_data):
            old = eventually("a pod leads", lambda: fault_injection.leader_pod(kube), timeouts.STATUS_SECONDS)
            old_identity = fault_injection.leader_identity(kube)
            fault_injection.kill(kube, old)
            eventually(
                "a standby leads",
                lambda: fault_injection.leader_identity(kube) not in {"", old_identity},
                timeouts.STATUS_SECONDS,
            )
    finally:
        kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=1")
        eventually(
            "one operator pod is left",
            lambda: len(operator_release.pods(kube)) == 1,
            timeouts.DELETION_SECONDS,
        )


def test_applying_the_crd_again_changes_nothing(shared_server: Server, logged_data: LoggedData) -> None:
    """By server-side apply, and by `kubectl replace`, which removes Helm's labels."""
    kube = shared_server.kube
    with unchanged(shared_server, logged_data):
        kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", "manifests/crd.yaml")
        kube.kubectl("replace", "-f", "manifests/crd.yaml")


@pytest.mark.restarts_operator
@OUTAGE_TEST
def test_helm_upgrade_and_rollback_of_operator_change_nothing(
    shared_server: Server, logged_data: LoggedData
) -> None:
    """Another image means another pod; the old pod releases its Lease when it terminates."""
    kube = shared_server.kube
    image = operator_image.reference(kube.settings, kube.shell)
    kube.node_command("ctr", "-n", "k8s.io", "images", "tag", "--force", image, f"{image}-next")
    (old,) = operator_release.pods(kube)
    with unchanged(shared_server, logged_data):
        operator_release.install(kube, f"image.tag={image.rpartition(':')[2]}-next")
        (new,) = eventually(
            "one operator pod is left", lambda: only_ready_pod(kube), timeouts.DELETION_SECONDS
        )
        assert new["spec"]["containers"][0]["image"] == f"{image}-next"
        assert new["metadata"]["uid"] != old["metadata"]["uid"]
    with unchanged(shared_server, logged_data):
        kube.run(
            "helm", "rollback", operator_release.RELEASE, "--namespace", operator_release.NAMESPACE, "--wait"
        )
        (restored,) = eventually(
            "one operator pod is left", lambda: only_ready_pod(kube), timeouts.DELETION_SECONDS
        )
        assert restored["spec"]["containers"][0]["image"] == image


def only_ready_pod(kube: Kube) -> list[object]:
    """Return the operator's pods if there is exactly one and it is ready; otherwise an empty list."""
    found = operator_release.pods(kube)
    return [*found] if len(found) == 1 and is_ready(found[0]) else []
