"""Whether and when a failed migration is retried automatically.

On Postgres a migration is one transaction, including the update of the revision (verified with MLflow 3.17.2; only the
first five tables of an empty database are created before it, and the next attempt finds them). If the database is still
at the revision it had before the migration, the migration changed nothing, and a retry is safe. Every other case
requires a person. Two attempts never overlap: the next Job, of the same name, is created only after the previous Job
failed and none of its pods is active; each attempt also holds a lock in the database.
"""

from collections.abc import Iterable

from mlflow_operator.kube import labels, pod_diagnosis, timestamps
from mlflow_operator.kube.objects import Object

INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 15.0, 60.0
"""Seconds until the next attempt: doubled from the first value up to the second one, the resync interval, so that a fix
takes effect within one resync."""

LONG_BACKOFF_SECONDS = 300.0
"""Seconds until the next attempt after QUICK_ATTEMPTS: each attempt costs a pod that imports MLflow, and by then a
person is needed."""

QUICK_ATTEMPTS = 10
"""Number of attempts before the backoff becomes LONG_BACKOFF_SECONDS."""


def attempt_number(job: Object) -> int:
    """Number of this attempt; 1 if the Job has no annotation."""
    attempt = _annotation(job, labels.ATTEMPT) or ""
    return int(attempt) if attempt.isdecimal() else 1


def with_attempt_number(job: Object, number: int) -> Object:
    """Return a copy of the Job with this attempt number."""
    meta = job["metadata"]
    new_metadata = meta | {"annotations": (meta.get("annotations") or {}) | {labels.ATTEMPT: str(number)}}
    return job | {"metadata": new_metadata}


def started_on_empty_database(job: Object) -> bool:
    """Whether the database had no schema when this migration Job was created."""
    return _annotation(job, labels.FROM_REVISION) == ""


def can_retry(job: Object, pods: Iterable[Object], revision: str | None) -> bool:
    """Whether a retry of the failed migration `job` is safe. `revision` is the current one of the database."""
    return _annotation(job, labels.FROM_REVISION) == (revision or "") and not any(
        map(pod_diagnosis.is_active, pods)
    )


def backoff(job: Object, now: str) -> float:
    """Seconds from `now` (RFC 3339) until the next attempt is due; 0 if it is due. `job` has failed or succeeded."""
    attempt = attempt_number(job)
    delay = (
        min(INITIAL_BACKOFF_SECONDS * 2 ** (attempt - 1), MAX_BACKOFF_SECONDS)
        if attempt < QUICK_ATTEMPTS
        else LONG_BACKOFF_SECONDS
    )
    terminal_types = ("Failed", "Complete")
    condition: Object = next((c for c in job["status"]["conditions"] if c["type"] in terminal_types), {})
    if not condition.get("lastTransitionTime"):
        return delay
    elapsed = timestamps.seconds_between(condition["lastTransitionTime"], now)
    # The clocks of the API server and the operator may differ: a time in the future counts as now.
    return max(0.0, delay - max(0.0, elapsed))


def _annotation(job: Object, key: str) -> str | None:
    value = (job["metadata"].get("annotations") or {}).get(key)
    return None if value is None else str(value)
