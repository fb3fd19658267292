"""Age of the last successful backup. The condition BackupReady knows the schedule and reports an overdue backup."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.kube import timestamps
from mlflow_operator.kube.objects import Object


def check(subject: str, resource: Object, now: datetime) -> Iterator[Finding]:
    """No findings for a server without backups: its database may be backed up by other means."""
    spec = (resource.get("spec") or {}).get("backup")
    status = (resource.get("status") or {}).get("backup") or {}
    if not spec and not status:
        return
    succeeded = timestamps.parse_optional(status.get("lastSuccessTime"))
    failed = timestamps.parse_optional(status.get("lastFailureTime"))
    next_step = (
        f"kubectl get jobs,pods -n {resource['metadata']['namespace']} "
        f"-l mlflow-operator.dev/server={resource['metadata']['name']}"
    )
    if failed and (succeeded is None or failed > succeeded):
        last = (
            f"the last successful one is {age(now - succeeded)} old"
            if succeeded
            else "none has succeeded yet"
        )
        yield Finding(subject, "backup", State.FAILED, f"The last backup failed; {last}.", next_step)
    elif succeeded:
        size = _size(status.get("lastSizeBytes"))
        uri = f", {status['lastURI']}" if status.get("lastURI") else ""
        yield Finding(subject, "backup", State.OK, f"last backup {age(now - succeeded)} ago{size}{uri}")
    else:
        yield Finding(
            subject, "backup", State.PENDING, "There is no backup yet.", "Wait for spec.backup.schedule."
        )


def age(elapsed: timedelta) -> str:
    """The time in the largest unit with a value of at least two: 3 days, 26 hours, 5 minutes."""
    seconds = max(int(elapsed.total_seconds()), 0)
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
