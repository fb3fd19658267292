"""The upgrade: whether the version asked for may take over. Asked in a Job of its own before anything is touched."""

from dataclasses import replace

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.migration import backup_gate
from mlflow_operator.components.migration import plan as upgrade
from mlflow_operator.components.migration import preflight_result as answers
from mlflow_operator.components.migration.plan import RunningVersion, UpgradePlan
from mlflow_operator.components.migration.preflight_result import PreflightResult, SchemaChange
from mlflow_operator.components.migration.reconcile import fitting, running_image
from mlflow_operator.framework import jobs as work_jobs
from mlflow_operator.framework.previous_deployment import RunningServer
from mlflow_operator.framework.step import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    step,
    suspended,
    waiting,
)
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry, jobs, plugins
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition, true_condition
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.UPGRADE
_STANDS = "The version asked for is the one in force."


def before(context: ReconcileContext) -> RunningVersion:
    """What the server ran until now."""
    return upgrade.running_version(context.observed.status, running_image(context))


@step(_TYPE)
async def run(
    context: ReconcileContext, database: DatabaseState | None, store_ready: bool, moving: bool = False
) -> Result[UpgradePlan]:
    """What may be done; no value as long as nothing may be. `moving`: `database` is not the one that it is on yet."""
    if context.server.suspended:
        return Result(suspended(_TYPE))
    last = before(context)
    if database is None:
        known = last.image == context.server.image
        return Result(true_condition(_TYPE, _STANDS) if known else waiting(_TYPE, "the database"))
    same = last.image in {None, context.server.image}
    if (same and (moving or _failed_before(context) or _first_start(context))) or not upgrade.needs_preflight(
        last, context.server, database.revision, fitting(context)
    ):
        return Result(true_condition(_TYPE, _STANDS), UpgradePlan())
    other = work_jobs.migration_under_way(context, but_of=context.server.image)
    if other:
        return Result(waiting(_TYPE, f'the migration "{other}", which is still under way'))
    if not store_ready:
        return Result(waiting(_TYPE, "the artifact store"))
    return await _ask(context, last, database, moving)


def _failed_before(context: ReconcileContext) -> bool:
    """Whether a migration of this very image has failed: if nobody has changed it, that Job decides what next."""
    known = context.observed.of(kinds.JOB, labels.MIGRATION_POD)
    return any(
        work_jobs.finished_at(job, "Failed") and work_jobs.image_of(job) == context.server.image
        for job in known
    )


def _first_start(context: ReconcileContext) -> bool:
    """Whether an image of unknown head has made the tables itself, or is about it: nobody else's are in danger."""
    known = context.observed.of(kinds.JOB, labels.MIGRATION_POD)
    return fitting(context) is None and any(
        work_jobs.image_of(job) == context.server.image and job_retry.started_on_empty_database(job)
        for job in known
    )


async def _ask(
    context: ReconcileContext, last: RunningVersion, database: DatabaseState, moving: bool
) -> Result[UpgradePlan]:
    wanted = jobs.preflight(context.server, database.identity, moving=moving)
    name = wanted["metadata"]["name"]
    for stale in _preflights(context, but=name):
        await context.deps.cluster.delete(stale)
    live = context.observed.get(kinds.JOB, name)
    if live is None:
        if plugins.wanted(context.server.artifacts):
            await context.ensure(plugins.config_map(context.server))
        await ensure_job(context.deps.cluster, wanted, None, context.observed.resource)
        return _asking(context, again=RETRY_TRANSIENT_SECONDS)
    if not work_jobs.is_finished(live):
        return await _under_way(context, live)
    said = _said(context, live)
    if said is None:
        endings = work_jobs.container_results(context, live)
        words = next((str(each["message"]) for each in endings if each.get("message")), None)
        return await _once_more(context, live, wanted, upgrade.no_answer(last, context.server, name, words))
    moved = said.movement is SchemaChange.FORWARD and database.revision == said.head
    if database.revision != said.revision and not moved and not said.faults:
        # a backup was put back meanwhile, say: what was found out is not true any more
        await context.deps.cluster.delete(live)
        return _asking(context, again=RETRY_TRANSIENT_SECONDS)
    refusal = upgrade.refusal(last, context.server, said)
    if refusal and said.faults:
        return await _once_more(context, live, wanted, refusal)
    if refusal:
        raise refusal
    began = live["metadata"].get("creationTimestamp")
    return await _may(
        context, last, database, upgrade.plan(last, context.server, said, began, moving), moving
    )


async def _may(
    context: ReconcileContext, last: RunningVersion, database: DatabaseState, plan: UpgradePlan, moving: bool
) -> Result[UpgradePlan]:
    """What else must be before tables move: leave to change them, and a backup."""
    if database.revision != plan.head:
        if database.obstacle:
            raise database.obstacle
        held = await backup_gate.require_backup(context, last, database, moving=moving)
        if held:
            return held
    return _go(context, plan, database)


