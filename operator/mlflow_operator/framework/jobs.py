"""State of an MLflowServer's Jobs and their pods, for all kinds of Jobs."""

from collections.abc import Callable, Iterable
from typing import Any

from mlflow_operator.framework import observe, stuck_pods
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    RETRY_USER_ERROR_SECONDS,
    ReconcileContext,
    Result,
)
from mlflow_operator.kube import job_outcome, kinds, labels, pod_diagnosis, requested_image
from mlflow_operator.kube.client import Forbidden, Invalid, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry
from mlflow_operator.model.jobs import template_digest
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, false_condition


def has_condition(job: Object, condition_type: str) -> bool:
    """Whether a Job condition, such as `Complete` or `Failed`, is True."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == condition_type and c["status"] == "True" for c in conditions)


def is_finished(job: Object) -> bool:
    """Whether a Job has completed or failed."""
    return has_condition(job, "Complete") or has_condition(job, "Failed")


def pods_of(context: ReconcileContext, job: Object) -> list[Object]:
    """Pods of a Job, sorted by name."""
    return observe.pods_of(context.observed.list(kinds.POD), job)


async def record_outcomes(context: ReconcileContext) -> None:
    """Record outcomes that are only known from pods with injected containers, and end these pods."""
    for job, outcome in context.observed.unrecorded_outcomes.values():
        try:
            await context.patch(job, job_outcome.patch(job, outcome))
        except (Forbidden, Invalid, NotFound):
            # A custom role or an admission policy may not allow it. The outcome is known as long as the pod exists.
            continue


async def delete_suspended_runs(context: ReconcileContext, jobs: Iterable[Object]) -> None:
    """Delete Jobs that would keep their CronJob from starting another one. Their results must be in the status."""
    for job in filter(job_outcome.is_suspended_run, jobs):
        await context.deps.cluster.delete(job)


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


def failure_condition(
    context: ReconcileContext,
    failed: Object,
    condition_type: ConditionType,
    reason: Reason,
    describe: Callable[[str], str],
) -> Condition:
    """The condition about a failed Job. `describe` returns the message for a termination message.

    Once the pod is gone, and its termination message with it, the condition keeps the message.
    """
    previous = context.observed.condition(condition_type)
    if container_results(context, failed) or previous.get("reason") != reason.value:
        message = describe(termination_text(context, failed)) + memory_advice(context, failed)
    else:
        message = str(previous.get("message"))
    return false_condition(condition_type, reason, message)


async def repeat(
    context: ReconcileContext, failed: Object, desired: Object, condition: Condition
) -> Result[Any]:
    """Retry a failed Job that can be repeated at any time, once none of its pods is active. Reports `condition`."""
    if any(map(pod_diagnosis.is_active, pods_of(context, failed))):
        return Result(condition, requeue_after=RETRY_TRANSIENT_SECONDS)
    backoff = await retry(context, failed, desired)
    return Result(condition, requeue_after=backoff or RETRY_TRANSIENT_SECONDS)


async def other_in_progress(
    context: ReconcileContext, jobs: Iterable[Object], observed: Object | None
) -> str | None:
    """The name of an unfinished Job in `jobs` other than `observed` that has started; None if there is none.

    Deletes one that has not started: its inputs are outdated.
    """
    other = next((job for job in jobs if not is_finished(job) and job is not observed), None)
    if other and has_started(context, other):
        return str(other["metadata"]["name"])
    if other:
        await context.deps.cluster.delete(other)
    return None


async def delete_unneeded(context: ReconcileContext, jobs: Iterable[Object]) -> None:
    """Delete failed Jobs and those that have not started: what they would do is done already."""
    for job in jobs:
        if has_condition(job, "Failed") or not (is_finished(job) or has_started(context, job)):
            await context.deps.cluster.delete(job)


def has_started(context: ReconcileContext, job: Object) -> bool:
    """Whether any container of the Job has run. The lock in the database covers one that starts right now."""
    states = [state for pod in pods_of(context, job) for state in job_outcome.own_states(pod).values()]
    return bool(job_outcome.recorded(job)) or any(
        "running" in state or "terminated" in state for state in states
    )


def container_results(context: ReconcileContext, job: Object) -> list[Object]:
    """The terminated states of the own containers of a Job's pods, with exit codes and termination messages."""
    return [terminated for _, terminated in _named_results(context, job)]


def termination_messages(context: ReconcileContext, job: Object) -> dict[str, str]:
    """The termination message of each own container that has terminated; empty text if it left none.

    If there are several pods, it is that of the newest one: earlier ones were evicted.
    """
    results = reversed(_named_results(context, job))
    return {name: str(terminated.get("message") or "") for name, terminated in results}


def _named_results(context: ReconcileContext, job: Object) -> list[tuple[str, Object]]:
    """Names and terminated states of the own containers, those of the newest pod first."""
    recorded = job_outcome.recorded(job)
    if recorded:
        return [*recorded.containers.items()]
    pods = sorted(
        pods_of(context, job), key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True
    )
    states = [item for pod in pods for item in job_outcome.own_states(pod).items()]
    return [(name, state["terminated"]) for name, state in states if state.get("terminated")]


def termination_text(context: ReconcileContext, job: Object) -> str:
    """The first termination message that an own container has left; empty if there is none."""
    messages = (str(terminated.get("message") or "") for terminated in container_results(context, job))
    return next(filter(None, messages), "")


def memory_advice(context: ReconcileContext, job: Object) -> str:
    """A sentence, with a leading space, if a container of the Job was OOMKilled; else empty."""
    if all(terminated.get("reason") != "OOMKilled" for terminated in container_results(context, job)):
        return ""
    return f" It was OOMKilled. Raise {pod_diagnosis.RESOURCE_FIELDS[job_outcome.component_of(job)]}.limits.memory."


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
    fields = pod_diagnosis.RESOURCE_FIELDS[job_outcome.component_of(job)]
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


def has_unfinished_migration(context: ReconcileContext) -> bool:
    """Whether an unfinished migration Job of the desired image exists. It can start at any time."""
    observed = context.observed.list(kinds.JOB, labels.MIGRATION_POD)
    return any(not is_finished(job) and image_of(job) == context.server.image for job in observed)


def migration_in_progress(context: ReconcileContext, except_image: str | None = None) -> str | None:
    """The name of a started and unfinished migration of an image other than `except_image`; None if there is none.

    This includes the pod of a deleted Job, because the pod may still commit its transaction.
    """
    for job in context.observed.list(kinds.JOB, labels.MIGRATION_POD):
        if not is_finished(job) and has_started(context, job) and image_of(job) != except_image:
            return str(job["metadata"]["name"])
    for pod in context.observed.list(kinds.POD, labels.MIGRATION_POD):
        running = any("running" in state for state in job_outcome.own_states(pod).values())
        if running and pod_diagnosis.is_active(pod) and _image(pod, labels.MIGRATION_POD) != except_image:
            return str(pod["metadata"]["name"])
    return None


def image_of(job: Object) -> str | None:
    """The image that was requested for a Job's first own container."""
    return _image(job["spec"]["template"], job_outcome.component_of(job))


def _image(pod: Object, component: str) -> str | None:
    return requested_image.of(pod, labels.JOB_CONTAINERS[component][0])
