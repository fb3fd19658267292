"""Reconciliation shared by the embedded database and the embedded artifact store: PVC, StatefulSet and Service."""

from typing import Any

from mlflow_operator.framework import generated_secrets, retained_store, stuck_pods
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    RETRY_USER_ERROR_SECONDS,
    ReconcileContext,
    Result,
    suspended,
)
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.client import Forbidden, Invalid, NamespaceTerminating
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.names import StoreNames
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_STARTING_MESSAGE = "The pod of the embedded store is starting."
_SERVICE_SETTLING_SECONDS = 0.5
"""Seconds until the next check of a Service whose pod is ready; the endpoint reaches the nodes within tenths."""


def should_run(context: ReconcileContext) -> bool:
    """Whether the pods of embedded stores must run: always, or, while suspended, until the last server pod is gone."""
    return not context.server.suspended or any(
        map(pod_diagnosis.is_active, context.observed.list(kinds.POD, labels.SERVER_POD))
    )


async def ensure_store(
    context: ReconcileContext, status_field: str, claim: Object, store: StoreNames, objects: list[Object]
) -> tuple[bool, str]:
    """Create or update the PersistentVolumeClaim and the other objects of an embedded store.

    `status_field` is the field of the status that describes the store.
    Returns whether the pod is ready, and a sentence about the volume to append to the condition message, or "".
    """
    status = context.observed.status
    has_data = status.get("schemaRevision") and (status.get(status_field) or {}).get("type") == "Embedded"
    volume_message = await _ensure_volume(context, claim, store, bool(has_data))
    is_ready = False
    for desired in objects:
        observed = await context.ensure(desired)
        if observed["kind"] == "StatefulSet":
            is_ready = _is_ready(observed)
    return is_ready, volume_message


async def _ensure_volume(context: ReconcileContext, claim: Object, store: StoreNames, has_data: bool) -> str:
    """Create or update the PersistentVolumeClaim. Returns a sentence if it cannot be expanded, else "".

    `has_data`: the server has already run with this volume. A missing claim is then a data loss, which an empty
    replacement would hide. To start with an empty volume, users also delete the credentials of the store.
    """
    name = claim["metadata"]["name"]
    observed = context.observed.get(kinds.PVC, name)
    if observed is None:
        await _check_not_lost(context, store, has_data)
    if observed and observed["metadata"].get("deletionTimestamp"):
        raise ConfigurationError(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" is being deleted, which cannot be undone. Kubernetes deletes its data '
            "when the last pod that uses it ends. Copy the data before any pod is restarted.",
        )
    try:
        await context.ensure(claim, data=True)
    except NamespaceTerminating:
        raise
    except (Forbidden, Invalid) as error:
        if observed is None:
            raise
        # The store keeps running, and Kubernetes does not allow users to reduce the requested size again.
        return f" The volume cannot be expanded: {str(error).rstrip('.')}."
    return ""


async def _check_not_lost(context: ReconcileContext, store: StoreNames, has_data: bool) -> None:
    """Raise ConfigurationError if a missing PersistentVolumeClaim had data. See `_ensure_volume`."""
    lost = has_data and context.observed.get(kinds.SECRET, store.secret)
    workloads = retained_store.restored_workloads(context, store)
    if not (lost or workloads) or await retained_store.exists(context, kinds.PVC, store.volume):
        return  # If it exists without its labels, the conflict that follows says how to add them.
    explanation = ", which is normal while a backup of the cluster is restored" if workloads else ""
    raise ConfigurationError(
        Reason.VOLUME_LOST,
        f'PersistentVolumeClaim "{store.volume}" is missing{explanation}. The operator does not replace it with an '
        "empty volume. Restore it from a backup under the same name and with the same labels. "
        f"{generated_secrets.EMPTY_START_HINT}",
    )


def _is_ready(stateful_set: Object) -> bool:
    """Whether the only pod is ready and the StatefulSet controller has observed the newest spec."""
    status = stateful_set.get("status") or {}
    return int(status.get("readyReplicas") or 0) >= 1 and status.get("observedGeneration") == stateful_set[
        "metadata"
    ].get("generation")


def service_settling(condition_type: ConditionType, error: ReconcileError, was_ready: bool) -> Result[Any]:
    """The result for an embedded store whose pod is ready, but whose Service does not answer yet.

    This is normal for a moment, because the Service's rules reach the nodes later than the pod becomes ready. Raises
    `error` if the server has been Ready before (`was_ready`) or if the error is not transient.
    """
    if was_ready or not isinstance(error, TransientError):
        raise error
    return Result(starting(condition_type), requeue_after=_SERVICE_SETTLING_SECONDS)


def starting(condition_type: ConditionType) -> Condition:
    """The condition of an embedded store whose pod is starting."""
    return false_condition(condition_type, Reason.PROGRESSING, _STARTING_MESSAGE)


async def not_ready_reason(
    context: ReconcileContext, condition_type: ConditionType, component: str, volume: str
) -> Result[Any]:
    """Explain why an embedded store is not ready. A volume failure comes first, because pod failures follow from it."""
    if context.server.suspended:
        return Result(suspended(condition_type))
    volume_error = await stuck_pods.volume_failure(context, volume)
    if volume_error:
        return Result(
            false_condition(condition_type, volume_error.reason, volume_error.message),
            requeue_after=RETRY_TRANSIENT_SECONDS,
        )
    pods = [*filter(pod_diagnosis.is_active, context.observed.list(kinds.POD, component))]
    diagnosis = pod_diagnosis.diagnose(pods)
    if diagnosis:
        return Result(false_condition(condition_type, diagnosis.reason, diagnosis.message))
    stateful_sets = context.observed.list(kinds.STATEFULSET, component)
    if stateful_sets and not pods:
        return await _missing_pod_reason(context, condition_type, stateful_sets[0], component)
    return Result(starting(condition_type), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _missing_pod_reason(
    context: ReconcileContext, condition_type: ConditionType, stateful_set: Object, component: str
) -> Result[Any]:
    subject = f"the {component.replace('-', ' ')}"
    error = await stuck_pods.pod_creation_failure(
        context, stateful_set, subject, pod_diagnosis.RESOURCE_FIELDS[component]
    )
    if not error:
        return Result(starting(condition_type), requeue_after=RETRY_TRANSIENT_SECONDS)
    previous = context.observed.condition(condition_type)
    failed_since = (
        previous.get("lastTransitionTime")
        if previous.get("reason") == error.reason.value
        else context.deps.now()
    )
    await stuck_pods.request_retry(context, stateful_set, failed_since)
    return Result(
        false_condition(condition_type, error.reason, error.message), requeue_after=RETRY_USER_ERROR_SECONDS
    )
