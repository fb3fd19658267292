"""Access to a Secret of another namespace, which an annotation of the Secret itself grants."""

import re

from mlflow_operator.kube.objects import Object

ALLOW_NAMESPACES = "mlflow-operator.dev/allow-namespaces"
"""Annotation of an admin Secret: comma-separated names of namespaces, or patterns with `*`."""


def allows(secret: Object, namespace: str) -> bool:
    """Whether servers in `namespace` may use `secret`. In the Secret's own namespace they always may.

    Only `*` is special (any number of characters), so that a stray bracket does not grant access to a namespace.
    """
    meta = secret["metadata"]
    if meta.get("namespace") == namespace:
        return True
    patterns = ((meta.get("annotations") or {}).get(ALLOW_NAMESPACES) or "").split(",")
    return any(_matches(pattern.strip(), namespace) for pattern in patterns)


def _matches(pattern: str, namespace: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), namespace) is not None
