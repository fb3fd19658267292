"""Add and remove the operator's finalizers. Only an MLflowServer whose data is deleted with it has one.

With `deletionPolicy: Retain` the API server deletes an MLflowServer at once, even if the operator does not run. An
MLflowPlatform has another finalizer, whose name is passed as `name`.
"""

from mlflow_operator.kube import json_patch, kinds, labels
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.objects import Object

_FINALIZERS_POINTER = "/metadata/finalizers"


def is_present(resource: Object, name: str = labels.FINALIZER) -> bool:
    """Whether the resource has the operator's finalizer."""
    return name in _finalizers(resource)


async def add(resource: Object, cluster: KubernetesClient, name: str = labels.FINALIZER) -> Object:
    """Add the finalizer. Returns the resource after the patch.

    Raises Conflict if the resource has changed since it was read: a deletion may have started.
    """
    operations = [
        json_patch.unchanged(resource),
        json_patch.put(_FINALIZERS_POINTER, [*_finalizers(resource), name]),
    ]
    return await _patch(resource, cluster, operations)


async def remove(resource: Object, cluster: KubernetesClient, name: str = labels.FINALIZER) -> Object:
    """Remove the operator's finalizer and no other. Returns the resource after the patch.

    Raises Conflict if the finalizers have changed since the resource was read, NotFound if it is deleted.
    """
    finalizers = _finalizers(resource)
    operations = [
        json_patch.test(_FINALIZERS_POINTER, finalizers),
        json_patch.replace(_FINALIZERS_POINTER, [other for other in finalizers if other != name]),
    ]
    return await _patch(resource, cluster, operations)


async def _patch(resource: Object, cluster: KubernetesClient, operations: list[Object]) -> Object:
    meta = resource["metadata"]
    return await cluster.json_patch(kinds.of(resource), meta.get("namespace"), meta["name"], operations)


def _finalizers(resource: Object) -> list[str]:
    return [*(resource["metadata"].get("finalizers") or ())]
