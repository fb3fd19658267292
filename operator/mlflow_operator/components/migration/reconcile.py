"""Migrate the database schema to the revision that the server's image needs, before any pod of that image starts.

Owns: the Jobs `<name>-migrate-<hash>`; condition SchemaReady; `status.schemaRevision`. If all writers must be stopped,
it also deletes garbage collection Jobs that have not started.
Needs: database (state); restore (finished); upgrade (its plan); credentials (whether the server switches to another
database).
Provides: the schema revision for the status; its condition for server and rotation.
"""

from dataclasses import dataclass

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.upgrade.preflight_decision import UpgradePlan
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    component,
    suspended,
    waiting,
)
from mlflow_operator.framework.jobs import (
    blocking_reason,
    has_condition,
    has_started,
    is_finished,
    memory_advice,
    migration_in_progress,
    pods_of,
    retry,
    termination_text,
)
from mlflow_operator.framework.schema_revision import expected_revision, known_head
from mlflow_operator.kube import job_outcome, kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry, jobs, versions
from mlflow_operator.status import message_text
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
    restored: Result[bool],
    plan: UpgradePlan | None,
    switching_database: bool = False,
) -> Result[str]:
    """Run one migration Job at a time until the schema has the revision that the image needs: the value.

    `restored` is the result of the restore, which must be done first. `plan` None: the image may not be deployed (yet).
    `switching_database`: the server does not use `database` yet.
    """
    if not restored.value:
        return Result(restored.condition, requeue_after=restored.requeue_after)
    if context.server.suspended or database is None:
        return Result(suspended(_TYPE) if context.server.suspended else waiting(_TYPE, "the database"))
    if plan is None:
        return Result(waiting(_TYPE, "the preflight; see the condition UpgradeReady"))
    other_migration = migration_in_progress(context, except_image=context.server.image)
    if other_migration:
        return Result(waiting(_TYPE, f'the migration "{other_migration}", which is still running'))
    head = known_head(context) or plan.head
    if switching_database:
        _check_not_newer(context, database)
    if database.revision is not None and database.revision == (head or expected_revision(context)):
        for unwanted in (job for job in _unfinished_jobs(context) if not has_started(context, job)):
            # Once its pod could start, it would migrate the schema while servers of this image run.
            await context.deps.cluster.delete(unwanted)
        return Result(true_condition(_TYPE, _UP_TO_DATE), database.revision)
    # A complete Job does not count if the database was emptied, or restored from a backup, after it.
    reverted = plan.head is not None or (
        head is not None and context.observed.status.get("schemaRevision") == head
    )
    return await _migrate(context, _Migration(database, head, switching_database, plan), reverted)


@dataclass(frozen=True)
class _Migration:
    """A migration of `database` to `head`, None if that is unknown.

    `switching_database`: the server does not use `database` yet.
    """

    database: DatabaseState
    head: str | None
    switching_database: bool
    plan: UpgradePlan


def _check_not_newer(context: ReconcileContext, database: DatabaseState) -> None:
    """Raise ConfigurationError if the database has the schema of a newer MLflow version.

    A migration would fail, too, but with a less useful message.
    """
    newer = (
        versions.newer_version_for_revision(database.revision, context.server.version)
        if database.revision
        else None
    )
    if newer and context.server.is_default_image:
        raise ConfigurationError(
            Reason.STORAGE_CHANGE_REFUSED,
            f"The new database holds the schema of MLflow {newer}, and this server runs {context.server.version}. The "
            f"server keeps its current database. Set another database, or set spec.version to {newer}.",
        )


def _desired_job(context: ReconcileContext, migration: _Migration) -> Object:
    database, head = migration.database, migration.head
    # With an unknown head there is only one Job; otherwise there is one Job for each revision to start from.
    state = f"{database.identity}@{database.revision}" if head else database.identity
    return jobs.migration(
        context.server, state, database.revision, switching_database=migration.switching_database
    )


async def _migrate(context: ReconcileContext, migration: _Migration, reverted: bool) -> Result[str]:
    desired, database = _desired_job(context, migration), migration.database
    observed = context.observed.get(kinds.JOB, desired["metadata"]["name"])
    adopted = await context.adopt_job(desired, observed) if observed else None
    if observed and has_condition(observed, "Complete"):
        if database.revision is not None and not reverted:
            return Result(true_condition(_TYPE, _UP_TO_DATE), database.revision)
        await context.deps.cluster.delete(observed)
        return Result(_progressing())
    if observed and has_condition(observed, "Failed"):
        return await _handle_failure(context, observed, desired, migration)
    other = next((job for job in _unfinished_jobs(context) if job is not observed), None)
    if other:
        return await _wait_for_other_job(context, other)
    writers = await _stop_writers(context) if migration.plan.stop_servers else None
    if observed is None:
        return await _create_job(context, desired, migration, writers)
    await context.ensure_job(desired, adopted)
    return await _check_running_job(context, observed)


