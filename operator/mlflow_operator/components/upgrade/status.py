"""`status.upgrade`: the last upgrade, with its start, its completion and its downtime."""

from collections.abc import Iterable
from math import ceil

from mlflow_operator.components.upgrade.preflight_decision import RunningVersion
from mlflow_operator.components.upgrade.preflight_result import PreflightResult
from mlflow_operator.kube import labels, timestamps
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Server


def start(
    running: RunningVersion, server: Server, preflight: PreflightResult, started_at: str, status: Object
) -> Object:
    """`status.upgrade` once the upgrade may start.

    `status` is the previous `status.upgrade`, `started_at` (RFC 3339) the start of the preflight.
    """
    same = status.get("fromVersion") == running.version and status.get("toVersion") == server.version
    if same and in_progress(status):
        return status
    revisions = {"fromRevision": preflight.revision, "toRevision": preflight.head}
    fields = {
        "fromVersion": running.version,
        "toVersion": server.version,
        **revisions,
        "startTime": started_at,
    }
    return {key: value for key, value in fields.items() if value is not None}


def in_progress(status: Object) -> bool:
    """Whether `status.upgrade` describes an unfinished upgrade."""
    return bool(status.get("startTime")) and not status.get("completionTime")


def complete(status: Object, deployment: Object, pods: Iterable[Object], now: str) -> Object:
    """`status.upgrade` once all server pods of the new version are ready."""
    return {
        **status,
        "completionTime": now,
        "downtimeSeconds": _downtime_seconds(status, deployment, pods, now),
    }


def _downtime_seconds(status: Object, deployment: Object, pods: Iterable[Object], now: str) -> int:
    stopped_at = (deployment["metadata"].get("annotations") or {}).get(labels.STOPPED_AT)
    if not stopped_at or timestamps.parse(stopped_at) < timestamps.parse(status["startTime"]):
        return 0
    ready_times = [
        condition["lastTransitionTime"]
        for pod in pods
        for condition in (pod.get("status") or {}).get("conditions") or ()
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    first_ready = min(map(timestamps.parse, ready_times), default=timestamps.parse(now))
    return max(0, ceil((first_ready - timestamps.parse(stopped_at)).total_seconds()))
