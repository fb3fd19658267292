"""Cluster faults, one after the other at one server: unschedulable pods, pending volumes, image pulls, quotas.

The resource is applied once and never changed.
"""

import json
from collections.abc import Iterator

import pytest

from mlflow_operator.kube.quantity import parse
from tests.e2e import timeouts
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.server import SMALL_RESOURCES, Server, eventually, small_spec

MISSING_IMAGE = "mirror.test:5000/team/minio:later"


@pytest.fixture
def missing_storage_class(ns: Kube) -> Iterator[str]:
    """Name of a StorageClass that does not exist yet. It and the image `MISSING_IMAGE` are deleted after the test."""
    name = f"late-{ns.namespace}"
    yield name
    ns.kubectl("delete", "storageclass", name, "--ignore-not-found")
    ns.node_command("ctr", "-n", "k8s.io", "images", "rm", MISSING_IMAGE)


def quota(pods: int) -> Object:
    """Return a ResourceQuota for this number of pods."""
    spec = {"hard": {"pods": str(pods)}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": spec}


def storage_class(kube: Kube, name: str) -> Object:
    """Return a copy of the cluster's default StorageClass with another name."""
    default = json.loads(kube.kubectl("get", "storageclass", "standard", "-o", "json"))
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        **{key: default[key] for key in ("provisioner", "reclaimPolicy", "volumeBindingMode")},
    }


def half_of_node_memory(kube: Kube) -> str:
    """Return a little more than half of the node's memory: one pod with this request fits on the node, two do not, and
    there is room for the pods of other tests."""
    memory = kube.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.memory}")
    return f"{int(parse(memory) * 51 / 100) // 2**20}Mi"


def memory_reservation_pod(kube: Kube, memory: str) -> Object:
    """Return an idle pod that requests this much memory."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "memory-reservation"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "memory-reservation",
                    "image": kube.settings.pins["IMAGE_BUSYBOX"],
                    "command": ["sleep", "infinity"],
                    "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}},
                    "securityContext": {**RESTRICTED_SECURITY_CONTEXT, "runAsUser": 1000},
                }
            ],
        },
    }


@pytest.mark.start_early
@pytest.mark.timeout(900)
def test_cluster_faults_are_reported_once_and_recovered_from(
    ns: Kube, other_ns: Kube, missing_storage_class: str
) -> None:
    """Scheduling, volume, image and quota faults at the first start, and a quota fault while the server serves."""
    memory = half_of_node_memory(ns)
    other_ns.apply(memory_reservation_pod(other_ns, memory))
    ns.apply(quota(0))
    resources = {"requests": {"cpu": "25m", "memory": memory}, "limits": {"memory": memory}}
    server = Server(ns).apply(
        small_spec(
            resources=resources,
            database={
                "embedded": {
                    "storage": {"storageClassName": missing_storage_class},
                    "resources": SMALL_RESOURCES,
                }
            },
            artifacts={"embedded": {"image": MISSING_IMAGE, "resources": SMALL_RESOURCES}},
        )
    )
    faults = FaultExpectations(server)
    _check_volume_and_quota(faults, missing_storage_class)
    _check_image_pull_failure(faults)
    _check_unschedulable(faults, other_ns, memory)
    _check_quota_while_serving(faults)
    assert server.resource()["metadata"]["generation"] == 1, "the resource was changed"


def _check_volume_and_quota(faults: FaultExpectations, missing_storage_class: str) -> None:
    ns, names = faults.server.kube, faults.server.names
    faults.expect(
        "DatabaseReady", "VolumePending", f'"{names.postgres_data}"', f'"{missing_storage_class}" not found'
    )
    faults.expect(
        "ArtifactStoreReady",
        "QuotaExceeded",
        "the artifact store",
        "requested: pods=1, limited: pods=0",
        "spec.artifacts.embedded.resources",
    )
    ns.apply(storage_class(ns, missing_storage_class), quota(2))


def _check_image_pull_failure(faults: FaultExpectations) -> None:
    ns = faults.server.kube
    faults.expect("ArtifactStoreReady", "ImagePullFailed", MISSING_IMAGE, "imagePullSecrets")
    ns.node_command("ctr", "-n", "k8s.io", "images", "tag", ns.settings.pins["IMAGE_MINIO"], MISSING_IMAGE)
    faults.expect_recovery("DatabaseReady")
    faults.expect_recovery("ArtifactStoreReady")


def _check_unschedulable(faults: FaultExpectations, other_ns: Kube, memory: str) -> None:
    ns = faults.server.kube
    faults.expect("SchemaReady", "QuotaExceeded", "the migration", "limited: pods=2")
    ns.apply(quota(3))
    faults.expect_recovery("SchemaReady")
    faults.expect(
        "ServerAvailable", "Unschedulable", f"Insufficient memory (requested: {memory})", "spec.resources"
    )
    other_ns.delete("Pod", "memory-reservation", grace_seconds=0)
    faults.server.wait_ready()


def _check_quota_while_serving(faults: FaultExpectations) -> None:
    """A deleted pod is not recreated after the quota was lowered."""
    server, ns = faults.server, faults.server.kube
    ns.apply(quota(2))

    def is_enforced() -> bool:
        hard = (ns.require("ResourceQuota", "team").get("status") or {}).get("hard") or {}
        return bool(hard.get("pods") == "2")

    # Admission uses the quota's status, and the ReplicaSet keeps the first error message.
    eventually("the lower quota is enforced", is_enforced, timeouts.STATUS_SECONDS)
    ns.delete("Pod", server.pod()["metadata"]["name"])
    faults.expect("ServerAvailable", "QuotaExceeded", "the server", "limited: pods=2", "spec.resources")
    ns.apply(quota(3))
    server.wait_ready()
    eventually("the server has one pod", lambda: len(server.pods("server")) == 1, timeouts.STATUS_SECONDS)
