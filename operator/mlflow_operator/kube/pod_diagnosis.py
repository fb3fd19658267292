"""What keeps pods from becoming ready, read from the pods themselves."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_operator.kube import labels, scheduling
from mlflow_operator.kube.objects import Object
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True)
class Diagnosis:
    """A fault of a pod, in a sentence."""

    reason: Reason
    message: str


RESOURCES = {
    labels.SERVER_POD: "spec.resources",
    labels.DATABASE_POD: "spec.database.embedded.resources",
    labels.ARTIFACT_STORE_POD: "spec.artifacts.embedded.resources",
}
"""The field that decides what a component's container may take; the migration's is nobody's choice."""


def is_active(pod: Object) -> bool:
    """Whether the pod runs or may yet: one that was evicted stays listed and never comes back."""
    return (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")


def of_pods(pods: Iterable[Object]) -> Diagnosis | None:
    """The first fault among those of `pods` that live, by name; None where they are merely on their way."""
    ordered = sorted(filter(is_active, pods), key=lambda pod: str(pod["metadata"]["name"]))
    return next((finding for pod in ordered for finding in _of_pod(pod)), None)


def _of_pod(pod: Object) -> Iterator[Diagnosis]:
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield _unscheduled(pod, str(condition.get("message") or ""))
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        yield from _of_container(pod, container)


def _unscheduled(pod: Object, said: str) -> Diagnosis:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    if scheduling.UNBOUND in said:
        return Diagnosis(
            Reason.VOLUME_PENDING,
            f"Pod {name} waits for a volume that nobody makes. Is there a StorageClass, and does its provisioner run? "
            f"See: kubectl describe pvc -n {namespace}",
        )
    lower = f", or lower {_field(pod)}" if _field(pod) else ""
    why = scheduling.sentence(pod, said)
    return Diagnosis(
        Reason.UNSCHEDULABLE, f"No node takes pod {name}: {why}. Free or add what is missing{lower}."
    )


def _of_container(pod: Object, container: Object) -> Iterator[Diagnosis]:
    state: dict[str, Any] = container.get("state", {})
    waiting = state.get("waiting") or {}
    reason, name = waiting.get("reason", ""), container["name"]
    if reason in _PULL:
        yield Diagnosis(
            Reason.IMAGE_PULL_FAILED,
            f"The image {container['image']} can't be pulled: "
            f"{message_text.as_sentence(_cause(waiting.get('message')))} "
            "Check its name, the registry, and spec.podTemplate.spec.imagePullSecrets.",
        )
    elif reason == "CreateContainerConfigError":
        yield Diagnosis(
            Reason.SECRET_NOT_FOUND,
            f"Container {name} can't be made: {message_text.as_sentence(waiting.get('message'))} "
            "Create what is missing, or take it out of the spec.",
        )
    ended = (container.get("lastState") or {}).get("terminated") or state.get("terminated")
    if ended and not container.get("ready") and pod["metadata"].get("deletionTimestamp") is None:
        yield _ending(pod, name, ended)


def _ending(pod: Object, name: str, ended: Object) -> Diagnosis:
    if ended.get("reason") == "OOMKilled":
        raise_it = f" Raise {_field(pod)}.limits.memory" if _field(pod) else ""
        workers = ", or lower spec.workers" if _field(pod) == RESOURCES[labels.SERVER_POD] else ""
        return Diagnosis(
            Reason.SERVER_CRASHING,
            f"Container {name} was killed for want of memory.{raise_it}{workers}{'.' if raise_it else ''}",
        )
    lines = message_text.last_lines(ended.get("message"))
    if ended.get("exitCode") == 0 or not lines:
        # MLflow ends with 0 even when it can't bind its port, so the code alone says nothing
        where = (
            f"kubectl logs -n {pod['metadata']['namespace']} {pod['metadata']['name']} -c {name} --previous"
        )
        return Diagnosis(
            Reason.SERVER_CRASHING,
            f"Container {name} ended with exit code {ended.get('exitCode')} before it was ready. See: {where}",
        )
    return Diagnosis(
        Reason.SERVER_CRASHING,
        f"Container {name} ended with exit code {ended.get('exitCode')}. Its last lines: {lines}",
    )


def _field(pod: Object) -> str | None:
    return RESOURCES.get((pod["metadata"].get("labels") or {}).get(labels.COMPONENT, ""))


def _cause(message: str | None) -> str | None:
    """Without kubelet's "Back-off pulling image": it comes and goes with each try, and each change is an Event."""
    return message.rpartition("ErrImagePull: ")[2] if message else None
