"""Lengths of time, as Go and Kubernetes write them: `720h`, `1h30m`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import matches

_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}


def seconds(duration: str) -> timedelta:
    """Return a duration that the resource has let pass."""
    parts = {_UNITS[unit]: int(number) for number, unit in re.findall(r"([0-9]+)([hms])", duration)}
    return timedelta(**parts)


Duration = Annotated[
    str,
    Field(max_length=32),
    matches(
        r"[0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,6}s)?|[0-9]{1,6}m([0-9]{1,6}s)?|[0-9]{1,6}s",
        "is no length of time: write hours, minutes and seconds in this order, such as 720h for 30 days, or 1h30m",
    ),
]
"""A length of time, of hours, minutes and seconds. There are no days: those are 24h."""
