"""Schedules: how often something is due. `CronJob` itself decides when."""

from datetime import datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_SHORT = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_LOOKED_AT = 8
"""Times from which the longest gap is taken: enough for a schedule of working days to show its weekend."""


def check(schedule: str, time_zone: str, field: str) -> None:
    """Raise UserMistake for what no CronJob would take; `field` is where the spec has both."""
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            Reason.INVALID_RESOURCE,
            f'{field}.timeZone: there is no time zone "{time_zone}". Write one by its name in the IANA database, '
            "such as Europe/Berlin, or leave the field out for UTC.",
        ) from None
    try:
        next(CronSim(_SHORT.get(schedule, schedule), datetime(2026, 1, 1)))
    except (CronSimError, StopIteration):
        raise ConfigurationError(
            Reason.INVALID_RESOURCE,
            f'{field}.schedule: "{schedule}" is no schedule that ever comes. Write five fields as for cron, such as '
            "'0 2 * * *' for each night at two, or @daily.",
        ) from None


def longest_gap(schedule: str, time_zone: str, after: datetime) -> timedelta:
    """The longest time between two of the next times of a schedule that `check` let pass. `after` is aware."""
    times = CronSim(_SHORT.get(schedule, schedule), after.astimezone(ZoneInfo(time_zone)))
    utc = (time.astimezone(ZoneInfo("UTC")) for time in islice(times, _LOOKED_AT))
    # a schedule that comes only once more has no gap: then nothing is ever late
    return max((later - sooner for sooner, later in pairwise(utc)), default=timedelta.max / 4)
