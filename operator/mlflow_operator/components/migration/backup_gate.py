"""The gate before a migration: tables that can't be moved back are moved only after a backup of them."""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.backup import manifests as backups
from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.components.migration.plan import InForce, Plan
from mlflow_operator.framework import jobs
from mlflow_operator.framework.step import SOON, Outcome, Work
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry
from mlflow_operator.model.server import Backup
from mlflow_operator.status.conditions import ConditionType, Reason, not_ready

_TYPE = ConditionType.UPGRADE


async def hold(
    work: Work, last: InForce, database: DatabaseState, *, moving: bool = False
) -> Outcome[Plan] | None:
    """What is to be said as long as the tables must not move; None once they may, or where no backup is asked for.

    `last` is what serves until then. `moving`: `database` is another one than the server is on.
    """
    wanted = work.server.backup
    if wanted is None or not work.server.backs_up_first or database.revision is None or _migrating(work):
        return None
    state = f"{database.identity}@{database.revision}"
    job = backups.before_migration(backup.of_now(work), wanted, work.server.image, state, moving=moving)
    live = work.seen.get(kinds.JOB, job["metadata"]["name"])
    if live is None:
        await ensure_job(work.out.cluster, job, None, work.seen.resource)
        return _waits(work, again=SOON)
    if jobs.ended(live, "Complete"):
        return None
    if jobs.ended(live, "Failed"):
        return await _once_more(work, last, wanted, live, job)
    pods = jobs.pods_of(work, live)
    held = await jobs.held_up(work, _TYPE, live, pods, "the backup")
    return held or _waits(work, again=None if pods else SOON)


def _migrating(work: Work) -> bool:
    """Whether the tables are about to move already: to wait now would have servers come up on them."""
    known = work.seen.of(kinds.JOB, labels.MIGRATION_POD)
    return any(not jobs.over(job) and jobs.image_of(job) == work.server.image for job in known)


def _waits(work: Work, again: float | None) -> Outcome[Plan]:
    told = work.seen.condition(_TYPE)
    same = told.get("observedGeneration") == work.seen.resource["metadata"].get("generation")
    if same and told.get("reason") == Reason.BACKUP_REQUIRED.value:
        # to and fro at each try would be news of nothing
        return Outcome(not_ready(_TYPE, Reason.BACKUP_REQUIRED, str(told.get("message"))), again=again)
    said = "A backup is made before the tables move. Nothing is touched yet."
    return Outcome(not_ready(_TYPE, Reason.PROGRESSING, said), again=again)


async def _once_more(work: Work, last: InForce, wanted: Backup, failed: Object, job: Object) -> Outcome[Plan]:
    """Tries again at its time: a backup changes nothing, so there is no reason to wait for a person."""
    pause = job_retry.pause(failed, work.out.now())
    if not pause:
        await work.out.cluster.delete(failed)
        following = job_retry.numbered(job, job_retry.number(failed) + 1)
        await ensure_job(work.out.cluster, following, None, work.seen.resource)
    serves = f"; version {last.version} serves on" if last.version else ""
    said = (
        f"The tables do not move before there is a backup, and it can't be made. Nothing was touched{serves}. "
        f"{backup.why(work, wanted, failed)} It is tried again by itself, within a minute at first. Mend the cause, "
        f"set spec.upgrade.backupBeforeMigration to Skip{last.way_back(work.server)}."
    )
    return Outcome(not_ready(_TYPE, Reason.BACKUP_REQUIRED, said), again=pause or SOON)


async def tidy(work: Work) -> None:
    """Takes away the Jobs of upgrades that came to their end or were given up, once the status tells what they did: a
    later upgrade from the same tables wants a backup of its own."""
    if backup.record(work) != (work.seen.status.get("backup") or {}):
        return
    for job in work.seen.of(kinds.JOB, labels.BACKUP_POD):
        if labels.ATTEMPT in (job["metadata"].get("annotations") or {}):
            await work.out.cluster.delete(job)
