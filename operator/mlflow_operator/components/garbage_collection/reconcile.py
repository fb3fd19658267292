"""The clean-up: its CronJob, and what came of its last Job. It is nothing that a server waits for."""

from dataclasses import dataclass

from mlflow_operator.components.garbage_collection import manifests as garbage
from mlflow_operator.framework import jobs
from mlflow_operator.framework.previous_deployment import RunningServer
from mlflow_operator.framework.step import ReconcileContext, Result, step, suspended
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import prune
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

_TYPE = ConditionType.GARBAGE_COLLECTION
EVENT = "GarbageCollected"


@dataclass(frozen=True)
class Collected:
    """What the status shall say. `news`: what is worth an Event, if anything."""

    status: Object
    news: str | None = None


async def run(context: ReconcileContext, serving: RunningServer | None) -> Result[Collected] | None:
    """Sees to the CronJob; None where none is asked for."""
    wanted = context.server.garbage_collection
    if wanted is None:
        live = context.observed.of(kinds.CRONJOB, labels.GARBAGE_COLLECTION_POD)
        await prune(context.deps.cluster, [], live, context.observed.resource)
        return None
    return await _run(context, wanted, serving)


def learned(outcome: Result[Collected] | None) -> Object:
    """What is new for the status: nothing of it stays once nothing is asked for."""
    if outcome is None:
        return {"garbageCollection": {}}
    return {"garbageCollection": outcome.value.status} if outcome.value else {}


async def publish_event(context: ReconcileContext, outcome: Result[Collected] | None) -> None:
    """An Event for a round that is over; to be called once the status says so, which keeps it from being told twice."""
    if outcome and outcome.value and outcome.value.news:
        await context.deps.events.publish(context.observed.resource, True, EVENT, outcome.value.news)


@step(_TYPE)
async def _run(
    context: ReconcileContext, wanted: GarbageCollection, serving: RunningServer | None
) -> Result[Collected]:
    cron.check(wanted.schedule, wanted.time_zone, "spec.garbageCollection")
    # what an image asked for would do while that of before serves, nobody knows
    as_asked = serving is not None and serving.version is not None
    live = context.observed.get(kinds.CRONJOB, context.server.names.garbage_collection)
    if live or as_asked:
        await context.ensure(garbage.cronjob(context.server, wanted, paused=not as_asked))
    if context.server.suspended:
        for job in _jobs(context):
            if not jobs.is_finished(job):
                await context.deps.cluster.delete(job)
        return Result(suspended(_TYPE))
    return await _last(context, wanted)


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.of(kinds.JOB, labels.GARBAGE_COLLECTION_POD)


async def _last(context: ReconcileContext, wanted: GarbageCollection) -> Result[Collected]:
    """What the last Job that ended has to say; or what keeps the one under way from its work."""
    for job in _jobs(context):
        if not jobs.is_finished(job):
            pods = jobs.pods_of(context, job)
            held = await jobs.blocking_reason(context, _TYPE, job, pods, "the clean-up")
            if held:
                return held
    over = [job for job in _jobs(context) if jobs.is_finished(job)]
    last = max(over, key=_end, default=None)
    well = true_condition(
        _TYPE,
        f'What was deleted is removed for good in its time, by the schedule "{wanted.schedule}" '
        f"({wanted.time_zone}).",
    )
    if last is None:
        return Result(well)
    told = context.observed.status.get("garbageCollection") or {}
    answers = [
        garbage.parse(str(ending.get("message") or "")) for ending in jobs.container_results(context, last)
    ]
    answer = answers[0] if len(answers) == 1 else None
    if jobs.finished_at(last, "Complete"):
        return Result(well, _done(last, answer, told))
    return Result(_failed(context, last, answer), Collected(told | {"lastFailureTime": _end(last)}))


def _end(job: Object) -> str:
    """When it ended: of times that are written like this, the later one is the greater."""
    ways = ("Complete", "Failed")
    return next(str(c["lastTransitionTime"]) for c in job["status"]["conditions"] if c["type"] in ways)


def _done(job: Object, answer: garbage.CollectionResult | None, told: Object) -> Collected:
    if told.get("lastRunTime") == _end(job):
        return Collected(told)
    kept = {key: value for key, value in told.items() if key == "lastFailureTime"}
    if answer is None:
        # its pod is gone already, and took the counts along
        return Collected(kept | {"lastRunTime": _end(job)})
    meta = job["metadata"]
    news = answer.news(meta["namespace"], meta["name"])
    return Collected(kept | {"lastRunTime": _end(job)} | answer.status, news)


def _failed(context: ReconcileContext, job: Object, answer: garbage.CollectionResult | None) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    if answer and answer.faults:
        why = " ".join(message_text.as_sentence(each.said) for each in answer.faults)
    else:
        endings = jobs.container_results(context, job)
        words = message_text.last_lines(next((str(e["message"]) for e in endings if e.get("message")), ""))
        before = context.observed.condition(_TYPE)
        if not endings and before.get("reason") == Reason.GARBAGE_COLLECTION_FAILED.value:
            # its pod is gone, and what it said stands there
            return false_condition(_TYPE, Reason.GARBAGE_COLLECTION_FAILED, str(before.get("message")))
        why = words or message_text.as_sentence(_why(job))
    again = context.server.names.garbage_collection
    return false_condition(
        _TYPE,
        Reason.GARBAGE_COLLECTION_FAILED,
        f'The clean-up "{name}" did not remove all that it should have; nothing is lost. Mend the cause: the next one '
        f"makes up for it, or, at once: kubectl create job -n {namespace} --from=cronjob/{again} {again}-now. "
        f"It said: {why}",
    )


def _why(job: Object) -> str:
    """What Kubernetes says of a Job that failed, as that its time was up."""
    return next(
        (str(c.get("message") or "") for c in job["status"]["conditions"] if c["type"] == "Failed"), ""
    )
