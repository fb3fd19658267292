"""Timestamps of the Kubernetes API."""

from datetime import UTC, datetime

import pytest

from mlflow_operator.kube import timestamps


@pytest.mark.parametrize("text", ["2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "2026-01-01T12:00:00"])
def test_timestamp_is_parsed_as_utc(text: str) -> None:
    assert timestamps.parse(text) == datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "", "yesterday", 3])
def test_missing_or_invalid_timestamp_is_none(value: object) -> None:
    assert timestamps.parse_optional(value) is None


def test_seconds_between_are_negative_in_reverse_order() -> None:
    earlier, later = "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"
    assert timestamps.seconds_between(earlier, later) == 90
    assert timestamps.seconds_between(later, earlier) == -90
