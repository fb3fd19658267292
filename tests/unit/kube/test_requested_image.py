"""The image that the operator requested for a pod, whatever admission controllers make of the pod."""

from mlflow_operator.kube import requested_image
from mlflow_operator.kube.objects import Object

PROXY = {"name": "proxy", "image": "proxy:1"}
MIGRATE = {"name": "migrate", "image": "mirror/mlflow:3"}


def pod(*containers: Object, annotations: Object | None = None) -> Object:
    """A pod as the API server returns it."""
    return {"metadata": {"annotations": annotations}, "spec": {"containers": [*containers]}}


def test_annotation_takes_precedence() -> None:
    """A mirror has replaced the image."""
    mirrored = pod(PROXY, MIGRATE, annotations=requested_image.annotation("mlflow:3"))
    assert requested_image.of(mirrored, "migrate") == "mlflow:3"


def test_pod_of_an_earlier_operator_has_the_image_of_its_own_container() -> None:
    """An injected container may be the first one."""
    assert requested_image.of(pod(PROXY, MIGRATE), "migrate") == "mirror/mlflow:3"


def test_pod_without_own_container_has_no_image() -> None:
    assert requested_image.of(pod(PROXY), "migrate") is None
