"""Pods and objects that the API server refuses: what is short, what to do, and no more than that."""

from mlflow_operator.kube.admission_errors import of_pods, of_quota
from mlflow_operator.status.conditions import Reason

QUOTA = (
    'create Pod a-0 in StatefulSet a failed error: pods "a-0" is forbidden: exceeded quota: team, requested: '
    "limits.memory=1Gi,pods=1, used: limits.memory={used},pods=3, limited: limits.memory=4Gi,pods=3"
)


def test_a_quota_is_told_with_what_is_asked_for_and_what_is_allowed() -> None:
    """And with the fields that decide it."""
    fault = of_pods("the database", "team", QUOTA.format(used="3Gi"), "spec.database.embedded.resources")
    assert fault.reason is Reason.QUOTA_EXCEEDED
    assert "no room for the pod of the database: exceeded quota: team" in fault.message
    assert "requested: limits.memory=1Gi,pods=1, limited: limits.memory=4Gi,pods=3." in fault.message
    assert "lower spec.database.embedded.resources" in fault.message
    assert "kubectl describe quota -n team" in fault.message


def test_what_others_use_is_no_news() -> None:
    """Every pod that comes or goes in the namespace would be an Event about this server."""
    said = [of_quota("it", "team", QUOTA.format(used=used)).message for used in ("3Gi", "3584Mi")]
    assert said[0] == said[1]


def test_another_refusal_is_quoted_without_the_pods_name() -> None:
    """It is another one with each try."""
    said = [
        of_pods("the server", "team", f'pods "a-{pod}" is forbidden: violates PodSecurity "restricted"', "x")
        for pod in ("1", "2")
    ]
    assert said[0].message == said[1].message
    assert said[0].reason is Reason.OPERATION_REFUSED
    assert 'violates PodSecurity "restricted".' in said[0].message
