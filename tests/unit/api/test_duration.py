"""Lengths of time, as owners write them."""

from datetime import timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from mlflow_operator.api.duration import Duration, seconds

ANY: TypeAdapter[str] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("720h", timedelta(days=30)),
        ("1h30m", timedelta(minutes=90)),
        ("90s", timedelta(seconds=90)),
        ("0h", timedelta(0)),
    ],
)
def test_a_length_of_time_is_what_it_says(written: str, meant: timedelta) -> None:
    """Of hours, minutes and seconds."""
    assert seconds(ANY.validate_python(written)) == meant


@pytest.mark.parametrize("written", ["", "30d", "30m1h", "1.5h", "-1h", "h", "720", " 1h"])
def test_what_is_no_length_is_refused_with_the_way_out(written: str) -> None:
    """Days, fractions and other orders among them."""
    with pytest.raises(ValidationError, match="such as 720h for 30 days"):
        ANY.validate_python(written)
