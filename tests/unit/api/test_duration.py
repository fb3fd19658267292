"""Parsing and validation of durations."""

from datetime import timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from mlflow_operator.api.duration import Duration, parse_duration

DURATION: TypeAdapter[str] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("720h", timedelta(days=30)),
        ("1h30m", timedelta(minutes=90)),
        ("90s", timedelta(seconds=90)),
        ("0h", timedelta(0)),
    ],
)
def test_parse_duration(text: str, expected: timedelta) -> None:
    """Durations consist of hours, minutes and seconds."""
    assert parse_duration(DURATION.validate_python(text)) == expected


@pytest.mark.parametrize("text", ["", "30d", "30m1h", "1.5h", "-1h", "h", "720", " 1h"])
def test_invalid_duration_is_rejected(text: str) -> None:
    """Days, fractions and units in another order are not supported. The message shows a valid duration."""
    with pytest.raises(ValidationError, match="such as 720h for 30 days"):
        DURATION.validate_python(text)
