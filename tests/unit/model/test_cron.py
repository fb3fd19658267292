"""Validation of schedules, and the longest interval between two runs."""

from datetime import UTC, datetime, timedelta

import pytest

from mlflow_operator.model.cron import check, longest_gap
from mlflow_operator.status.errors import ConfigurationError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "gap"),
    [
        ("0 2 * * *", timedelta(days=1)),
        ("@hourly", timedelta(hours=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0 2 * * 1-5", timedelta(days=3)),
        ("0 0 1 1 *", timedelta(days=366)),
    ],
)
def test_longest_gap_between_two_runs(schedule: str, gap: timedelta) -> None:
    """A weekday schedule has no runs on the weekend: a backup from Friday is not overdue on Sunday."""
    check(schedule, "Etc/UTC", "spec.backup")
    assert longest_gap(schedule, "Etc/UTC", NOW) == gap


def test_daylight_saving_time_does_not_skip_a_run() -> None:
    """The schedule's hour does not exist on the day on which summer time begins."""
    march = datetime(2027, 3, 27, 12, tzinfo=UTC)
    assert longest_gap("0 2 * * *", "Europe/Berlin", march) <= timedelta(days=1, hours=1)


@pytest.mark.parametrize(
    ("schedule", "time_zone", "field"),
    [
        ("61 * * * *", "Etc/UTC", "schedule"),
        ("0 0 30 2 *", "Etc/UTC", "schedule"),
        ("a b c d e", "Etc/UTC", "schedule"),
        ("@daily", "Europe/Bärlin", "timeZone"),
        ("@daily", "../../etc/passwd", "timeZone"),
    ],
)
def test_invalid_schedules_are_rejected(schedule: str, time_zone: str, field: str) -> None:
    """The message contains the path of the field."""
    with pytest.raises(ConfigurationError, match=rf"spec\.backup\.{field}"):
        check(schedule, time_zone, "spec.backup")
