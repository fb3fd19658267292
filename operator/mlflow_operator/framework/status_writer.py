"""Writes the status of a resource if it has changed, and publishes Events about changed conditions."""

import logging

from mlflow_operator.api import mlflowplatform
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube.client import Conflict, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.status import StatusContext
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import Condition, ConditionType, Reason

logger = logging.getLogger(__name__)


def status_context(resource: Object, deps: Dependencies) -> StatusContext:
    """The previous status, the observed generation and the current time."""
    return StatusContext(
        resource.get("status") or {}, int(resource["metadata"].get("generation") or 0), deps.now()
    )


async def write_ahead(resource: Object, fields: Object, deps: Dependencies) -> Object:
    """Set fields of the status at once, before an action that they describe. Returns the resource after the write.

    Raises Conflict or NotFound if the resource was deleted meanwhile, or is a platform that was changed: the action
    must not happen then.
    """
    status = {**(resource.get("status") or {}), **fields}
    return await deps.cluster.apply_status(_with_status(resource, status))


def _with_status(resource: Object, status: Object) -> Object:
    meta, fields = resource["metadata"], ["name", "namespace", "uid"]
    if resource["kind"] == mlflowplatform.KIND:
        # Its status is written by its own reconcile and by those of its servers: neither must overwrite the other.
        fields.append("resourceVersion")
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {key: meta[key] for key in fields if key in meta},
        "status": status,
    }


async def write(
    resource: Object, desired: Object, new_conditions: list[Condition], deps: Dependencies
) -> None:
    """Write the status if it has changed, then publish an Event for each change that needs one."""
    previous = resource.get("status") or {}
    changed = conditions.changed_conditions(new_conditions, previous.get("conditions") or ())
    if previous == desired:
        return
    try:
        await deps.cluster.apply_status(_with_status(resource, desired))
    except (NotFound, Conflict):
        # The resource was deleted, and perhaps recreated, meanwhile, or the platform was changed. Its watch event
        # triggers a reconcile.
        return
    for condition in changed:
        if _needs_event(condition, new_conditions):
            logger.info(
                "%s is %s (%s): %s",
                condition.type,
                condition.status,
                condition.reason,
                condition.published_message,
            )
            is_normal = condition.is_true or condition.reason in _NORMAL_REASONS
            await deps.events.publish(resource, is_normal, condition.reason, condition.published_message)


_NORMAL_REASONS = {Reason.PROGRESSING, Reason.SUSPENDED}
"""Reasons of False conditions that are published as Normal Events instead of Warning Events."""

_REASONS_WITHOUT_EVENT = {*_NORMAL_REASONS, Reason.WAITING_FOR_DEPENDENCY}


def _needs_event(condition: Condition, new_conditions: list[Condition]) -> bool:
    """Whether a changed condition is published as an Event. `new_conditions`: all that the reconcile determined.

    `Ready` is published if it is True or has one of _NORMAL_REASONS, or if it reports a failure that no other condition
    reports. Other conditions are published only if they report a failure or a credential rotation.
    """
    if condition.type is ConditionType.READY:
        others = {other.reason for other in new_conditions if other is not condition}
        return condition.is_true or condition.reason in _NORMAL_REASONS or condition.reason not in others
    return condition.reason is Reason.ROTATION_IN_PROGRESS or (
        not condition.is_true and condition.reason not in _REASONS_WITHOUT_EVENT
    )
