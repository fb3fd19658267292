"""When something is done again and again: as `CronJob` has it."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import matches

Schedule = Annotated[
    str,
    Field(max_length=100),
    matches(
        r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[^\s@]\S*(\s+\S+){4}",
        "is no schedule: write five fields as for cron, such as '0 2 * * *' for each night at two, or @daily",
    ),
]
"""A cron schedule: minute, hour, day of the month, month, day of the week; or `@daily` and the like."""

TimeZone = Annotated[
    str,
    Field(max_length=64),
    matches(
        r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*",
        "is no time zone: write one by its name in the IANA database, such as Europe/Berlin",
    ),
]
"""A time zone by its IANA name, such as `Europe/Berlin`."""
