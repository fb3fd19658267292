"""Backups: the CronJob that makes them, what its Jobs told, and where they go."""

import asyncio

from mlflow_operator.clients.s3 import errors as s3_faults
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.components.backup import manifests as backups
from mlflow_operator.components.backup import result as backup_answer
from mlflow_operator.components.backup import status as backup_record
from mlflow_operator.components.backup.result import Answer
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.credentials.s3 import whole
from mlflow_operator.framework import jobs, previous_deployment
from mlflow_operator.framework.step import Outcome, Work, step, suspended, waits
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cron
from mlflow_operator.model.server import Backup, BucketCreation, Server
from mlflow_operator.status.conditions import ConditionType, Reason, not_ready
from mlflow_operator.status.errors import Fault

_TYPE = ConditionType.BACKUP

_LOOK_SECONDS = 5.0
"""For a look at a bucket elsewhere: what else is to be said of the server must not wait for a store that is silent."""


@step(_TYPE)
async def run(work: Work, credentials: Credentials | None, backup: Backup, told: Object) -> Outcome[None]:
    """Sees to it that backups are made as the spec asks; `told` is what `record` knows of them."""
    cron.check(backup.schedule, backup.time_zone, "spec.backup")
    live = work.seen.get(kinds.CRONJOB, work.server.names.backup)
    if live is None and (credentials is None or not work.seen.status.get("schemaRevision")):
        return Outcome(waits(_TYPE, "the schema"))
    live = await work.ensure(backups.cronjob(of_now(work), backup))
    if work.server.suspended:
        return Outcome(suspended(_TYPE))
    if backup.elsewhere:
        await _destination(work, backup)
    held = await _held_up(work)
    if held:
        return held
    if backup_record.failed(told):
        return Outcome(not_ready(_TYPE, Reason.BACKUP_FAILED, _failure(work, backup)))
    now = work.out.now()
    gap = cron.longest_gap(backup.schedule, backup.time_zone, backup_record.time(now))
    since = live["metadata"].get("creationTimestamp")
    stale = backup_record.late(told, since, gap, now)
    return Outcome(backup_record.judged(work.server, backup, told, stale))


async def remove(work: Work) -> None:
    """Takes the CronJob away where the spec asks for no backups any more; those that were made stay."""
    live = work.seen.get(kinds.CRONJOB, work.server.names.backup)
    if live and not live["metadata"].get("deletionTimestamp"):
        await work.out.cluster.delete(live)


def of_now(work: Work) -> Server:
    """The server as it runs until another version takes over: a backup says by which it was made."""
    image = work.seen.status.get("image")
    return work.server if image in {None, work.server.image} else previous_deployment.server(work)


def record(work: Work) -> Object:
    """What `status.backup` shall say, from what it says and from the Jobs that have ended."""
    told: Object = work.seen.status.get("backup") or {}
    for job in _jobs(work):
        answer = said(work, job)
        if answer and answer.backup:
            told = backup_record.with_success(told, answer.backup)
        elif jobs.ended(job, "Failed"):
            told = backup_record.with_failure(told, _failed_at(job))
    return told


def said(work: Work, job: Object) -> Answer | None:
    """The answer of a Job that has ended; None where it gave none, or its pod is gone."""
    return backup_answer.parse(_words(work, job))


def _jobs(work: Work) -> list[Object]:
    return work.seen.of(kinds.JOB, labels.BACKUP_POD)


def _failed_at(job: Object) -> str:
    conditions = (job.get("status") or {}).get("conditions") or ()
    ended: Object = next((c for c in conditions if c["type"] == "Failed"), {})
    return str(ended.get("lastTransitionTime") or job["metadata"].get("creationTimestamp") or "")


def _words(work: Work, job: Object, container: str = backups.STORES) -> str | None:
    for pod in jobs.pods_of(work, job):
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = (status.get("state") or {}).get("terminated")
            if status["name"] == container and ended:
                return str(ended.get("message") or "") or None
    return None


def why(work: Work, backup: Backup, job: Object) -> str:
    """Why a Job that has failed made no backup."""
    words = _words(work, job) or _words(work, job, backups.DUMPS)
    return backup_record.failure(work.server, backup, job["metadata"]["name"], said(work, job), words)


def _failure(work: Work, backup: Backup) -> str:
    again = backup_record.again(work.server)
    ended = [job for job in _jobs(work) if jobs.ended(job, "Failed")]
    last = max(ended, key=_failed_at, default=None)
    if last is not None:
        return f"{why(work, backup, last)} {again}"
    before = work.seen.condition(_TYPE)
    if before.get("reason") == Reason.BACKUP_FAILED.value:
        return str(before.get("message"))
    return f"The last backup failed, and its Job is gone. {again}"


async def _held_up(work: Work) -> Outcome[None] | None:
    """What keeps a backup that is under way from its work."""
    for job in _jobs(work):
        if not jobs.over(job):
            held = await jobs.held_up(work, _TYPE, job, jobs.pods_of(work, job), "the backup")
            if held:
                return held
    return None


async def _destination(work: Work, backup: Backup) -> None:
    """Sees to a bucket that is not the server's own, as far as there is a key to look with. Raises Fault."""
    store = backup.store
    ca = await work.read.optional(store.ca)
    if store.access_key is None or store.secret_key is None:
        return
    key = AccessKey(await whole(work, store.access_key), await whole(work, store.secret_key))
    bucket = await store_place.bucket(work, store, key, ca)
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await work.out.stores.ensure(bucket, store.creation is BucketCreation.IF_MISSING)
            await work.out.stores.prove(bucket)
    except TimeoutError:
        silent = s3_faults.silent(bucket.place)
        raise type(silent)(silent.reason, _of_backups(silent.message)) from None
    except Fault as fault:
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
