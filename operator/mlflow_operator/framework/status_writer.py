"""What a reconcile has to say: the status, written when it says something new, and an Event for each piece of news."""

import logging

from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Conflict, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.status import StatusContext
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import Condition, ConditionType, Reason

logger = logging.getLogger(__name__)


def status_moment(resource: Object, out: Dependencies) -> StatusContext:
    """What the status said before, and the time now."""
    return StatusContext(
        resource.get("status") or {}, int(resource["metadata"].get("generation") or 0), out.now()
    )


async def write(resource: Object, wanted: Object, said: list[Condition], out: Dependencies) -> None:
    """Stores the status if it says anything new, and publishes what of that is worth an Event."""
    before = resource.get("status") or {}
    news = conditions.changed(said, before.get("conditions") or ())
    if before == wanted:
        return
    meta = resource["metadata"]
    try:
        await out.cluster.apply_status(
            {
                "apiVersion": kinds.MLFLOWSERVER.api_version,
                "kind": kinds.MLFLOWSERVER.kind,
                "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
                "status": wanted,
            }
        )
    except (NotFound, Conflict):
        return  # deleted, and perhaps made again, meanwhile: its own event brings us back
    for condition in news:
        if _worth_an_event(condition):
            logger.info(
                "%s is %s (%s): %s", condition.type, condition.status, condition.reason, condition.message
            )
            normal = condition.is_true or condition.reason in _NORMAL
            await out.events.publish(resource, normal, condition.reason, condition.message)


_NORMAL = {Reason.PROGRESSING, Reason.SUSPENDED}
_QUIET = {*_NORMAL, Reason.WAITING_FOR_DEPENDENCY}


def _worth_an_event(condition: Condition) -> bool:
    """`Ready` tells where things stand; of the others only faults are news of their own."""
    if condition.type is ConditionType.READY:
        return condition.is_true or condition.reason in {*_NORMAL, Reason.DELETION_BLOCKED}
    return condition.reason is Reason.ROTATION_IN_PROGRESS or (
        not condition.is_true and condition.reason not in _QUIET
    )
