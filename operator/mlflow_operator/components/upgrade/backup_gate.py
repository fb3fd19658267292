"""Require a complete backup before a schema migration, because a migration cannot be undone without one.

Writes the Job `<name>-backup-<hash>`.
"""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.backup import manifests as backup_manifests
from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.components.upgrade.preflight_decision import RunningVersion, UpgradePlan
from mlflow_operator.framework import jobs
from mlflow_operator.framework.component import RETRY_TRANSIENT_SECONDS, ReconcileContext, Result
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Backup
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition

_TYPE = ConditionType.UPGRADE


async def require_backup(
    context: ReconcileContext,
    running: RunningVersion,
    database: DatabaseState,
    *,
    switching_database: bool = False,
) -> Result[UpgradePlan] | None:
    """The result that blocks the migration; None if the backup is complete or not required.

    `running` serves until the migration. `switching_database`: the server does not use `database` yet.
    """
    settings = context.server.backup
    if (
        settings is None
        or not context.server.backup_before_migration
        or database.revision is None
        # It is too late for a backup then: server pods would start during the migration while the operator waits.
        or jobs.has_unfinished_migration(context)
    ):
        return None
    database_state = f"{database.identity}@{database.revision}"
    desired = backup_manifests.pre_migration_job(
        backup.running_server(context),
        settings,
        context.server.image,
        database_state,
        switching_database=switching_database,
    )
    observed = context.observed.get(kinds.JOB, desired["metadata"]["name"])
    if observed is None:
        await context.ensure_job(desired)
        return _waiting(context, requeue_after=RETRY_TRANSIENT_SECONDS)
    await context.adopt_job(desired, observed)
    if jobs.has_condition(observed, "Complete"):
        return None
    if jobs.has_condition(observed, "Failed"):
        return await _retry(context, running, settings, observed, desired)
    pods = jobs.pods_of(context, observed)
    blocked = await jobs.blocking_reason(context, _TYPE, observed, pods, "the backup")
    if blocked and jobs.is_obsolete(context, observed, desired["spec"]["template"]):
        await context.deps.cluster.delete(observed)
        return _waiting(context, requeue_after=RETRY_TRANSIENT_SECONDS)
    return blocked or _waiting(context, requeue_after=None if pods else RETRY_TRANSIENT_SECONDS)


def _waiting(context: ReconcileContext, requeue_after: float | None) -> Result[UpgradePlan]:
    previous = context.observed.condition(_TYPE)
    generation = context.observed.resource["metadata"].get("generation")
    if (
        previous.get("observedGeneration") == generation
        and previous.get("reason") == Reason.BACKUP_REQUIRED.value
    ):
        # Keep the failure of the previous attempt, so that the condition does not flap with every retry.
        return Result(
            false_condition(_TYPE, Reason.BACKUP_REQUIRED, str(previous.get("message"))),
            requeue_after=requeue_after,
        )
    message = (
        "Waiting for the backup Job that must complete before the schema migration. Nothing is changed yet."
    )
    return Result(false_condition(_TYPE, Reason.PROGRESSING, message), requeue_after=requeue_after)


async def _retry(
    context: ReconcileContext, running: RunningVersion, settings: Backup, failed: Object, desired: Object
) -> Result[UpgradePlan]:
    """Create the next attempt once its backoff has passed. A backup changes nothing, so a retry is always safe."""
    backoff = await jobs.retry(context, failed, desired)
    serving = f"; version {running.version} keeps running" if running.version else ""
    message = (
        f"The schema migration is blocked: the required backup failed. Nothing was changed{serving}. "
        f"{backup.failure_message(context, settings, failed)} The backup is retried automatically, at first within a "
        "minute. Fix the cause, or set spec.upgrade.backupBeforeMigration to Skip"
        f"{running.rollback_hint(context.server)}."
    )
    return Result(
        false_condition(_TYPE, Reason.BACKUP_REQUIRED, message),
        requeue_after=backoff or RETRY_TRANSIENT_SECONDS,
    )


async def prune_jobs(context: ReconcileContext) -> None:
    """Delete the backup Jobs of finished and cancelled upgrades, once their results are in the status.

    A later upgrade from the same schema revision needs its own backup.
    """
    if backup.build_status(context) != (context.observed.status.get("backup") or {}):
        return
    for job in context.observed.list(kinds.JOB, labels.BACKUP_POD):
        if labels.ATTEMPT in (job["metadata"].get("annotations") or {}):
            await context.deps.cluster.delete(job)
