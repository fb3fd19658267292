"""Add and remove the operator's finalizer. Only an MLflowServer whose data is deleted with it has the finalizer.

With `deletionPolicy: Retain` the API server deletes an MLflowServer at once, even if the operator does not run.
"""

from mlflow_operator.kube import json_patch, labels
from mlflow_operator.kube.objects import Object

_FINALIZERS_POINTER = "/metadata/finalizers"


def is_present(resource: Object) -> bool:
    """Whether the resource has the operator's finalizer."""
    return labels.FINALIZER in _finalizers(resource)


def add(resource: Object) -> list[Object]:
    """Return the JSON patch that adds the finalizer. It fails if the resource changed: a deletion may have started."""
    return [
        json_patch.unchanged(resource),
        json_patch.put(_FINALIZERS_POINTER, [*_finalizers(resource), labels.FINALIZER]),
    ]


def remove(resource: Object) -> list[Object]:
    """Return the JSON patch that removes only the operator's finalizer. It fails if the finalizers changed."""
    finalizers = _finalizers(resource)
    return [
        json_patch.test(_FINALIZERS_POINTER, finalizers),
        json_patch.replace(_FINALIZERS_POINTER, [name for name in finalizers if name != labels.FINALIZER]),
    ]


def _finalizers(resource: Object) -> list[str]:
    return [*(resource["metadata"].get("finalizers") or ())]
