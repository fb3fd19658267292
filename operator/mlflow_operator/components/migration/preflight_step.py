"""The upgrade: whether the version asked for may take over. Asked in a Job of its own before anything is touched."""

from dataclasses import replace

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.migration import backup_gate
from mlflow_operator.components.migration import plan as upgrade
from mlflow_operator.components.migration import preflight_result as answers
from mlflow_operator.components.migration.plan import InForce, Plan
from mlflow_operator.components.migration.preflight_result import Answer, Movement
from mlflow_operator.components.migration.reconcile import fitting, running_image
from mlflow_operator.framework import jobs as work_jobs
from mlflow_operator.framework.previous_deployment import Serving
from mlflow_operator.framework.step import SOON, Outcome, Work, step, suspended, waits
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import job_retry, jobs, plugins
from mlflow_operator.status.conditions import ConditionType, Reason, not_ready, ready
from mlflow_operator.status.errors import UserMistake

_TYPE = ConditionType.UPGRADE
_STANDS = "The version asked for is the one in force."


def before(work: Work) -> InForce:
    """What the server ran until now."""
    return upgrade.in_force(work.seen.status, running_image(work))


@step(_TYPE)
async def run(
    work: Work, database: DatabaseState | None, store_ready: bool, moving: bool = False
) -> Outcome[Plan]:
    """What may be done; no value as long as nothing may be. `moving`: `database` is not the one that it is on yet."""
    if work.server.suspended:
        return Outcome(suspended(_TYPE))
    last = before(work)
    if database is None:
        known = last.image == work.server.image
        return Outcome(ready(_TYPE, _STANDS) if known else waits(_TYPE, "the database"))
    same = last.image in {None, work.server.image}
    if (same and (moving or _failed_before(work) or _first_start(work))) or not upgrade.needs_preflight(
        last, work.server, database.revision, fitting(work)
    ):
        return Outcome(ready(_TYPE, _STANDS), Plan())
    other = work_jobs.migration_under_way(work, but_of=work.server.image)
    if other:
        return Outcome(waits(_TYPE, f'the migration "{other}", which is still under way'))
    if not store_ready:
        return Outcome(waits(_TYPE, "the artifact store"))
    return await _ask(work, last, database, moving)


def _failed_before(work: Work) -> bool:
    """Whether a migration of this very image has failed: if nobody has changed it, that Job decides what next."""
    known = work.seen.of(kinds.JOB, labels.MIGRATION_POD)
    return any(
        work_jobs.ended(job, "Failed") and work_jobs.image_of(job) == work.server.image for job in known
    )


def _first_start(work: Work) -> bool:
    """Whether an image of unknown head has made the tables itself, or is about it: nobody else's are in danger."""
    known = work.seen.of(kinds.JOB, labels.MIGRATION_POD)
    return fitting(work) is None and any(
        work_jobs.image_of(job) == work.server.image and job_retry.began_empty(job) for job in known
    )


async def _ask(work: Work, last: InForce, database: DatabaseState, moving: bool) -> Outcome[Plan]:
    wanted = jobs.preflight(work.server, database.identity, moving=moving)
    name = wanted["metadata"]["name"]
    for stale in _preflights(work, but=name):
        await work.out.cluster.delete(stale)
    live = work.seen.get(kinds.JOB, name)
    if live is None:
        if plugins.wanted(work.server.artifacts):
            await work.ensure(plugins.config_map(work.server))
        await ensure_job(work.out.cluster, wanted, None, work.seen.resource)
        return _asking(work, again=SOON)
    if not work_jobs.over(live):
        return await _under_way(work, live)
    said = _said(work, live)
    if said is None:
        endings = work_jobs.endings(work, live)
        words = next((str(each["message"]) for each in endings if each.get("message")), None)
        return await _once_more(work, live, wanted, upgrade.no_answer(last, work.server, name, words))
    moved = said.movement is Movement.FORWARD and database.revision == said.head
    if database.revision != said.revision and not moved and not said.faults:
        # a backup was put back meanwhile, say: what was found out is not true any more
        await work.out.cluster.delete(live)
        return _asking(work, again=SOON)
    refusal = upgrade.refusal(last, work.server, said)
    if refusal and said.faults:
        return await _once_more(work, live, wanted, refusal)
    if refusal:
        raise refusal
    began = live["metadata"].get("creationTimestamp")
    return await _may(work, last, database, upgrade.plan(last, work.server, said, began, moving), moving)


