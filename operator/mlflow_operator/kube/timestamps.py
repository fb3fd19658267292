"""Timestamps of the Kubernetes API: RFC 3339 in UTC."""

from datetime import UTC, datetime


def parse(text: str) -> datetime:
    """Return the time. A timestamp without a time zone is in UTC. Raises ValueError if it is not a timestamp."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_optional(text: object) -> datetime | None:
    """Return the time; None if the value is missing or is not a timestamp."""
    try:
        return parse(str(text))
    except ValueError:
        return None


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one timestamp to another; negative if `later` is the earlier one."""
    return (parse(later) - parse(earlier)).total_seconds()
