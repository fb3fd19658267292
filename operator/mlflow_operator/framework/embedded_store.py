"""What the steps for the two embedded stores share: a StatefulSet that is up, or why it is not."""

from typing import Any

from mlflow_operator.framework import stuck_pods
from mlflow_operator.framework.step import (
    RETRY_TRANSIENT_SECONDS,
    RETRY_USER_ERROR_SECONDS,
    ReconcileContext,
    Result,
    suspended,
)
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.client import Forbidden, Invalid, NamespaceTerminating
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_STARTING = "The pod of the embedded store is starting."
_MOMENT = 0.5
"""Seconds; how long a Service takes to learn of a pod is a matter of tenths."""


def wanted(context: ReconcileContext) -> bool:
    """Whether embedded stores shall run: while suspended they wait for the server's last pods to go."""
    return not context.server.suspended or any(
        map(pod_diagnosis.is_active, context.observed.of(kinds.POD, labels.SERVER_POD))
    )


async def ensure_store(
    context: ReconcileContext, member: str, claim: Object, secret: str, objects: list[Object]
) -> tuple[bool, str]:
    """Sees to an embedded store's volume, StatefulSet and Service.

    `member` is the store's part of the status, `secret` its credentials. Returns whether it answers, and what there
    is to say of its volume.
    """
    before = context.observed.status
    held_data = before.get("schemaRevision") and (before.get(member) or {}).get("type") == "Embedded"
    note = await _volume(context, claim, secret, bool(held_data))
    up = False
    for desired in objects:
        live = await context.ensure(desired)
        if live["kind"] == "StatefulSet":
            up = _is_up(live)
    return up, note


async def _volume(context: ReconcileContext, claim: Object, secret: str, held_data: bool) -> str:
    """Sees to the volume of an embedded store; returns what keeps it from growing, as a sentence, or nothing.

    `held_data`: the server has run with it, so that one that is gone is a loss, and an empty one in its place would
    hide it. Whoever wants to start empty says so by deleting `secret`, its credentials, too.
    """
    name = claim["metadata"]["name"]
    live = context.observed.get(kinds.PVC, name)
    if live is None and held_data and context.observed.get(kinds.SECRET, secret):
        raise ConfigurationError(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" is gone, and nothing empty is put in its place. Restore it under this '
            f'name, with its labels, from a backup; or, to start empty, delete Secret "{secret}", too.',
        )
    if live and live["metadata"].get("deletionTimestamp"):
        raise ConfigurationError(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" is being deleted: with the last pod that uses it all its data goes. Copy '
            "the data away before any pod is restarted; a deletion can't be taken back.",
        )
    try:
        await context.ensure(claim, data=True)
    except NamespaceTerminating:
        raise
    except (Forbidden, Invalid) as error:
        if live is None:
            raise
        # the store runs as well as before, and a size once asked for can't be taken back
        return f" Its volume can't grow: {str(error).rstrip('.')}."
    return ""


def _is_up(stateful_set: Object) -> bool:
    """Whether its one pod is ready, as of the StatefulSet's newest spec."""
    status = stateful_set.get("status") or {}
    return int(status.get("readyReplicas") or 0) >= 1 and status.get("observedGeneration") == stateful_set[
        "metadata"
    ].get("generation")


def service_settling(kind: ConditionType, fault: ReconcileError, settled: bool) -> Result[Any]:
    """An embedded store whose pod is ready and that can't be reached yet.

    For a moment that is as it should be: the Service's rules reach the nodes a little later. `settled`: the
    server has run before, so that it is a fault indeed.
    """
    if settled or not isinstance(fault, TransientError):
        raise fault
    return Result(starting(kind), requeue_after=_MOMENT)


def starting(kind: ConditionType) -> Condition:
    """An embedded store on its way up."""
    return false_condition(kind, Reason.PROGRESSING, _STARTING)


async def not_ready_reason(
    context: ReconcileContext, kind: ConditionType, component: str, volume: str
) -> Result[Any]:
    """The condition of an embedded store that is not up: its volume's trouble before its pod's, which follows it."""
    if context.server.suspended:
        return Result(suspended(kind))
    fault = await stuck_pods.volume_failure(context, volume)
    if fault:
        return Result(
            false_condition(kind, fault.reason, fault.message), requeue_after=RETRY_TRANSIENT_SECONDS
        )
    pods = [*filter(pod_diagnosis.is_active, context.observed.of(kinds.POD, component))]
    finding = pod_diagnosis.of_pods(pods)
    if finding:
        return Result(false_condition(kind, finding.reason, finding.message))
    sets = context.observed.of(kinds.STATEFULSET, component)
    if sets and not pods:
        return await _no_pod(context, kind, sets[0], component)
    return Result(starting(kind), requeue_after=RETRY_TRANSIENT_SECONDS)


async def _no_pod(
    context: ReconcileContext, kind: ConditionType, stateful_set: Object, component: str
) -> Result[Any]:
    part = f"the {component.replace('-', ' ')}"
    refused = await stuck_pods.pod_creation_failure(
        context, stateful_set, part, pod_diagnosis.RESOURCES[component]
    )
    if not refused:
        return Result(starting(kind), requeue_after=RETRY_TRANSIENT_SECONDS)
    before = context.observed.condition(kind)
    since = (
        before.get("lastTransitionTime")
        if before.get("reason") == refused.reason.value
        else context.deps.now()
    )
    await stuck_pods.request_retry(context, stateful_set, since)
    return Result(
        false_condition(kind, refused.reason, refused.message), requeue_after=RETRY_USER_ERROR_SECONDS
    )
