"""The schema: at the revision that the server's image wants, before any server starts."""

from dataclasses import dataclass

from mlflow_operator.controller.apply import ensure_job
from mlflow_operator.controller.steps import stuck
from mlflow_operator.controller.steps.step import MENDED, SOON, Outcome, Work, step, suspended, waits
from mlflow_operator.core import attempts, diagnosis, jobs, kinds, labels, quotation, versions
from mlflow_operator.core.conditions import Condition, ConditionType, Reason, State, not_ready, ready
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.objects import Object
from mlflow_operator.core.versions import SCHEMA_HEADS
from mlflow_operator.providers.postgres import DatabaseState

_TYPE = ConditionType.SCHEMA


@step(_TYPE)
async def run(work: Work, database: DatabaseState | None, moving: bool = False) -> Outcome[str]:
    """The schema's revision once it is what the image wants; until then, one migration Job at a time.

    `moving`: `database` is another one than the server is on.
    """
    if work.server.suspended:
        return Outcome(suspended(_TYPE))
    if database is None:
        return Outcome(waits(_TYPE, "the database"))
    head = _head(work)
    if moving:
        _fits(work, database)
    if database.revision is not None and database.revision == fitting(work):
        return Outcome(ready(_TYPE, "The schema fits the server's version."), database.revision)
    # a Job that is complete counts for nothing where the database was emptied or put back to a backup after it
    undone = head is not None and work.seen.status.get("schemaRevision") == head
    return await _migrate(work, _Task(database, head, moving), undone)


@dataclass(frozen=True)
class _Task:
    """A database to bring to `head`, None where that is not known. `moving`: the server is on another one."""

    database: DatabaseState
    head: str | None
    moving: bool


def _fits(work: Work, database: DatabaseState) -> None:
    """Raise UserMistake where the database is known to be of a newer MLflow: a migration would fail, and say less."""
    newer = versions.newer_at(database.revision, work.server.version) if database.revision else None
    if newer and work.server.official:
        raise UserMistake(
            Reason.STORAGE_CHANGE_REFUSED,
            f"The database that the server is to move to holds the tables of MLflow {newer}, and this server is "
            f"{work.server.version}. It stays where it is. Name another database, or set spec.version to {newer}.",
        )


def _job(work: Work, task: _Task, attempt: int = 1) -> Object:
    database, head = task.database, task.head
    # an image whose head is unknown gets one Job for good; else each revision to start from gets its own
    state = f"{database.identity}@{database.revision}" if head else database.identity
    return jobs.migration(work.server, state, database.revision, attempt, moving=task.moving)


async def _migrate(work: Work, task: _Task, undone: bool) -> Outcome[str]:
    job, database = _job(work, task), task.database
    live = work.seen.get(kinds.JOB, job["metadata"]["name"])
    if live and _ended(live, "Complete"):
        if database.revision is not None and not undone:
            return Outcome(ready(_TYPE, "The schema fits the server's version."), database.revision)
        await work.out.cluster.delete(live)
        return Outcome(_progressing())
    if live and _ended(live, "Failed"):
        return await _after_failure(work, live, task)
    other = next((j for j in work.seen.of(kinds.JOB) if not _over(j) and j is not live), None)
    if other and not _started(work, other):
        # its image can't be pulled, say; whoever mended the spec must not wait for it
        await work.out.cluster.delete(other)
        return Outcome(_progressing(), again=SOON)
    if other:
        name = other["metadata"]["name"]
        return Outcome(waits(_TYPE, f'the migration Job "{name}", which is still under way'))
    if live is None and database.obstacle:
        raise database.obstacle
    await ensure_job(work.out.cluster, job, live, work.seen.resource)
    return await _under_way(work, live) if live else Outcome(_progressing(), again=SOON)


