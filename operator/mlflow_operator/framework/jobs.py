"""State of an MLflowServer's Jobs and their pods, for all kinds of Jobs."""

from collections.abc import Iterable
from typing import Any

from mlflow_operator.framework import stuck_pods
from mlflow_operator.framework.component import RETRY_USER_ERROR_SECONDS, ReconcileContext, Result
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry
from mlflow_operator.model.jobs import template_digest
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition


def has_condition(job: Object, condition_type: str) -> bool:
    """Whether a Job condition, such as `Complete` or `Failed`, is True."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == condition_type and c["status"] == "True" for c in conditions)


def component_of(job: Object) -> str:
    """The component that a Job belongs to."""
    return str(job["metadata"]["labels"][labels.COMPONENT])


def is_finished(job: Object) -> bool:
    """Whether a Job has completed or failed."""
    return has_condition(job, "Complete") or has_condition(job, "Failed")


def pods_of(context: ReconcileContext, job: Object) -> list[Object]:
    """Pods of a Job. Matches by uid, because pods of an earlier Job of the same name may still exist."""
    uid = job["metadata"]["uid"]
    return [
        pod
        for component in labels.JOB_PODS
        for pod in context.observed.list(kinds.POD, component)
        if any(ref.get("uid") == uid for ref in pod["metadata"].get("ownerReferences") or ())
    ]


async def retry(context: ReconcileContext, finished: Object, desired: Object) -> float:
    """Replace a finished Job by its next attempt once the backoff has passed. Returns the remaining backoff in seconds.

    0 means that the next attempt exists. `desired` is the Job of a first attempt.
    """
    backoff = job_retry.backoff(finished, context.deps.now())
    if not backoff:
        await context.deps.cluster.delete(finished)
        next_attempt = job_retry.attempt_number(finished) + 1
        await context.ensure_job(job_retry.with_attempt_number(desired, next_attempt))
    return backoff


def has_started(context: ReconcileContext, job: Object) -> bool:
    """Whether any container of the Job has run. The lock in the database covers one that starts right now."""
    states = [state for pod in pods_of(context, job) for state in container_states(pod)]
    return any("running" in state or "terminated" in state for state in states)


def container_states(pod: Object) -> list[Object]:
    """The `state` of each container of a pod."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [status.get("state") or {} for status in statuses]


def container_results(context: ReconcileContext, job: Object) -> list[Object]:
    """The terminated states of the containers of a Job's pods, with exit codes and termination messages."""
    states = [state for pod in pods_of(context, job) for state in container_states(pod)]
    return [state["terminated"] for state in states if state.get("terminated")]


def memory_advice(context: ReconcileContext, job: Object) -> str:
    """A sentence, with a leading space, if a container of the Job was OOMKilled; else empty."""
    if all(terminated.get("reason") != "OOMKilled" for terminated in container_results(context, job)):
        return ""
    return f" It was OOMKilled. Raise {pod_diagnosis.RESOURCE_FIELDS[component_of(job)]}.limits.memory."


async def blocking_reason(
    context: ReconcileContext, condition_type: ConditionType, job: Object, pods: list[Object], subject: str
) -> Result[Any] | None:
    """Explain why an unfinished Job makes no progress, as a condition of `condition_type`. None if it is not blocked.

    `pods` are the Job's pods. `subject` names the Job's task in messages, such as "the backup".
    """
    diagnosis = pod_diagnosis.diagnose(pods)
    # A terminated container is the end of an attempt, not a crash: the Job's own condition follows a moment later.
    if diagnosis and diagnosis.reason is not Reason.SERVER_CRASHING:
        return Result(false_condition(condition_type, diagnosis.reason, diagnosis.message))
    fields = pod_diagnosis.RESOURCE_FIELDS[component_of(job)]
    error = None if pods else await stuck_pods.pod_creation_failure(context, job, subject, fields)
    if not error:
        return None
    return Result(
        false_condition(condition_type, error.reason, error.message), requeue_after=RETRY_USER_ERROR_SECONDS
    )


async def blocked_run(
    context: ReconcileContext,
    condition_type: ConditionType,
    scheduled: Iterable[Object],
    cronjob: Object,
    subject: str,
) -> Result[Any] | None:
    """Why an unfinished Job of a CronJob makes no progress; None if none is blocked.

    Deletes a blocked Job of an outdated pod template, because no other run starts before it ends. `cronjob` is the
    desired one; `scheduled` are its Jobs. `subject` names the task in messages.
    """
    template = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    for job in scheduled:
        if is_finished(job):
            continue
        blocked = await blocking_reason(context, condition_type, job, pods_of(context, job), subject)
        if blocked and is_obsolete(context, job, template):
            await context.deps.cluster.delete(job)
        elif blocked:
            return blocked
    return None


def is_obsolete(context: ReconcileContext, job: Object, template: Object) -> bool:
    """Whether a Job was created from another pod template than `template`, and its pod has not started.

    Kubernetes would try to create the pod of the previous template until the deadline.
    """
    digest = (job["metadata"].get("annotations") or {}).get(labels.TEMPLATE_DIGEST)
    return digest != template_digest(template) and not has_started(context, job)


def migration_in_progress(context: ReconcileContext, except_image: str) -> str | None:
    """The name of a started and unfinished migration of an image other than `except_image`; None if there is none.

    This includes the pod of a deleted Job, because the pod may still commit its transaction.
    """
    for job in context.observed.list(kinds.JOB, labels.MIGRATION_POD):
        if not is_finished(job) and has_started(context, job) and image_of(job) != except_image:
            return str(job["metadata"]["name"])
    for pod in context.observed.list(kinds.POD, labels.MIGRATION_POD):
        running = any("running" in state for state in container_states(pod))
        if running and pod_diagnosis.is_active(pod) and _image(pod.get("spec") or {}) != except_image:
            return str(pod["metadata"]["name"])
    return None


def image_of(job: Object) -> str | None:
    """The image of a Job's first container."""
    return _image(job["spec"]["template"]["spec"])


def _image(spec: Object) -> str | None:
    return next((str(container["image"]) for container in spec.get("containers") or ()), None)
