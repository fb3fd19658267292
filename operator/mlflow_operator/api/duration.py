"""Durations in the notation of Go and Kubernetes: `720h`, `1h30m`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import matches

_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}


def parse_duration(duration: str) -> timedelta:
    """Parse a string that is a valid `Duration`."""
    parts = {_UNITS[unit]: int(number) for number, unit in re.findall(r"([0-9]+)([hms])", duration)}
    return timedelta(**parts)


Duration = Annotated[
    str,
    Field(max_length=32),
    matches(
        r"[0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,6}s)?|[0-9]{1,6}m([0-9]{1,6}s)?|[0-9]{1,6}s",
        "is not a valid duration: use hours, minutes and seconds in this order, such as 720h for 30 days, or 1h30m",
    ),
]
"""Duration in hours, minutes and seconds. There is no unit for days; a day is 24h."""
