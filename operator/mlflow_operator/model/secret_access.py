"""Who may use a Secret of another namespace: its owner says so, on the Secret itself."""

import re

from mlflow_operator.kube.objects import Object

ALLOWED = "mlflow-operator.dev/allow-namespaces"
"""Annotation of an admin Secret: names of namespaces, or patterns with `*`, separated by commas."""


def allows(secret: Object, namespace: str) -> bool:
    """Whether servers in `namespace` may be given what `secret` opens; in its own namespace they always may.

    Only `*` means more than itself, any number of characters, so that nobody is let in by a stray bracket.
    """
    meta = secret["metadata"]
    if meta.get("namespace") == namespace:
        return True
    patterns = ((meta.get("annotations") or {}).get(ALLOWED) or "").split(",")
    return any(_matches(pattern.strip(), namespace) for pattern in patterns)


def _matches(pattern: str, namespace: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), namespace) is not None
