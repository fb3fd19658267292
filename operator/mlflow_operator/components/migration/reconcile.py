"""The schema: at the revision that the server's image wants, before any server starts."""

from dataclasses import dataclass

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.migration.plan import Plan
from mlflow_operator.framework.jobs import (
    ended,
    endings,
    held_up,
    migration_under_way,
    over,
    pods_of,
    started,
)
from mlflow_operator.framework.step import SOON, Outcome, Work, step, suspended, waits
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry, jobs, versions
from mlflow_operator.model.versions import SCHEMA_HEADS
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, not_ready, ready
from mlflow_operator.status.errors import UserMistake

_TYPE = ConditionType.SCHEMA


@step(_TYPE)
async def run(
    work: Work, database: DatabaseState | None, plan: Plan | None, moving: bool = False
) -> Outcome[str]:
    """The schema's revision once it is what the image wants; until then, one migration Job at a time.

    `plan` None: the image may not take over, or not yet. `moving`: `database` is another one than the server is on.
    """
    if work.server.suspended:
        return Outcome(suspended(_TYPE))
    if database is None:
        return Outcome(waits(_TYPE, "the database"))
    if plan is None:
        return Outcome(waits(_TYPE, "leave to go on, which the preflight gives"))
    other = migration_under_way(work, but_of=work.server.image)
    if other:
        return Outcome(waits(_TYPE, f'the migration "{other}", which is still under way'))
    head = _head(work) or plan.head
    if moving:
        _fits(work, database)
    if database.revision is not None and database.revision == (head or fitting(work)):
        for unwanted in (job for job in _unfinished(work) if not started(work, job)):
            # it would move the schema under servers of this image as soon as it could
            await work.out.cluster.delete(unwanted)
        return Outcome(ready(_TYPE, "The schema fits the server's version."), database.revision)
    # a Job that is complete counts for nothing where the database was emptied or put back to a backup after it
    undone = plan.head is not None or (head is not None and work.seen.status.get("schemaRevision") == head)
    return await _migrate(work, _Task(database, head, moving, plan), undone)


@dataclass(frozen=True)
class _Task:
    """A database to bring to `head`, None where that is not known. `moving`: the server is on another one."""

    database: DatabaseState
    head: str | None
    moving: bool
    plan: Plan


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
    if live and ended(live, "Complete"):
        if database.revision is not None and not undone:
            return Outcome(ready(_TYPE, "The schema fits the server's version."), database.revision)
        await work.out.cluster.delete(live)
        return Outcome(_progressing())
    if live and ended(live, "Failed"):
        return await _after_failure(work, live, task)
    other = next((each for each in _unfinished(work) if each is not live), None)
    if other:
        return await _after(work, other)
    if live is None:
        return await _begin(work, job, task)
    await ensure_job(work.out.cluster, job, live, work.seen.resource)
    return await _under_way(work, live)


async def _after(work: Work, other: Object) -> Outcome[str]:
    """Another Job comes first: one at a time."""
    if started(work, other):
        return Outcome(waits(_TYPE, f'the migration "{other["metadata"]["name"]}", which is still under way'))
    # its image can't be pulled, say; whoever mended the spec must not wait for it
    await work.out.cluster.delete(other)
    return Outcome(_progressing(), again=SOON)


async def _begin(work: Work, job: Object, task: _Task) -> Outcome[str]:
    if task.database.obstacle:
        raise task.database.obstacle
    if task.plan.stops and _serving(work):
        return Outcome(Condition(_TYPE, State.FALSE, Reason.PROGRESSING, _STOPPING))
    await ensure_job(work.out.cluster, job, None, work.seen.resource)
    return Outcome(_progressing(), again=SOON)


async def _under_way(work: Work, job: Object) -> Outcome[str]:
    """Of a Job that has not ended. One that is not the first keeps what is said of the one before it until it has done
    better: to and fro at each try would be news of nothing."""
    pods = pods_of(work, job)
    held = await held_up(work, _TYPE, job, pods, "the migration")
    if held:
        return held
    before = work.seen.condition(_TYPE)
    if job_retry.number(job) > 1 and before.get("reason") == Reason.MIGRATION_FAILED.value:
        return Outcome(not_ready(_TYPE, Reason.MIGRATION_FAILED, str(before.get("message"))))
    return Outcome(_progressing(), again=None if pods else SOON)


async def _after_failure(work: Work, failed: Object, task: _Task) -> Outcome[str]:
    """Once more, at its time, if the failed one has left no trace; else never without a person's word.

    Nor in an upgrade: servers of the version before serve, and each try would stop them.
    """
    database = task.database
    if not job_retry.may_repeat(failed, pods_of(work, failed), database.revision):
        return Outcome(_failed(work, failed, _HOLDS))
    if task.plan.changes:
        return Outcome(_failed(work, failed, _GIVEN_BACK))
    if database.obstacle:
        raise database.obstacle
    said = _failed(work, failed, _REPEATS)
    pause = job_retry.pause(failed, work.out.now())
    if not pause:
        await work.out.cluster.delete(failed)
        following = _job(work, task, job_retry.number(failed) + 1)
        await ensure_job(work.out.cluster, following, None, work.seen.resource)
    return Outcome(said, again=pause or SOON)


def running_image(work: Work) -> str | None:
    """The image of the server's pods; None if they were never made."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    return live["spec"]["template"]["spec"]["containers"][0]["image"] if live else None


def _unfinished(work: Work) -> list[Object]:
    return [job for job in work.seen.of(kinds.JOB, labels.MIGRATION_POD) if not over(job)]


def fitting(work: Work) -> str | None:
    """The revision at which no migration is due; None where that is not known beforehand."""
    return _head(work) or _settled(work)


def _head(work: Work) -> str | None:
    """The revision that the image's migrations end at; None for an image whose version is only a claim."""
    return SCHEMA_HEADS.get(work.server.version) if work.server.official else None


def _settled(work: Work) -> str | None:
    """For an image of unknown head: the revision at which it has served before."""
    return work.seen.status.get("schemaRevision") if running_image(work) == work.server.image else None


def _serving(work: Work) -> bool:
    """Whether servers run, those on their way out included: they may still write."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    pods = filter(pod_diagnosis.alive, work.seen.of(kinds.POD, labels.SERVER_POD))
    return bool(live and live["spec"].get("replicas")) or any(pods)


def _progressing() -> Condition:
    return Condition(_TYPE, State.FALSE, Reason.PROGRESSING, "The migration Job is bringing the schema up.")


_STOPPING = "The servers are being stopped, for the tables are to move."

_REPEATS = (
    "The database is as it was before, so it is tried again by itself, within a minute at first. Mend the cause; "
    "nothing else is needed."
)
_HOLDS = (
    "The database is not known to be as it was before, so it is not tried again blindly. Mend the cause, then run: "
    "kubectl delete job -n {namespace} {name}."
)


_GIVEN_BACK = (
    "The database is as it was before, and so is what serves. It is not tried again by itself. Mend the cause, then "
    "run: kubectl delete job -n {namespace} {name}; or undo the change of version."
)


def _failed(work: Work, job: Object, then: str) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    known = endings(work, job)
    lines = message_text.last_lines(next((e["message"] for e in known if e.get("message")), ""))
    said = f" Its last lines: {lines}" if lines else ""
    if any(ending.get("reason") == "OOMKilled" for ending in known):
        said = f" It was killed for want of memory.{said}"
    return not_ready(
        _TYPE,
        Reason.MIGRATION_FAILED,
        f'The migration Job "{name}" failed. {then.format(namespace=namespace, name=name)}{said}',
    )
