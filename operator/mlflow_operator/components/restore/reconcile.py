"""The restore: what a backup holds is in the database before its schema is looked at."""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.credentials.s3 import read_access_key
from mlflow_operator.components.restore import manifests as restores
from mlflow_operator.components.restore import result as restore_answer
from mlflow_operator.framework import jobs
from mlflow_operator.framework.step import RETRY_TRANSIENT_SECONDS, ReconcileContext, Result, step, waiting
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Restore
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    false_condition,
    true_condition,
)
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.SCHEMA


@step(_TYPE)
async def run(
    context: ReconcileContext, database: DatabaseState | None, store_ready: bool, moving: bool = False
) -> Result[bool]:
    """Whether the schema's turn has come (the value). Until then the condition says what is being done.

    `moving`: `database` is another one than the server is on, and no restore is asked of it.
    """
    if context.server.suspended or database is None:
        return _passed()
    restore = context.server.restore
    if restore is None or moving:
        return await _without(context)
    if database.revision is not None:
        if restores.done(restore, database.comment_of_tables) or context.observed.status.get(
            "schemaRevision"
        ):
            return _passed()
        raise restore_answer.occupied(restore)
    return await _restore(context, restore, database, store_ready)


def _passed() -> Result[bool]:
    return Result(true_condition(_TYPE, "Nothing is to be restored."), True)


async def _without(context: ReconcileContext) -> Result[bool]:
    """Nothing is asked for (any more): what was begun is given up before anything else is made in the database."""
    for job in _jobs(context):
        if not jobs.is_finished(job):
            await context.deps.cluster.delete(job)
    if any(map(pod_diagnosis.is_active, context.observed.of(kinds.POD, labels.RESTORE_POD))):
        return Result(
            waiting(_TYPE, "the restore that was given up to end"), requeue_after=RETRY_TRANSIENT_SECONDS
        )
    return _passed()


async def _restore(
    context: ReconcileContext, restore: Restore, database: DatabaseState, store_ready: bool
) -> Result[bool]:
    job = restores.job(context.server, restore, database.identity)
    live = context.observed.get(kinds.JOB, job["metadata"]["name"])
    other = next((each for each in _jobs(context) if each is not live and not jobs.is_finished(each)), None)
    if other:
        return await _after(context, other)
    if live is None:
        if not store_ready and not restore.separate_bucket:
            return Result(waiting(_TYPE, "the artifact store, which holds the backup"))
        await _check(context, restore)
        if database.obstacle:
            raise database.obstacle
        await ensure_job(context.deps.cluster, job, None, context.observed.resource)
        return Result(_progressing(restore), requeue_after=RETRY_TRANSIENT_SECONDS)
    if jobs.finished_at(live, "Complete"):
        # and the tables are gone: somebody has emptied the database since
        await context.deps.cluster.delete(live)
        return Result(_progressing(restore), requeue_after=RETRY_TRANSIENT_SECONDS)
    if jobs.finished_at(live, "Failed") or _died(context, live):
        return _failed(context, restore, live)
    return await _under_way(context, restore, live)


async def _after(context: ReconcileContext, other: Object) -> Result[bool]:
    """Another Job comes first: one at a time."""
    if jobs.has_started(context, other):
        return Result(waiting(_TYPE, f'the restore "{other["metadata"]["name"]}", which is still under way'))
    # its image can't be pulled, say; whoever mended the spec must not wait for it
    await context.deps.cluster.delete(other)
    return Result(waiting(_TYPE, "an earlier restore to go"), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _check(context: ReconcileContext, restore: Restore) -> None:
    """Raise UserMistake for a Secret that the pod could not start without; those of the own store were looked at."""
    if restore.separate_bucket:
        store = restore.store
        for wanted in (store.access_key, store.secret_key):
            if wanted:
                await read_access_key(context, wanted)
        await context.reader.optional(store.ca)


async def _under_way(context: ReconcileContext, restore: Restore, job: Object) -> Result[bool]:
    pods = jobs.pods_of(context, job)
    held = await jobs.blocking_reason(context, _TYPE, job, pods, "the restore")
    return held or Result(_progressing(restore), requeue_after=None if pods else RETRY_TRANSIENT_SECONDS)


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.of(kinds.JOB, labels.RESTORE_POD)


def _progressing(restore: Restore) -> Condition:
    what = "the newest backup" if restore.backup == "latest" else f"the backup {restore.backup}"
    return false_condition(
        _TYPE,
        Reason.PROGRESSING,
        f"A restore Job puts {what} of {restore.namespace}/{restore.server} into the database.",
    )


def _died(context: ReconcileContext, job: Object) -> bool:
    """Whether one of its containers has failed. The other one ends by itself, but may wait long before it does."""
    return any(ending.get("exitCode") for ending in jobs.container_results(context, job))


def _failed(context: ReconcileContext, restore: Restore, job: Object) -> Result[bool]:
    told = context.observed.condition(_TYPE)
    if not jobs.pods_of(context, job) and told.get("reason") in _TOLD:
        # its pod is gone, and with it what it said
        return Result(false_condition(_TYPE, Reason(told["reason"]), str(told.get("message"))))
    why = _failure(context, restore, job)
    return Result(false_condition(_TYPE, why.reason, why.message))


_TOLD = {Reason.RESTORE_FAILED.value, Reason.RESTORE_REFUSED.value}


def _failure(context: ReconcileContext, restore: Restore, job: Object) -> ConfigurationError:
    said = {name: words for pod in jobs.pods_of(context, job) for name, words in _words(pod)}
    answer = restore_answer.parse(said.get(restores.FETCHES))
    words = said.get(restores.WRITES)
    if answer is None:
        words = said.get(restores.FETCHES) or words
    elif answer.faults and answer.faults[0].kind != "pg_restore":
        words = None
    return restore_answer.failure(context.server, restore, job["metadata"]["name"], answer, words)


def _words(pod: Object) -> list[tuple[str, str]]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ended = ((status["name"], (status.get("state") or {}).get("terminated")) for status in statuses)
    return [(name, str(ending.get("message") or "")) for name, ending in ended if ending]
