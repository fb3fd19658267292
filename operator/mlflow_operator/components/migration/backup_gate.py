"""The gate before a migration: tables that can't be moved back are moved only after a backup of them."""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.backup import manifests as backups
from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.components.migration.plan import RunningVersion, UpgradePlan
from mlflow_operator.framework import jobs
from mlflow_operator.framework.step import RETRY_TRANSIENT_SECONDS, ReconcileContext, Result
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry
from mlflow_operator.model.server import Backup
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition

_TYPE = ConditionType.UPGRADE


async def require_backup(
    context: ReconcileContext, last: RunningVersion, database: DatabaseState, *, moving: bool = False
) -> Result[UpgradePlan] | None:
    """What is to be said as long as the tables must not move; None once they may, or where no backup is asked for.

    `last` is what serves until then. `moving`: `database` is another one than the server is on.
    """
    wanted = context.server.backup
    if (
        wanted is None
        or not context.server.backup_before_migration
        or database.revision is None
        or _migrating(context)
    ):
        return None
    state = f"{database.identity}@{database.revision}"
    job = backups.before_migration(backup.of_now(context), wanted, context.server.image, state, moving=moving)
    live = context.observed.get(kinds.JOB, job["metadata"]["name"])
    if live is None:
        await ensure_job(context.deps.cluster, job, None, context.observed.resource)
        return _waits(context, again=RETRY_TRANSIENT_SECONDS)
    if jobs.finished_at(live, "Complete"):
        return None
    if jobs.finished_at(live, "Failed"):
        return await _once_more(context, last, wanted, live, job)
    pods = jobs.pods_of(context, live)
    held = await jobs.blocking_reason(context, _TYPE, live, pods, "the backup")
    return held or _waits(context, again=None if pods else RETRY_TRANSIENT_SECONDS)


def _migrating(context: ReconcileContext) -> bool:
    """Whether the tables are about to move already: to wait now would have servers come up on them."""
    known = context.observed.of(kinds.JOB, labels.MIGRATION_POD)
    return any(not jobs.is_finished(job) and jobs.image_of(job) == context.server.image for job in known)


def _waits(context: ReconcileContext, again: float | None) -> Result[UpgradePlan]:
    told = context.observed.condition(_TYPE)
    same = told.get("observedGeneration") == context.observed.resource["metadata"].get("generation")
    if same and told.get("reason") == Reason.BACKUP_REQUIRED.value:
        # to and fro at each try would be news of nothing
        return Result(
            false_condition(_TYPE, Reason.BACKUP_REQUIRED, str(told.get("message"))), requeue_after=again
        )
    said = "A backup is made before the tables move. Nothing is touched yet."
    return Result(false_condition(_TYPE, Reason.PROGRESSING, said), requeue_after=again)


async def _once_more(
    context: ReconcileContext, last: RunningVersion, wanted: Backup, failed: Object, job: Object
) -> Result[UpgradePlan]:
    """Tries again at its time: a backup changes nothing, so there is no reason to wait for a person."""
    pause = job_retry.backoff(failed, context.deps.now())
    if not pause:
        await context.deps.cluster.delete(failed)
        following = job_retry.with_attempt_number(job, job_retry.attempt_number(failed) + 1)
        await ensure_job(context.deps.cluster, following, None, context.observed.resource)
    serves = f"; version {last.version} serves on" if last.version else ""
    said = (
        f"The tables do not move before there is a backup, and it can't be made. Nothing was touched{serves}. "
        f"{backup.why(context, wanted, failed)} It is tried again by itself, within a minute at first. Mend the cause, "
        f"set spec.upgrade.backupBeforeMigration to Skip{last.rollback_hint(context.server)}."
    )
    return Result(
        false_condition(_TYPE, Reason.BACKUP_REQUIRED, said), requeue_after=pause or RETRY_TRANSIENT_SECONDS
    )


async def tidy(context: ReconcileContext) -> None:
    """Takes away the Jobs of upgrades that came to their end or were given up, once the status tells what they did: a
    later upgrade from the same tables wants a backup of its own."""
    if backup.record(context) != (context.observed.status.get("backup") or {}):
        return
    for job in context.observed.of(kinds.JOB, labels.BACKUP_POD):
        if labels.ATTEMPT in (job["metadata"].get("annotations") or {}):
            await context.deps.cluster.delete(job)
