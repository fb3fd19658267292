"""The condition ServerAvailable, from the Deployment and its pods."""

from collections.abc import Iterable

from mlflow_operator.kube import admission_errors, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    false_condition,
    true_condition,
)

_TYPE = ConditionType.SERVER


def condition(deployment: Object, pods: Iterable[Object]) -> Condition:
    """True if all desired replicas are available and run the current template; else the reason why not."""
    desired = int(deployment["spec"].get("replicas") or 0)
    available = int((deployment.get("status") or {}).get("availableReplicas") or 0)
    rolled_out = is_rolled_out(deployment)
    if rolled_out and available >= desired:
        if not desired:
            return false_condition(
                _TYPE,
                Reason.SUSPENDED,
                "Scaled to zero (spec.replicas is 0). Set spec.replicas to 1 or more to start the server.",
            )
        return true_condition(_TYPE, "All replicas are available.")
    return _not_available(deployment, pods, rolling=not rolled_out)


def is_rolled_out(deployment: Object) -> bool:
    """Whether all replicas run the current template. They may be unavailable."""
    status = deployment.get("status") or {}
    desired = int(deployment["spec"].get("replicas") or 0)
    generation_observed = status.get("observedGeneration") == deployment["metadata"].get("generation")
    updated = int(status.get("updatedReplicas") or 0) >= desired
    return bool(generation_observed and updated and int(status.get("replicas") or 0) <= desired)


def replica_failure(deployment: Object) -> Object | None:
    """The Deployment's condition ReplicaFailure if it is True: the API server rejects its pods."""
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)


def _not_available(deployment: Object, pods: Iterable[Object], *, rolling: bool) -> Condition:
    status = deployment.get("status") or {}
    failure = replica_failure(deployment)
    if failure:
        namespace = deployment["metadata"]["namespace"]
        error = admission_errors.pod_error(
            "the server", namespace, str(failure.get("message") or ""), "spec.resources or spec.replicas"
        )
        return false_condition(_TYPE, error.reason, error.message)
    finding = pod_diagnosis.diagnose(pods)
    if finding:
        return false_condition(_TYPE, finding.reason, finding.message)
    if not status.get("availableReplicas"):
        return false_condition(_TYPE, Reason.PROGRESSING, "The server's pods are starting.")
    if rolling:
        return false_condition(
            _TYPE, Reason.PROGRESSING, "A rollout is in progress; the previous pods keep serving."
        )
    return false_condition(
        _TYPE, Reason.PROGRESSING, "Some of the server's pods are starting; the other pods serve."
    )
