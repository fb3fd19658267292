"""Delete the data of a server with `deletionPolicy: Delete`; a finalizer keeps the resource until that is done.

A deletion never blocks forever. If something cannot be deleted, a condition reports it and the operator retries. It
gives up if a user sets an annotation, or after one minute if the namespace or the CRD is deleted, too. If
`deletionPolicy` is Retain by then, nothing more is deleted.

Owns: the operator's finalizer; condition Ready of a resource that is being deleted; Events DataDeleted and DataKept. It
deletes objects and data of other components.
Needs: `resolve_for_pods` and `provisioned` of database; `clients` of artifacts. The other components do not run: it
reads the Secrets itself.
Provides: nothing to other components.
"""

import logging
from contextlib import suppress

from mlflow_operator import api
from mlflow_operator.components.deletion import phases
from mlflow_operator.components.deletion.retained_event import DATA_KEPT, retained_objects
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.component import RETRY_TRANSIENT_SECONDS
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import finalizer, kinds, labels, timestamps
from mlflow_operator.kube.client import Forbidden, Invalid, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import status as statuses
from mlflow_operator.model.retained_data import RemovalProgress
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ReconcileError

logger = logging.getLogger(__name__)

CLEANUP_TIMEOUT_SECONDS = 60.0
"""Time for the deletion of data if the namespace or the CRD is being deleted, too. The user wants them to be deleted,
and the Secrets with the passwords may be deleted before the data."""

_STUCK_AFTER_SECONDS = 180.0
"""Time after which a pod that does not terminate is an error. The longest grace period of a pod is 60 s (Postgres)."""

_REQUEUE_SECONDS = 2.0
"""Delay until the next check. A watch event most likely triggers it earlier."""

DATA_DELETED = "DataDeleted"
"""Reason of the last Event. No condition has this reason, because the resource no longer exists."""


async def sync_finalizer(resource: Object, desired: bool, deps: Dependencies) -> Object:
    """Add the operator's finalizer if it is `desired`, else remove it.

    It must be added before any object is created that is to be deleted with the server. Returns the resource after the
    patch. Raises the errors of the API server.
    """
    if desired == finalizer.is_present(resource):
        return resource
    change = finalizer.add if desired else finalizer.remove
    return await change(resource, deps.cluster)


async def finalize(resource: Object, deps: Dependencies) -> float | None:
    """Delete the data of a server that is being deleted.

    Returns the seconds until the next check; None if the deletion is complete or the finalizer is not present.
    """
    if not finalizer.is_present(resource):
        return None
    if labels.SKIP_DATA_DELETION in (resource["metadata"].get("annotations") or {}):
        await _abandon_deletion(resource, deps, f"annotation {labels.SKIP_DATA_DELETION} requests it")
        return None
    if not _requests_data_deletion(resource):
        await _keep_data(resource, deps)
        return None
    return await _delete_data(resource, deps)


async def _delete_data(resource: Object, deps: Dependencies) -> float | None:
    """Do the next step of the deletion; see `finalize` for the result."""
    error, progress = await _teardown(resource, deps)
    dependency = progress.waiting_for
    if (
        dependency
        and not progress.in_progress
        and _seconds_since_deletion(resource, deps) > _STUCK_AFTER_SECONDS
    ):
        error = f"Still waiting for {dependency}."
    if not error and not dependency:
        message = f"Deleted the server, its data and its passwords.{progress.retained_note}"
        await _remove_finalizer(resource, deps, DATA_DELETED, message, normal=True)
        return None
    if await _cleanup_timed_out(resource, deps):
        cause = "the namespace or the CRD is being deleted, and the cleanup timed out"
        await _abandon_deletion(
            resource, deps, f"{cause}: {error or f'waiting for {dependency}'}".rstrip(".")
        )
        return None
    if error:
        await _write_condition(
            resource, deps, Reason.DELETION_BLOCKED, f"{error} {_skip_instructions(resource)}"
        )
        return RETRY_TRANSIENT_SECONDS
    await _write_condition(
        resource, deps, Reason.PROGRESSING, f"Deleting the server and its data. Waiting for {dependency}."
    )
    return _REQUEUE_SECONDS


