"""Diagnose from the status of pods why they do not become ready."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_operator.kube import job_outcome, labels, node_errors, scheduling
from mlflow_operator.kube.objects import Object
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason

_MISSING_OBJECT = re.compile(r'\b(secret|configmap)s? "[^"]*" not found')
_MISSING_KEY = re.compile(r"couldn't find key .* in (Secret|ConfigMap) ")
"""Messages of the kubelet about references of a container's environment."""

FALLBACK_PREFIX = "mlflow-operator: the fast path is not used: "
"""How the termination message of a server begins whose launcher reports a fallback (`pod_scripts/launcher.py`)."""

_IMAGE_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_FULL_IMAGE_TAG = re.compile(r":v(\d+)\.(\d+)\.[^:/]*-full$")
_FIRST_FULL_IMAGE = (3, 9)
"""First MLflow version whose official image has a variant with the drivers for Postgres and S3."""


@dataclass(frozen=True)
class Diagnosis:
    """Cause of a pod that does not become ready."""

    reason: Reason
    message: str


RESOURCE_FIELDS = {
    labels.SERVER_POD: "spec.resources",
    labels.DATABASE_POD: "spec.database.embedded.resources",
    labels.ARTIFACT_STORE_POD: "spec.artifacts.embedded.resources",
    labels.PREFLIGHT_POD: "spec.podTemplate.components[Preflight].resources",
    labels.MIGRATION_POD: "spec.podTemplate.components[Migration].resources",
    labels.BACKUP_POD: "spec.podTemplate.components[Backup].resources",
    labels.RESTORE_POD: "spec.podTemplate.components[Restore].resources",
    labels.GARBAGE_COLLECTION_POD: "spec.podTemplate.components[GarbageCollection].resources",
    labels.REWRAP_POD: "spec.podTemplate.components[Encryption].resources",
    labels.AUTHENTICATION_POD: "spec.podTemplate.components[Authentication].resources",
}
"""Field with the container resources of each component."""

_STORE_PODS = (labels.DATABASE_POD, labels.ARTIFACT_STORE_POD)


def is_active(pod: Object) -> bool:
    """Whether the pod runs or may still start. An evicted pod, for example, stays listed but never runs again.

    The pod of a Job whose own containers have terminated is not active, even if injected containers still run.
    """
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return False
    return not job_outcome.own_containers_ended(pod)


def fallback_reason(container: Object) -> str | None:
    """Why the launcher of a server falls back to MLflow's own command, as a sentence; None if it has not reported that.

    `container` is the status of the container, which ended once to report it.
    """
    message = str((_last_termination(container) or {}).get("message") or "")
    if not message.startswith(FALLBACK_PREFIX):
        return None
    return message_text.as_sentence(message.removeprefix(FALLBACK_PREFIX))


def diagnose(pods: Iterable[Object]) -> Diagnosis | None:
    """Return the first failure of the active pods, ordered by name; None if they are only starting."""
    ordered = sorted(filter(is_active, pods), key=lambda pod: str(pod["metadata"]["name"]))
    return next((diagnosis for pod in ordered for diagnosis in _diagnose_pod(pod)), None)


def _diagnose_pod(pod: Object) -> Iterator[Diagnosis]:
    status = pod.get("status", {})
    node = lost_node(pod)
    if node:
        yield from _diagnose_lost_node(pod, node)
        return
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield _diagnose_unschedulable(pod, str(condition.get("message") or ""))
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        yield from _diagnose_container(pod, container)


def lost_node(pod: Object) -> str | None:
    """Name of the pod's node if its kubelet no longer reports, else None.

    The node controller then sets the condition Ready to False and changes nothing else. A kubelet only does that while
    a container or a readiness gate is not ready.
    """
    spec = pod.get("spec") or {}
    status = {c.get("type"): c.get("status") for c in (pod.get("status") or {}).get("conditions") or ()}
    if status.get("Ready") != "False" or status.get("ContainersReady") != "True":
        return None
    gates = [gate.get("conditionType") for gate in spec.get("readinessGates") or ()]
    return str(spec.get("nodeName") or "") if all(status.get(gate) == "True" for gate in gates) else None