def _go(context: ReconcileContext, plan: UpgradePlan, database: DatabaseState) -> Result[UpgradePlan]:
    if database.revision == plan.head:
        return Result(
            true_condition(_TYPE, f"Version {context.server.version} may take over, for the tables fit."),
            plan,
        )
    return Result(
        false_condition(
            _TYPE,
            Reason.PROGRESSING,
            f"Version {context.server.version} may take over once the tables have moved to revision {plan.head}.",
        ),
        plan,
    )


def of_the_image(context: ReconcileContext, plan: UpgradePlan | None) -> ReconcileContext:
    """For an image of the owner's whose version nobody named: the version that it says it holds."""
    if context.server.version_is_explicit or not plan or not plan.answer or not plan.answer.version:
        return context
    return replace(context, server=replace(context.server, version=plan.answer.version))


def record(context: ReconcileContext, plan: UpgradePlan | None, served: Result[RunningServer]) -> Object:
    """What `status.upgrade` shall say; empty where there is nothing to tell."""
    told: Object = context.observed.status.get("upgrade") or {}
    last = before(context)
    if plan and plan.changes and plan.answer:
        told = upgrade.begun(last, context.server, plan.answer, plan.since or context.deps.now(), told)
    elif upgrade.in_progress(told) and _given_up(context, last, told):
        return {}
    serving = served.value
    new = told.get("toVersion") == context.server.version and serving and serving.version
    if new and serving and serving.deployment and upgrade.in_progress(told) and served.condition.is_true:
        pods = context.observed.of(kinds.POD, labels.SERVER_POD)
        return upgrade.ended(told, serving.deployment, pods, context.deps.now())
    return told


def _given_up(context: ReconcileContext, last: RunningVersion, told: Object) -> bool:
    return last.image == context.server.image and told.get("toVersion") != context.server.version


def _said(context: ReconcileContext, job: Object) -> PreflightResult | None:
    """Its answer. Leave to go on takes a Job that is complete and a container that ended as it should, too."""
    endings = work_jobs.container_results(context, job)
    found = [answers.parse(ending.get("message")) for ending in endings]
    said = found[0] if len(found) == 1 else None
    if said is None or said.faults:
        return said
    whole = work_jobs.finished_at(job, "Complete") and endings[0].get("exitCode") == 0
    return said if whole else None


def _preflights(context: ReconcileContext, but: str | None = None) -> list[Object]:
    return [j for j in context.observed.of(kinds.JOB, labels.PREFLIGHT_POD) if j["metadata"]["name"] != but]


async def tidy(context: ReconcileContext) -> None:
    """Takes away the Jobs that asked, once their answers have served."""
    for job in _preflights(context):
        await context.deps.cluster.delete(job)
    await backup_gate.tidy(context)


def _asking(context: ReconcileContext, again: float | None = None) -> Result[UpgradePlan]:
    told = context.observed.condition(_TYPE)
    if told.get("reason") == Reason.PREFLIGHT_FAILED.value and _same_spec(context, told):
        # to and fro at each try would be news of nothing
        return Result(
            false_condition(_TYPE, Reason.PREFLIGHT_FAILED, str(told.get("message"))), requeue_after=again
        )
    return Result(
        false_condition(
            _TYPE,
            Reason.PROGRESSING,
            f"A preflight Job asks the image {context.server.image} whether it can take over. Nothing is touched yet.",
        ),
        requeue_after=again,
    )


def _same_spec(context: ReconcileContext, told: Object) -> bool:
    return bool(told.get("observedGeneration") == context.observed.resource["metadata"].get("generation"))


async def _under_way(context: ReconcileContext, job: Object) -> Result[UpgradePlan]:
    pods = work_jobs.pods_of(context, job)
    held = await work_jobs.blocking_reason(context, _TYPE, job, pods, "the preflight")
    return held or _asking(context, again=None if pods else RETRY_TRANSIENT_SECONDS)


async def _once_more(
    context: ReconcileContext, ended: Object, wanted: Object, why: ConfigurationError
) -> Result[UpgradePlan]:
    """Asks again at its time: a question changes nothing, so there is no reason to wait for a person."""
    pause = job_retry.backoff(ended, context.deps.now())
    if not pause:
        await context.deps.cluster.delete(ended)
        following = job_retry.with_attempt_number(wanted, job_retry.attempt_number(ended) + 1)
        await ensure_job(context.deps.cluster, following, None, context.observed.resource)
    return Result(
        false_condition(_TYPE, why.reason, why.message), requeue_after=pause or RETRY_TRANSIENT_SECONDS
    )
