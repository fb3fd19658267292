"""What the steps for the two embedded stores share: a StatefulSet that is up, or why it is not."""

from typing import Any

from mlflow_operator.framework import stuck_pods
from mlflow_operator.framework.step import MENDED, SOON, Outcome, Work, suspended
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.client import Forbidden, Invalid, NamespaceTerminating
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, not_ready
from mlflow_operator.status.errors import Fault, NotReady, UserMistake

_STARTING = "The pod of the embedded store is starting."
_MOMENT = 0.5
"""Seconds; how long a Service takes to learn of a pod is a matter of tenths."""


def wanted(work: Work) -> bool:
    """Whether embedded stores shall run: while suspended they wait for the server's last pods to go."""
    return not work.server.suspended or any(
        map(pod_diagnosis.alive, work.seen.of(kinds.POD, labels.SERVER_POD))
    )


async def bring_up(
    work: Work, member: str, claim: Object, secret: str, objects: list[Object]
) -> tuple[bool, str]:
    """Sees to an embedded store's volume, StatefulSet and Service.

    `member` is the store's part of the status, `secret` its credentials. Returns whether it answers, and what there
    is to say of its volume.
    """
    before = work.seen.status
    held_data = before.get("schemaRevision") and (before.get(member) or {}).get("type") == "Embedded"
    note = await _volume(work, claim, secret, bool(held_data))
    up = False
    for desired in objects:
        live = await work.ensure(desired)
        if live["kind"] == "StatefulSet":
            up = _is_up(live)
    return up, note


async def _volume(work: Work, claim: Object, secret: str, held_data: bool) -> str:
    """Sees to the volume of an embedded store; returns what keeps it from growing, as a sentence, or nothing.

    `held_data`: the server has run with it, so that one that is gone is a loss, and an empty one in its place would
    hide it. Whoever wants to start empty says so by deleting `secret`, its credentials, too.
    """
    name = claim["metadata"]["name"]
    live = work.seen.get(kinds.PVC, name)
    if live is None and held_data and work.seen.get(kinds.SECRET, secret):
        raise UserMistake(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" is gone, and nothing empty is put in its place. Restore it under this '
            f'name, with its labels, from a backup; or, to start empty, delete Secret "{secret}", too.',
        )
    if live and live["metadata"].get("deletionTimestamp"):
        raise UserMistake(
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{name}" is being deleted: with the last pod that uses it all its data goes. Copy '
            "the data away before any pod is restarted; a deletion can't be taken back.",
        )
    try:
        await work.ensure(claim, data=True)
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


def just_up(kind: ConditionType, fault: Fault, settled: bool) -> Outcome[Any]:
    """An embedded store whose pod is ready and that can't be reached yet.

    For a moment that is as it should be: the Service's rules reach the nodes a little later. `settled`: the
    server has run before, so that it is a fault indeed.
    """
    if settled or not isinstance(fault, NotReady):
        raise fault
    return Outcome(starting(kind), again=_MOMENT)


def starting(kind: ConditionType) -> Condition:
    """An embedded store on its way up."""
    return not_ready(kind, Reason.PROGRESSING, _STARTING)


async def why_not(work: Work, kind: ConditionType, component: str, volume: str) -> Outcome[Any]:
    """The condition of an embedded store that is not up: its volume's trouble before its pod's, which follows it."""
    if work.server.suspended:
        return Outcome(suspended(kind))
    fault = await stuck_pods.no_volume(work, volume)
    if fault:
        return Outcome(not_ready(kind, fault.reason, fault.message), again=SOON)
    pods = [*filter(pod_diagnosis.alive, work.seen.of(kinds.POD, component))]
    finding = pod_diagnosis.of_pods(pods)
    if finding:
        return Outcome(not_ready(kind, finding.reason, finding.message))
    sets = work.seen.of(kinds.STATEFULSET, component)
    if sets and not pods:
        return await _no_pod(work, kind, sets[0], component)
    return Outcome(starting(kind), again=SOON)


async def _no_pod(work: Work, kind: ConditionType, stateful_set: Object, component: str) -> Outcome[Any]:
    part = f"the {component.replace('-', ' ')}"
    refused = await stuck_pods.no_pod(work, stateful_set, part, pod_diagnosis.RESOURCES[component])
    if not refused:
        return Outcome(starting(kind), again=SOON)
    before = work.seen.condition(kind)
    since = (
        before.get("lastTransitionTime") if before.get("reason") == refused.reason.value else work.out.now()
    )
    await stuck_pods.prod(work, stateful_set, since)
    return Outcome(not_ready(kind, refused.reason, refused.message), again=MENDED)
