"""Report why the pods of a server do not use the fast path although their version supports it.

The launcher (`pod_scripts/launcher.py`) reports a fallback by ending its container once, with the reason as the
termination message.
"""

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.running_server import RunningServer
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import availability, deployment

EVENT_REASON = "FastPathNotUsed"
"""Reason of the Event. No condition has this reason, because the server works."""

_FIELD = "fastPathFallback"


def status_patch(context: ReconcileContext, running: RunningServer | None) -> Object:
    """The field of the status if its value is known. It is removed while a new pod template is rolled out.

    A container that ended again since its report keeps the field: the status of a pod has only the last end.
    """
    if running is None or running.deployment is None:
        return {}
    if not availability.is_rolled_out(running.deployment):
        return {_FIELD: {}}
    containers = [
        container
        for pod in context.observed.list(kinds.POD, labels.SERVER_POD)
        if pod_diagnosis.is_active(pod) and not pod["metadata"].get("deletionTimestamp")
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
        if container["name"] == deployment.CONTAINER_NAME
    ]
    reasons = filter(None, map(pod_diagnosis.fallback_reason, containers))
    reason = min(reasons, default=None)
    if reason is None and any(container.get("restartCount") for container in containers):
        return {}
    return {_FIELD: reason or {}}


async def publish_event(context: ReconcileContext, new_status: Object) -> None:
    """Publish one Event for each new reason. `new_status` is the result of `status_patch`, with other fields."""
    reason = new_status.get(_FIELD)
    if reason and reason != context.observed.status.get(_FIELD):
        await context.deps.events.publish(
            context.observed.resource,
            False,
            EVENT_REASON,
            f"MLflow's own command starts the server, which needs about twice the memory: {reason} Remove the cause, "
            "or make sure that spec.resources allows it.",
        )
