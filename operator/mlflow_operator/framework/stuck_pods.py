"""Controllers that get no pods, and claims that get no volume: why, and a word to the controller to try again.

A StatefulSet, a Job and a claim say in their Events alone what stops them, so these are read; only of objects that are
stuck, and not watched. And after each refusal Kubernetes' controllers wait longer, a quarter of an hour in the end: who
has raised a quota would wait that long for a server. Any change of the object makes its controller look at once.
"""

from datetime import datetime

from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import admission_errors, event_history, kinds, labels
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_PAUSE = 60.0
"""Seconds between two words to one controller: what the API server refuses to us ourselves is tried as often."""


async def pod_creation_failure(
    context: ReconcileContext, controller: Object, part: str, lower: str = ""
) -> ConfigurationError | None:
    """Why `controller` could make no pod for `part`; None if it only has not got round to it.

    `lower` names the fields that decide what the pod takes.
    """
    said = event_history.pod_creation_failure(await _events(context, controller))
    return (
        None if said is None else admission_errors.of_pods(part, context.server.owner.namespace, said, lower)
    )


async def volume_failure(context: ReconcileContext, name: str) -> ConfigurationError | None:
    """Why the claim `name` has no volume; None if it has, or is on its way to one."""
    claim = context.observed.get(kinds.PVC, name)
    phase = ((claim or {}).get("status") or {}).get("phase")
    if claim and phase == "Lost":
        return ConfigurationError(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" has lost its volume. Restore the volume; nothing is made in its '
            "place by itself.",
        )
    said = (
        event_history.provisioning_failure(await _events(context, claim))
        if claim and phase == "Pending"
        else None
    )
    if said is None:
        return None
    return ConfigurationError(
        Reason.VOLUME_PENDING,
        f'PersistentVolumeClaim "{name}" gets no volume: {message_text.as_sentence(said)} Make the StorageClass or the '
        "volume that it asks for, or see to what makes volumes; it is then found by itself.",
    )


async def request_retry(context: ReconcileContext, controller: Object, since: str | None) -> None:
    """Has a Deployment or StatefulSet that was refused its pods try again, once a minute.

    `since` is when it was first refused (RFC 3339).
    """
    noted = (controller["metadata"].get("annotations") or {}).get(labels.RETRY_REQUESTED_AT)
    last = max(filter(None, (noted, since)), default=None)
    now = context.deps.now()
    if last is not None:
        passed = (datetime.fromisoformat(now) - datetime.fromisoformat(last)).total_seconds()
        if 0 <= passed < _PAUSE:
            return
    pointer = f"/metadata/annotations/{labels.RETRY_REQUESTED_AT.replace('/', '~1')}"
    meta = controller["metadata"]
    step = {"op": "add", "path": pointer, "value": now}
    await context.deps.cluster.json_patch(kinds.of(controller), meta["namespace"], meta["name"], [step])


async def _events(context: ReconcileContext, about: Object) -> list[Object]:
    uid, namespace = about["metadata"]["uid"], context.server.owner.namespace
    try:
        return await context.deps.cluster.list(kinds.EVENT, namespace, fields=f"involvedObject.uid={uid}")
    except Forbidden:
        return []  # a role of one's own that leaves Events out costs the explanation, not the server
