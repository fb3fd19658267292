"""Reconcile the scheduled backups of the database, and report their results.

Owns: CronJob `<name>-backup`; condition BackupReady; `status.backup`; the bucket of `spec.backup.s3` if the spec
requests its creation. It deletes no backup: the Jobs do that by `spec.backup.retention`.
Needs: credentials (for the first CronJob); the schema revision in the status (a backup without tables fails); `clients`
of artifacts.
Provides: `running_server`, `build_status`, `failure_message` and the manifests, for the backup before a schema
migration.
"""

import asyncio

from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.components.artifacts import clients as artifact_clients
from mlflow_operator.components.backup import manifests
from mlflow_operator.components.backup import result as backup_result
from mlflow_operator.components.backup import status as backup_status
from mlflow_operator.components.backup.result import BackupResult
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.framework import jobs
from mlflow_operator.framework.access_keys import read_access_key
from mlflow_operator.framework.component import ReconcileContext, Result, component, suspended, waiting
from mlflow_operator.framework.running_server import recorded_image, server_at_running_version
from mlflow_operator.kube import kinds, labels, timestamps
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cron
from mlflow_operator.model.server import Backup, Server
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ReconcileError

_TYPE = ConditionType.BACKUP


async def reconcile(context: ReconcileContext, credentials: Credentials | None) -> Result[None] | None:
    """Apply the CronJob of `spec.backup`; delete it and return None if `spec.backup` is not set.

    Existing backups stay.
    """
    if context.server.backup is None:
        cronjob = context.observed.get(kinds.CRONJOB, context.server.names.backup)
        if cronjob and not cronjob["metadata"].get("deletionTimestamp"):
            await context.deps.cluster.delete(cronjob)
        return None
    return await _reconcile(context, credentials, context.server.backup)


@component(_TYPE)
async def _reconcile(
    context: ReconcileContext, credentials: Credentials | None, backup: Backup
) -> Result[None]:
    status = build_status(context)
    cron.check(backup.schedule, backup.time_zone, "spec.backup")
    cronjob = context.observed.get(kinds.CRONJOB, context.server.names.backup)
    if cronjob is None and (credentials is None or not context.observed.status.get("schemaRevision")):
        return Result(waiting(_TYPE, "the schema"))
    desired = manifests.cronjob(running_server(context), backup)
    cronjob = await context.ensure(desired)
    if status == (context.observed.status.get("backup") or {}):
        await jobs.delete_suspended_runs(context, _scheduled_jobs(context))
    if context.server.suspended:
        return Result(suspended(_TYPE))
    if backup.separate_bucket:
        await _check_bucket(context, backup)
    blocked = await jobs.blocked_run(context, _TYPE, _scheduled_jobs(context), desired, "the backup")
    if blocked:
        return blocked
    if backup_status.last_failed(status):
        return Result(false_condition(_TYPE, Reason.BACKUP_FAILED, _latest_failure_message(context, backup)))
    now = context.deps.now()
    longest_gap = cron.longest_gap(backup.schedule, backup.time_zone, timestamps.parse(now))
    created_at = cronjob["metadata"].get("creationTimestamp")
    stale = backup_status.is_stale(status, created_at, longest_gap, now)
    return Result(backup_status.condition(context.server, backup, status, stale))


def running_server(context: ReconcileContext) -> Server:
    """The server at its running version, until another version takes over. The backup records that version."""
    if recorded_image(context) in {None, context.server.image}:
        return context.server
    return server_at_running_version(context)


def build_status(context: ReconcileContext) -> Object:
    """The new `status.backup`: the previous one, and the results of all finished Jobs."""
    status: Object = context.observed.status.get("backup") or {}
    for job in _jobs(context):
        result = job_result(context, job)
        if result and result.backup:
            status = backup_status.with_success(status, result.backup)
        elif jobs.has_condition(job, "Failed"):
            status = backup_status.with_failure(status, _failed_at(job))
    return status


def job_result(context: ReconcileContext, job: Object) -> BackupResult | None:
    """Result of a finished Job; None if its pod is gone or left no readable result."""
    return backup_result.parse(jobs.termination_messages(context, job).get(manifests.S3_CONTAINER))


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.list(kinds.JOB, labels.BACKUP_POD)


def _failed_at(job: Object) -> str:
    conditions = (job.get("status") or {}).get("conditions") or ()
    failed: Object = next((c for c in conditions if c["type"] == "Failed"), {})
    return str(failed.get("lastTransitionTime") or job["metadata"].get("creationTimestamp") or "")


def failure_message(context: ReconcileContext, backup: Backup, job: Object) -> str:
    """Why a failed Job made no backup."""
    messages = jobs.termination_messages(context, job)
    text = messages.get(manifests.S3_CONTAINER) or messages.get(manifests.POSTGRES_CONTAINER)
    name = job["metadata"]["name"]
    message = backup_status.failure_message(context.server, backup, name, job_result(context, job), text)
    return f"{message}{jobs.memory_advice(context, job)}"


def _latest_failure_message(context: ReconcileContext, backup: Backup) -> str:
    manual_run = backup_status.manual_run_hint(context.server)
    failed = [job for job in _jobs(context) if jobs.has_condition(job, "Failed")]
    latest = max(failed, key=_failed_at, default=None)
    if latest is not None:
        return f"{failure_message(context, backup, latest)} {manual_run}"
    previous = context.observed.condition(_TYPE)
    if previous.get("reason") == Reason.BACKUP_FAILED.value:
        return str(previous.get("message"))
    return f"The last backup failed, and its Job no longer exists. {manual_run}"


def _scheduled_jobs(context: ReconcileContext) -> list[Object]:
    """The Jobs of the CronJob, without that of a backup before a migration."""
    return [job for job in _jobs(context) if labels.ATTEMPT not in (job["metadata"].get("annotations") or {})]


async def _check_bucket(context: ReconcileContext, backup: Backup) -> None:
    """Check a bucket that is not the server's own, and create it if the spec says so. Raises ReconcileError.

    The operator needs an access key for that; without one (workload identity) it checks nothing.
    """
    store = backup.store
    ca = await context.reader.optional_value(store.ca)
    if store.access_key is None or store.secret_key is None:
        return
    key = AccessKey(
        await read_access_key(context.reader, store.access_key),
        await read_access_key(context.reader, store.secret_key),
    )
    bucket = await artifact_clients.bucket(context, store, key, ca)
    try:
        async with asyncio.timeout(context.deps.timeouts.bucket_check):
            await context.deps.stores.ensure_bucket(
                bucket, store.bucket_creation is BucketCreation.IF_MISSING
            )
            await context.deps.stores.check_access(bucket)
    except TimeoutError:
        timeout = s3_errors.timed_out(bucket.location)
        raise type(timeout)(timeout.reason, _as_backup_message(timeout.message)) from None
    except ReconcileError as error:
        raise type(error)(error.reason, _as_backup_message(error.message)) from None


def _as_backup_message(message: str) -> str:
    """Adapt a message of the S3 client, which knows only the artifact store, to the backup store."""
    for artifact_term, backup_term in (
        ("spec.artifacts.s3", "spec.backup.s3"),
        ("artifact store", "backup store"),
        ("permissions that MLflow needs", "permissions that a backup needs"),
    ):
        message = message.replace(artifact_term, backup_term)
    return message
