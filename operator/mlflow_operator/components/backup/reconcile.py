"""Backups: the CronJob that makes them, what its Jobs told, and where they go."""

import asyncio

from mlflow_operator.clients.s3 import errors as s3_faults
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.components.backup import manifests as backups
from mlflow_operator.components.backup import result as backup_answer
from mlflow_operator.components.backup import status as backup_record
from mlflow_operator.components.backup.result import BackupResult
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.credentials.s3 import read_access_key
from mlflow_operator.framework import jobs, previous_deployment
from mlflow_operator.framework.step import ReconcileContext, Result, step, suspended, waiting
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cron
from mlflow_operator.model.server import Backup, BucketCreation, Server
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ReconcileError

_TYPE = ConditionType.BACKUP

_LOOK_SECONDS = 5.0
"""For a look at a bucket elsewhere: what else is to be said of the server must not wait for a store that is silent."""


@step(_TYPE)
async def run(
    context: ReconcileContext, credentials: Credentials | None, backup: Backup, told: Object
) -> Result[None]:
    """Sees to it that backups are made as the spec asks; `told` is what `record` knows of them."""
    cron.check(backup.schedule, backup.time_zone, "spec.backup")
    live = context.observed.get(kinds.CRONJOB, context.server.names.backup)
    if live is None and (credentials is None or not context.observed.status.get("schemaRevision")):
        return Result(waiting(_TYPE, "the schema"))
    live = await context.ensure(backups.cronjob(of_now(context), backup))
    if context.server.suspended:
        return Result(suspended(_TYPE))
    if backup.separate_bucket:
        await _destination(context, backup)
    held = await _held_up(context)
    if held:
        return held
    if backup_record.failed(told):
        return Result(false_condition(_TYPE, Reason.BACKUP_FAILED, _failure(context, backup)))
    now = context.deps.now()
    gap = cron.longest_gap(backup.schedule, backup.time_zone, backup_record.time(now))
    since = live["metadata"].get("creationTimestamp")
    stale = backup_record.late(told, since, gap, now)
    return Result(backup_record.judged(context.server, backup, told, stale))


async def remove(context: ReconcileContext) -> None:
    """Takes the CronJob away where the spec asks for no backups any more; those that were made stay."""
    live = context.observed.get(kinds.CRONJOB, context.server.names.backup)
    if live and not live["metadata"].get("deletionTimestamp"):
        await context.deps.cluster.delete(live)


def of_now(context: ReconcileContext) -> Server:
    """The server as it runs until another version takes over: a backup says by which it was made."""
    image = context.observed.status.get("image")
    return context.server if image in {None, context.server.image} else previous_deployment.server(context)


def record(context: ReconcileContext) -> Object:
    """What `status.backup` shall say, from what it says and from the Jobs that have ended."""
    told: Object = context.observed.status.get("backup") or {}
    for job in _jobs(context):
        answer = said(context, job)
        if answer and answer.backup:
            told = backup_record.with_success(told, answer.backup)
        elif jobs.finished_at(job, "Failed"):
            told = backup_record.with_failure(told, _failed_at(job))
    return told


def said(context: ReconcileContext, job: Object) -> BackupResult | None:
    """The answer of a Job that has ended; None where it gave none, or its pod is gone."""
    return backup_answer.parse(_words(context, job))


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.of(kinds.JOB, labels.BACKUP_POD)


def _failed_at(job: Object) -> str:
    conditions = (job.get("status") or {}).get("conditions") or ()
    ended: Object = next((c for c in conditions if c["type"] == "Failed"), {})
    return str(ended.get("lastTransitionTime") or job["metadata"].get("creationTimestamp") or "")


def _words(context: ReconcileContext, job: Object, container: str = backups.STORES) -> str | None:
    for pod in jobs.pods_of(context, job):
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = (status.get("state") or {}).get("terminated")
            if status["name"] == container and ended:
                return str(ended.get("message") or "") or None
    return None


def why(context: ReconcileContext, backup: Backup, job: Object) -> str:
    """Why a Job that has failed made no backup."""
    words = _words(context, job) or _words(context, job, backups.DUMPS)
    return backup_record.failure(context.server, backup, job["metadata"]["name"], said(context, job), words)


def _failure(context: ReconcileContext, backup: Backup) -> str:
    again = backup_record.again(context.server)
    ended = [job for job in _jobs(context) if jobs.finished_at(job, "Failed")]
    last = max(ended, key=_failed_at, default=None)
    if last is not None:
        return f"{why(context, backup, last)} {again}"
    before = context.observed.condition(_TYPE)
    if before.get("reason") == Reason.BACKUP_FAILED.value:
        return str(before.get("message"))
    return f"The last backup failed, and its Job is gone. {again}"


async def _held_up(context: ReconcileContext) -> Result[None] | None:
    """What keeps a backup that is under way from its work."""
    for job in _jobs(context):
        if not jobs.is_finished(job):
            held = await jobs.blocking_reason(context, _TYPE, job, jobs.pods_of(context, job), "the backup")
            if held:
                return held
    return None


async def _destination(context: ReconcileContext, backup: Backup) -> None:
    """Sees to a bucket that is not the server's own, as far as there is a key to look with. Raises Fault."""
    store = backup.store
    ca = await context.reader.optional(store.ca)
    if store.access_key is None or store.secret_key is None:
        return
    key = AccessKey(
        await read_access_key(context, store.access_key), await read_access_key(context, store.secret_key)
    )
    bucket = await store_place.bucket(context, store, key, ca)
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await context.deps.stores.ensure_bucket(bucket, store.creation is BucketCreation.IF_MISSING)
            await context.deps.stores.check_access(bucket)
    except TimeoutError:
        silent = s3_faults.silent(bucket.place)
        raise type(silent)(silent.reason, _of_backups(silent.message)) from None
    except ReconcileError as fault:
        raise type(fault)(fault.reason, _of_backups(fault.message)) from None


def _of_backups(said: str) -> str:
    """What providers say of a store, who know of one only."""
    for theirs, ours in (
        ("spec.artifacts.s3", "spec.backup.s3"),
        ("artifact store", "store of backups"),
        ("all that MLflow does", "all that a backup takes"),
    ):
        said = said.replace(theirs, ours)
    return said
