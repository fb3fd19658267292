"""Restore a backup into a database without tables of MLflow before the schema is migrated.

Owns: the Jobs `<name>-restore-<hash>`; condition SchemaReady until the restore is done; `status.restoredBackup`.
Needs: database (state); artifacts (condition: the store holds the backup, unless `spec.restoreFrom.s3` is set);
credentials (whether the server switches to another database); the Secrets that `spec.restoreFrom.s3` references.
Provides: whether upgrade and migration may start (the value of the result).
"""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.restore import manifests
from mlflow_operator.components.restore import result as restore_result
from mlflow_operator.framework import jobs
from mlflow_operator.framework.access_keys import read_access_key
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    component,
    waiting,
)
from mlflow_operator.kube import kinds, labels, pod_diagnosis
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


@component(_TYPE)
async def reconcile(
    context: ReconcileContext,
    database: DatabaseState | None,
    store_ready: bool,
    switching_database: bool = False,
) -> Result[bool]:
    """Run the restore of `spec.restoreFrom`. The value is True once the schema may be migrated.

    `switching_database`: the server does not use `database` yet. A restore never applies to it.
    """
    if context.server.suspended or database is None:
        return _nothing_to_restore()
    restore = context.server.restore
    if restore is None or switching_database:
        return await _cancel(context)
    if database.revision is not None:
        if manifests.is_restored(restore, database.table_comment) or context.observed.status.get(
            "schemaRevision"
        ):
            return _nothing_to_restore()
        raise restore_result.database_not_empty(restore)
    return await _restore(context, restore, database, store_ready)


def _nothing_to_restore() -> Result[bool]:
    return Result(true_condition(_TYPE, "Nothing to restore."), True)


async def _cancel(context: ReconcileContext) -> Result[bool]:
    """Delete unfinished restore Jobs, and wait for their pods to end before anything else writes to the database."""
    for job in _jobs(context):
        if not jobs.is_finished(job):
            await context.deps.cluster.delete(job)
    if any(map(pod_diagnosis.is_active, context.observed.list(kinds.POD, labels.RESTORE_POD))):
        return Result(
            waiting(_TYPE, "the pod of the cancelled restore to end"), requeue_after=RETRY_TRANSIENT_SECONDS
        )
    return _nothing_to_restore()


async def _restore(
    context: ReconcileContext, restore: Restore, database: DatabaseState, store_ready: bool
) -> Result[bool]:
    desired = manifests.job(context.server, restore, database.identity)
    observed = context.observed.get(kinds.JOB, desired["metadata"]["name"])
    unfinished = [job for job in _jobs(context) if job is not observed and not jobs.is_finished(job)]
    if unfinished:
        return await _wait_for_other_job(context, unfinished[0])
    if observed is None:
        if not store_ready and not restore.separate_bucket:
            return Result(waiting(_TYPE, "the artifact store, which holds the backup"))
        await _check_secrets(context, restore)
        if database.obstacle:
            raise database.obstacle
        await context.ensure_job(desired)
        return Result(_progressing(restore), requeue_after=RETRY_TRANSIENT_SECONDS)
    await context.adopt_job(desired, observed)
    if jobs.has_condition(observed, "Complete"):
        # The database is empty although the Job is complete: it was emptied after the restore.
        await context.deps.cluster.delete(observed)
        return Result(_progressing(restore), requeue_after=RETRY_TRANSIENT_SECONDS)
    if jobs.has_condition(observed, "Failed") or _container_failed(context, observed):
        return _failed(context, restore, observed)
    return await _check_running_job(context, restore, observed)


async def _wait_for_other_job(context: ReconcileContext, job: Object) -> Result[bool]:
    """Wait for another restore Job: only one runs at a time."""
    if jobs.has_started(context, job):
        return Result(waiting(_TYPE, f'the restore Job "{job["metadata"]["name"]}", which is still running'))
    # Its image may not be pullable, for example. A corrected spec must not wait for it.
    await context.deps.cluster.delete(job)
    return Result(
        waiting(_TYPE, "the deletion of an earlier restore Job"), requeue_after=RETRY_TRANSIENT_SECONDS
    )


async def _check_secrets(context: ReconcileContext, restore: Restore) -> None:
    """Raise ConfigurationError if a Secret is missing that the pod needs to start.

    The Secrets of the server's own store are checked elsewhere.
    """
    if restore.separate_bucket:
        store = restore.store
        for secret in (store.access_key, store.secret_key):
            if secret:
                await read_access_key(context.reader, secret)
        await context.reader.optional_value(store.ca)


async def _check_running_job(context: ReconcileContext, restore: Restore, job: Object) -> Result[bool]:
    pods = jobs.pods_of(context, job)
    blocked = await jobs.blocking_reason(context, _TYPE, job, pods, "the restore")
    return blocked or Result(_progressing(restore), requeue_after=None if pods else RETRY_TRANSIENT_SECONDS)


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.list(kinds.JOB, labels.RESTORE_POD)


def _progressing(restore: Restore) -> Condition:
    backup = "the newest backup" if restore.backup == "latest" else f"the backup {restore.backup}"
    return false_condition(
        _TYPE,
        Reason.PROGRESSING,
        f"The restore Job is writing {backup} of {restore.namespace}/{restore.server} to the database.",
    )


def _container_failed(context: ReconcileContext, job: Object) -> bool:
    """Whether a container of the Job failed. The other container also ends then, but possibly much later."""
    return any(result.get("exitCode") for result in jobs.container_results(context, job))


def _failed(context: ReconcileContext, restore: Restore, job: Object) -> Result[bool]:
    previous = context.observed.condition(_TYPE)
    if not jobs.container_results(context, job) and previous.get("reason") in _FAILURE_REASONS:
        # The pod is gone, and its termination message with it.
        return Result(false_condition(_TYPE, Reason(previous["reason"]), str(previous.get("message"))))
    error = _job_error(context, restore, job)
    message = f"{error.message}{jobs.memory_advice(context, job)}"
    return Result(false_condition(_TYPE, error.reason, message))


_FAILURE_REASONS = {Reason.RESTORE_FAILED.value, Reason.RESTORE_REFUSED.value}


def _job_error(context: ReconcileContext, restore: Restore, job: Object) -> ConfigurationError:
    messages = jobs.termination_messages(context, job)
    result = restore_result.parse(messages.get(manifests.S3_CONTAINER))
    text = messages.get(manifests.POSTGRES_CONTAINER)
    if result is None:
        text = messages.get(manifests.S3_CONTAINER) or text
    elif result.errors and result.errors[0].code != "pg_restore":
        text = None
    return restore_result.failure(context.server, restore, job["metadata"]["name"], result, text)
