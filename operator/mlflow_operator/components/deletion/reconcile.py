"""The end of a server whose data goes with it: our finalizer holds it until that is done.

Nothing may hold for ever: what can't be deleted is said in a condition, tried again, and let go at a person's word, or
after a minute where the whole namespace goes.
"""

import logging
from datetime import datetime

from mlflow_operator import api
from mlflow_operator.components.deletion import phases as removal
from mlflow_operator.components.deletion.retained_event import KEPT, retained_objects
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.step import RETRY_TRANSIENT_SECONDS
from mlflow_operator.kube import finalizer, kinds, labels
from mlflow_operator.kube.client import Forbidden, Invalid, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import status as statuses
from mlflow_operator.model.retained_data import RemovalProgress
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ReconcileError

logger = logging.getLogger(__name__)

CLEANUP_TIMEOUT_SECONDS = 60.0
"""Seconds for which a deletion is tried in a namespace, or under a definition, that is being deleted itself: whoever
deletes those wants them gone, and the Secrets with the passwords may be gone before us."""

_STUCK = 180.0
"""Seconds after which pods that do not end are a fault; the slowest is given 85 to end in order."""

_AGAIN = 2.0
"""Seconds until another look where an event will most likely come sooner."""

DELETED = "DataDeleted"
"""Reason of the last Event; no condition has it, for nobody is left to have one."""


async def sync_finalizer(resource: Object, wanted: bool, out: Dependencies) -> Object:
    """Puts our finalizer on, before anything is made that is to go with the server; or takes it off where nothing is.

    Returns the resource as it is then. Raises what the API server answers.
    """
    if wanted == finalizer.is_present(resource):
        return resource
    meta = resource["metadata"]
    patch = finalizer.add(resource) if wanted else finalizer.remove(resource)
    return await out.cluster.json_patch(kinds.MLFLOWSERVER, meta["namespace"], meta["name"], patch)


async def finalize(resource: Object, out: Dependencies) -> float | None:
    """Deletes what goes with a server that is being deleted. None: it is over, or was never ours to hold.

    Else the seconds until another look.
    """
    if not finalizer.is_present(resource):
        return None
    if labels.SKIP_DATA_DELETION in (resource["metadata"].get("annotations") or {}):
        await _let_go(resource, out, f"annotation {labels.SKIP_DATA_DELETION} asks for it")
        return None
    fault, done = await _carry_on(resource, out)
    waits = done.waits
    if waits and not done.busy and _gone_for(resource, out) > _STUCK:
        fault = f"Still waits for {waits}."
    if not fault and not waits:
        said = f"Deleted, its data and passwords with it.{done.untouched}"
        await _release(resource, out, DELETED, said, normal=True)
        return None
    if await _all_goes(resource, out):
        why = "all around it is being deleted, and its data could not be in time"
        await _let_go(resource, out, f"{why}: {fault or f'waits for {waits}'}".rstrip("."))
        return None
    if fault:
        await _say(resource, out, Reason.DELETION_BLOCKED, f"{fault} {_way_out(resource)}")
        return RETRY_TRANSIENT_SECONDS
    await _say(resource, out, Reason.PROGRESSING, f"Is being deleted, its data with it. Waits for {waits}.")
    return _AGAIN


async def _carry_on(resource: Object, out: Dependencies) -> tuple[str | None, RemovalProgress]:
    """What is wrong, as a sentence, or None; and how far it is."""
    try:
        return None, await removal.teardown(resource, out)
    except ReconcileError as error:
        said = error.message
    except api.InvalidResource as error:
        said = f"The resource can't be read, so nobody knows what it had: {str(error).rstrip('.')}."
    except (Forbidden, Invalid) as error:
        said = f"The API server refuses: {str(error).rstrip('.')}."
    return said, RemovalProgress()


def _way_out(resource: Object) -> str:
    meta = resource["metadata"]
    return (
        "Until that is mended the deletion can't end; it is tried again by itself. To end it now, and keep what is not "
        f"deleted yet, run: kubectl annotate mlflowserver -n {meta['namespace']} {meta['name']} "
        f"{labels.SKIP_DATA_DELETION}=true"
    )


async def _let_go(resource: Object, out: Dependencies, why: str) -> None:
    left = await retained_objects(resource, out.cluster)
    said = f"What was not deleted yet stays: {left}." if left else "None of its data is left."
    await _release(resource, out, KEPT, f"Let go, for {why}. {said}", normal=not left)


async def _release(resource: Object, out: Dependencies, reason: str, message: str, *, normal: bool) -> None:
    meta = resource["metadata"]
    logger.info("%s", message)
    await out.events.publish(resource, normal, reason, message)
    patch = finalizer.remove(resource)
    try:
        await out.cluster.json_patch(kinds.MLFLOWSERVER, meta["namespace"], meta["name"], patch)
    except NotFound:
        return


async def _say(resource: Object, out: Dependencies, reason: Reason, message: str) -> None:
    said = [false_condition(ConditionType.READY, reason, message)]
    await status_writer.write(
        resource, statuses.refused(said, status_writer.status_moment(resource, out)), said, out
    )


async def _all_goes(resource: Object, out: Dependencies) -> bool:
    """Whether the namespace or the definition is being deleted, too, and was given its time."""
    namespace = await out.cluster.get(kinds.NAMESPACE, None, resource["metadata"]["namespace"])
    if _gone_for(namespace, out) >= CLEANUP_TIMEOUT_SECONDS:
        return True
    if _gone_for(resource, out) < CLEANUP_TIMEOUT_SECONDS:
        return False
    try:
        # by a list: that is granted anyway, where all namespaces are watched
        found = await out.cluster.list(kinds.CRD, fields=f"metadata.name={api.PLURAL}.{api.GROUP}")
    except Forbidden:
        return False
    return any(_gone_for(definition, out) >= CLEANUP_TIMEOUT_SECONDS for definition in found)


def _gone_for(obj: Object | None, out: Dependencies) -> float:
    """Seconds since the deletion of `obj` began; 0 if it did not, or nobody knows of it."""
    since = ((obj or {}).get("metadata") or {}).get("deletionTimestamp")
    if not since:
        return 0.0
    return (datetime.fromisoformat(out.now()) - datetime.fromisoformat(since)).total_seconds()
