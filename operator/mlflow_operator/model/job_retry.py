"""Whether a migration that failed may be tried again by itself, and when.

On Postgres a migration is one transaction, the revision it ends at included (seen with MLflow 3.17.2; only the first
five tables of an empty database come before it, and are found again). So a database that stands at the revision it
stood at before has had nothing done to it, and to try again does what was to be done the first time. Anything else is
for a person to look at. Two tries never overlap: the next one is made when the last one's Job has failed and no pod of
it lives, under the same name, and each holds a lock in the database besides.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from mlflow_operator.kube import labels, pod_diagnosis
from mlflow_operator.kube.objects import Object

FIRST_PAUSE, PAUSE = 15.0, 60.0
"""Seconds until the next try, doubled from the first on up to a resync, so that what was mended is found within one."""

LONG_PAUSE = 300.0
"""Seconds until a later try: each costs a pod that imports MLflow, and by now somebody has to think."""

QUICK = 10
"""Tries before the pause gets long."""


def attempt_number(job: Object) -> int:
    """Which try this Job is; 1 where nobody noted it."""
    noted = _noted(job, labels.ATTEMPT) or ""
    return int(noted) if noted.isdecimal() else 1


def with_attempt_number(job: Object, number: int) -> Object:
    """The same Job as a later try."""
    meta = job["metadata"]
    noted = meta | {"annotations": (meta.get("annotations") or {}) | {labels.ATTEMPT: str(number)}}
    return job | {"metadata": noted}


def started_on_empty_database(job: Object) -> bool:
    """Whether there were no tables when this migration was begun."""
    return _noted(job, labels.FROM_REVISION) == ""


def can_retry(job: Object, pods: Iterable[Object], revision: str | None) -> bool:
    """Whether what the failed `job` was to do can safely be done once more; `revision` is the database's now."""
    return _noted(job, labels.FROM_REVISION) == (revision or "") and not any(
        map(pod_diagnosis.is_active, pods)
    )


def backoff(job: Object, now: str) -> float:
    """Seconds from `now` (RFC 3339) until the next try is due; 0 when it is. `job` is over, one way or the other."""
    done = attempt_number(job)
    whole = min(FIRST_PAUSE * 2 ** (done - 1), PAUSE) if done < QUICK else LONG_PAUSE
    how = ("Failed", "Complete")
    ended: Object = next((c for c in job["status"]["conditions"] if c["type"] in how), {})
    if not ended.get("lastTransitionTime"):
        return whole
    passed = (_time(now) - _time(ended["lastTransitionTime"])).total_seconds()
    # two clocks: what seems to lie ahead of us is now
    return max(0.0, whole - max(0.0, passed))


def _noted(job: Object, annotation: str) -> str | None:
    noted = (job["metadata"].get("annotations") or {}).get(annotation)
    return None if noted is None else str(noted)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
