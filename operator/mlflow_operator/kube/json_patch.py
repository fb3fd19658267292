"""Operations of JSON patches (RFC 6902), as the API server accepts them."""

from typing import Any

from mlflow_operator.kube.objects import Object


def unchanged(obj: Object) -> Object:
    """The patch fails with a conflict if the object has changed since it was read (optimistic locking)."""
    return {"op": "test", "path": "/metadata/resourceVersion", "value": obj["metadata"]["resourceVersion"]}


def test(path: str, value: Any) -> Object:
    """The patch fails with a conflict if the value at `path` is not `value`."""
    return {"op": "test", "path": path, "value": value}


def put(path: str, value: Any) -> Object:
    """Set a member of an object. "add" also replaces an existing member; the parent must exist."""
    return {"op": "add", "path": path, "value": value}


def replace(path: str, value: Any) -> Object:
    """Replace a value. The patch fails if it does not exist."""
    return {"op": "replace", "path": path, "value": value}


def remove(path: str) -> Object:
    """Remove a value. The patch fails if it does not exist."""
    return {"op": "remove", "path": path}


def pointer(*keys: str | int) -> str:
    """A path to the member with these keys (RFC 6901). Keys are escaped."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)
