"""The schema: at the revision that the server's image wants, before any server starts."""

from dataclasses import dataclass

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.migration.plan import UpgradePlan
from mlflow_operator.framework.jobs import (
    blocking_reason,
    container_results,
    finished_at,
    has_started,
    is_finished,
    migration_under_way,
    pods_of,
)
from mlflow_operator.framework.step import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    step,
    suspended,
    waiting,
)
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry, jobs, versions
from mlflow_operator.model.versions import SCHEMA_HEADS
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    State,
    false_condition,
    true_condition,
)
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.SCHEMA


@step(_TYPE)
async def run(
    context: ReconcileContext, database: DatabaseState | None, plan: UpgradePlan | None, moving: bool = False
) -> Result[str]:
    """The schema's revision once it is what the image wants; until then, one migration Job at a time.

    `plan` None: the image may not take over, or not yet. `moving`: `database` is another one than the server is on.
    """
    if context.server.suspended:
        return Result(suspended(_TYPE))
    if database is None:
        return Result(waiting(_TYPE, "the database"))
    if plan is None:
        return Result(waiting(_TYPE, "leave to go on, which the preflight gives"))
    other = migration_under_way(context, but_of=context.server.image)
    if other:
        return Result(waiting(_TYPE, f'the migration "{other}", which is still under way'))
    head = _head(context) or plan.head
    if moving:
        _fits(context, database)
    if database.revision is not None and database.revision == (head or fitting(context)):
        for unwanted in (job for job in _unfinished(context) if not has_started(context, job)):
            # it would move the schema under servers of this image as soon as it could
            await context.deps.cluster.delete(unwanted)
        return Result(true_condition(_TYPE, "The schema fits the server's version."), database.revision)
    # a Job that is complete counts for nothing where the database was emptied or put back to a backup after it
    undone = plan.head is not None or (
        head is not None and context.observed.status.get("schemaRevision") == head
    )
    return await _migrate(context, _Task(database, head, moving, plan), undone)


@dataclass(frozen=True)
class _Task:
    """A database to bring to `head`, None where that is not known. `moving`: the server is on another one."""

    database: DatabaseState
    head: str | None
    moving: bool
    plan: UpgradePlan


def _fits(context: ReconcileContext, database: DatabaseState) -> None:
    """Raise UserMistake where the database is known to be of a newer MLflow: a migration would fail, and say less."""
    newer = (
        versions.newer_version_for_revision(database.revision, context.server.version)
        if database.revision
        else None
    )
    if newer and context.server.is_default_image:
        raise ConfigurationError(
            Reason.STORAGE_CHANGE_REFUSED,
            f"The database that the server is to move to holds the tables of MLflow {newer}, and this server is "
            f"{context.server.version}. It stays where it is. Name another database, or set spec.version to {newer}.",
        )


def _job(context: ReconcileContext, task: _Task, attempt: int = 1) -> Object:
    database, head = task.database, task.head
    # an image whose head is unknown gets one Job for good; else each revision to start from gets its own
    state = f"{database.identity}@{database.revision}" if head else database.identity
    return jobs.migration(context.server, state, database.revision, attempt, moving=task.moving)


async def _migrate(context: ReconcileContext, task: _Task, undone: bool) -> Result[str]:
    job, database = _job(context, task), task.database
    live = context.observed.get(kinds.JOB, job["metadata"]["name"])
    if live and finished_at(live, "Complete"):
        if database.revision is not None and not undone:
            return Result(true_condition(_TYPE, "The schema fits the server's version."), database.revision)
        await context.deps.cluster.delete(live)
        return Result(_progressing())
    if live and finished_at(live, "Failed"):
        return await _after_failure(context, live, task)
    other = next((each for each in _unfinished(context) if each is not live), None)
    if other:
        return await _after(context, other)
    if live is None:
        return await _begin(context, job, task)
    await ensure_job(context.deps.cluster, job, live, context.observed.resource)
    return await _under_way(context, live)


