"""Faults of the cluster around a server, one after the other at one server: room, volumes, images, quotas.

The resource is applied once and never touched again.
"""

import json
from collections.abc import Iterator

import pytest

from mlflow_operator.kube.quantity import parse
from tests.e2e import timeouts
from tests.e2e.external_stores import SECURITY
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import Kube, Object
from tests.e2e.server import LITTLE, Server, eventually, small

MINIO = "mirror.test:5000/team/minio:later"


@pytest.fixture
def late(ns: Kube) -> Iterator[str]:
    """The name of a StorageClass that does not exist yet; with the image `MINIO`, gone afterwards."""
    name = f"late-{ns.namespace}"
    yield name
    ns.kubectl("delete", "storageclass", name, "--ignore-not-found")
    ns.node_command("ctr", "-n", "k8s.io", "images", "rm", MINIO)


def quota(pods: int) -> Object:
    """So many pods, and no more."""
    spec = {"hard": {"pods": str(pods)}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": spec}


def storage_class(kube: Kube, name: str) -> Object:
    """The cluster's own, under another name."""
    own = json.loads(kube.kubectl("get", "storageclass", "standard", "-o", "json"))
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        **{key: own[key] for key in ("provisioner", "reclaimPolicy", "volumeBindingMode")},
    }


def most(kube: Kube) -> str:
    """A little more than half of the node's memory: room for one pod that asks for it and not for two, and for the
    pods of other tests beside it."""
    memory = kube.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.memory}")
    return f"{int(parse(memory) * 51 / 100) // 2**20}Mi"


def ballast(kube: Kube, memory: str) -> Object:
    """A pod that does nothing with all that it reserves."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "ballast"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "ballast",
                    "image": kube.settings.pins["IMAGE_BUSYBOX"],
                    "command": ["sleep", "infinity"],
                    "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}},
                    "securityContext": {**SECURITY, "runAsUser": 1000},
                }
            ],
        },
    }


@pytest.mark.start_early
@pytest.mark.timeout(900)
def test_lack_of_room_volume_image_or_quota_is_reported_once_and_recovered_from(
    ns: Kube, other_ns: Kube, late: str
) -> None:
    """No room, no volume, no image, no leave: on the way up, and again while it serves."""
    memory = most(ns)
    other_ns.apply(ballast(other_ns, memory))
    ns.apply(quota(0))
    reserved = {"requests": {"cpu": "25m", "memory": memory}, "limits": {"memory": memory}}
    server = Server(ns).apply(
        small(
            resources=reserved,
            database={"embedded": {"storage": {"storageClassName": late}, "resources": LITTLE}},
            artifacts={"embedded": {"image": MINIO, "resources": LITTLE}},
        )
    )
    faults = Faults(server)
    _volume_and_quota(faults, late)
    _image(faults)
    _room(faults, other_ns, memory)
    _quota_while_serving(faults)
    assert server.live()["metadata"]["generation"] == 1, "somebody has touched the resource"


def _volume_and_quota(faults: Faults, late: str) -> None:
    ns, names = faults.server.kube, faults.server.names
    faults.told("DatabaseReady", "VolumePending", f'"{names.postgres_data}"', f'"{late}" not found')
    faults.told(
        "ArtifactStoreReady",
        "QuotaExceeded",
        "the artifact store",
        "requested: pods=1, limited: pods=0",
        "spec.artifacts.embedded.resources",
    )
    ns.apply(storage_class(ns, late), quota(2))


def _image(faults: Faults) -> None:
    ns = faults.server.kube
    faults.told("ArtifactStoreReady", "ImagePullFailed", MINIO, "imagePullSecrets")
    ns.node_command("ctr", "-n", "k8s.io", "images", "tag", ns.settings.pins["IMAGE_MINIO"], MINIO)
    faults.mended("DatabaseReady")
    faults.mended("ArtifactStoreReady")


def _room(faults: Faults, other_ns: Kube, memory: str) -> None:
    ns = faults.server.kube
    faults.told("SchemaReady", "QuotaExceeded", "the migration", "limited: pods=2")
    ns.apply(quota(3))
    faults.mended("SchemaReady")
    faults.told(
        "ServerAvailable", "Unschedulable", f"Insufficient memory (it asks for {memory})", "spec.resources"
    )
    other_ns.delete("Pod", "ballast", grace=0)
    faults.server.ready()


def _quota_while_serving(faults: Faults) -> None:
    """A pod that is lost is not made again: the quota was lowered meanwhile."""
    server, ns = faults.server, faults.server.kube
    ns.apply(quota(2))

    def in_force() -> bool:
        hard = (ns.need("ResourceQuota", "team").get("status") or {}).get("hard") or {}
        return bool(hard.get("pods") == "2")

    # Admission goes by the status, and the ReplicaSet keeps the first sentence that it got.
    eventually("the lower quota is in force", in_force, timeouts.SETTLED)
    ns.delete("Pod", server.pod()["metadata"]["name"])
    faults.told("ServerAvailable", "QuotaExceeded", "the server", "limited: pods=2", "spec.resources")
    ns.apply(quota(3))
    server.ready()
    eventually("its one pod runs", lambda: len(server.pods("server")) == 1, timeouts.SETTLED)
