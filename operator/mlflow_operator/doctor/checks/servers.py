"""One MLflowServer: its status and the responses to requests."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from mlflow_operator.doctor.checks import artifact_roots, backup, garbage_collection, url
from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ObservedCluster, Server
from mlflow_operator.kube import timestamps
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.status.conditions import ConditionType, Reason

_RECONCILE_GRACE = timedelta(seconds=60)
"""Time in which a running operator reconciles a new resource for certain."""

_STATES = {
    Reason.PROGRESSING: State.PENDING,
    Reason.WAITING_FOR_DEPENDENCY: State.PENDING,
    Reason.SUSPENDED: State.NOTE,
}


def check(server: Server, cluster: ObservedCluster) -> Iterator[Finding]:
    """Reconciliation, conditions, backups, garbage collection, URL and artifacts of a server."""
    yield from _reconciliation(server, cluster)
    status = server.resource.get("status") or {}
    conditions = status.get("conditions") or []
    for condition in conditions:
        yield _condition(server, condition, conditions)
    yield from backup.check(server.subject, server.resource, cluster.now)
    yield from garbage_collection.check(server.subject, server.resource, cluster.now)
    yield from url.check(server)
    yield from artifact_roots.check(server)


def _reconciliation(server: Server, cluster: ObservedCluster) -> Iterator[Finding]:
    meta, status = server.resource["metadata"], server.resource.get("status") or {}
    watched = isinstance(cluster.operators, Unobserved) or any(cluster.operators_of(server.namespace))
    if not watched and cluster.operators:
        yield Finding(
            server.subject,
            "operator",
            State.FAILED,
            f"No operator watches the namespace {server.namespace}.",
            "Add it to watchNamespaces in the values of the operator's chart.",
        )
    if meta.get("deletionTimestamp"):
        yield Finding(
            server.subject,
            "deletion",
            State.PENDING,
            "The server is being deleted.",
            "If the deletion does not end, the condition Ready contains the reason.",
        )
    if status.get("observedGeneration") == meta.get("generation"):
        return
    message = (
        "The operator has not reconciled the latest change of the spec."
        if status
        else "No operator has reconciled this server."
    )
    # Shortly after `kubectl apply` this is normal.
    age = _age(meta.get("creationTimestamp"), cluster.now)
    late = not status and (age is None or age > _RECONCILE_GRACE)
    yield Finding(
        server.subject,
        "status",
        State.FAILED if late else State.PENDING,
        message,
        "See the checks of the operator above." if late else "If this does not change, check the operator.",
    )


def _age(timestamp: object, now: datetime) -> timedelta | None:
    time = timestamps.parse_optional(timestamp)
    return now - time if time else None


def _condition(server: Server, condition: Object, all_conditions: list[Object]) -> Finding:
    condition_type, reason = str(condition.get("type")), str(condition.get("reason"))
    message = str(condition.get("message") or "")
    if condition.get("status") == "True":
        detail = _detail(condition_type, server.resource.get("status") or {})
        return Finding(server.subject, condition_type, State.OK, detail or message)
    state = _STATES.get(Reason(reason), State.FAILED) if reason in {*Reason} else State.FAILED
    if condition_type == ConditionType.READY:
        same_message = [
            str(c.get("type")) for c in all_conditions if c is not condition and c.get("message") == message
        ]
        if same_message:
            return Finding(server.subject, condition_type, state, reason, f"See {same_message[0]}.")
    return Finding(server.subject, condition_type, state, reason, message)


def _detail(condition_type: str, status: Object) -> str:
    """Fields of the status that belong to a condition with status True; empty if there are none."""
    database, artifacts = status.get("database") or {}, status.get("artifacts") or {}
    match condition_type:
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
