"""Errors of nodes and volumes in the texts of container runtimes, programs and the scheduler, and what to do."""

from collections.abc import Iterable

from mlflow_operator.kube.objects import Object

_ARCHITECTURE_ERRORS = ("exec format error", "no match for platform", "no matching manifest for")
_PERMISSION_ERRORS = (
    "permission denied",
    "operation not permitted",
    "file access denied",
    "has wrong ownership",
    "unable to write to the backend",
)
_VOLUME_TOPOLOGY_ERRORS = ("volume node affinity conflict", "find available persistent volumes to bind")


def architecture_advice(pod: Object, image: str, text: str) -> str | None:
    """Advice if `text` is the error of an image for another CPU architecture; else None."""
    if not _contains(text, _ARCHITECTURE_ERRORS):
        return None
    node = (pod.get("spec") or {}).get("nodeName")
    place = f'node "{node}"' if node else "its node"
    return (
        f"Image {image} has no variant for the CPU architecture of {place}. Use an image for all architectures of the "
        "nodes, or select nodes with the label kubernetes.io/arch in spec.podTemplate.spec.nodeSelector."
    )


def volume_advice(pod: Object, field: str, text: str) -> str:
    """Advice if `text` is the error of a volume that the pod may not write to; else an empty string.

    `field` is the member of the spec with the volume.
    """
    if not _contains(text, _PERMISSION_ERRORS):
        return ""
    group = ((pod.get("spec") or {}).get("securityContext") or {}).get("fsGroup")
    return (
        " Its volume may ignore fsGroup, as hostPath and NFS volumes do. Make it writable for group "
        f"{group}, or create the server with a StorageClass that supports fsGroup in {field}.storage.storageClassName."
    )


def topology_advice(reasons: str) -> str:
    """Advice if the scheduler's reasons are about the location of a volume; else an empty string."""
    if not _contains(reasons, _VOLUME_TOPOLOGY_ERRORS):
        return ""
    return (
        " The volume is in another zone or on another node than the pod may run: change nodeSelector, affinity and "
        "tolerations in spec.podTemplate.spec so that the pod can run where the volume is."
    )


def _contains(text: str, fragments: Iterable[str]) -> bool:
    return any(fragment in text.lower() for fragment in fragments)
