"""Our finalizer: on a server while its data is to go with it, and on no other.

With `deletionPolicy: Retain` a server is gone at once, whether an operator runs or not.
"""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object

_POINTER = "/metadata/finalizers"


def is_present(resource: Object) -> bool:
    """Whether the resource can't go before we let it."""
    return labels.FINALIZER in _finalizers(resource)


def add(resource: Object) -> list[Object]:
    """The JSON patch that puts it on. Fails where anything changed meanwhile: a deletion may have begun."""
    meta = resource["metadata"]
    unchanged = {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]}
    return [
        unchanged,
        {"op": "add", "path": _POINTER, "value": [*_finalizers(resource), labels.FINALIZER]},
    ]


def remove(resource: Object) -> list[Object]:
    """The JSON patch that takes it off and leaves those of others. Fails where these changed meanwhile."""
    before = _finalizers(resource)
    return [
        {"op": "test", "path": _POINTER, "value": before},
        {"op": "replace", "path": _POINTER, "value": [name for name in before if name != labels.FINALIZER]},
    ]


def _finalizers(resource: Object) -> list[str]:
    return [*(resource["metadata"].get("finalizers") or ())]
