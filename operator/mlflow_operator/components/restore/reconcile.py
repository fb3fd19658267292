"""The restore: what a backup holds is in the database before its schema is looked at."""

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.credentials.s3 import whole
from mlflow_operator.components.restore import manifests as restores
from mlflow_operator.components.restore import result as restore_answer
from mlflow_operator.framework import jobs
from mlflow_operator.framework.step import SOON, Outcome, Work, step, waits
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import ensure_job
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Restore
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, not_ready, ready
from mlflow_operator.status.errors import UserMistake

_TYPE = ConditionType.SCHEMA


@step(_TYPE)
async def run(
    work: Work, database: DatabaseState | None, store_ready: bool, moving: bool = False
) -> Outcome[bool]:
    """Whether the schema's turn has come (the value). Until then the condition says what is being done.

    `moving`: `database` is another one than the server is on, and no restore is asked of it.
    """
    if work.server.suspended or database is None:
        return _passed()
    restore = work.server.restore
    if restore is None or moving:
        return await _without(work)
    if database.revision is not None:
        if restores.done(restore, database.comment_of_tables) or work.seen.status.get("schemaRevision"):
            return _passed()
        raise restore_answer.occupied(restore)
    return await _restore(work, restore, database, store_ready)


def _passed() -> Outcome[bool]:
    return Outcome(ready(_TYPE, "Nothing is to be restored."), True)


async def _without(work: Work) -> Outcome[bool]:
    """Nothing is asked for (any more): what was begun is given up before anything else is made in the database."""
    for job in _jobs(work):
        if not jobs.over(job):
            await work.out.cluster.delete(job)
    if any(map(pod_diagnosis.alive, work.seen.of(kinds.POD, labels.RESTORE_POD))):
        return Outcome(waits(_TYPE, "the restore that was given up to end"), again=SOON)
    return _passed()


async def _restore(work: Work, restore: Restore, database: DatabaseState, store_ready: bool) -> Outcome[bool]:
    job = restores.job(work.server, restore, database.identity)
    live = work.seen.get(kinds.JOB, job["metadata"]["name"])
    other = next((each for each in _jobs(work) if each is not live and not jobs.over(each)), None)
    if other:
        return await _after(work, other)
    if live is None:
        if not store_ready and not restore.elsewhere:
            return Outcome(waits(_TYPE, "the artifact store, which holds the backup"))
        await _check(work, restore)
        if database.obstacle:
            raise database.obstacle
        await ensure_job(work.out.cluster, job, None, work.seen.resource)
        return Outcome(_progressing(restore), again=SOON)
    if jobs.ended(live, "Complete"):
        # and the tables are gone: somebody has emptied the database since
        await work.out.cluster.delete(live)
        return Outcome(_progressing(restore), again=SOON)
    if jobs.ended(live, "Failed") or _died(work, live):
        return _failed(work, restore, live)
    return await _under_way(work, restore, live)


async def _after(work: Work, other: Object) -> Outcome[bool]:
    """Another Job comes first: one at a time."""
    if jobs.started(work, other):
        return Outcome(waits(_TYPE, f'the restore "{other["metadata"]["name"]}", which is still under way'))
    # its image can't be pulled, say; whoever mended the spec must not wait for it
    await work.out.cluster.delete(other)
    return Outcome(waits(_TYPE, "an earlier restore to go"), again=SOON)


async def _check(work: Work, restore: Restore) -> None:
    """Raise UserMistake for a Secret that the pod could not start without; those of the own store were looked at."""
    if restore.elsewhere:
        store = restore.store
        for wanted in (store.access_key, store.secret_key):
            if wanted:
                await whole(work, wanted)
        await work.read.optional(store.ca)


async def _under_way(work: Work, restore: Restore, job: Object) -> Outcome[bool]:
    pods = jobs.pods_of(work, job)
    held = await jobs.held_up(work, _TYPE, job, pods, "the restore")
    return held or Outcome(_progressing(restore), again=None if pods else SOON)


def _jobs(work: Work) -> list[Object]:
    return work.seen.of(kinds.JOB, labels.RESTORE_POD)


def _progressing(restore: Restore) -> Condition:
    what = "the newest backup" if restore.backup == "latest" else f"the backup {restore.backup}"
    return not_ready(
        _TYPE,
        Reason.PROGRESSING,
        f"A restore Job puts {what} of {restore.namespace}/{restore.server} into the database.",
    )


def _died(work: Work, job: Object) -> bool:
    """Whether one of its containers has failed. The other one ends by itself, but may wait long before it does."""
    return any(ending.get("exitCode") for ending in jobs.endings(work, job))


def _failed(work: Work, restore: Restore, job: Object) -> Outcome[bool]:
    told = work.seen.condition(_TYPE)
    if not jobs.pods_of(work, job) and told.get("reason") in _TOLD:
        # its pod is gone, and with it what it said
        return Outcome(not_ready(_TYPE, Reason(told["reason"]), str(told.get("message"))))
    why = _failure(work, restore, job)
    return Outcome(not_ready(_TYPE, why.reason, why.message))


_TOLD = {Reason.RESTORE_FAILED.value, Reason.RESTORE_REFUSED.value}


def _failure(work: Work, restore: Restore, job: Object) -> UserMistake:
    said = {name: words for pod in jobs.pods_of(work, job) for name, words in _words(pod)}
    answer = restore_answer.parse(said.get(restores.FETCHES))
    words = said.get(restores.WRITES)
    if answer is None:
        words = said.get(restores.FETCHES) or words
    elif answer.faults and answer.faults[0].kind != "pg_restore":
        words = None
    return restore_answer.failure(work.server, restore, job["metadata"]["name"], answer, words)


def _words(pod: Object) -> list[tuple[str, str]]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ended = ((status["name"], (status.get("state") or {}).get("terminated")) for status in statuses)
    return [(name, str(ending.get("message") or "")) for name, ending in ended if ending]
