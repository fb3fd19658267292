"""Finds out why a pod cannot start: it is unschedulable, or an image cannot be pulled. Pure functions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.e2e.kube import Object

from benchmarks.capacity import TERMINATED_PHASES, Cluster, advice, pod_requests, summary

PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
TERMINATION_MARGIN = timedelta(seconds=30)
"""A terminating pod that exceeds its grace period by this time is not expected to free its requests."""

_INSUFFICIENT = re.compile(r"Insufficient ([a-z0-9./-]*[a-z0-9])")


class PodBlockedError(Exception):
    """A pod of the benchmark cannot start. The message names the cause and the command that fixes it."""


@dataclass(frozen=True)
class StartFailure:
    """The reason why a pod does not start. `image` is empty if the pod is unschedulable."""

    pod: Object
    message: str
    image: str = ""

    @property
    def uid(self) -> str:
        """Uid of the pod."""
        return str(self.pod["metadata"]["uid"])

    @property
    def name(self) -> str:
        """Namespace and name of the pod."""
        meta = self.pod["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    @property
    def resources(self) -> list[str]:
        """Resources of which no node has enough, from the scheduler's message."""
        return [*dict.fromkeys(_INSUFFICIENT.findall(self.message))]


def find_start_failure(pod: Object) -> StartFailure | None:
    """Return why a pod does not start; None if it starts, runs or is being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if (condition["type"], condition["status"], condition.get("reason")) == (
            "PodScheduled",
            "False",
            "Unschedulable",
        ):
            return StartFailure(pod, str(condition.get("message") or ""))
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in PULL_REASONS:
            return StartFailure(
                pod, str(waiting.get("message") or waiting["reason"]), str(container["image"])
            )
    return None


def fits_now(failure: StartFailure, cluster: Cluster) -> bool:
    """Whether the node now has enough CPU and memory, so that the scheduler's next attempt may succeed."""
    return bool(failure.resources) and not cluster.free.short_of(pod_requests(failure.pod))


def frees_resources_soon(pods: Iterable[Object], now: datetime) -> bool:
    """Whether pods on a node are terminating, so that an unschedulable pod may soon fit."""
    return any(
        pod["spec"].get("nodeName")
        and (pod.get("status") or {}).get("phase") not in TERMINATED_PHASES
        and datetime.fromisoformat(ends) + TERMINATION_MARGIN > now
        for pod in pods
        if (ends := pod["metadata"].get("deletionTimestamp"))
    )


def explain(failure: StartFailure, cluster: Cluster, kubectl: str, own_namespaces: Iterable[str] = ()) -> str:
    """Return a message with the pod, the missing resource or image, the node's usage, and the command that helps."""
    if failure.image:
        return (
            f"Pod {failure.name} cannot pull image {failure.image}: {failure.message}\n"
            "To make all images available to the cluster, run:\n  make cluster"
        )
    if not {"cpu", "memory"} & {*failure.resources}:
        return (
            f"Pod {failure.name} cannot be scheduled: {failure.message}\n"
            f"To see its events, run:\n  {kubectl} -n {failure.pod['metadata']['namespace']} "
            f"describe pod {failure.pod['metadata']['name']}"
        )
    requested = pod_requests(failure.pod)
    return (
        f"Pod {failure.name} cannot be scheduled: Insufficient {', '.join(failure.resources)}. "
        f"It requests {requested}. {summary(cluster)}\n"
        f"{advice(cluster, requested - cluster.free, kubectl, own_namespaces)}"
    )
