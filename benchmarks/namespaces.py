"""Names and manifests of the namespaces that benchmarks create. Pure, except for the random part of a name."""

import uuid

from tests.e2e.kube import Object

from benchmarks import BENCH_LABEL

PREFIX = "bench-"


def name(purpose: str) -> str:
    """A name that no other namespace has."""
    return f"{PREFIX}{purpose}-{uuid.uuid4().hex[:5]}"


def manifest(name: str, restricted: bool) -> Object:
    """A labelled namespace; `restricted` enforces the pod security standard of that name."""
    labels = {BENCH_LABEL: "true"} | (
        {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    )
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
