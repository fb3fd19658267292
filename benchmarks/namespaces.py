"""Names and manifests of the namespaces that benchmarks create. Pure functions, except for random names."""

import uuid

from tests.e2e.kube import Object

from benchmarks import BENCH_LABEL

PREFIX = "bench-"


def name(purpose: str) -> str:
    """Return a unique name for a namespace."""
    return f"{PREFIX}{purpose}-{uuid.uuid4().hex[:5]}"


def manifest(name: str, restricted: bool) -> Object:
    """Return a labelled namespace. `restricted`: enforce the restricted Pod Security level."""
    labels = {BENCH_LABEL: "true"} | (
        {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    )
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
