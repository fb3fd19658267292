"""Decide whether and how an upgrade may proceed: a preflight Job checks the desired image before anything changes.

Nothing records how far an upgrade is. Each reconcile decides again from the preflight, the backup and the schema.

Owns: the Jobs `<name>-preflight-<hash>`, and `<name>-backup-<hash>` before a schema migration; condition UpgradeReady;
`status.upgrade`. It also writes the plugin ConfigMap of the server, which the preflight Job mounts.
Needs: database (state); restore (finished); artifacts (condition); backup (manifest and result of its Job); credentials
(whether the server switches to another database).
Provides: the upgrade plan for migration, server and the version of a custom image; `running_version` for server.
"""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.upgrade import (
    backup_gate,
    preflight_decision,
    preflight_result,
)
from mlflow_operator.components.upgrade import status as upgrade_status
from mlflow_operator.components.upgrade.preflight_decision import RunningVersion, UpgradePlan
from mlflow_operator.components.upgrade.preflight_result import PreflightResult, SchemaChange
from mlflow_operator.framework import jobs
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    component,
    suspended,
    waiting,
)
from mlflow_operator.framework.running_server import RunningServer, running_image
from mlflow_operator.framework.schema_revision import expected_revision
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry, plugins
from mlflow_operator.model import jobs as job_manifests
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition, true_condition
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.UPGRADE
_UP_TO_DATE = "No upgrade is pending."


def running_version(context: ReconcileContext) -> RunningVersion:
    """The version that the server runs until the upgrade."""
    image = running_image(context)
    return preflight_decision.running_version(
        context.observed.status, image, context.deps.images.version_of(image)
    )


@component(_TYPE)
async def reconcile(
    context: ReconcileContext,
    database: DatabaseState | None,
    restored: Result[bool],
    store_ready: bool,
    switching_database: bool = False,
) -> Result[UpgradePlan]:
    """The upgrade plan; no value while the upgrade is not allowed.

    `restored` is the result of the restore, which must be done first. `switching_database`: the server does not use
    `database` yet.
    """
    if not restored.value or context.server.suspended:
        return Result(suspended(_TYPE) if restored.value else waiting(_TYPE, "the restore"))
    running = running_version(context)
    if database is None:
        same_image = running.image == context.server.image
        return Result(true_condition(_TYPE, _UP_TO_DATE) if same_image else waiting(_TYPE, "the database"))
    image_unchanged = running.image in {None, context.server.image}
    if (
        image_unchanged and (switching_database or _migration_failed(context) or _is_first_start(context))
    ) or not preflight_decision.needs_preflight(
        running, context.server, database.revision, expected_revision(context)
    ):
        return Result(true_condition(_TYPE, _UP_TO_DATE), UpgradePlan())
    other_migration = jobs.migration_in_progress(context, except_image=context.server.image)
    if other_migration:
        return Result(waiting(_TYPE, f'the migration "{other_migration}", which is still running'))
    if not store_ready:
        return Result(waiting(_TYPE, "the artifact store"))
    return await _run_preflight(context, running, database, switching_database)


def _migration_failed(context: ReconcileContext) -> bool:
    """Whether a migration of the desired image failed. That Job then decides about a retry, not a preflight."""
    observed = context.observed.list(kinds.JOB, labels.MIGRATION_POD)
    return any(
        jobs.has_condition(job, "Failed") and jobs.image_of(job) == context.server.image for job in observed
    )


def _is_first_start(context: ReconcileContext) -> bool:
    """Whether an image with an unknown head created the schema itself, or is doing so: no other data can be harmed."""
    observed = context.observed.list(kinds.JOB, labels.MIGRATION_POD)
    return expected_revision(context) is None and any(
        jobs.image_of(job) == context.server.image and job_retry.started_on_empty_database(job)
        for job in observed
    )


async def _run_preflight(
    context: ReconcileContext, running: RunningVersion, database: DatabaseState, switching_database: bool
) -> Result[UpgradePlan]:
    desired = job_manifests.preflight(
        context.server, database.identity, switching_database=switching_database
    )
    name = desired["metadata"]["name"]
    for stale in _preflight_jobs(context, except_name=name):
        await context.deps.cluster.delete(stale)
    observed = context.observed.get(kinds.JOB, name)
    if observed is None:
        if plugins.is_needed(context.server):
            await context.ensure(plugins.config_map(context.server))
        await context.ensure_job(desired)
        return _waiting(context, requeue_after=RETRY_TRANSIENT_SECONDS)
    await context.adopt_job(desired, observed)
    if not jobs.is_finished(observed):
        return await _check_running_job(context, observed)
    result = _job_result(context, observed)
    if result is None:
        text = jobs.termination_text(context, observed)
        memory_advice = jobs.memory_advice(context, observed)
        error = preflight_decision.missing_result(running, context.server, name, memory_advice, text)
        return await _retry(context, observed, desired, error)
    migrated = result.change is SchemaChange.FORWARD and database.revision == result.head
    if database.revision != result.revision and not migrated and not result.errors:
        # The schema changed after the preflight, for example because a backup was restored. The result is outdated.
        await context.deps.cluster.delete(observed)
        return _waiting(context, requeue_after=RETRY_TRANSIENT_SECONDS)
    refusal = preflight_decision.refusal(running, context.server, result)
    if refusal and result.errors:
        return await _retry(context, observed, desired, refusal)
    if refusal:
        raise refusal
    started_at = observed["metadata"].get("creationTimestamp")
    plan = preflight_decision.plan(running, context.server, result, started_at, switching_database)
    refusal = preflight_decision.strategy_refusal(running, context.server, plan)
    # Without a plan, the previous pods would start again and write while the schema is being migrated.
    is_migrating = jobs.has_unfinished_migration(context) or jobs.migration_in_progress(context)
    if refusal and not migrated and not is_migrating:
        raise refusal
    return await _require_backup(context, running, database, plan, switching_database)