async def _after(context: ReconcileContext, other: Object) -> Result[str]:
    """Another Job comes first: one at a time."""
    if has_started(context, other):
        return Result(
            waiting(_TYPE, f'the migration "{other["metadata"]["name"]}", which is still under way')
        )
    # its image can't be pulled, say; whoever mended the spec must not wait for it
    await context.deps.cluster.delete(other)
    return Result(_progressing(), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _begin(context: ReconcileContext, job: Object, task: _Task) -> Result[str]:
    if task.database.obstacle:
        raise task.database.obstacle
    if task.plan.stops and _serving(context):
        return Result(Condition(_TYPE, State.FALSE, Reason.PROGRESSING, _STOPPING))
    await ensure_job(context.deps.cluster, job, None, context.observed.resource)
    return Result(_progressing(), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _under_way(context: ReconcileContext, job: Object) -> Result[str]:
    """Of a Job that has not ended. One that is not the first keeps what is said of the one before it until it has done
    better: to and fro at each try would be news of nothing."""
    pods = pods_of(context, job)
    held = await blocking_reason(context, _TYPE, job, pods, "the migration")
    if held:
        return held
    before = context.observed.condition(_TYPE)
    if job_retry.attempt_number(job) > 1 and before.get("reason") == Reason.MIGRATION_FAILED.value:
        return Result(false_condition(_TYPE, Reason.MIGRATION_FAILED, str(before.get("message"))))
    return Result(_progressing(), requeue_after=None if pods else RETRY_TRANSIENT_SECONDS)


async def _after_failure(context: ReconcileContext, failed: Object, task: _Task) -> Result[str]:
    """Once more, at its time, if the failed one has left no trace; else never without a person's word.

    Nor in an upgrade: servers of the version before serve, and each try would stop them.
    """
    database = task.database
    if not job_retry.can_retry(failed, pods_of(context, failed), database.revision):
        return Result(_failed(context, failed, _HOLDS))
    if task.plan.changes:
        return Result(_failed(context, failed, _GIVEN_BACK))
    if database.obstacle:
        raise database.obstacle
    said = _failed(context, failed, _REPEATS)
    pause = job_retry.backoff(failed, context.deps.now())
    if not pause:
        await context.deps.cluster.delete(failed)
        following = _job(context, task, job_retry.attempt_number(failed) + 1)
        await ensure_job(context.deps.cluster, following, None, context.observed.resource)
    return Result(said, requeue_after=pause or RETRY_TRANSIENT_SECONDS)


def running_image(context: ReconcileContext) -> str | None:
    """The image of the server's pods; None if they were never made."""
    live = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return live["spec"]["template"]["spec"]["containers"][0]["image"] if live else None


def _unfinished(context: ReconcileContext) -> list[Object]:
    return [job for job in context.observed.of(kinds.JOB, labels.MIGRATION_POD) if not is_finished(job)]


def fitting(context: ReconcileContext) -> str | None:
    """The revision at which no migration is due; None where that is not known beforehand."""
    return _head(context) or _settled(context)


def _head(context: ReconcileContext) -> str | None:
    """The revision that the image's migrations end at; None for an image whose version is only a claim."""
    return SCHEMA_HEADS.get(context.server.version) if context.server.is_default_image else None


def _settled(context: ReconcileContext) -> str | None:
    """For an image of unknown head: the revision at which it has served before."""
    return (
        context.observed.status.get("schemaRevision")
        if running_image(context) == context.server.image
        else None
    )


def _serving(context: ReconcileContext) -> bool:
    """Whether servers run, those on their way out included: they may still write."""
    live = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    pods = filter(pod_diagnosis.is_active, context.observed.of(kinds.POD, labels.SERVER_POD))
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


def _failed(context: ReconcileContext, job: Object, then: str) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    known = container_results(context, job)
    lines = message_text.last_lines(next((e["message"] for e in known if e.get("message")), ""))
    said = f" Its last lines: {lines}" if lines else ""
    if any(ending.get("reason") == "OOMKilled" for ending in known):
        said = f" It was killed for want of memory.{said}"
    return false_condition(
        _TYPE,
        Reason.MIGRATION_FAILED,
        f'The migration Job "{name}" failed. {then.format(namespace=namespace, name=name)}{said}',
    )
