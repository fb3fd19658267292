"""Cron schedules and time zones, as in CronJobs."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import matches

Schedule = Annotated[
    str,
    Field(max_length=100),
    matches(
        r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[^\s@]\S*(\s+\S+){4}",
        "is not a valid schedule: use five cron fields, such as '0 2 * * *' for every day at 02:00, or a macro such as "
        "@daily",
    ),
]
"""Cron schedule: minute, hour, day of the month, month, day of the week; or a macro such as `@daily`."""

TimeZone = Annotated[
    str,
    Field(max_length=64),
    matches(
        r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*",
        "is not a valid time zone: use a name from the IANA database, such as Europe/Berlin",
    ),
]
"""IANA name of a time zone, such as `Europe/Berlin`."""
