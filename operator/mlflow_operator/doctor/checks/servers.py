"""One MLflowServer: its status and the responses to requests."""

from collections.abc import Iterator

from mlflow_operator.doctor.checks import artifact_roots, backup, garbage_collection, server_platform, url
from mlflow_operator.doctor.checks.conditions import check_condition, check_reconciliation
from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ObservedCluster, Server
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.status.conditions import ConditionType
from mlflow_operator.status.message_text import pluralize


def check(server: Server, cluster: ObservedCluster) -> Iterator[Finding]:
    """Reconciliation, conditions, platform, backups, garbage collection, URL and artifacts of a server."""
    yield from _reconciliation(server, cluster)
    status = server.resource.get("status") or {}
    conditions = status.get("conditions") or []
    for condition in conditions:
        detail = _detail(str(condition.get("type")), status)
        yield check_condition(server.subject, condition, conditions, detail)
    yield from server_platform.check(server, cluster.platforms)
    yield from backup.check(server.subject, server.resource, cluster.now)
    yield from garbage_collection.check(server.subject, server.resource, cluster.now)
    yield from url.check(server)
    yield from artifact_roots.check(server)


def _reconciliation(server: Server, cluster: ObservedCluster) -> Iterator[Finding]:
    watched = isinstance(cluster.operators, Unobserved) or any(cluster.operators_of(server.namespace))
    if not watched and cluster.operators:
        yield Finding(
            server.subject,
            "operator",
            State.FAILED,
            f"No operator watches the namespace {server.namespace}.",
            "Add it to watchNamespaces in the values of the operator's chart.",
        )
    if server.resource["metadata"].get("deletionTimestamp"):
        yield Finding(
            server.subject,
            "deletion",
            State.PENDING,
            "The server is being deleted.",
            "If the deletion does not end, the condition Ready contains the reason.",
        )
    yield from check_reconciliation(server.subject, server.resource, "server", cluster.now)


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
        case ConditionType.AUTHENTICATION if (status.get("auth") or {}).get("users"):
            return pluralize(int(status["auth"]["users"]), "user")
        case ConditionType.SERVER if status.get("version"):
            pods = f"{status.get('readyReplicas') or 0} of {status.get('replicas') or 0} pods ready"
            return f"MLflow {status['version']}, {pods}"
        case _:
            return ""
