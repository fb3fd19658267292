"""Pods that a controller cannot create and PersistentVolumeClaims that are not bound: diagnosis and retry.

StatefulSets, Jobs and claims report these failures only in Events. The operator reads the Events of stuck objects only
and does not watch Events. After each failure, Kubernetes' controllers double their backoff, up to 15 minutes: a user
who has raised a quota would wait that long for a server. Any change of the object makes its controller retry at once.
"""

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import admission_errors, event_history, json_patch, kinds, labels, timestamps
from mlflow_operator.kube.client import Forbidden, TooLarge
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_RETRY_REQUEST_SECONDS = 60.0
"""Seconds between two retry requests to one controller. The operator retries its own rejected requests as often."""

_MAX_EVENT_BYTES = 1024 * 1024
"""Maximum size of the Events of one object. A stuck object has fewer than ten."""


async def pod_creation_failure(
    context: ReconcileContext, controller: Object, subject: str, resource_fields: str = ""
) -> ConfigurationError | None:
    """Why `controller` failed to create a pod; None if it has not failed.

    `subject` names the component in the message, `resource_fields` the fields that set the pod's resources.
    """
    event_message = event_history.pod_creation_failure(await _events(context, controller))
    if event_message is None:
        return None
    return admission_errors.pod_error(subject, context.server.owner.namespace, event_message, resource_fields)


async def volume_failure(context: ReconcileContext, name: str) -> ConfigurationError | None:
    """Why PersistentVolumeClaim `name` has no volume; None if it is bound or being provisioned."""
    claim = context.observed.get(kinds.PVC, name)
    phase = ((claim or {}).get("status") or {}).get("phase")
    if claim and phase == "Lost":
        return ConfigurationError(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" has lost its volume. Restore the volume; the operator does not replace '
            "it.",
        )
    event_message = (
        event_history.provisioning_failure(await _events(context, claim))
        if claim and phase == "Pending"
        else None
    )
    if event_message is None:
        return None
    return ConfigurationError(
        Reason.VOLUME_PENDING,
        f'PersistentVolumeClaim "{name}" is not bound: {message_text.as_sentence(event_message)} '
        f"{_volume_advice(claim)} The operator then continues by itself.",
    )


def _volume_advice(claim: Object | None) -> str:
    storage_class = ((claim or {}).get("spec") or {}).get("storageClassName")
    if storage_class:
        return f'Create the StorageClass "{storage_class}" or a PersistentVolume, or repair the volume provisioner.'
    return (
        "The cluster has no default StorageClass. Mark one as the default with the annotation "
        "storageclass.kubernetes.io/is-default-class, or create a PersistentVolume. To name a StorageClass in the spec "
        "instead, create the server again after you have deleted this claim, which is empty."
    )


async def request_retry(context: ReconcileContext, controller: Object, failed_since: str | None) -> None:
    """Make the controller of a Deployment or StatefulSet retry the pod creation, at most once a minute.

    `failed_since` is the time of the first failure (RFC 3339).
    """
    requested_at = (controller["metadata"].get("annotations") or {}).get(labels.RETRY_REQUESTED_AT)
    last_attempt = max(filter(None, (requested_at, failed_since)), default=None)
    now = context.deps.now()
    if last_attempt is not None:
        elapsed = timestamps.seconds_between(last_attempt, now)
        if 0 <= elapsed < _RETRY_REQUEST_SECONDS:
            return
    annotate = json_patch.put(json_patch.pointer("metadata", "annotations", labels.RETRY_REQUESTED_AT), now)
    await context.patch(controller, [annotate])


async def _events(context: ReconcileContext, involved_object: Object) -> list[Object]:
    uid, namespace = involved_object["metadata"]["uid"], context.server.owner.namespace
    try:
        return await context.deps.cluster.list(
            kinds.EVENT, namespace, fields=f"involvedObject.uid={uid}", limit=ReadLimit(_MAX_EVENT_BYTES)
        )
    except (Forbidden, TooLarge):
        # Only the explanation is missing: with a custom role that does not allow reading Events, or if someone has
        # created many Events for the object.
        return []
