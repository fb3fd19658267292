"""Reconcile the garbage collection CronJob, and report the result of its last Job.

Owns: CronJob `<name>-gc`; condition GarbageCollectionReady; `status.garbageCollection`; Event GarbageCollected.
Needs: server (`RunningServer`): the CronJob is suspended unless the server runs the desired version.
Provides: nothing to other components. The server does not wait for it.
"""

from dataclasses import dataclass

from mlflow_operator.components.garbage_collection import manifests
from mlflow_operator.framework import jobs
from mlflow_operator.framework.component import ReconcileContext, Result, component, suspended
from mlflow_operator.framework.running_server import RunningServer
from mlflow_operator.kube import json_patch, kinds, labels
from mlflow_operator.kube.apply import check_ownership
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cron
from mlflow_operator.model.server import GarbageCollection
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    false_condition,
    true_condition,
)
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.GARBAGE_COLLECTION
EVENT_REASON = "GarbageCollected"


@dataclass(frozen=True)
class CollectionStatus:
    """The new `status.garbageCollection`, and the message of an Event about a new result; None: no Event."""

    status: Object
    event_message: str | None = None


async def reconcile(
    context: ReconcileContext, running: RunningServer | None
) -> Result[CollectionStatus] | None:
    """Apply the CronJob; delete it and return None if `spec.garbageCollection` is not set."""
    settings = context.server.garbage_collection
    if settings is None:
        cronjobs = context.observed.list(kinds.CRONJOB, labels.GARBAGE_COLLECTION_POD)
        await context.prune([], cronjobs)
        return None
    return await _reconcile(context, settings, running)


def status_patch(result: Result[CollectionStatus] | None) -> Object:
    """The change to the status. `status.garbageCollection` is emptied if `spec.garbageCollection` is not set."""
    if result is None:
        return {"garbageCollection": {}}
    return {"garbageCollection": result.value.status} if result.value else {}


async def publish_event(context: ReconcileContext, result: Result[CollectionStatus] | None) -> None:
    """Publish an Event for a new result. Call it after the status is written, so that no Event is published twice."""
    if result and result.value and result.value.event_message:
        await context.deps.events.publish(
            context.observed.resource, True, EVENT_REASON, result.value.event_message
        )


@component(_TYPE)
async def _reconcile(
    context: ReconcileContext, settings: GarbageCollection, running: RunningServer | None
) -> Result[CollectionStatus]:
    # The effect of the desired image on the schema of the previous version is unknown.
    at_desired_version = running is not None and running.version is not None
    observed = context.observed.get(kinds.CRONJOB, context.server.names.garbage_collection)
    try:
        cron.check(settings.schedule, settings.time_zone, "spec.garbageCollection")
    except ConfigurationError:
        if observed and not at_desired_version:
            await _suspend(context, observed)
        raise
    desired = manifests.cronjob(context.server, settings, paused=not at_desired_version)
    if observed or at_desired_version:
        await context.ensure(desired)
    reported = [job for job in _jobs(context) if jobs.is_finished(job) and _is_reported(context, job)]
    await jobs.delete_suspended_runs(context, reported)
    if context.server.suspended:
        for job in _jobs(context):
            if not jobs.is_finished(job):
                await context.deps.cluster.delete(job)
        return Result(suspended(_TYPE))
    blocked = await jobs.blocked_run(context, _TYPE, _jobs(context), desired, "garbage collection")
    return blocked or _last_result(context, settings)


async def _suspend(context: ReconcileContext, observed: Object) -> None:
    """Suspend the CronJob with its previous schedule: an invalid schedule must not stop an upgrade."""
    check_ownership(observed, context.observed.resource, data=False)
    if not observed["spec"].get("suspend"):
        await context.patch(observed, [json_patch.put(json_patch.pointer("spec", "suspend"), True)])


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.list(kinds.JOB, labels.GARBAGE_COLLECTION_POD)