async def _may(work: Work, last: InForce, database: DatabaseState, plan: Plan, moving: bool) -> Outcome[Plan]:
    """What else must be before tables move: leave to change them, and a backup."""
    if database.revision != plan.head:
        if database.obstacle:
            raise database.obstacle
        held = await backup_gate.hold(work, last, database, moving=moving)
        if held:
            return held
    return _go(work, plan, database)


def _go(work: Work, plan: Plan, database: DatabaseState) -> Outcome[Plan]:
    if database.revision == plan.head:
        return Outcome(
            ready(_TYPE, f"Version {work.server.version} may take over, for the tables fit."), plan
        )
    return Outcome(
        not_ready(
            _TYPE,
            Reason.PROGRESSING,
            f"Version {work.server.version} may take over once the tables have moved to revision {plan.head}.",
        ),
        plan,
    )


def of_the_image(work: Work, plan: Plan | None) -> Work:
    """For an image of the owner's whose version nobody named: the version that it says it holds."""
    if work.server.version_named or not plan or not plan.answer or not plan.answer.version:
        return work
    return replace(work, server=replace(work.server, version=plan.answer.version))


def record(work: Work, plan: Plan | None, served: Outcome[Serving]) -> Object:
    """What `status.upgrade` shall say; empty where there is nothing to tell."""
    told: Object = work.seen.status.get("upgrade") or {}
    last = before(work)
    if plan and plan.changes and plan.answer:
        told = upgrade.begun(last, work.server, plan.answer, plan.since or work.out.now(), told)
    elif upgrade.under_way(told) and _given_up(work, last, told):
        return {}
    serving = served.value
    new = told.get("toVersion") == work.server.version and serving and serving.version
    if new and serving and serving.deployment and upgrade.under_way(told) and served.condition.true:
        pods = work.seen.of(kinds.POD, labels.SERVER_POD)
        return upgrade.ended(told, serving.deployment, pods, work.out.now())
    return told


def _given_up(work: Work, last: InForce, told: Object) -> bool:
    return last.image == work.server.image and told.get("toVersion") != work.server.version


def _said(work: Work, job: Object) -> Answer | None:
    """Its answer. Leave to go on takes a Job that is complete and a container that ended as it should, too."""
    endings = work_jobs.endings(work, job)
    found = [answers.parse(ending.get("message")) for ending in endings]
    said = found[0] if len(found) == 1 else None
    if said is None or said.faults:
        return said
    whole = work_jobs.ended(job, "Complete") and endings[0].get("exitCode") == 0
    return said if whole else None


def _preflights(work: Work, but: str | None = None) -> list[Object]:
    return [j for j in work.seen.of(kinds.JOB, labels.PREFLIGHT_POD) if j["metadata"]["name"] != but]


async def tidy(work: Work) -> None:
    """Takes away the Jobs that asked, once their answers have served."""
    for job in _preflights(work):
        await work.out.cluster.delete(job)
    await backup_gate.tidy(work)


def _asking(work: Work, again: float | None = None) -> Outcome[Plan]:
    told = work.seen.condition(_TYPE)
    if told.get("reason") == Reason.PREFLIGHT_FAILED.value and _same_spec(work, told):
        # to and fro at each try would be news of nothing
        return Outcome(not_ready(_TYPE, Reason.PREFLIGHT_FAILED, str(told.get("message"))), again=again)
    return Outcome(
        not_ready(
            _TYPE,
            Reason.PROGRESSING,
            f"A preflight Job asks the image {work.server.image} whether it can take over. Nothing is touched yet.",
        ),
        again=again,
    )


def _same_spec(work: Work, told: Object) -> bool:
    return bool(told.get("observedGeneration") == work.seen.resource["metadata"].get("generation"))


async def _under_way(work: Work, job: Object) -> Outcome[Plan]:
    pods = work_jobs.pods_of(work, job)
    held = await work_jobs.held_up(work, _TYPE, job, pods, "the preflight")
    return held or _asking(work, again=None if pods else SOON)


async def _once_more(work: Work, ended: Object, wanted: Object, why: UserMistake) -> Outcome[Plan]:
    """Asks again at its time: a question changes nothing, so there is no reason to wait for a person."""
    pause = job_retry.pause(ended, work.out.now())
    if not pause:
        await work.out.cluster.delete(ended)
        following = job_retry.numbered(wanted, job_retry.number(ended) + 1)
        await ensure_job(work.out.cluster, following, None, work.seen.resource)
    return Outcome(not_ready(_TYPE, why.reason, why.message), again=pause or SOON)
