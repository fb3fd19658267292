"""The schema: at the revision that the server's image wants, before any server starts."""

from mlflow_operator.controller.apply import ensure_job
from mlflow_operator.controller.steps.step import SOON, Outcome, Work, step, suspended, waits
from mlflow_operator.core import diagnosis, jobs, kinds, labels
from mlflow_operator.core.conditions import Condition, ConditionType, Reason, State, not_ready, ready
from mlflow_operator.core.objects import Object
from mlflow_operator.core.versions import SCHEMA_HEADS
from mlflow_operator.providers.postgres import DatabaseState

_TYPE = ConditionType.SCHEMA


@step(_TYPE)
async def run(work: Work, database: DatabaseState | None) -> Outcome[str]:
    """The schema's revision once it is what the image wants; until then, one migration Job at a time."""
    if work.server.suspended:
        return Outcome(suspended(_TYPE))
    if database is None:
        return Outcome(waits(_TYPE, "the database"))
    head = _head(work)
    if database.revision is not None and database.revision == (head or _settled(work)):
        return Outcome(ready(_TYPE, "The schema fits the server's version."), database.revision)
    # an image whose head is unknown gets one Job for good; else each revision to start from gets its own
    state = f"{database.identity}@{database.revision}" if head else database.identity
    undone = head is not None and work.seen.status.get("schemaRevision") == head
    return await _migrate(work, jobs.migration(work.server, state), None if undone else database.revision)


async def _migrate(work: Work, job: Object, revision: str | None) -> Outcome[str]:
    """`revision` is what the database is at; None where a Job that is complete counts for nothing any more, since
    the database was emptied or put back to an older backup after it."""
    live = work.seen.get(kinds.JOB, job["metadata"]["name"])
    if live and _ended(live, "Complete"):
        if revision is not None:
            return Outcome(ready(_TYPE, "The schema fits the server's version."), revision)
        await work.out.cluster.delete(live)
        return Outcome(_progressing())
    if live and _ended(live, "Failed"):
        return Outcome(_failed(work, live))
    other = next((j for j in work.seen.of(kinds.JOB) if not _over(j) and j is not live), None)
    if other and not _started(work, other):
        # its image can't be pulled, say; whoever mended the spec must not wait for it
        await work.out.cluster.delete(other)
        return Outcome(_progressing(), again=SOON)
    if other:
        name = other["metadata"]["name"]
        return Outcome(waits(_TYPE, f'the migration Job "{name}", which is still under way'))
    await ensure_job(work.out.cluster, job, live, work.seen.resource)
    finding = diagnosis.of_pods(_pods(work, job)) if live else None
    return Outcome(not_ready(_TYPE, finding.reason, finding.message) if finding else _progressing())


def running_image(work: Work) -> str | None:
    """The image of the server's pods; None if they were never made."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    return live["spec"]["template"]["spec"]["containers"][0]["image"] if live else None


def never_begun(work: Work) -> list[Object]:
    """Migration Jobs that wait for an image that nobody asks for any more, say."""
    return [job for job in work.seen.of(kinds.JOB) if not _over(job) and not _started(work, job)]


def _head(work: Work) -> str | None:
    """The revision that the image's migrations end at; None for an image whose version is only a claim."""
    if work.server.image != work.out.images.server(work.server.version):
        return None
    return SCHEMA_HEADS.get(work.server.version)


def _settled(work: Work) -> str | None:
    """For an image of unknown head: the revision at which it has served before."""
    return work.seen.status.get("schemaRevision") if running_image(work) == work.server.image else None


def _ended(job: Object, how: str) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == how and c["status"] == "True" for c in conditions)


def _over(job: Object) -> bool:
    return _ended(job, "Complete") or _ended(job, "Failed")


def _started(work: Work, job: Object) -> bool:
    """Whether any container of the Job ever ran; the lock in the database holds should one start just now."""
    states = [
        status.get("state") or {}
        for pod in _pods(work, job)
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return any("running" in state or "terminated" in state for state in states)


def _pods(work: Work, job: Object) -> list[Object]:
    name = job["metadata"]["name"]
    return [
        pod
        for pod in work.seen.of(kinds.POD, labels.MIGRATION_POD)
        if any(ref.get("name") == name for ref in pod["metadata"].get("ownerReferences") or ())
    ]


def _progressing() -> Condition:
    return Condition(_TYPE, State.FALSE, Reason.PROGRESSING, "The migration Job is bringing the schema up.")


def _failed(work: Work, job: Object) -> Condition:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    endings = [
        (status.get("state") or {}).get("terminated") or {}
        for pod in _pods(work, job)
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    lines = diagnosis.last_lines(next((e["message"] for e in endings if e.get("message")), ""))
    said = f" Its last lines: {lines}" if lines else ""
    return not_ready(
        _TYPE,
        Reason.MIGRATION_FAILED,
        f'The migration Job "{name}" failed, and is not tried again blindly. Mend the cause, then run: '
        f"kubectl delete job -n {namespace} {name}.{said}",
    )
