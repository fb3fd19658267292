"""Time and results of the last garbage collection. The condition GarbageCollectionReady reports failures."""

from collections.abc import Iterator
from datetime import datetime

from mlflow_operator.doctor.checks.backup import age
from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.kube import timestamps
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.message_text import pluralize


def check(subject: str, resource: Object, now: datetime) -> Iterator[Finding]:
    """No findings if spec.garbageCollection is not set: then deleted objects are kept on purpose."""
    if (resource.get("spec") or {}).get("garbageCollection") is None:
        return
    status = (resource.get("status") or {}).get("garbageCollection") or {}
    ended = timestamps.parse_optional(status.get("lastRunTime"))
    if ended is None:
        message = "has not succeeded yet; the next run is at spec.garbageCollection.schedule"
        yield Finding(subject, "garbage collection", State.OK, message)
        return
    kinds = ("Runs", "Models", "Experiments", "Traces")
    deleted_counts = [
        pluralize(int(status.get(f"deleted{kind}") or 0), kind.lower().rstrip("s")) for kind in kinds
    ]
    dry_run = " (dry run)" if status.get("mode") == "DryRun" else ""
    message = f"last run {age(now - ended)} ago, removed {', '.join(deleted_counts)}{dry_run}"
    yield Finding(subject, "garbage collection", State.OK, message)
