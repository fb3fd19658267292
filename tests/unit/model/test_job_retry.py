"""A failed migration is retried only if it changed nothing, with increasing backoff."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.job_retry import (
    INITIAL_BACKOFF_SECONDS,
    LONG_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    QUICK_ATTEMPTS,
    attempt_number,
    backoff,
    can_retry,
)

NOW = "2026-01-01T00:01:00Z"


def job(attempt: int = 1, revision: str | None = "", failed_at: str = "2026-01-01T00:00:30Z") -> Object:
    """A failed migration Job."""
    annotations = {} if revision is None else {labels.FROM_REVISION: revision, labels.ATTEMPT: str(attempt)}
    condition = {"type": "Failed", "status": "True", "lastTransitionTime": failed_at}
    return {"metadata": {"annotations": annotations}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [("", None, True), ("abc", "abc", True), ("abc", "def", False), ("", "abc", False), ("abc", None, False)],
)
def test_retry_requires_an_unchanged_revision(before: str, now: str | None, expected: bool) -> None:
    """The revision is updated in the same transaction as the tables."""
    assert can_retry(job(revision=before), [], now) is expected


def test_a_job_without_annotations_is_not_retried() -> None:
    """For example a Job that an older operator created."""
    assert not can_retry(job(revision=None), [], None)
    assert attempt_number(job(revision=None)) == 1


def test_no_retry_while_a_pod_may_still_run() -> None:
    """A pod on a node without connection to the API server continues to run."""
    assert not can_retry(job(), [{"metadata": {}, "status": {"phase": "Running"}}], None)
    assert can_retry(job(), [{"metadata": {}, "status": {"phase": "Failed"}}], None)


def test_backoff_is_short_at_first_and_long_later() -> None:
    """A fix takes effect within one resync; a permanent failure costs little."""
    assert [backoff(job(n, failed_at=NOW), NOW) for n in range(1, 5)] == [
        INITIAL_BACKOFF_SECONDS,
        2 * INITIAL_BACKOFF_SECONDS,
        MAX_BACKOFF_SECONDS,
        MAX_BACKOFF_SECONDS,
    ]
    assert backoff(job(QUICK_ATTEMPTS - 1), NOW) == MAX_BACKOFF_SECONDS - 30
    assert backoff(job(QUICK_ATTEMPTS), NOW) == LONG_BACKOFF_SECONDS - 30
    assert backoff(job(), NOW) == 0


def test_clock_skew_does_not_extend_the_backoff() -> None:
    """The clocks of the API server and the operator may differ."""
    assert backoff(job(failed_at="2026-01-01T09:00:00Z"), NOW) == INITIAL_BACKOFF_SECONDS
