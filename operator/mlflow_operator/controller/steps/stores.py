"""What the steps for the two embedded stores share: a StatefulSet that is up, or why it is not."""

from typing import Any

from mlflow_operator.controller.steps.step import Outcome, Work, suspended
from mlflow_operator.core import diagnosis, kinds, labels
from mlflow_operator.core.conditions import Condition, ConditionType, Reason, State, not_ready
from mlflow_operator.core.faults import Fault, NotReady
from mlflow_operator.core.objects import Object

_STARTING = "The pod of the embedded store is starting."
_MOMENT = 0.5
"""Seconds; how long a Service takes to learn of a pod is a matter of tenths."""


def wanted(work: Work) -> bool:
    """Whether embedded stores shall run: while suspended they wait for the server's last pods to go."""
    return not work.server.suspended or bool(work.seen.of(kinds.POD, labels.SERVER_POD))


def is_up(stateful_set: Object) -> bool:
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
    return Outcome(not_ready(kind, Reason.PROGRESSING, _STARTING), again=_MOMENT)


def why_not(work: Work, kind: ConditionType, component: str, volume: str) -> Condition:
    """The condition of an embedded store that is not up."""
    if work.server.suspended:
        return suspended(kind)
    finding = diagnosis.of_pods(work.seen.of(kinds.POD, component))
    if finding:
        return not_ready(kind, finding.reason, finding.message)
    claim = work.seen.get(kinds.PVC, volume)
    if claim and (claim.get("status") or {}).get("phase") == "Lost":
        return not_ready(
            kind,
            Reason.VOLUME_LOST,
            f'PersistentVolumeClaim "{volume}" has lost its volume. Restore the volume; nothing is made in its '
            "place by itself.",
        )
    return Condition(kind, State.FALSE, Reason.PROGRESSING, _STARTING)
