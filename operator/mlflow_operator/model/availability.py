"""Whether the server answers, read from its Deployment and its pods."""

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
    """Whether as many pods as asked for answer, all of them as the newest spec wants them; else why not."""
    status, spec = deployment.get("status") or {}, deployment["spec"]
    settled = status.get("observedGeneration") == deployment["metadata"].get("generation")
    wanted = int(spec.get("replicas") or 0)
    up_to_date = int(status.get("updatedReplicas") or 0) >= wanted
    available = int(status.get("availableReplicas") or 0)
    gone = int(status.get("replicas") or 0) <= wanted
    if settled and up_to_date and gone and available >= wanted:
        if not wanted:
            return false_condition(
                _TYPE,
                Reason.SUSPENDED,
                "No pod answers, for spec.replicas is 0; set it to 1 or more to start again.",
            )
        return true_condition(_TYPE, "Every replica answers.")
    return _not_available(deployment, pods, rolling=not (settled and up_to_date and gone))


def refused(deployment: Object) -> Object | None:
    """The Deployment's own condition, where the API server refuses it pods."""
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)


def _not_available(deployment: Object, pods: Iterable[Object], *, rolling: bool) -> Condition:
    status = deployment.get("status") or {}
    failure = refused(deployment)
    if failure:
        namespace = deployment["metadata"]["namespace"]
        fault = admission_errors.of_pods(
            "the server", namespace, str(failure.get("message") or ""), "spec.resources or spec.replicas"
        )
        return false_condition(_TYPE, fault.reason, fault.message)
    finding = pod_diagnosis.of_pods(pods)
    if finding:
        return false_condition(_TYPE, finding.reason, finding.message)
    if not status.get("availableReplicas"):
        return false_condition(_TYPE, Reason.PROGRESSING, "The server's pods are starting.")
    if rolling:
        return false_condition(
            _TYPE, Reason.PROGRESSING, "A roll-out is under way; the pods from before it keep serving."
        )
    return false_condition(
        _TYPE, Reason.PROGRESSING, "Some of the server's pods are starting; the others serve."
    )
