"""Why a pod cannot start: the scheduler finds no node for it, or the kubelet cannot pull an image. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.e2e.kube import Object

from benchmarks.capacity import TERMINATED, Cluster, advice, requests, summary

PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
OVERDUE = timedelta(seconds=30)
"""A terminating pod that has exceeded its grace period by so much is not expected to free its requests."""

_INSUFFICIENT = re.compile(r"Insufficient ([a-z0-9./-]*[a-z0-9])")


class PodBlockedError(Exception):
    """A pod of the benchmark cannot start; the message names the cause and the command that removes it."""


@dataclass(frozen=True)
class Obstacle:
    """Why one pod does not start. `image` is empty if the pod is unschedulable."""

    pod: Object
    message: str
    image: str = ""

    @property
    def uid(self) -> str:
        """Identifies the pod."""
        return str(self.pod["metadata"]["uid"])

    @property
    def name(self) -> str:
        """Namespace and name of the pod."""
        meta = self.pod["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    @property
    def resources(self) -> list[str]:
        """The resources of which no node has enough, as the scheduler names them."""
        return [*dict.fromkeys(_INSUFFICIENT.findall(self.message))]


def obstacle(pod: Object) -> Obstacle | None:
    """The reason why a pod does not start; None if it starts, runs or is being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if (condition["type"], condition["status"], condition.get("reason")) == (
            "PodScheduled",
            "False",
            "Unschedulable",
        ):
            return Obstacle(pod, str(condition.get("message") or ""))
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in PULL_REASONS:
            return Obstacle(pod, str(waiting.get("message") or waiting["reason"]), str(container["image"]))
    return None


def fits(found: Obstacle, cluster: Cluster) -> bool:
    """Whether the node has enough CPU and memory by now, so that the scheduler's next attempt may succeed."""
    return bool(found.resources) and not cluster.free.short_of(requests(found.pod))


def frees_soon(pods: Iterable[Object], now: datetime) -> bool:
    """Whether pods on a node are terminating, so that an unschedulable pod may fit in a moment."""
    return any(
        pod["spec"].get("nodeName")
        and (pod.get("status") or {}).get("phase") not in TERMINATED
        and datetime.fromisoformat(ends) + OVERDUE > now
        for pod in pods
        if (ends := pod["metadata"].get("deletionTimestamp"))
    )


def explain(found: Obstacle, cluster: Cluster, kubectl: str, own: Iterable[str] = ()) -> str:
    """One message: the pod, what it lacks, what takes the room on the node, and the command that frees it."""
    if found.image:
        return (
            f"Pod {found.name} cannot pull image {found.image}: {found.message}\n"
            "To make all images available to the cluster, run:\n  make cluster"
        )
    if not {"cpu", "memory"} & {*found.resources}:
        return (
            f"Pod {found.name} cannot be scheduled: {found.message}\n"
            f"To see its events, run:\n  {kubectl} -n {found.pod['metadata']['namespace']} "
            f"describe pod {found.pod['metadata']['name']}"
        )
    asked = requests(found.pod)
    return (
        f"Pod {found.name} cannot be scheduled: Insufficient {', '.join(found.resources)}. "
        f"It requests {asked}. {summary(cluster)}\n"
        f"{advice(cluster, asked - cluster.free, kubectl, own)}"
    )
