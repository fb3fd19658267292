"""Validation and intervals of cron schedules. The CronJob controller decides when a Job starts."""

from datetime import datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_GAP_SAMPLES = 8
"""Number of future times that `longest_gap` compares: enough to include the weekend of a weekday schedule."""


def check(schedule: str, time_zone: str, field: str) -> None:
    """Raise ConfigurationError if no CronJob accepts the schedule or time zone. `field` is their path in the spec."""
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            Reason.INVALID_RESOURCE,
            f'{field}.timeZone: unknown time zone "{time_zone}". Use a name from the IANA database, such as '
            "Europe/Berlin, or omit the field for UTC.",
        ) from None
    try:
        next(CronSim(_ALIASES.get(schedule, schedule), datetime(2026, 1, 1)))
    except (CronSimError, StopIteration):
        raise ConfigurationError(
            Reason.INVALID_RESOURCE,
            f'{field}.schedule: "{schedule}" is not a cron schedule, or it never occurs. Use five fields, such as '
            "'0 2 * * *' for every night at 02:00, or @daily.",
        ) from None


def longest_gap(schedule: str, time_zone: str, after: datetime) -> timedelta:
    """The longest time between two consecutive times of a valid schedule. `after` is timezone-aware."""
    times = CronSim(_ALIASES.get(schedule, schedule), after.astimezone(ZoneInfo(time_zone)))
    utc = (time.astimezone(ZoneInfo("UTC")) for time in islice(times, _GAP_SAMPLES))
    # A schedule with only one future time has no gap: nothing is ever overdue.
    return max((later - sooner for sooner, later in pairwise(utc)), default=timedelta.max / 4)
