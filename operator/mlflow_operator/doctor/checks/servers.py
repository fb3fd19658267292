"""One MLflowServer: what its status says, and how it answers."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from mlflow_operator.doctor.checks import artifact_roots, backup, garbage, url
from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.seen import ObservedCluster, Server
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.status.conditions import ConditionType, Reason

_SOON = timedelta(seconds=60)
"""In which an operator that works has looked at a new resource for certain."""

_STATES = {
    Reason.PROGRESSING: State.WAIT,
    Reason.WAITING_FOR_DEPENDENCY: State.WAIT,
    Reason.SUSPENDED: State.NOTE,
}


def check(server: Server, seen: ObservedCluster) -> Iterator[Finding]:
    """Whether an operator cares for it, each condition, its backups and clean-up, its address, its artifacts."""
    yield from _cared_for(server, seen)
    status = server.resource.get("status") or {}
    conditions = status.get("conditions") or []
    for condition in conditions:
        yield _condition(server, condition, conditions)
    yield from backup.check(server.subject, server.resource, seen.now)
    yield from garbage.check(server.subject, server.resource, seen.now)
    yield from url.check(server)
    yield from artifact_roots.check(server)


def _cared_for(server: Server, seen: ObservedCluster) -> Iterator[Finding]:
    meta, status = server.resource["metadata"], server.resource.get("status") or {}
    watched = isinstance(seen.operators, Unobserved) or any(seen.watching(server.namespace))
    if not watched and seen.operators:
        yield Finding(
            server.subject,
            "operator",
            State.FAULT,
            f"No operator serves the namespace {server.namespace}.",
            "Add it to watchNamespaces of the operator's chart.",
        )
    if meta.get("deletionTimestamp"):
        yield Finding(
            server.subject,
            "deletion",
            State.WAIT,
            "It is being deleted.",
            "If that does not end, its Ready condition says what is in the way.",
        )
    if status.get("observedGeneration") == meta.get("generation"):
        return
    what = (
        "Its spec has changed since an operator last looked at it."
        if status
        else "No operator has looked at it."
    )
    # a moment after `kubectl apply` that is as it should be
    age = _age(meta.get("creationTimestamp"), seen.now)
    late = not status and (age is None or age > _SOON)
    yield Finding(
        server.subject,
        "status",
        State.FAULT if late else State.WAIT,
        what,
        "See the lines on the operator above." if late else "If it stays so: is the operator well?",
    )


def _age(timestamp: object, now: datetime) -> timedelta | None:
    try:
        return now - datetime.fromisoformat(str(timestamp))
    except (ValueError, TypeError):
        return None


def _condition(server: Server, condition: Object, others: list[Object]) -> Finding:
    kind, reason = str(condition.get("type")), str(condition.get("reason"))
    message = str(condition.get("message") or "")
    if condition.get("status") == "True":
        detail = _detail(kind, server.resource.get("status") or {})
        return Finding(server.subject, kind, State.OK, detail or message)
    state = _STATES.get(Reason(reason), State.FAULT) if reason in {*Reason} else State.FAULT
    if kind == ConditionType.READY:
        same = [str(c.get("type")) for c in others if c is not condition and c.get("message") == message]
        if same:
            return Finding(server.subject, kind, state, reason, f"See {same[0]}.")
    return Finding(server.subject, kind, state, reason, message)


def _detail(kind: str, status: Object) -> str:
    """What of the status belongs to a condition that is True; empty where the condition says it all."""
    database, artifacts = status.get("database") or {}, status.get("artifacts") or {}
    match kind:
        case ConditionType.DATABASE if database.get("host"):
            return f"{database.get('type')}: {storage_location.as_text(database)}"
        case ConditionType.ARTIFACT_STORE if artifacts.get("uri"):
            return f"{artifacts.get('type')}: {artifacts['uri']}"
        case ConditionType.SCHEMA if status.get("schemaRevision"):
            return f"revision {status['schemaRevision']}"
        case ConditionType.SERVER if status.get("version"):
            pods = f"{status.get('readyReplicas') or 0} of {status.get('replicas') or 0} pods ready"
            return f"MLflow {status['version']}, {pods}"
        case _:
            return ""
