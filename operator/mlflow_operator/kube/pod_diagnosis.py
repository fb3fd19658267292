"""Diagnose from the status of pods why they do not become ready."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_operator.kube import labels, scheduling
from mlflow_operator.kube.objects import Object
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason

_IMAGE_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True)
class Diagnosis:
    """Cause of a pod that does not become ready."""

    reason: Reason
    message: str


RESOURCE_FIELDS = {
    labels.SERVER_POD: "spec.resources",
    labels.DATABASE_POD: "spec.database.embedded.resources",
    labels.ARTIFACT_STORE_POD: "spec.artifacts.embedded.resources",
}
"""Field with the container resources of each component. The resources of the migration are not configurable."""


def is_active(pod: Object) -> bool:
    """Whether the pod runs or may still start. An evicted pod, for example, stays listed but never runs again."""
    return (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")


def diagnose(pods: Iterable[Object]) -> Diagnosis | None:
    """Return the first failure of the active pods, ordered by name; None if they are only starting."""
    ordered = sorted(filter(is_active, pods), key=lambda pod: str(pod["metadata"]["name"]))
    return next((diagnosis for pod in ordered for diagnosis in _diagnose_pod(pod)), None)


def _diagnose_pod(pod: Object) -> Iterator[Diagnosis]:
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield _diagnose_unschedulable(pod, str(condition.get("message") or ""))
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        yield from _diagnose_container(pod, container)


def _diagnose_unschedulable(pod: Object, message: str) -> Diagnosis:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    if scheduling.UNBOUND_CLAIMS in message:
        return Diagnosis(
            Reason.VOLUME_PENDING,
            f"Pod {name} is waiting for a volume that is not provisioned. Check that a StorageClass exists and that "
            f"its provisioner is running. To see the cause, run: kubectl describe pvc -n {namespace}",
        )
    lower = f", or lower {_resources_field(pod)}" if _resources_field(pod) else ""
    reasons = scheduling.describe(pod, message)
    return Diagnosis(
        Reason.UNSCHEDULABLE,
        f"No node can run pod {name}: {reasons}. Free resources or add a suitable node{lower}.",
    )


def _diagnose_container(pod: Object, container: Object) -> Iterator[Diagnosis]:
    state: dict[str, Any] = container.get("state", {})
    waiting = state.get("waiting") or {}
    reason, name = waiting.get("reason", ""), container["name"]
    if reason in _IMAGE_PULL_REASONS:
        yield Diagnosis(
            Reason.IMAGE_PULL_FAILED,
            f"Image {container['image']} cannot be pulled: "
            f"{message_text.as_sentence(_pull_error(waiting.get('message')))} "
            "Check the image name, the registry, and spec.podTemplate.spec.imagePullSecrets.",
        )
    elif reason == "CreateContainerConfigError":
        yield Diagnosis(
            Reason.SECRET_NOT_FOUND,
            f"Container {name} cannot be created: {message_text.as_sentence(waiting.get('message'))} "
            "Create the missing object, or remove the reference from the spec.",
        )
    terminated = (container.get("lastState") or {}).get("terminated") or state.get("terminated")
    if terminated and not container.get("ready") and pod["metadata"].get("deletionTimestamp") is None:
        yield _diagnose_termination(pod, name, terminated)


def _diagnose_termination(pod: Object, name: str, terminated: Object) -> Diagnosis:
    if terminated.get("reason") == "OOMKilled":
        memory_advice = f" Raise {_resources_field(pod)}.limits.memory" if _resources_field(pod) else ""
        workers_advice = (
            ", or lower spec.workers" if _resources_field(pod) == RESOURCE_FIELDS[labels.SERVER_POD] else ""
        )
        return Diagnosis(
            Reason.SERVER_CRASHING,
            f"Container {name} was OOMKilled.{memory_advice}{workers_advice}{'.' if memory_advice else ''}",
        )
    lines = message_text.last_lines(terminated.get("message"))
    if terminated.get("exitCode") == 0 or not lines:
        # MLflow exits with 0 even if it cannot bind its port, so the exit code alone is not sufficient.
        logs_command = (
            f"kubectl logs -n {pod['metadata']['namespace']} {pod['metadata']['name']} -c {name} --previous"
        )
        return Diagnosis(
            Reason.SERVER_CRASHING,
            f"Container {name} terminated with exit code {terminated.get('exitCode')} before it was ready. "
            f"To see its log, run: {logs_command}",
        )
    return Diagnosis(
        Reason.SERVER_CRASHING,
        f"Container {name} terminated with exit code {terminated.get('exitCode')}. Its last lines: {lines}",
    )


def _resources_field(pod: Object) -> str | None:
    return RESOURCE_FIELDS.get((pod["metadata"].get("labels") or {}).get(labels.COMPONENT, ""))


def _pull_error(message: str | None) -> str | None:
    """Remove kubelet's prefix "Back-off pulling image", which alternates between attempts.

    Each change of a message would be an Event.
    """
    return message.rpartition("ErrImagePull: ")[2] if message else None
