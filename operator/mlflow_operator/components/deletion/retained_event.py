"""The Event about a deleted server: which of its data is kept, and how a new server adopts it.

Owns: Event DataKept of a server without the operator's finalizer (`deletionPolicy: Retain`).
Needs: the last state of the resource from the watch, because the resource no longer exists.
Provides: `retained_objects` for the other modules of deletion.
"""

from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import finalizer, kinds
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data
from mlflow_operator.model.names import Names

DATA_KEPT = "DataKept"
"""Reason of the Event. No condition has this reason, because the resource no longer exists."""


async def emit_retained_event(resource: Object, deps: Dependencies) -> None:
    """Publish one Event about a deleted server if any of its data is kept.

    Publishes none if the resource had the operator's finalizer: `finalize` published an Event before it removed it.
    """
    if finalizer.is_present(resource):
        return
    namespace = await deps.cluster.get(kinds.NAMESPACE, None, resource["metadata"]["namespace"])
    if namespace is None or namespace["metadata"].get("deletionTimestamp"):
        return  # Then nothing in the namespace is kept.
    retained = await retained_objects(resource, deps.cluster)
    if retained:
        names = Names(resource["metadata"]["name"])
        has_passwords = any(
            f'"{name}"' in retained
            for name in (names.database_secret, names.artifacts_secret, names.admin_secret)
        )
        has_keys = f'"{names.encryption_secret}"' in retained
        parts = {"passwords": has_passwords, "encryption keys": has_keys}
        secrets = " and ".join(name for name, is_kept in parts.items() if is_kept)
        message = (
            f"Deleted the server and kept its data: {retained}. An MLflowServer with the same name and storage in this "
            f"namespace adopts all of it{f', with the same {secrets}' if secrets else ''}."
        )
        await deps.events.publish(resource, True, DATA_KEPT, message)


async def retained_objects(resource: Object, cluster: KubernetesClient) -> str:
    """Describe all existing data of a server that is not being deleted; an empty string if there is none."""
    namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
    candidates: list[tuple[Kind, str]] = [
        *retained_data.volumes(Names(name)),
        *retained_data.credentials(Names(name)),
    ]
    existing = [await cluster.get(kind, namespace, object_name) for kind, object_name in candidates]
    objects = [
        obj
        for obj in existing
        if obj and retained_data.is_data_of(name, obj) and not obj["metadata"].get("deletionTimestamp")
    ]
    descriptions = (
        retained_data.as_text(objects),
        retained_data.external_locations(resource.get("status") or {}),
    )
    return "; ".join(part for part in descriptions if part)