def lost_node_advice(node: str) -> str:
    """How to make Kubernetes give up the pods of a lost node."""
    return (
        "If the node is shut down and does not return, run: "
        f"kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )


def _diagnose_lost_node(pod: Object, node: str) -> Iterator[Diagnosis]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    fact = f'Node "{node}" does not respond, and pod {name} is on it. Repair the node'
    if _has_owner(pod, "ReplicaSet"):
        if pod["metadata"].get("deletionTimestamp") is None:
            yield Diagnosis(
                Reason.NODE_UNREACHABLE,
                f"{fact}, or wait: Kubernetes starts another pod after about 5 minutes. To start it now, run: "
                f"kubectl delete pod -n {namespace} {name} --wait=false",
            )
        return
    # Two pods must never write to one volume or migrate one database: Kubernetes waits until the pod has ended.
    yield Diagnosis(
        Reason.NODE_UNREACHABLE,
        f"{fact}. Kubernetes does not start another pod before it knows that this one has ended. "
        f"{lost_node_advice(node)}. A volume that exists only on this node is not available elsewhere.",
    )


def _has_owner(pod: Object, kind: str) -> bool:
    return any(owner.get("kind") == kind for owner in pod["metadata"].get("ownerReferences") or ())


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
        f"No node can run pod {name}: {reasons}. Free resources or add a suitable node{lower}."
        f"{node_errors.topology_advice(reasons)}",
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
            + (
                node_errors.architecture_advice(pod, container["image"], waiting.get("message") or "")
                or _missing_full_image_advice(str(container["image"]))
                or "Check the image name, the registry, and spec.podTemplate.spec.imagePullSecrets."
            ),
        )
    elif reason == "CreateContainerConfigError":
        yield _diagnose_rejected_container(name, str(waiting.get("message") or ""))
    terminated = _last_termination(container)
    is_crash = terminated and not container.get("ready") and fallback_reason(container) is None
    if terminated and is_crash and pod["metadata"].get("deletionTimestamp") is None:
        yield _diagnose_termination(pod, container, terminated)


def _diagnose_rejected_container(name: str, message: str) -> Diagnosis:
    """Why the kubelet rejects a container: a missing object or key, or for example an image that runs as root."""
    # The rest of the message names the pod, so it would differ with each attempt.
    fact = f"Container {name} cannot be created: {message_text.as_sentence(message.partition(' (pod: ')[0])}"
    if _MISSING_OBJECT.search(message):
        advice = "Create the missing object, or remove the reference from the spec."
        return Diagnosis(Reason.SECRET_NOT_FOUND, f"{fact} {advice}")
    if _MISSING_KEY.search(message):
        advice = "Add the key, or correct the reference in the spec."
        return Diagnosis(Reason.SECRET_KEY_MISSING, f"{fact} {advice}")
    return Diagnosis(Reason.OPERATION_REFUSED, f"{fact} Fix the reported cause.")


def _last_termination(container: Object) -> Object | None:
    states = container.get("lastState") or {}, container.get("state") or {}
    return next((state["terminated"] for state in states if state.get("terminated")), None)


def _diagnose_termination(pod: Object, container: Object, terminated: Object) -> Diagnosis:
    name = container["name"]
    architecture = node_errors.architecture_advice(
        pod, str(container.get("image")), terminated.get("message") or ""
    )
    if architecture:
        return Diagnosis(
            Reason.SERVER_CRASHING, f"Container {name} cannot run (exec format error). {architecture}"
        )
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
    store_field = _resources_field(pod) if job_outcome.component_of(pod) in _STORE_PODS else None
    advice = (
        node_errors.volume_advice(pod, store_field.removesuffix(".resources"), lines) if store_field else ""
    )
    return Diagnosis(
        Reason.SERVER_CRASHING,
        f"Container {name} terminated with exit code {terminated.get('exitCode')}.{advice} Its last lines: {lines}",
    )


def _missing_full_image_advice(image: str) -> str | None:
    tag = _FULL_IMAGE_TAG.search(image)
    if tag is None or (int(tag[1]), int(tag[2])) >= _FIRST_FULL_IMAGE:
        return None
    first = ".".join(map(str, _FIRST_FULL_IMAGE))
    return (
        f"MLflow releases before {first} have no image with the tag -full. Set spec.version to {first} or later, or "
        "spec.image to an image with psycopg2 and boto3."
    )


def _resources_field(pod: Object) -> str | None:
    return RESOURCE_FIELDS.get(job_outcome.component_of(pod))


def _pull_error(message: str | None) -> str | None:
    """Remove kubelet's prefix "Back-off pulling image", which alternates between attempts.

    Each change of a message would be an Event.
    """
    return message.rpartition("ErrImagePull: ")[2] if message else None
