"""Publish the Event StorageChanged about a server that uses another database or artifact location than before.

It names the data that remains in the previous one.
"""

from mlflow_operator.components.server.pod_policy import artifact_location_changes
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data, storage_location

EVENT_REASON = "StorageChanged"
"""Reason of the Event. No condition has this reason, because the change is not an error."""


async def publish_event(context: ReconcileContext, status_patch: Object) -> None:
    """Publish one Event if the storage location differs from the one in the status.

    `status_patch` is the new status. If the spec does not allow another store, a different artifact location in the
    Deployment was an external edit, which the operator has reverted.
    """
    previous_status, new_locations, retained = context.observed.status, [], []
    old, new = previous_status.get("database") or {}, status_patch.get("database") or {}
    if new and old.get("host") and not storage_location.is_same_database(old, new):
        new_locations.append(f"runs in the database {storage_location.as_text(new)}")
        retained.append(_database(context, old))
    old, new = previous_status.get("artifacts") or {}, status_patch.get("artifacts") or {}
    if (
        new
        and old.get("uri")
        and (
            old["uri"] != new["uri"]
            or (context.server.storage_change_allowed and artifact_location_changes(context))
        )
    ):
        new_locations.append(f"artifacts at {new['uri']}")
        retained.append(_artifacts(context, old))
    if new_locations:
        await context.deps.events.publish(
            context.observed.resource,
            True,
            EVENT_REASON,
            f"The server now stores {' and '.join(new_locations)}. Data that was logged before is neither moved nor "
            f"deleted: {'; '.join(retained)}.",
        )


def _database(context: ReconcileContext, old: Object) -> str:
    names, address = context.server.names, f"the database {storage_location.as_text(old)}"
    if old.get("type") in storage_location.PROVISIONED_TYPES:
        return f"{address} with its role"
    if old.get("type") != "Embedded":
        return address
    return _existing_objects(context, (kinds.PVC, names.postgres_data), (kinds.SECRET, names.database_secret))


def _artifacts(context: ReconcileContext, old: Object) -> str:
    names = context.server.names
    if old.get("type") == "Embedded":
        return _existing_objects(
            context, (kinds.PVC, names.artifact_store_data), (kinds.SECRET, names.artifacts_secret)
        )
    deployment = context.observed.get(kinds.DEPLOYMENT, names.deployment)
    uri, endpoint = (
        storage_location.artifact_location(deployment["spec"]["template"]["spec"]) if deployment else ("", "")
    )
    return f"the artifacts at {old['uri']}{f' in {endpoint}' if endpoint and uri == old['uri'] else ''}"


def _existing_objects(context: ReconcileContext, *references: tuple[Kind, str]) -> str:
    objects = [obj for kind, name in references if (obj := context.observed.get(kind, name))]
    return retained_data.as_text(objects) or "nothing"