async def _under_way(work: Work, job: Object) -> Outcome[str]:
    """Of a Job that has not ended. One that is not the first keeps what is said of the one before it until it has done
    better: to and fro at each try would be news of nothing."""
    pods = _pods(work, job)
    finding = diagnosis.of_pods(pods)
    # a container that has ended is no crash, but the end of a try: a moment later the Job itself says how it was
    if finding and finding.reason is not Reason.SERVER_CRASHING:
        return Outcome(not_ready(_TYPE, finding.reason, finding.message))
    refused = None if pods else await stuck.no_pod(work, job, "the migration")
    if refused:
        return Outcome(not_ready(_TYPE, refused.reason, refused.message), again=MENDED)
    before = work.seen.condition(_TYPE)
    if attempts.number(job) > 1 and before.get("reason") == Reason.MIGRATION_FAILED.value:
        return Outcome(not_ready(_TYPE, Reason.MIGRATION_FAILED, str(before.get("message"))))
    return Outcome(_progressing(), again=None if pods else SOON)


async def _after_failure(work: Work, failed: Object, task: _Task) -> Outcome[str]:
    """Once more, at its time, if the failed one has left no trace; else never without a person's word."""
    database = task.database
    if not attempts.may_repeat(failed, _pods(work, failed), database.revision):
        return Outcome(_failed(work, failed, _HOLDS))
    if database.obstacle:
        raise database.obstacle
    said = _failed(work, failed, _REPEATS)
    pause = attempts.pause(failed, work.out.now())
    if not pause:
        await work.out.cluster.delete(failed)
        following = _job(work, task, attempts.number(failed) + 1)
        await ensure_job(work.out.cluster, following, None, work.seen.resource)
    return Outcome(said, again=pause or SOON)


def running_image(work: Work) -> str | None:
    """The image of the server's pods; None if they were never made."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    return live["spec"]["template"]["spec"]["containers"][0]["image"] if live else None


def never_begun(work: Work) -> list[Object]:
    """Migration Jobs that wait for an image that nobody asks for any more, say."""
    return [job for job in work.seen.of(kinds.JOB) if not _over(job) and not _started(work, job)]


def fitting(work: Work) -> str | None:
    """The revision at which no migration is due; None where that is not known beforehand."""
    return _head(work) or _settled(work)


def _head(work: Work) -> str | None:
    """The revision that the image's migrations end at; None for an image whose version is only a claim."""
    return SCHEMA_HEADS.get(work.server.version) if work.server.official else None


def _settled(work: Work) -> str | None:
    """For an image of unknown head: the revision at which it has served before."""
    return work.seen.status.get("schemaRevision") if running_image(work) == work.server.image else None


def _ended(job: Object, how: str) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == how and c["status"] == "True" for c in conditions)


def _over(job: Object) -> bool:
    return _ended(job, "Complete") or _ended(job, "Failed")


def _started(work: Work, job: Object) -> bool:
    """Whether any container of the Job ever ran; the lock in the database holds should one start just now."""
    states = [
        status.get("state") or {}
        for pod in _pods(work, job)
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return any("running" in state or "terminated" in state for state in states)


def _pods(work: Work, job: Object) -> list[Object]:
    # by uid: those of an earlier try under the same name may not be gone yet
    uid = job["metadata"]["uid"]
    return [
        pod
        for pod in work.seen.of(kinds.POD, labels.MIGRATION_POD)
        if any(ref.get("uid") == uid for ref in pod["metadata"].get("ownerReferences") or ())
    ]


def _progressing() -> Condition:
    return Condition(_TYPE, State.FALSE, Reason.PROGRESSING, "The migration Job is bringing the schema up.")


_REPEATS = (
    "The database is as it was before, so it is tried again by itself, within a minute at first. Mend the cause; "
    "nothing else is needed."
)
_HOLDS = (
    "The database is not known to be as it was before, so it is not tried again blindly. Mend the cause, then run: "
    "kubectl delete job -n {namespace} {name}."
)


def _failed(work: Work, job: Object, then: str) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    endings = [
        (status.get("state") or {}).get("terminated") or {}
        for pod in _pods(work, job)
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    lines = quotation.last_lines(next((e["message"] for e in endings if e.get("message")), ""))
    said = f" Its last lines: {lines}" if lines else ""
    if any(ending.get("reason") == "OOMKilled" for ending in endings):
        said = f" It was killed for want of memory.{said}"
    return not_ready(
        _TYPE,
        Reason.MIGRATION_FAILED,
        f'The migration Job "{name}" failed. {then.format(namespace=namespace, name=name)}{said}',
    )
