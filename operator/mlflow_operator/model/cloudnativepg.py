"""What CloudNativePG makes for a Cluster, by its conventions: https://cloudnative-pg.io/docs/current/applications."""

from mlflow_operator.kube.objects import Object

PORT = 5432


def secret(cluster: str) -> str:
    """The Secret with the credentials of the user who owns the application's database."""
    return f"{cluster}-app"


def authority(cluster: str) -> str:
    """The Secret with the authority that signs the instances' certificates."""
    return f"{cluster}-ca"


def host(cluster: str) -> str:
    """The Service that leads to the primary."""
    return f"{cluster}-rw"


def serves(cluster: Object) -> bool:
    """Whether there is an instance to ask. A Cluster that has one and waits for others counts: it is asked anyway, and
    says for itself whether it can be written to."""
    status = cluster.get("status") or {}
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    return conditions.get("Ready") == "True" or int(status.get("readyInstances") or 0) > 0


def phase(cluster: Object) -> str:
    """What CloudNativePG says it is doing, as a clause for a sentence; empty where it says nothing."""
    said = str((cluster.get("status") or {}).get("phase") or "")
    return f' (it says: "{said}")' if said else ""
