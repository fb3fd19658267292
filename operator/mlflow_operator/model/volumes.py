"""Claims for the volumes of embedded stores: data, so they outlive the resource."""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import ServerRef, Volume


def claim(owner: ServerRef, name: str, component: str, volume: Volume) -> Object:
    """A PersistentVolumeClaim of our own, mounted by name: volumeClaimTemplates could never grow."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": volume.size}},
    }
    if volume.storage_class is not None:
        spec["storageClassName"] = volume.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": object_metadata(owner, name, component),
        "spec": spec,
    }
