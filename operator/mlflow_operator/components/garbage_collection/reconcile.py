"""The clean-up: its CronJob, and what came of its last Job. It is nothing that a server waits for."""

from dataclasses import dataclass

from mlflow_operator.components.garbage_collection import manifests as garbage
from mlflow_operator.framework import jobs
from mlflow_operator.framework.previous_deployment import Serving
from mlflow_operator.framework.step import Outcome, Work, step, suspended
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import prune
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cron
from mlflow_operator.model.server import GarbageCollection
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, not_ready, ready

_TYPE = ConditionType.GARBAGE_COLLECTION
EVENT = "GarbageCollected"


@dataclass(frozen=True)
class Collected:
    """What the status shall say. `news`: what is worth an Event, if anything."""

    status: Object
    news: str | None = None


async def run(work: Work, serving: Serving | None) -> Outcome[Collected] | None:
    """Sees to the CronJob; None where none is asked for."""
    wanted = work.server.garbage_collection
    if wanted is None:
        live = work.seen.of(kinds.CRONJOB, labels.GARBAGE_COLLECTION_POD)
        await prune(work.out.cluster, [], live, work.seen.resource)
        return None
    return await _run(work, wanted, serving)


def learned(outcome: Outcome[Collected] | None) -> Object:
    """What is new for the status: nothing of it stays once nothing is asked for."""
    if outcome is None:
        return {"garbageCollection": {}}
    return {"garbageCollection": outcome.value.status} if outcome.value else {}


async def tell(work: Work, outcome: Outcome[Collected] | None) -> None:
    """An Event for a round that is over; to be called once the status says so, which keeps it from being told twice."""
    if outcome and outcome.value and outcome.value.news:
        await work.out.events.publish(work.seen.resource, True, EVENT, outcome.value.news)


@step(_TYPE)
async def _run(work: Work, wanted: GarbageCollection, serving: Serving | None) -> Outcome[Collected]:
    cron.check(wanted.schedule, wanted.time_zone, "spec.garbageCollection")
    # what an image asked for would do while that of before serves, nobody knows
    as_asked = serving is not None and serving.version is not None
    live = work.seen.get(kinds.CRONJOB, work.server.names.garbage_collection)
    if live or as_asked:
        await work.ensure(garbage.cronjob(work.server, wanted, paused=not as_asked))
    if work.server.suspended:
        for job in _jobs(work):
            if not jobs.over(job):
                await work.out.cluster.delete(job)
        return Outcome(suspended(_TYPE))
    return await _last(work, wanted)


def _jobs(work: Work) -> list[Object]:
    return work.seen.of(kinds.JOB, labels.GARBAGE_COLLECTION_POD)


async def _last(work: Work, wanted: GarbageCollection) -> Outcome[Collected]:
    """What the last Job that ended has to say; or what keeps the one under way from its work."""
    for job in _jobs(work):
        if not jobs.over(job):
            pods = jobs.pods_of(work, job)
            held = await jobs.held_up(work, _TYPE, job, pods, "the clean-up")
            if held:
                return held
    over = [job for job in _jobs(work) if jobs.over(job)]
    last = max(over, key=_end, default=None)
    well = ready(
        _TYPE,
        f'What was deleted is removed for good in its time, by the schedule "{wanted.schedule}" '
        f"({wanted.time_zone}).",
    )
    if last is None:
        return Outcome(well)
    told = work.seen.status.get("garbageCollection") or {}
    answers = [garbage.parse(str(ending.get("message") or "")) for ending in jobs.endings(work, last)]
    answer = answers[0] if len(answers) == 1 else None
    if jobs.ended(last, "Complete"):
        return Outcome(well, _done(last, answer, told))
    return Outcome(_failed(work, last, answer), Collected(told | {"lastFailureTime": _end(last)}))


def _end(job: Object) -> str:
    """When it ended: of times that are written like this, the later one is the greater."""
    ways = ("Complete", "Failed")
    return next(str(c["lastTransitionTime"]) for c in job["status"]["conditions"] if c["type"] in ways)


def _done(job: Object, answer: garbage.Answer | None, told: Object) -> Collected:
    if told.get("lastRunTime") == _end(job):
        return Collected(told)
    kept = {key: value for key, value in told.items() if key == "lastFailureTime"}
    if answer is None:
        # its pod is gone already, and took the counts along
        return Collected(kept | {"lastRunTime": _end(job)})
    meta = job["metadata"]
    news = answer.news(meta["namespace"], meta["name"])
    return Collected(kept | {"lastRunTime": _end(job)} | answer.status, news)


def _failed(work: Work, job: Object, answer: garbage.Answer | None) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    if answer and answer.faults:
        why = " ".join(message_text.sentence(each.said) for each in answer.faults)
    else:
        endings = jobs.endings(work, job)
        words = message_text.last_lines(next((str(e["message"]) for e in endings if e.get("message")), ""))
        before = work.seen.condition(_TYPE)
        if not endings and before.get("reason") == Reason.GARBAGE_COLLECTION_FAILED.value:
            # its pod is gone, and what it said stands there
            return not_ready(_TYPE, Reason.GARBAGE_COLLECTION_FAILED, str(before.get("message")))
        why = words or message_text.sentence(_why(job))
    again = work.server.names.garbage_collection
    return not_ready(
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
