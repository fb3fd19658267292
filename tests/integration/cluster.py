"""A cluster without a kubelet: the control plane, and one node whose pods kwok reports as running."""

from pathlib import Path

from mlflow_operator.kube.objects import Object
from tests.apiserver import crds
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.processes import Process, find
from tests.integration import kwok

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "statefulset-controller",
)
"""Controllers that act on the objects of an MLflowServer. The others would only use CPU."""

VOLUME_COUNT = 40
"""Number of PersistentVolumes for claims. Nothing provisions more."""

QUERIES_PER_SECOND = 500


class Cluster:
    """Starts everything and waits until the node is ready. `stop` must be called at the end."""

    def __init__(self, folder: Path) -> None:
        # Nothing removes the taint that this plugin adds to a new node.
        self.control_plane = ControlPlane(folder, disabled_admission=("TaintNodesByCondition",))
        self.client = self.control_plane.client
        # Before the garbage collector starts: it discovers new kinds only twice a minute.
        crds.install(self.client)
        for obj in (kwok.node(), _storage_class(), *map(_volume, range(VOLUME_COUNT))):
            self._create(obj)
        kubeconfig = f"--kubeconfig={self.control_plane.kubeconfig}"
        limits = (f"--kube-api-qps={QUERIES_PER_SECOND}", f"--kube-api-burst={QUERIES_PER_SECOND}")
        self._processes = [
            Process(
                "kube-controller-manager",
                [
                    find("kube-controller-manager"),
                    kubeconfig,
                    *limits,
                    f"--service-account-private-key-file={self.control_plane.service_account_key}",
                    f"--controllers={','.join(CONTROLLERS)}",
                    "--leader-elect=false",
                    "--secure-port=0",
                ],
                folder / "kube-controller-manager.log",
            ),
            Process(
                "kube-scheduler",
                [find("kube-scheduler"), kubeconfig, *limits, "--leader-elect=false", "--secure-port=0"],
                folder / "kube-scheduler.log",
            ),
            kwok.start(self.control_plane.kubeconfig, folder),
        ]
        self._processes[-1].wait_until_ready(self._node_is_ready)

    def stop(self) -> None:
        """Stop every process."""
        for process in self._processes:
            process.kill()
        self.control_plane.stop()

    def _node_is_ready(self) -> bool:
        node = self.client.request("GET", f"/api/v1/nodes/{kwok.NODE}")
        conditions = (node.get("status") or {}).get("conditions") or []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _create(self, obj: Object) -> None:
        paths = {
            "Node": "/api/v1/nodes",
            "PersistentVolume": "/api/v1/persistentvolumes",
            "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
        }
        self.client.request("POST", paths[obj["kind"]], obj)


def _storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }


def _volume(number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{number}"},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/nowhere/{number}"},
        },
    }
