"""How old a server's last good backup is. Whether that is too old its condition says, which knows the schedule."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.kube.objects import Object


def check(subject: str, resource: Object, now: datetime) -> Iterator[Finding]:
    """Nothing for a server without backups: its database may well be backed up by others."""
    wanted = (resource.get("spec") or {}).get("backup")
    status = (resource.get("status") or {}).get("backup") or {}
    if not wanted and not status:
        return
    succeeded, failed = _time(status.get("lastSuccessTime")), _time(status.get("lastFailureTime"))
    logs = (
        f"kubectl get jobs,pods -n {resource['metadata']['namespace']} "
        f"-l mlflow-operator.dev/server={resource['metadata']['name']}"
    )
    if failed and (succeeded is None or failed > succeeded):
        last = f"the last good one is {age(now - succeeded)} old" if succeeded else "there is no good one"
        yield Finding(subject, "backup", State.FAULT, f"The last backup failed; {last}.", logs)
    elif succeeded:
        size = _size(status.get("lastSizeBytes"))
        where = f", {status['lastURI']}" if status.get("lastURI") else ""
        yield Finding(subject, "backup", State.OK, f"the last one is {age(now - succeeded)} old{size}{where}")
    else:
        yield Finding(
            subject, "backup", State.WAIT, "There is none yet.", "It comes when spec.backup.schedule says."
        )


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None


def age(passed: timedelta) -> str:
    """In the largest unit of which it holds two or more: 3 days, 26 hours, 5 minutes."""
    seconds = max(int(passed.total_seconds()), 0)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"


def _size(number: object) -> str:
    if not isinstance(number, int) or number <= 0:
        return ""
    size, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f", {size:.0f} {unit}" if size >= 10 or unit == "bytes" else f", {size:.1f} {unit}"
