"""A server's Jobs as they stand, of whatever sort, and the pods that they made."""

from typing import Any

from mlflow_operator.framework import stuck_pods
from mlflow_operator.framework.step import RETRY_USER_ERROR_SECONDS, ReconcileContext, Result
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition


def finished_at(job: Object, how: str) -> bool:
    """Whether it is over, and in this way: `Complete` or `Failed`."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == how and c["status"] == "True" for c in conditions)


def is_finished(job: Object) -> bool:
    """Whether nothing more comes of it."""
    return finished_at(job, "Complete") or finished_at(job, "Failed")


def pods_of(context: ReconcileContext, job: Object) -> list[Object]:
    """Its pods; by uid, for those of an earlier try under the same name may not be gone yet."""
    uid = job["metadata"]["uid"]
    return [
        pod
        for component in labels.JOB_PODS
        for pod in context.observed.of(kinds.POD, component)
        if any(ref.get("uid") == uid for ref in pod["metadata"].get("ownerReferences") or ())
    ]


def has_started(context: ReconcileContext, job: Object) -> bool:
    """Whether any container of the Job ever ran; the lock in the database holds should one start just now."""
    states = [state for pod in pods_of(context, job) for state in container_states(pod)]
    return any("running" in state or "terminated" in state for state in states)


def container_states(pod: Object) -> list[Object]:
    """How its containers are."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [status.get("state") or {} for status in statuses]


def container_results(context: ReconcileContext, job: Object) -> list[Object]:
    """How the containers of its pods ended, each with its last words."""
    states = [state for pod in pods_of(context, job) for state in container_states(pod)]
    return [state["terminated"] for state in states if state.get("terminated")]


async def blocking_reason(
    context: ReconcileContext, kind: ConditionType, job: Object, pods: list[Object], part: str
) -> Result[Any] | None:
    """What keeps a Job that has not ended from its work, said of `kind`; None if nothing does. `pods` are its own,
    `part` is what it does, for people."""
    finding = pod_diagnosis.of_pods(pods)
    # a container that has ended is no crash, but the end of a try: a moment later the Job itself says how it was
    if finding and finding.reason is not Reason.SERVER_CRASHING:
        return Result(false_condition(kind, finding.reason, finding.message))
    refused = None if pods else await stuck_pods.pod_creation_failure(context, job, part)
    return (
        Result(false_condition(kind, refused.reason, refused.message), requeue_after=RETRY_USER_ERROR_SECONDS)
        if refused
        else None
    )


def migration_under_way(context: ReconcileContext, but_of: str) -> str | None:
    """The name of a migration that has begun and not ended, of another image than `but_of`; None if there is none.

    Also of a Job that somebody deleted: its pod may still bring its transaction to an end.
    """
    for job in context.observed.of(kinds.JOB, labels.MIGRATION_POD):
        if not is_finished(job) and has_started(context, job) and image_of(job) != but_of:
            return str(job["metadata"]["name"])
    for pod in context.observed.of(kinds.POD, labels.MIGRATION_POD):
        running = any("running" in state for state in container_states(pod))
        if running and pod_diagnosis.is_active(pod) and _image(pod.get("spec") or {}) != but_of:
            return str(pod["metadata"]["name"])
    return None


def image_of(job: Object) -> str | None:
    """The image that it runs."""
    return _image(job["spec"]["template"]["spec"])


def _image(spec: Object) -> str | None:
    return next((str(container["image"]) for container in spec.get("containers") or ()), None)
