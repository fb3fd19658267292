"""A server that has moved to other data, as its owner allowed: what stays behind is named, once."""

from mlflow_operator.components.server.reconcile import other_files
from mlflow_operator.framework.step import Work
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data, storage_location

REASON = "StorageChanged"
"""Of the Event; no condition has it, for nothing is wrong."""


async def tell(work: Work, learned: Object, allowed: bool) -> None:
    """One Event where the server has just been given other places than its status names.

    `learned` is what the status will say. `allowed`: the spec permits another store; without, one that differs is
    somebody's edit, and was put right.
    """
    before, said, left = work.seen.status, [], []
    old, new = before.get("database") or {}, learned.get("database") or {}
    if new and old.get("host") and not storage_location.same(old, new):
        said.append(f"runs in the database {storage_location.spelled(new)}")
        left.append(_database(work, old))
    old, new = before.get("artifacts") or {}, learned.get("artifacts") or {}
    if new and old.get("uri") and (old["uri"] != new["uri"] or (allowed and other_files(work))):
        said.append(f"artifacts at {new['uri']}")
        left.append(_files(work, old))
    if said:
        await work.out.events.publish(
            work.seen.resource,
            True,
            REASON,
            f"The server now keeps {' and '.join(said)}. What was logged before stays where it is, and is neither "
            f"moved nor deleted: {'; '.join(left)}.",
        )


def _database(work: Work, old: Object) -> str:
    names, at = work.server.names, f"the database {storage_location.spelled(old)}"
    if old.get("type") == storage_location.PROVISION:
        return f"{at} with its role"
    if old.get("type") != "Embedded":
        return at
    return _there(work, (kinds.PVC, names.postgres_data), (kinds.SECRET, names.database_secret))


def _files(work: Work, old: Object) -> str:
    names = work.server.names
    if old.get("type") == "Embedded":
        return _there(work, (kinds.PVC, names.artifact_store_data), (kinds.SECRET, names.artifacts_secret))
    live = work.seen.get(kinds.DEPLOYMENT, names.deployment)
    uri, endpoint = storage_location.files(live["spec"]["template"]["spec"]) if live else ("", "")
    return f"the artifacts at {old['uri']}{f' in {endpoint}' if endpoint and uri == old['uri'] else ''}"


def _there(work: Work, *wanted: tuple[Kind, str]) -> str:
    found = [live for kind, name in wanted if (live := work.seen.get(kind, name))]
    return retained_data.spelled(found) or "nothing"
