"""Metadata of objects that the operator owns."""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import ServerRef


def object_metadata(
    owner: ServerRef, name: str, component: str, annotations: dict[str, str] | None = None
) -> Object:
    """Name, namespace and labels of a disposable object of `owner`."""
    meta: Object = {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels.for_component(owner.name, component),
    }
    if annotations:
        meta["annotations"] = dict(annotations)
    return meta


def data_metadata(owner: ServerRef, name: str, component: str) -> Object:
    """Name, namespace and labels of an object that contains data of `owner` and outlives it."""
    return {"name": name, "namespace": owner.namespace, "labels": labels.for_data(owner.name, component)}