def _last_result(context: ReconcileContext, settings: GarbageCollection) -> Result[CollectionStatus]:
    """The result of the last finished Job."""
    finished = [job for job in _jobs(context) if jobs.is_finished(job)]
    last = max(finished, key=_finished_at, default=None)
    ready = true_condition(
        _TYPE,
        f'Garbage collection runs on the schedule "{settings.schedule}" ({settings.time_zone}).',
    )
    previous = context.observed.status.get("garbageCollection") or {}
    if _last_failed(previous) and (last is None or _finished_at(last) < previous["lastFailureTime"]):
        # The Job no longer exists; the previous condition still holds its message.
        condition = context.observed.condition(_TYPE)
        if condition.get("reason") == Reason.GARBAGE_COLLECTION_FAILED.value:
            message = str(condition.get("message"))
            return Result(false_condition(_TYPE, Reason.GARBAGE_COLLECTION_FAILED, message))
    if last is None:
        return Result(ready)
    results = [
        manifests.parse(str(terminated.get("message") or ""))
        for terminated in jobs.container_results(context, last)
    ]
    result = results[0] if len(results) == 1 else None
    if jobs.has_condition(last, "Complete"):
        return Result(ready, _completed(last, result, previous))
    return Result(
        _failed(context, last, result), CollectionStatus(previous | {"lastFailureTime": _finished_at(last)})
    )


def _finished_at(job: Object) -> str:
    """Time of the condition Complete or Failed, in a format in which a later time compares greater."""
    condition_types = ("Complete", "Failed")
    return next(
        str(c["lastTransitionTime"]) for c in job["status"]["conditions"] if c["type"] in condition_types
    )


def _last_failed(status: Object) -> bool:
    """Whether the run that finished last failed, according to `status.garbageCollection`."""
    return str(status.get("lastFailureTime") or "") > str(status.get("lastRunTime") or "")


def _is_reported(context: ReconcileContext, job: Object) -> bool:
    """Whether the stored status contains the result of a finished Job, or a later one."""
    status = context.observed.status.get("garbageCollection") or {}
    times = (str(status.get(field) or "") for field in ("lastRunTime", "lastFailureTime"))
    return _finished_at(job) <= max(times)


def _completed(
    job: Object, result: manifests.CollectionResult | None, previous_status: Object
) -> CollectionStatus:
    if previous_status.get("lastRunTime") == _finished_at(job):
        return CollectionStatus(previous_status)
    times = {key: value for key, value in previous_status.items() if key == "lastFailureTime"}
    times["lastRunTime"] = _finished_at(job)
    if result is None:
        # The pod is already gone, and the counts with it.
        return CollectionStatus(times)
    meta = job["metadata"]
    message = result.event_message(meta["namespace"], meta["name"])
    return CollectionStatus(times | result.status, message)


def _failed(context: ReconcileContext, job: Object, result: manifests.CollectionResult | None) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    if result and result.errors:
        cause = " ".join(message_text.as_sentence(error.message) for error in result.errors)
        if result.failed > len(result.errors):
            cause = f"{message_text.pluralize(result.failed, 'object')} could not be deleted. {cause}"
    else:
        terminated = jobs.container_results(context, job)
        lines = message_text.last_lines(jobs.termination_text(context, job))
        previous = context.observed.condition(_TYPE)
        if not terminated and previous.get("reason") == Reason.GARBAGE_COLLECTION_FAILED.value:
            # The pod is gone; the previous condition still holds its message.
            return false_condition(_TYPE, Reason.GARBAGE_COLLECTION_FAILED, str(previous.get("message")))
        cause = lines or message_text.as_sentence(_job_failure_message(job))
    cronjob = context.server.names.garbage_collection
    return false_condition(
        _TYPE,
        Reason.GARBAGE_COLLECTION_FAILED,
        f'The garbage collection Job "{name}" could not delete everything that is due; nothing else is affected. Fix '
        f"the cause: the next run deletes the rest. To run it now: kubectl create job -n {namespace} "
        f"--from=cronjob/{cronjob} {cronjob}-now.{jobs.memory_advice(context, job)} The Job reports: {cause}",
    )


def _job_failure_message(job: Object) -> str:
    """Message of the Job's condition Failed, for example that its deadline was exceeded."""
    return next(
        (str(c.get("message") or "") for c in job["status"]["conditions"] if c["type"] == "Failed"), ""
    )
