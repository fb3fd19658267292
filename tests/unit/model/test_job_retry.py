"""A migration that failed is tried again only where nothing was done, and ever more rarely."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.job_retry import (
    FIRST_PAUSE,
    LONG_PAUSE,
    PAUSE,
    QUICK,
    attempt_number,
    backoff,
    can_retry,
)

NOW = "2026-01-01T00:01:00Z"


def job(attempt: int = 1, revision: str | None = "", failed: str = "2026-01-01T00:00:30Z") -> Object:
    """A Job that failed."""
    noted = {} if revision is None else {labels.FROM_REVISION: revision, labels.ATTEMPT: str(attempt)}
    condition = {"type": "Failed", "status": "True", "lastTransitionTime": failed}
    return {"metadata": {"annotations": noted}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("before", "now", "may"),
    [("", None, True), ("abc", "abc", True), ("abc", "def", False), ("", "abc", False), ("abc", None, False)],
)
def test_only_an_unchanged_database_is_tried_again(before: str, now: str | None, may: bool) -> None:
    """The revision moves in the same transaction as the tables."""
    assert can_retry(job(revision=before), [], now) is may


def test_a_job_that_noted_nothing_is_left_to_people() -> None:
    """One that an older operator made."""
    assert not can_retry(job(revision=None), [], None)
    assert attempt_number(job(revision=None)) == 1


def test_never_while_a_pod_of_it_may_still_run() -> None:
    """A node that is cut off goes on with what it has."""
    assert not can_retry(job(), [{"status": {"phase": "Running"}}], None)
    assert can_retry(job(), [{"status": {"phase": "Failed"}}], None)


def test_soon_at_first_and_later_rarely() -> None:
    """Who mends at once finds it done within a resync; who sleeps costs little."""
    assert [backoff(job(n, failed=NOW), NOW) for n in range(1, 5)] == [
        FIRST_PAUSE,
        2 * FIRST_PAUSE,
        PAUSE,
        PAUSE,
    ]
    assert backoff(job(QUICK - 1), NOW) == PAUSE - 30
    assert backoff(job(QUICK), NOW) == LONG_PAUSE - 30
    assert backoff(job(), NOW) == 0


def test_a_clock_that_is_ahead_delays_nothing_for_good() -> None:
    """The API server's time and ours differ."""
    assert backoff(job(failed="2026-01-01T09:00:00Z"), NOW) == FIRST_PAUSE
