"""Access to a Secret of another namespace, which an annotation of the Secret itself grants."""

from mlflow_operator.kube.objects import Object

ALLOW_NAMESPACES = "mlflow-operator.dev/allow-namespaces"
"""Annotation of an admin Secret: comma-separated names of namespaces, or patterns with `*`."""

MAX_ANNOTATION_CHARS = 4096
"""Maximum length of the annotation. A longer one allows no namespace, so that its evaluation takes no time."""


def allows(secret: Object, namespace: str) -> bool:
    """Whether servers in `namespace` may use `secret`. In the Secret's own namespace they always may.

    Only `*` is special (any number of characters), so that a stray bracket does not grant access to a namespace.
    """
    meta = secret["metadata"]
    if meta.get("namespace") == namespace:
        return True
    allowed = (meta.get("annotations") or {}).get(ALLOW_NAMESPACES) or ""
    if len(allowed) > MAX_ANNOTATION_CHARS:
        return False
    patterns = allowed.split(",")
    return any(_matches(pattern.strip(), namespace) for pattern in patterns)


def _matches(pattern: str, namespace: str) -> bool:
    """Match in linear time: a regular expression with many `.*` would block the operator for every server."""
    first, *others = pattern.split("*")
    if not others:
        return pattern == namespace
    *middle, last = others
    if (
        not namespace.startswith(first)
        or len(namespace) < len(first) + len(last)
        or not namespace.endswith(last)
    ):
        return False
    position, end = len(first), len(namespace) - len(last)
    for part in middle:
        found = namespace.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
