"""Cluster faults: unschedulable pods, pending volumes, image pulls, quotas. The resource is applied once."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from mlflow_operator.kube.quantity import parse
from tests.e2e import namespaces, timeouts
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, secret
from tests.e2e.fault_cases import FaultCase, table
from tests.e2e.kube import Kube, Object
from tests.e2e.server import SMALL_RESOURCES, Server, eventually, small_spec
from tests.e2e.shared_stores import DATABASE_PASSWORD, Platform


@dataclass(frozen=True)
class Cluster:
    """The namespace of one case, what it adds to the cluster, and a server whose stores are on the platform.

    `cleanup` removes what is not in a namespace.
    """

    ns: Kube
    platform: Platform
    create_ns: Callable[[], Kube]
    cleanup: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def server(self) -> Server:
        """The server that must report the fault."""
        return Server(self.ns)

    @cached_property
    def stores(self) -> Object:
        """The part of a spec with stores on the platform, for which no pod needs to start."""
        return self.platform.stores_spec(self.ns)

    @property
    def storage_class(self) -> str:
        """Name of a StorageClass that does not exist until the fix."""
        return f"late-{self.ns.namespace}"

    @property
    def image(self) -> str:
        """Image of MinIO that does not exist until the fix."""
        return f"mirror.test:5000/team/minio:{self.ns.namespace}"

    @property
    def volume_claim(self) -> str:
        """Name of the PersistentVolumeClaim of the embedded database."""
        return self.server.names.postgres_data

    @cached_property
    def memory(self) -> str:
        """A little more than half of the node's memory: one pod with this request fits on the node, two do not, and
        there is room for the pods of other tests."""
        memory = self.ns.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.memory}")
        return f"{int(parse(memory) * 51 / 100) // 2**20}Mi"

    @cached_property
    def other_ns(self) -> Kube:
        """Another namespace."""
        return self.create_ns()

    def create_storage_class(self) -> None:
        """Copy the cluster's default StorageClass to the missing name."""
        default = json.loads(self.ns.kubectl("get", "storageclass", "standard", "-o", "json"))
        self.cleanup.callback(self.ns.kubectl, "delete", "storageclass", self.storage_class)
        self.ns.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": self.storage_class},
                **{key: default[key] for key in ("provisioner", "reclaimPolicy", "volumeBindingMode")},
            }
        )

    def create_image(self) -> None:
        """Tag MinIO's image on the node with the missing name."""
        images = ("ctr", "-n", "k8s.io", "images")
        self.ns.node_command(*images, "tag", self.ns.settings.pins["IMAGE_MINIO"], self.image)
        self.cleanup.callback(self.ns.node_command, *images, "rm", self.image)

    def limit_pods(self, pods: int) -> None:
        """Create or change the ResourceQuota of the namespace, and wait until it is enforced."""
        namespaces.set_quota(self.ns, {"pods": str(pods)})

    def reserve_memory(self) -> None:
        """Run an idle pod that requests `memory`."""
        name, resources = "memory-reservation", {"memory": self.memory}
        self.other_ns.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": name,
                            "image": self.ns.settings.pins["IMAGE_BUSYBOX"],
                            "command": ["sleep", "infinity"],
                            "resources": {"requests": resources, "limits": resources},
                            "securityContext": {**RESTRICTED_SECURITY_CONTEXT, "runAsUser": 1000},
                        }
                    ],
                },
            }
        )
        eventually(
            "the memory is reserved",
            lambda: self.other_ns.require("Pod", name)["spec"].get("nodeName"),
            timeouts.STATUS_SECONDS,
        )

    def release_memory(self) -> None:
        """Delete the idle pod."""
        self.other_ns.delete("Pod", "memory-reservation", grace_seconds=0)


def embedded_database(cluster: Cluster) -> Object:
    """Return a spec with an embedded database on the missing StorageClass."""
    storage = {"storageClassName": cluster.storage_class}
    database = {"embedded": {"storage": storage, "resources": SMALL_RESOURCES}}
    return small_spec(
        replicas=0,
        database=database,
        artifacts=cluster.platform.bucket_spec(cluster.ns, cluster.ns.namespace),
    )


def embedded_artifact_store(cluster: Cluster, **embedded: str) -> Object:
    """Return a spec with an embedded artifact store."""
    artifacts = {"embedded": {"resources": SMALL_RESOURCES, **embedded}}
    return small_spec(replicas=0, **cluster.stores | {"artifacts": artifacts})


