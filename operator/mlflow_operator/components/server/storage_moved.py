"""A server that has moved to other data, as its owner allowed: what stays behind is named, once."""

from mlflow_operator.components.server.reconcile import other_files
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data, storage_location

REASON = "StorageChanged"
"""Of the Event; no condition has it, for nothing is wrong."""


async def tell(context: ReconcileContext, learned: Object, allowed: bool) -> None:
    """One Event where the server has just been given other places than its status names.

    `learned` is what the status will say. `allowed`: the spec permits another store; without, one that differs is
    somebody's edit, and was put right.
    """
    before, said, left = context.observed.status, [], []
    old, new = before.get("database") or {}, learned.get("database") or {}
    if new and old.get("host") and not storage_location.same(old, new):
        said.append(f"runs in the database {storage_location.as_text(new)}")
        left.append(_database(context, old))
    old, new = before.get("artifacts") or {}, learned.get("artifacts") or {}
    if new and old.get("uri") and (old["uri"] != new["uri"] or (allowed and other_files(context))):
        said.append(f"artifacts at {new['uri']}")
        left.append(_files(context, old))
    if said:
        await context.deps.events.publish(
            context.observed.resource,
            True,
            REASON,
            f"The server now keeps {' and '.join(said)}. What was logged before stays where it is, and is neither "
            f"moved nor deleted: {'; '.join(left)}.",
        )


def _database(context: ReconcileContext, old: Object) -> str:
    names, at = context.server.names, f"the database {storage_location.as_text(old)}"
    if old.get("type") == storage_location.PROVISION:
        return f"{at} with its role"
    if old.get("type") != "Embedded":
        return at
    return _there(context, (kinds.PVC, names.postgres_data), (kinds.SECRET, names.database_secret))


def _files(context: ReconcileContext, old: Object) -> str:
    names = context.server.names
    if old.get("type") == "Embedded":
        return _there(context, (kinds.PVC, names.artifact_store_data), (kinds.SECRET, names.artifacts_secret))
    live = context.observed.get(kinds.DEPLOYMENT, names.deployment)
    uri, endpoint = storage_location.files(live["spec"]["template"]["spec"]) if live else ("", "")
    return f"the artifacts at {old['uri']}{f' in {endpoint}' if endpoint and uri == old['uri'] else ''}"


def _there(context: ReconcileContext, *wanted: tuple[Kind, str]) -> str:
    found = [live for kind, name in wanted if (live := context.observed.get(kind, name))]
    return retained_data.as_text(found) or "nothing"
