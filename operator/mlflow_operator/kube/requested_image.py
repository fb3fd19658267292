"""The image that the operator requested for a pod. Admission controllers may replace it with a mirror or a digest."""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object


def annotation(image: str) -> dict[str, str]:
    """The annotation of a pod that runs `image`."""
    return {labels.REQUESTED_IMAGE: image}


def of(pod: Object, container: str) -> str | None:
    """The requested image of a pod or a pod template, whose first own container is `container`; None if it is missing.

    Pods that earlier versions of the operator created have no annotation.
    """
    requested = ((pod.get("metadata") or {}).get("annotations") or {}).get(labels.REQUESTED_IMAGE)
    # An injected container may be the first one.
    images = (c["image"] for c in (pod.get("spec") or {}).get("containers") or () if c["name"] == container)
    return requested or next(map(str, images), None)
