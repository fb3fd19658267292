"""Keys and values of the operator's labels, annotations and finalizer."""

from collections.abc import Mapping

from mlflow_operator.kube.objects import Object

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
"""Label of disposable objects: name of the MLflowServer. It is also the tracking label of Argo CD. Data objects do not
have it, because an Application with the name of the server would delete them."""
MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "mlflow-operator"
SERVER = "mlflow-operator.dev/server"
"""Label: name of the MLflowServer that an object belongs to. A recreated MLflowServer finds its data by it."""
COMPONENT = "app.kubernetes.io/component"

APPLIED_DIGEST = "mlflow-operator.dev/applied"
"""Annotation: digest of the last applied object, which detects a field that the operator no longer sets."""
INPUTS_DIGEST = "mlflow-operator.dev/inputs"
"""Pod annotation: HMAC of all values that the pods read from Secrets and ConfigMaps. A change triggers a rollout."""
REQUESTED_IMAGE = "mlflow-operator.dev/requested-image"
"""Pod annotation: image of the first own container, as requested. Admission controllers may replace it."""

FROM_REVISION = "mlflow-operator.dev/from-revision"
"""Annotation of a migration Job: schema revision at the creation of the Job, empty if there was no schema."""
ATTEMPT = "mlflow-operator.dev/attempt"
"""Annotation of a migration or preflight Job: number of attempts, including this one."""
ACCOUNT_ACTION = "mlflow-operator.dev/account-action"
"""Annotation of a Job that prepares accounts: the reason of the Event about what it does to the administrator's."""
TEMPLATE_DIGEST = "mlflow-operator.dev/template"
"""Annotation of a backup or garbage collection Job: digest of its pod template. It detects a Job that cannot start and
that was created from an outdated template."""
OUTCOME = "mlflow-operator.dev/outcome"
"""Annotation of a Job with injected containers: exit codes and termination messages of the operator's own containers,
as JSON."""
STOPPED_AT = "mlflow-operator.dev/stopped-at"
"""Annotation of a Deployment: time of the last scale to 0 for a schema migration (RFC 3339)."""
RETRY_REQUESTED_AT = "mlflow-operator.dev/retry-requested-at"
"""Annotation of a Deployment or StatefulSet that gets no pods: time of the last request to its controller to retry."""

FINALIZER = "mlflow-operator.dev/delete-data"
"""Finalizer of an MLflowServer with `deletionPolicy: Delete` only. It must differ from the finalizer that kopf is
configured with, because kopf removes that one."""
PLATFORM_FINALIZER = "mlflow-operator.dev/platform-in-use"
"""Finalizer of an MLflowPlatform, of operators that watch all namespaces: it stays while servers use the platform."""
SKIP_DATA_DELETION = "mlflow-operator.dev/skip-data-deletion"
"""Annotation of an MLflowServer, with any value: ends its deletion and retains the data that is not yet deleted."""

SERVER_POD = "server"
DATABASE_POD = "database"
ARTIFACT_STORE_POD = "artifact-store"
MIGRATION_POD = "migration"
PREFLIGHT_POD = "preflight"
BACKUP_POD = "backup"
RESTORE_POD = "restore"
GARBAGE_COLLECTION_POD = "garbage-collection"
REWRAP_POD = "rewrap"
AUTHENTICATION_POD = "authentication"
JOB_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    MIGRATION_POD: ("migrate",),
    PREFLIGHT_POD: ("preflight",),
    BACKUP_POD: ("backup", "pg-dump"),
    RESTORE_POD: ("restore", "pg-restore"),
    GARBAGE_COLLECTION_POD: ("garbage-collection",),
    REWRAP_POD: ("rewrap",),
    AUTHENTICATION_POD: ("authenticate",),
}
"""Containers of the components whose pods run to completion. Others in these pods are injected."""

JOB_PODS = tuple(JOB_CONTAINERS)
"""Components whose pods run to completion."""


def for_data(server: str, component: str) -> dict[str, str]:
    """Return the labels of an object that contains data of `server`. No GitOps tool may track it by any of them."""
    return {NAME: "mlflow", COMPONENT: component, MANAGED_BY: OPERATOR, SERVER: server}


def for_component(server: str, component: str) -> dict[str, str]:
    """Return the labels of a disposable object of one component of `server`."""
    return {NAME: "mlflow", INSTANCE: server} | for_data(server, component)


def pod_selector(server: str, component: str) -> dict[str, str]:
    """Return the pod selector of one component. It must never change, because selectors are immutable."""
    return {SERVER: server, COMPONENT: component}


def server_selector(server: str) -> str:
    """Return the label selector for all objects of `server` in its namespace."""
    return f"{MANAGED_BY}={OPERATOR},{SERVER}={server}"


def belong_to_server(metadata: Object, server: str) -> bool:
    """Whether an object with this metadata matches `server_selector`."""
    object_labels = metadata.get("labels") or {}
    return object_labels.get(MANAGED_BY) == OPERATOR and object_labels.get(SERVER) == server


def managed_selector() -> str:
    """Return the label selector for the objects of all MLflowServers, which the operator's watches use."""
    return f"{MANAGED_BY}={OPERATOR}"