def _requests_data_deletion(resource: Object) -> bool:
    """Whether `spec.deletionPolicy` is Delete now. An invalid spec is read as well.

    A reconcile between a change of the policy and the deletion would have removed the finalizer, but it may not have
    happened.
    """
    spec = resource.get("spec") or {}
    return bool(spec.get("deletionPolicy") == api.DeletionPolicy.DELETE.value)


async def _keep_data(resource: Object, deps: Dependencies) -> None:
    retained = await retained_objects(resource, deps.cluster) or "none exists"
    message = f"Deleted the server and kept its data, because spec.deletionPolicy is Retain: {retained}."
    await _remove_finalizer(resource, deps, DATA_KEPT, message, normal=True)


async def _teardown(resource: Object, deps: Dependencies) -> tuple[str | None, RemovalProgress]:
    """Return an error message, or None, and the progress."""
    try:
        return None, await phases.teardown(resource, deps)
    except ReconcileError as error:
        message = error.message
    except api.InvalidResource as error:
        message = f"The resource is invalid, so its data cannot be determined: {str(error).rstrip('.')}."
    except (Forbidden, Invalid) as error:
        message = f"The API server rejects the request: {str(error).rstrip('.')}."
    return message, RemovalProgress()


def _skip_instructions(resource: Object) -> str:
    meta = resource["metadata"]
    return (
        "The deletion is blocked until this is fixed; it is retried automatically. To end it now and keep the "
        f"remaining data, run: kubectl annotate mlflowserver -n {meta['namespace']} {meta['name']} "
        f"{labels.SKIP_DATA_DELETION}=true"
    )


async def _abandon_deletion(resource: Object, deps: Dependencies, cause: str) -> None:
    retained = await retained_objects(resource, deps.cluster)
    data_message = f"The remaining data is kept: {retained}." if retained else "No data remains."
    await _remove_finalizer(
        resource,
        deps,
        DATA_KEPT,
        f"Stopped the deletion of data: {cause}. {data_message}",
        normal=not retained,
    )


async def _remove_finalizer(
    resource: Object, deps: Dependencies, reason: str, message: str, *, normal: bool
) -> None:
    logger.info("%s", message)
    await deps.events.publish(resource, normal, reason, message)
    with suppress(NotFound):
        await finalizer.remove(resource, deps.cluster)


async def _write_condition(resource: Object, deps: Dependencies, reason: Reason, message: str) -> None:
    ready = false_condition(ConditionType.READY, reason, message)
    status = statuses.deletion_status(ready, status_writer.status_context(resource, deps))
    await status_writer.write(resource, status, [ready], deps)


async def _cleanup_timed_out(resource: Object, deps: Dependencies) -> bool:
    """Whether the namespace or the CRD is being deleted, too, and the time for the cleanup is over."""
    namespace = await deps.cluster.get(kinds.NAMESPACE, None, resource["metadata"]["namespace"])
    if _seconds_since_deletion(namespace, deps) >= CLEANUP_TIMEOUT_SECONDS:
        return True
    if _seconds_since_deletion(resource, deps) < CLEANUP_TIMEOUT_SECONDS:
        return False
    try:
        # Listed, not read: the operator has the permission to list CRDs anyway if it watches all namespaces.
        crds = await deps.cluster.list(kinds.CRD, fields=f"metadata.name={api.PLURAL}.{api.GROUP}")
    except Forbidden:
        return False
    return any(_seconds_since_deletion(crd, deps) >= CLEANUP_TIMEOUT_SECONDS for crd in crds)


def _seconds_since_deletion(obj: Object | None, deps: Dependencies) -> float:
    """Return the seconds since the deletion of `obj` began; 0 if it is not being deleted or `obj` is None."""
    deleted_at = ((obj or {}).get("metadata") or {}).get("deletionTimestamp")
    if not deleted_at:
        return 0.0
    return timestamps.seconds_between(deleted_at, deps.now())