async def _wait_for_other_job(context: ReconcileContext, other: Object) -> Result[str]:
    """Wait for another migration Job: only one runs at a time."""
    if has_started(context, other):
        return Result(waiting(_TYPE, f'the migration "{other["metadata"]["name"]}", which is still running'))
    # Its image may not be pullable, for example. A corrected spec must not wait for it.
    await context.deps.cluster.delete(other)
    return Result(_progressing(), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _create_job(
    context: ReconcileContext, desired: Object, migration: _Migration, writers: str | None
) -> Result[str]:
    """Create the Job. `writers`: what it must wait for, as a message; None if nothing may write to the database."""
    if migration.database.obstacle:
        raise migration.database.obstacle
    if writers:
        return Result(Condition(_TYPE, ConditionStatus.FALSE, Reason.PROGRESSING, writers))
    await context.ensure_job(desired)
    return Result(_progressing(), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _check_running_job(context: ReconcileContext, job: Object) -> Result[str]:
    """The condition of an unfinished Job.

    A retry keeps the failure of the previous attempt until it succeeds, so that the condition does not flap.
    """
    pods = pods_of(context, job)
    blocked = await blocking_reason(context, _TYPE, job, pods, "the migration")
    if blocked:
        return blocked
    previous = context.observed.condition(_TYPE)
    if job_retry.attempt_number(job) > 1 and previous.get("reason") == Reason.MIGRATION_FAILED.value:
        return Result(false_condition(_TYPE, Reason.MIGRATION_FAILED, str(previous.get("message"))))
    return Result(_progressing(), requeue_after=None if pods else RETRY_TRANSIENT_SECONDS)


async def _handle_failure(
    context: ReconcileContext, failed: Object, desired: Object, migration: _Migration
) -> Result[str]:
    """Retry after a backoff if the failed migration left the database unchanged; otherwise wait for a person.

    An upgrade is not retried either: servers of the previous version are running, and each attempt would stop them.
    """
    database = migration.database
    if not job_retry.can_retry(failed, pods_of(context, failed), database.revision):
        return Result(_failed_condition(context, failed, _STATE_UNKNOWN))
    if migration.plan.image_changed:
        return Result(_failed_condition(context, failed, _ROLLED_BACK))
    if database.obstacle:
        raise database.obstacle
    condition = _failed_condition(context, failed, _RETRIED)
    backoff = await retry(context, failed, desired)
    return Result(condition, requeue_after=backoff or RETRY_TRANSIENT_SECONDS)


def _unfinished_jobs(context: ReconcileContext) -> list[Object]:
    return [job for job in context.observed.list(kinds.JOB, labels.MIGRATION_POD) if not is_finished(job)]


async def _stop_writers(context: ReconcileContext) -> str | None:
    """What may still write to the database, or may start to, as a message; None if nothing does.

    Terminating server pods count, because they may still write.
    """
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    server_pods = context.observed.list(kinds.POD, labels.SERVER_POD)
    if (deployment and deployment["spec"].get("replicas")) or any(map(pod_diagnosis.is_active, server_pods)):
        return _SCALING_DOWN
    return await _stop_garbage_collection(context)


async def _stop_garbage_collection(context: ReconcileContext) -> str | None:
    """Delete the garbage collection Jobs that have not started. Returns what is left, as a message.

    Such a Job or its pod may start at any time, or may be unable to start for hours. The next scheduled Job deletes the
    same objects.
    """
    cronjob = context.observed.get(kinds.CRONJOB, context.server.names.garbage_collection)
    if cronjob and not cronjob["spec"].get("suspend"):
        return _COLLECTION_SCHEDULED.format(name=cronjob["metadata"]["name"])
    left = None
    for job in context.observed.list(kinds.JOB, labels.GARBAGE_COLLECTION_POD):
        # Once a Job is being deleted, Kubernetes creates no other pod for it.
        if is_finished(job) or job["metadata"].get("deletionTimestamp"):
            continue
        left = left or _COLLECTING_GARBAGE.format(kind="Job", name=job["metadata"]["name"])
        if _is_pending(context, job):
            await context.deps.cluster.delete(job)
    # Pods without a Job, too: the Job may already be deleted.
    pods = context.observed.list(kinds.POD, labels.GARBAGE_COLLECTION_POD)
    active = next(filter(pod_diagnosis.is_active, pods), None)
    if active and not left:
        left = _COLLECTING_GARBAGE.format(kind="Pod", name=active["metadata"]["name"])
    return left


def _is_pending(context: ReconcileContext, job: Object) -> bool:
    """Whether an unfinished Job does nothing yet, which includes a Job whose pod was evicted and replaced."""
    active = [pod for pod in pods_of(context, job) if pod_diagnosis.is_active(pod)]
    if not active:
        return not has_started(context, job)
    return not any("running" in state for pod in active for state in job_outcome.own_states(pod).values())


def _progressing() -> Condition:
    message = "Waiting for the migration Job to finish."
    return Condition(_TYPE, ConditionStatus.FALSE, Reason.PROGRESSING, message)


_UP_TO_DATE = "The schema matches the server's version."

_SCALING_DOWN = "Scaling the server to 0 before schema migration."

_COLLECTION_SCHEDULED = (
    'Waiting until the garbage collection CronJob "{name}" is suspended before schema migration. If it is not, see the '
    "condition GarbageCollectionReady."
)

_COLLECTING_GARBAGE = 'Waiting for the end of the garbage collection {kind} "{name}" before schema migration.'

_RETRIED = (
    "The database is unchanged, so the migration is retried automatically, at first within a minute. Fix the cause; "
    "nothing else is needed."
)
_STATE_UNKNOWN = (
    "The failed migration may have changed the database, so it is not retried automatically. Fix the cause, then run: "
    "kubectl delete job -n {namespace} {name}."
)


_ROLLED_BACK = (
    "The database and the running version are unchanged. The migration is not retried automatically. Fix the cause, "
    "then run: kubectl delete job -n {namespace} {name}; or revert the version."
)


def _failed_condition(context: ReconcileContext, job: Object, consequence: str) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    lines = message_text.last_lines(termination_text(context, job))
    details = memory_advice(context, job) + (f" Its last lines: {lines}" if lines else "")
    return false_condition(
        _TYPE,
        Reason.MIGRATION_FAILED,
        f'The migration Job "{name}" failed. {consequence.format(namespace=namespace, name=name)}{details}',
    )
