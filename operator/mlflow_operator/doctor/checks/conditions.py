"""What the checks of servers and of platforms have in common: their status and its conditions."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.kube import timestamps
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import ConditionType, Reason

_RECONCILE_GRACE = timedelta(seconds=60)
"""Time in which a running operator reconciles a new resource for certain."""

_STATES = {
    Reason.PROGRESSING: State.PENDING,
    Reason.WAITING_FOR_DEPENDENCY: State.PENDING,
    Reason.SUSPENDED: State.NOTE,
}


def check_reconciliation(subject: str, resource: Object, noun: str, now: datetime) -> Iterator[Finding]:
    """Whether an operator has reconciled the latest spec. `noun` is `server` or `platform`."""
    meta, status = resource["metadata"], resource.get("status") or {}
    if status.get("observedGeneration") == meta.get("generation"):
        return
    message = (
        "The operator has not reconciled the latest change of the spec."
        if status
        else f"No operator has reconciled this {noun}."
    )
    # Shortly after `kubectl apply` this is normal.
    created = timestamps.parse_optional(meta.get("creationTimestamp"))
    late = not status and (created is None or now - created > _RECONCILE_GRACE)
    yield Finding(
        subject,
        "status",
        State.FAILED if late else State.PENDING,
        message,
        "See the checks of the operator above." if late else "If this does not change, check the operator.",
    )


def check_condition(
    subject: str, condition: Object, all_conditions: Sequence[Object], detail: str
) -> Finding:
    """Return the finding for a condition. `detail` replaces the message of one that is True, unless it is empty."""
    condition_type, reason = str(condition.get("type")), str(condition.get("reason"))
    message = str(condition.get("message") or "")
    if condition.get("status") == "True":
        return Finding(subject, condition_type, State.OK, detail or message)
    state = _STATES.get(Reason(reason), State.FAILED) if reason in {*Reason} else State.FAILED
    if condition_type == ConditionType.READY:
        same_message = [
            str(c.get("type")) for c in all_conditions if c is not condition and c.get("message") == message
        ]
        if same_message:
            return Finding(subject, condition_type, state, reason, f"See {same_message[0]}.")
    return Finding(subject, condition_type, state, reason, message)
