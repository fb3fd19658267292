"""Label and annotation keys, and who carries which."""

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "mlflow-operator"
SERVER = "mlflow-operator.dev/server"
"""The name of the MLflowServer that an object belongs to; how data finds back to a resource made again."""
COMPONENT = "app.kubernetes.io/component"

APPLIED = "mlflow-operator.dev/applied"
"""Annotation: digest of what the operator last applied, so that a field it drops is noticed."""
INPUTS = "mlflow-operator.dev/inputs"
"""Pod annotation: HMAC of every value the pods read from Secrets and ConfigMaps; a change rolls them."""

FROM_REVISION = "mlflow-operator.dev/from-revision"
"""Annotation of a migration Job: the schema's revision when it was made, empty where there was no schema."""
ATTEMPT = "mlflow-operator.dev/attempt"
"""Annotation of a migration or preflight Job: how often this was begun, this time included."""
STOPPED = "mlflow-operator.dev/stopped-at"
"""Annotation of a Deployment: when its pods were last stopped for the tables to move (RFC 3339)."""
RETRY_REQUESTED_AT = "mlflow-operator.dev/retry-requested-at"
"""Annotation of a Deployment or StatefulSet that gets no pods: when its controller was last told to try again."""

FINALIZER = "mlflow-operator.dev/delete-data"
"""Finalizer of an MLflowServer with `deletionPolicy: Delete`, and of no other. kopf takes away the one that it knows as
its own, so this must never become kopf's."""
SKIP_DATA_DELETION = "mlflow-operator.dev/skip-data-deletion"
"""Annotation of an MLflowServer, of any value: its deletion ends, and what is not deleted by then stays."""

SERVER_POD = "server"
DATABASE_POD = "database"
ARTIFACT_STORE_POD = "artifact-store"
MIGRATION_POD = "migration"
PREFLIGHT_POD = "preflight"
BACKUP_POD = "backup"
RESTORE_POD = "restore"
GARBAGE_COLLECTION_POD = "garbage-collection"
JOB_PODS = (MIGRATION_POD, PREFLIGHT_POD, BACKUP_POD, RESTORE_POD, GARBAGE_COLLECTION_POD)
"""Components whose pods come to an end."""


def owned(server: str, component: str) -> dict[str, str]:
    """Labels of every object made for `server`."""
    return {
        "app.kubernetes.io/name": "mlflow",
        "app.kubernetes.io/instance": server,
        COMPONENT: component,
        MANAGED_BY: OPERATOR,
        SERVER: server,
    }


def pods(server: str, component: str) -> dict[str, str]:
    """The selector of one component's pods. Selectors can't change, so this must stay as it is for good."""
    return {SERVER: server, COMPONENT: component}


def selector(server: str) -> str:
    """What finds every owned object of `server` in its namespace."""
    return f"{MANAGED_BY}={OPERATOR},{SERVER}={server}"


def managed() -> str:
    """What finds every object any MLflowServer owns: the filter of the operator's watches."""
    return f"{MANAGED_BY}={OPERATOR}"
