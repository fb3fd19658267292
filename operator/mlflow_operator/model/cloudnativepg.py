"""Names and status of CloudNativePG's objects, by its conventions: https://cloudnative-pg.io/docs/current/applications."""

from mlflow_operator.kube.objects import Object

PORT = 5432


def credentials_secret(cluster: str) -> str:
    """Secret with the credentials of the user who owns the application database."""
    return f"{cluster}-app"


def ca_secret(cluster: str) -> str:
    """Secret with the CA that signs the certificates of the instances."""
    return f"{cluster}-ca"


def primary_host(cluster: str) -> str:
    """Service of the primary."""
    return f"{cluster}-rw"


def has_ready_instance(cluster: Object) -> bool:
    """Whether at least one instance is ready.

    A Cluster that still waits for other instances counts: the connection itself shows whether it is writable.
    """
    status = cluster.get("status") or {}
    conditions = {
        condition.get("type"): condition.get("status") for condition in status.get("conditions") or ()
    }
    return conditions.get("Ready") == "True" or int(status.get("readyInstances") or 0) > 0


def phase_clause(cluster: Object) -> str:
    """The Cluster's phase, in parentheses, to append to a sentence; empty if it has none."""
    phase = str((cluster.get("status") or {}).get("phase") or "")
    return f' (phase: "{phase}")' if phase else ""
