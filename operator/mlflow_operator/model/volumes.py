"""PersistentVolumeClaims of the embedded stores. They contain data, so they outlive the MLflowServer."""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.metadata import data_metadata
from mlflow_operator.model.server import ServerRef, Volume


def persistent_volume_claim(owner: ServerRef, name: str, component: str, volume: Volume) -> Object:
    """A PersistentVolumeClaim that a pod mounts by name, because volumeClaimTemplates cannot be resized."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": volume.size}},
    }
    if volume.storage_class is not None:
        spec["storageClassName"] = volume.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": data_metadata(owner, name, component),
        "spec": spec,
    }
