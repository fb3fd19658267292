"""When a server's last clean-up got through, and what it removed. What failed the condition tells."""

from collections.abc import Iterator
from datetime import datetime

from mlflow_operator.components.garbage_collection.manifests import counted
from mlflow_operator.doctor.checks.backup import age
from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.kube.objects import Object


def check(subject: str, resource: Object, now: datetime) -> Iterator[Finding]:
    """Nothing for a server without clean-up: to keep all there ever was is a choice, too."""
    if (resource.get("spec") or {}).get("garbageCollection") is None:
        return
    status = (resource.get("status") or {}).get("garbageCollection") or {}
    try:
        ended = datetime.fromisoformat(str(status.get("lastRunTime")))
    except ValueError:
        found = "none has got through yet; spec.garbageCollection.schedule says when one begins"
        yield Finding(subject, "clean-up", State.OK, found)
        return
    kinds = ("Runs", "Models", "Experiments", "Traces")
    removed = [counted(int(status.get(f"deleted{kind}") or 0), kind.lower().rstrip("s")) for kind in kinds]
    dry = " (a dry run)" if status.get("mode") == "DryRun" else ""
    found = f"the last one is {age(now - ended)} old and removed {', '.join(removed)}{dry}"
    yield Finding(subject, "clean-up", State.OK, found)
