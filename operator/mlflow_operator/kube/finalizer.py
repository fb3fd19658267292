"""Add and remove the operator's finalizer. Only an MLflowServer whose data is deleted with it has the finalizer.

With `deletionPolicy: Retain` the API server deletes an MLflowServer at once, even if the operator does not run.
"""

from mlflow_operator.kube import json_patch, kinds, labels
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.objects import Object

_FINALIZERS_POINTER = "/metadata/finalizers"


def is_present(resource: Object) -> bool:
    """Whether the resource has the operator's finalizer."""
    return labels.FINALIZER in _finalizers(resource)


async def add(resource: Object, cluster: KubernetesClient) -> Object:
    """Add the finalizer. Returns the resource after the patch.

    Raises Conflict if the resource has changed since it was read: a deletion may have started.
    """
    operations = [
        json_patch.unchanged(resource),
        json_patch.put(_FINALIZERS_POINTER, [*_finalizers(resource), labels.FINALIZER]),
    ]
    return await _patch(resource, cluster, operations)


async def remove(resource: Object, cluster: KubernetesClient) -> Object:
    """Remove the operator's finalizer and no other. Returns the resource after the patch.

    Raises Conflict if the finalizers have changed since the resource was read, NotFound if it is deleted.
    """
    finalizers = _finalizers(resource)
    operations = [
        json_patch.test(_FINALIZERS_POINTER, finalizers),
        json_patch.replace(_FINALIZERS_POINTER, [name for name in finalizers if name != labels.FINALIZER]),
    ]
    return await _patch(resource, cluster, operations)


async def _patch(resource: Object, cluster: KubernetesClient, operations: list[Object]) -> Object:
    meta = resource["metadata"]
    return await cluster.json_patch(kinds.MLFLOWSERVER, meta["namespace"], meta["name"], operations)


def _finalizers(resource: Object) -> list[str]:
    return [*(resource["metadata"].get("finalizers") or ())]