async def _require_backup(
    context: ReconcileContext,
    running: RunningVersion,
    database: DatabaseState,
    plan: UpgradePlan,
    switching_database: bool,
) -> Result[UpgradePlan]:
    """Check the other requirements of a schema migration: the privileges in the database, and a backup."""
    if database.revision != plan.head:
        if database.obstacle:
            raise database.obstacle
        blocked = await backup_gate.require_backup(
            context, running, database, switching_database=switching_database
        )
        if blocked:
            return blocked
    return _allowed(context, plan, database)


def _allowed(context: ReconcileContext, plan: UpgradePlan, database: DatabaseState) -> Result[UpgradePlan]:
    version = context.server.version
    if database.revision == plan.head:
        condition = true_condition(_TYPE, f"Version {version} is compatible with the current schema.")
    else:
        message = f"Version {version} is deployed after the schema is migrated to revision {plan.head}."
        condition = false_condition(_TYPE, Reason.PROGRESSING, message)
    return Result(condition, plan)


def build_status(
    context: ReconcileContext, plan: UpgradePlan | None, server: Result[RunningServer]
) -> Object:
    """The new `status.upgrade`; empty if there was no upgrade. `server` is the result of the server component."""
    status: Object = context.observed.status.get("upgrade") or {}
    running = running_version(context)
    if plan and plan.image_changed and plan.preflight:
        started_at = plan.started_at or context.deps.now()
        status = upgrade_status.start(running, context.server, plan.preflight, started_at, status)
    elif upgrade_status.in_progress(status) and _is_cancelled(context, running, status):
        return {}
    deployed = server.value
    is_target = status.get("toVersion") == context.server.version and deployed and deployed.version
    if (
        is_target
        and deployed
        and deployed.deployment
        and upgrade_status.in_progress(status)
        and server.condition.is_true
    ):
        pods = context.observed.list(kinds.POD, labels.SERVER_POD)
        return upgrade_status.complete(status, deployed.deployment, pods, context.deps.now())
    return status


def _is_cancelled(context: ReconcileContext, running: RunningVersion, status: Object) -> bool:
    return running.image == context.server.image and status.get("toVersion") != context.server.version


def _job_result(context: ReconcileContext, job: Object) -> PreflightResult | None:
    """Result of the Job. A result without errors counts only if the Job is complete and its container exited with 0."""
    terminated = jobs.container_results(context, job)
    results = [preflight_result.parse(state.get("message")) for state in terminated]
    result = results[0] if len(results) == 1 else None
    if result is None or result.errors:
        return result
    succeeded = jobs.has_condition(job, "Complete") and terminated[0].get("exitCode") == 0
    return result if succeeded else None


def _preflight_jobs(context: ReconcileContext, except_name: str | None = None) -> list[Object]:
    observed = context.observed.list(kinds.JOB, labels.PREFLIGHT_POD)
    return [job for job in observed if job["metadata"]["name"] != except_name]


async def prune_jobs(context: ReconcileContext) -> None:
    """Delete the preflight Jobs and the backup Jobs of finished upgrades."""
    for job in _preflight_jobs(context):
        await context.deps.cluster.delete(job)
    await backup_gate.prune_jobs(context)


def _waiting(context: ReconcileContext, requeue_after: float | None = None) -> Result[UpgradePlan]:
    previous = context.observed.condition(_TYPE)
    if previous.get("reason") == Reason.PREFLIGHT_FAILED.value and _same_generation(context, previous):
        # Keep the failure of the previous attempt, so that the condition does not flap with every retry.
        return Result(
            false_condition(_TYPE, Reason.PREFLIGHT_FAILED, str(previous.get("message"))),
            requeue_after=requeue_after,
        )
    return Result(
        false_condition(
            _TYPE,
            Reason.PROGRESSING,
            f"Waiting for the preflight Job, which checks the image {context.server.image}. Nothing is changed yet.",
        ),
        requeue_after=requeue_after,
    )


def _same_generation(context: ReconcileContext, condition: Object) -> bool:
    generation = context.observed.resource["metadata"].get("generation")
    return bool(condition.get("observedGeneration") == generation)


async def _check_running_job(context: ReconcileContext, job: Object) -> Result[UpgradePlan]:
    pods = jobs.pods_of(context, job)
    blocked = await jobs.blocking_reason(context, _TYPE, job, pods, "the preflight")
    return blocked or _waiting(context, requeue_after=None if pods else RETRY_TRANSIENT_SECONDS)


async def _retry(
    context: ReconcileContext, finished: Object, desired: Object, error: ConfigurationError
) -> Result[UpgradePlan]:
    """Create the next attempt once its backoff has passed. A preflight changes nothing, so a retry is always safe."""
    backoff = await jobs.retry(context, finished, desired)
    return Result(
        false_condition(_TYPE, error.reason, error.message), requeue_after=backoff or RETRY_TRANSIENT_SECONDS
    )