def empty_database(cluster: Cluster) -> Object:
    """Return a spec with an empty database, which the operator must migrate."""
    name = cluster.ns.namespace.replace("-", "_")
    cluster.platform.create_database(name, DATABASE_PASSWORD)
    cluster.ns.apply(secret("database", username=name, password=DATABASE_PASSWORD))
    external = {
        "host": cluster.platform.postgres.host,
        "databaseName": name,
        "credentialsSecretRef": {"name": "database"},
    }
    return small_spec(
        replicas=0,
        database={"external": external},
        artifacts=cluster.platform.bucket_spec(cluster.ns, cluster.ns.namespace),
    )


def half_of_node_memory(cluster: Cluster) -> Object:
    """Return a spec whose server needs as much memory as `reserve_memory` takes."""
    resources = {"requests": {"cpu": "25m", "memory": cluster.memory}, "limits": {"memory": cluster.memory}}
    return small_spec(**cluster.stores | {"resources": resources})


def lower_quota_and_delete_pod(cluster: Cluster) -> None:
    """Delete the pod of the server after the namespace's quota no longer has room for it."""
    cluster.limit_pods(0)
    cluster.ns.delete("Pod", cluster.server.pod()["metadata"]["name"])


@dataclass(frozen=True, kw_only=True)
class ClusterFault(FaultCase[Cluster]):
    """A fault of the cluster, which retries with a backoff of its own before the operator can see the recovery."""

    spec: Callable[[Cluster], Object]
    """Returns the spec: it starts only the pod that the fault affects."""

    within: float = timeouts.READY_SECONDS


CASES = (
    ClusterFault(
        name="missing-storage-class",
        spec=embedded_database,
        condition_type="DatabaseReady",
        reason="VolumePending",
        texts=('"{env.volume_claim}"', '"{env.storage_class}" not found'),
        fix=Cluster.create_storage_class,
    ),
    ClusterFault(
        name="missing-image",
        spec=lambda cluster: embedded_artifact_store(cluster, image=cluster.image),
        condition_type="ArtifactStoreReady",
        reason="ImagePullFailed",
        texts=("{env.image}", "imagePullSecrets"),
        fix=Cluster.create_image,
    ),
    ClusterFault(
        name="quota-for-artifact-store",
        spec=embedded_artifact_store,
        inject=lambda cluster: cluster.limit_pods(0),
        condition_type="ArtifactStoreReady",
        reason="QuotaExceeded",
        texts=(
            "the artifact store",
            "requested: pods=1, limited: pods=0",
            "spec.artifacts.embedded.resources",
        ),
        fix=lambda cluster: cluster.limit_pods(1),
    ),
    ClusterFault(
        name="quota-for-migration",
        spec=empty_database,
        inject=lambda cluster: cluster.limit_pods(0),
        condition_type="SchemaReady",
        reason="QuotaExceeded",
        texts=("the migration", "limited: pods=0"),
        fix=lambda cluster: cluster.limit_pods(1),
    ),
    ClusterFault(
        name="insufficient-memory",
        spec=half_of_node_memory,
        inject=Cluster.reserve_memory,
        condition_type="ServerAvailable",
        reason="Unschedulable",
        texts=("Insufficient memory (requested: {env.memory})", "spec.resources"),
        fix=Cluster.release_memory,
    ),
    ClusterFault(
        name="quota-while-serving",
        spec=lambda cluster: small_spec(**cluster.stores),
        inject=lower_quota_and_delete_pod,
        condition_type="ServerAvailable",
        reason="QuotaExceeded",
        texts=("the server", "limited: pods=0", "spec.resources"),
        fix=lambda cluster: cluster.limit_pods(2),
        while_serving=True,
        replaces_pod=True,
    ),
)


@pytest.fixture
def cluster(ns: Kube, platform: Platform, create_ns: Callable[[], Kube]) -> Iterator[Cluster]:
    """Environment of one case."""
    created = Cluster(ns, platform, create_ns)
    with created.cleanup:
        yield created


@table(*CASES)
def test_fault_is_reported_once_and_recovered_from(case: ClusterFault, cluster: Cluster) -> None:
    """One condition and one Event report the fault; fixing its cause is enough."""
    case.run(cluster, case.spec(cluster))
